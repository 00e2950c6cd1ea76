"""States rebuilt from events alone: in any order, and however often they come."""

import json
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from effective_contract.replay import Reached, rebuilt, replay
from effective_contract.states import LifeCycleState


def event(token: str, version: int, to_state: str, **members: Any) -> bytes:
    first = {"from_state": None, "user_id": None, "unit_id": None, "command_id": None, "cause": "IMPORT"}
    later = {"from_state": "NOT_EFFECTIVE", "user_id": "U", "unit_id": "B", "command_id": "req:O:1", "cause": "API"}
    whole = {
        "organisation": "O",
        "access_token_id": token,
        "version": version,
        "to_state": to_state,
        "occurred_at": "2026-01-01T00:00:00.000000Z",
        "lane": "import",
        "sequence": 1,
        "previous_hash": "0" * 64,
        "hash": "1" * 64,
        **(first if version == 1 else later),
    }
    return json.dumps(whole | members).encode()


EVENTS: Final = [
    event("A", 1, "NOT_EFFECTIVE"),
    event("A", 2, "EFFECTIVE"),
    event("B", 1, "PENDING_VERIFICATION"),
    event("A", 1, "EFFECTIVE", organisation="P"),
]
STATES: Final = {
    ("O", "A"): Reached(LifeCycleState.EFFECTIVE, 2),
    ("O", "B"): Reached(LifeCycleState.PENDING_VERIFICATION, 1),
    ("P", "A"): Reached(LifeCycleState.EFFECTIVE, 1),
}


@given(st.lists(st.sampled_from(EVENTS)), st.permutations(EVENTS))
def test_neither_order_nor_repetition_matters(repeated: list[bytes], every: list[bytes]) -> None:
    assert rebuilt([*repeated, *every]) == STATES


def test_an_event_that_comes_late_or_again_changes_nothing() -> None:
    states = rebuilt(EVENTS)
    assert not any(replay(each, states) for each in EVENTS)


def test_what_is_no_event_is_not_overlooked() -> None:
    with pytest.raises(ValidationError):
        rebuilt([b"{}"])
