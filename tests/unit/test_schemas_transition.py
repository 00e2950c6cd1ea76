"""Transition events: their members, their hash, and the chain that they form."""

import hashlib
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from effective_contract.transition import FIRST_PREVIOUS_HASH, BrokenLink, TransitionEvent, event_hash, verify_chain

Event = dict[str, Any]

EVENT: Event = {
    "organisation": "ORG1",
    "access_token_id": "4D1F0C6E9B7A4F5C8E2B7A90D3C61F55",
    "version": 1,
    "from_state": "NOT_EFFECTIVE",
    "to_state": "EFFECTIVE",
    "occurred_at": "2026-11-25T09:17:00.000001Z",
    "user_id": "6E0B9E9C5C7E4B0F9C7A5D3C2B1A0F01",
    "unit_id": "1",
    "command_id": "ce:ORG1:%2Fshop:1",
    "cause": "API",
    "lane": "cluster/group/topic/0",
    "sequence": 1,
    "previous_hash": FIRST_PREVIOUS_HASH,
}
MEMBERS = st.text() | st.none() | st.integers(-(2**53) + 1, 2**53 - 1)
LENGTHS = st.integers(1, 8)


def chain(length: int) -> list[Event]:
    events: list[Event] = []
    previous = FIRST_PREVIOUS_HASH
    for sequence in range(1, length + 1):
        event = {**EVENT, "access_token_id": f"T{sequence}", "sequence": sequence, "previous_hash": previous}
        previous = event_hash(event)
        events.append({**event, "hash": previous})
    return events


@given(st.fixed_dictionaries(dict.fromkeys(EVENT, MEMBERS)))
def test_the_hash_is_that_of_the_canonical_json(event: Event) -> None:
    assert event_hash(event) == hashlib.sha256(rfc8785.dumps(event)).hexdigest()


def test_the_hash_of_an_event_is_known() -> None:
    text = "{" + ",".join(f'"{name}":{value!r}'.replace("'", '"') for name, value in sorted(EVENT.items())) + "}"

    assert event_hash(EVENT) == hashlib.sha256(text.encode()).hexdigest()


@given(st.permutations(list(EVENT)), st.text())
def test_neither_the_order_of_members_nor_the_hash_itself_is_hashed(names: list[str], former: str) -> None:
    assert event_hash({**{name: EVENT[name] for name in names}, "hash": former}) == event_hash(EVENT)


@given(st.integers(0, 8))
def test_a_whole_chain_has_no_broken_link(length: int) -> None:
    assert verify_chain(chain(length)) is None


@given(LENGTHS, st.data())
def test_a_change_of_any_member_breaks_the_chain_at_that_event(length: int, data: st.DataObject) -> None:
    events = chain(length)
    position = data.draw(st.integers(0, length - 1))
    name = data.draw(st.sampled_from(sorted(events[0])))
    events[position] = {**events[position], name: "something else"}
    broken = verify_chain(events)

    assert broken is not None
    # Only the first event of a chain names its lane.
    assert broken.position == position
    assert broken.sequence == position + 1


@given(st.integers(2, 8), st.data())
def test_an_event_taken_out_breaks_the_chain(length: int, data: st.DataObject) -> None:
    events = chain(length)
    position = data.draw(st.integers(0, length - 2))
    del events[position]

    assert verify_chain(events) == BrokenLink(position, position + 1, "the sequence has a gap or a repetition")


def test_an_event_of_another_chain_breaks_it() -> None:
    first, second = chain(2)
    stranger = {**second, "previous_hash": "1" * 64}
    stranger["hash"] = event_hash(stranger)

    assert verify_chain([first, stranger]) == BrokenLink(1, 2, "previous_hash is not the hash of the event before")


@given(LENGTHS, st.data())
def test_a_chain_may_be_verified_in_parts(length: int, data: st.DataObject) -> None:
    events = chain(length)
    cut = data.draw(st.integers(1, length))
    last = events[cut - 1]

    assert verify_chain(events[:cut]) is None
    assert verify_chain(events[cut:], sequence=last["sequence"], previous_hash=last["hash"]) is None


def test_an_event_by_a_command_and_one_by_an_import_are_events() -> None:
    TransitionEvent.model_validate({**EVENT, "hash": event_hash(EVENT)})
    nobody = {"from_state": None, "user_id": None, "unit_id": None, "command_id": None}
    imported = {**EVENT, **nobody, "cause": "IMPORT", "to_state": "PENDING_VERIFICATION"}
    TransitionEvent.model_validate({**imported, "hash": event_hash(imported)})


@pytest.mark.parametrize(
    "change",
    [
        {"from_state": None},
        {"user_id": None},
        {"cause": "IMPORT"},
        {"cause": "MAGIC"},
        {"version": 0},
        {"version": "1"},
        {"sequence": 0},
        {"to_state": "GONE"},
        {"occurred_at": "2026-11-25T09:17:00Z"},
        {"occurred_at": "2026-11-25T09:17:00.000001+00:00"},
        {"occurred_at": "2026-13-25T09:17:00.000001Z"},
        {"hash": "A" * 64},
        {"previous_hash": "0" * 63},
        {"colour": "red"},
    ],
)
def test_members_are_exact(change: Event) -> None:
    with pytest.raises(ValidationError):
        TransitionEvent.model_validate({**EVENT, "hash": event_hash(EVENT), **change})
