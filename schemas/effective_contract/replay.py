"""Rebuild the states of all access tokens from the topic of transition events, and from nothing else.

An example for readers, and all that a reader of the topic needs::

    states: dict[TokenId, Reached] = {}
    async for record in AIOKafkaConsumer(topic, isolation_level="read_committed", auto_offset_reset="earliest", ...):
        replay(record.value, states)

An event may come twice (an import publishes at least once; the same event has the same ``ce_id``), and the events of
one access token may stand in two partitions (CONTRACT 1), so they come in any order. Its ``version`` settles both:
what counts is the highest one seen, and an event that is not above it changes nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from effective_contract.states import LifeCycleState
from effective_contract.transition import TransitionEvent

TokenId = tuple[str, str]
"""Organisation and access token."""


@dataclass(frozen=True, slots=True)
class Reached:
    """The state an access token is in, and how many changes brought it there."""

    state: LifeCycleState
    version: int


def replay(value: bytes, states: dict[TokenId, Reached]) -> bool:
    """Let ``states`` follow one event, given as its JSON. Returns whether it changed anything.

    Raises ``pydantic.ValidationError`` for what is no transition event.
    """
    event = TransitionEvent.model_validate_json(value)
    token = event.organisation, event.access_token_id
    former = states.get(token)
    if former is not None and former.version >= event.version:
        return False
    states[token] = Reached(event.to_state, event.version)
    return True


def rebuilt(values: Iterable[bytes]) -> dict[TokenId, Reached]:
    """The states after all these events, in whatever order they come and however often."""
    states: dict[TokenId, Reached] = {}
    for value in values:
        replay(value, states)
    return states
