"""The bad inputs, as far as they can be judged without Postgres."""

import time

import pytest

from effective_contract.codes import StatusCode
from tests.contract.bad_inputs import BAD_INPUTS, CANARY_PASS_CODE, CANARY_TOKEN, MAX_BYTES, BadInput
from tests.deliveries import delivery
from tests.logins import SECRET, login_token
from worker.journey.authorise import Logins
from worker.journey.decode.command import decode
from worker.journey.model import Claims, Command, Refused
from worker.journey.redact import masked

DECODED = [row for row in BAD_INPUTS if row.stage == "decode"]
SIGNED = [row for row in BAD_INPUTS if row.stage != "decode"]
BY_NAME = pytest.mark.parametrize("row", DECODED, ids=lambda row: row.name)


def the_request(row: BadInput) -> Command | Refused:
    value = row.written(login_token, SECRET)
    return decode(delivery(value, row.headers), max_bytes=MAX_BYTES).request


def test_the_table_is_long_and_names_no_row_twice() -> None:
    assert len(BAD_INPUTS) >= 80
    assert len({row.name for row in BAD_INPUTS}) == len(BAD_INPUTS)


def test_the_table_holds_every_refusal_that_one_command_alone_can_meet() -> None:
    needs_a_history = {StatusCode.DUPLICATE_REQUEST}
    never_a_senders_fault = {StatusCode.OK, StatusCode.INTERNAL_ERROR}

    assert {row.status for row in BAD_INPUTS} == set(StatusCode) - needs_a_history - never_a_senders_fault


@BY_NAME
def test_the_decoder_refuses_with_the_status_and_names_the_member(row: BadInput) -> None:
    request = the_request(row)

    assert isinstance(request, Refused)
    assert request.code is row.status
    assert row.says in request.message


@BY_NAME
def test_no_message_repeats_a_secret_or_more_than_a_little(row: BadInput) -> None:
    request = the_request(row)

    assert isinstance(request, Refused)
    assert CANARY_TOKEN not in request.message
    assert CANARY_PASS_CODE not in request.message
    assert len(request.message) <= 200
    assert request.message.isprintable()
    request.message.encode()


@BY_NAME
def test_no_secret_stands_in_what_a_dead_letter_shows(row: BadInput) -> None:
    shown = (masked(row.value) or b"").replace(b"\0", b"")

    assert CANARY_TOKEN.encode() not in shown
    assert CANARY_PASS_CODE.encode() not in shown


@pytest.mark.parametrize("row", SIGNED, ids=lambda row: row.name)
def test_what_is_wrong_with_a_login_or_a_name_is_not_the_decoders_to_judge(row: BadInput) -> None:
    assert isinstance(the_request(row), Command)


@pytest.mark.parametrize("row", SIGNED, ids=lambda row: row.name)
def test_a_login_is_refused_by_its_own_check_or_left_to_postgres(row: BadInput) -> None:
    command = the_request(row)
    assert isinstance(command, Command)

    verified = Logins([SECRET], time.time).verify(command.login_token)

    if row.stage == "login":
        assert isinstance(verified, Refused)
        assert verified.code is row.status
        assert row.says in verified.message
    else:
        assert isinstance(verified, Claims)
