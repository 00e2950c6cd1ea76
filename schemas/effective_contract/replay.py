"""Rebuild the states of all access tokens from the topic of transition events, and from nothing else.

An example for readers, and everything that a reader of the topic needs::

    states: dict[TokenId, Reached] = {}
    async for record in AIOKafkaConsumer(topic, isolation_level="read_committed", auto_offset_reset="earliest", ...):
        replay(record.value, states)

An event may come twice (an import publishes at least once; the same event has the same ``ce_id``), and the events of
one access token may be in two partitions (CONTRACT, Topics), so they come in any order. The ``version`` settles both:
the highest one seen counts, and an event that is not above it changes nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from effective_contract.states import LifeCycleState
from effective_contract.transition import TransitionEvent

TokenId = tuple[str, str]
"""Organisation and access token."""


@dataclass(frozen=True, slots=True)
class Reached:
    """The state of an access token, and the number of changes that led to it."""

    state: LifeCycleState
    version: int


def replay(value: bytes, states: dict[TokenId, Reached]) -> bool:
    """Apply one event, given as its JSON, to ``states``. Returns True if it changed anything.

    Raises ``pydantic.ValidationError`` if it is no transition event.
    """
    event = TransitionEvent.model_validate_json(value)
    token = event.organisation, event.access_token_id
    former = states.get(token)
    if former is not None and former.version >= event.version:
        return False
    states[token] = Reached(event.to_state, event.version)
    return True


def rebuilt(values: Iterable[bytes]) -> dict[TokenId, Reached]:
    """Return the states after all these events, in any order and with any repetitions."""
    states: dict[TokenId, Reached] = {}
    for value in values:
        replay(value, states)
    return states
