"""The registry of methods, and the digests of their requests."""

import hashlib
from dataclasses import replace

import pytest

from effective_contract.codes import StatusCode
from effective_contract.methods import METHODS, SET_EFFECTIVE, Methods
from effective_contract.states import LifeCycleState
from tests.support.sibling import BOTH, SET_NOT_EFFECTIVE
from worker.journey.model import request_digest

VERIFY = replace(
    SET_NOT_EFFECTIVE,
    name="verify",
    command_type="verify.v1",
    result_type="verified.v1",
    from_state=LifeCycleState.PENDING_VERIFICATION,
)


def test_the_first_method_is_the_one_of_the_source() -> None:
    method = METHODS.all[0]
    assert method is SET_EFFECTIVE
    assert (method.from_state, method.to_state, method.right) == (
        LifeCycleState.NOT_EFFECTIVE,
        LifeCycleState.EFFECTIVE,
        "ACCESS_TOKENS.SET_EFFECTIVE",
    )


@pytest.mark.parametrize("same", ["name", "command_type", "result_type"])
def test_two_methods_have_nothing_in_common_that_tells_them_apart(same: str) -> None:
    twin = replace(SET_NOT_EFFECTIVE, **{same: getattr(SET_EFFECTIVE, same)})

    with pytest.raises(ValueError, match=f"two methods have the same {same}"):
        Methods([twin])


def test_a_method_returns_if_others_lead_back_to_its_first_state() -> None:
    assert Methods().returning == frozenset()
    assert BOTH.returning == {"set_effective", "set_not_effective"}
    assert Methods([VERIFY]).returning == frozenset()
    assert Methods([SET_NOT_EFFECTIVE, VERIFY]).returning == {"set_effective", "set_not_effective"}
    roundabout = replace(SET_NOT_EFFECTIVE, to_state=LifeCycleState.PENDING_VERIFICATION)
    assert Methods([roundabout, VERIFY]).returning == {"set_effective", "set_not_effective", "verify"}


def test_the_sentences_of_a_method_are_its_own_where_it_has_any() -> None:
    assert SET_NOT_EFFECTIVE.description(StatusCode.ACCESS_DENIED).endswith("as not effective.")
    for code in StatusCode:
        assert SET_EFFECTIVE.description(code) == code.description
    assert SET_NOT_EFFECTIVE.description(StatusCode.OK) == ""


def test_the_digest_of_a_request_names_its_method_except_the_first() -> None:
    first = hashlib.sha256(b"code\x007\x0099021047380").digest()
    sibling = hashlib.sha256(b"set_not_effective\x00code\x007\x0099021047380").digest()

    assert request_digest(SET_EFFECTIVE, "code", "99021047380", 7) == first
    assert request_digest(SET_NOT_EFFECTIVE, "code", "99021047380", 7) == sibling
