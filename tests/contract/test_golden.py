"""The source method's own sample, over the schemas that senders and readers use.

See CONTRACT, Command, Result and Access token.
"""

from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from effective_contract.access_token import FIELD_NAMES, AccessToken, LogInformation, field_names, fields_mask
from effective_contract.codes import StatusCode
from effective_contract.command import SetEffectiveCommand, asked_fields
from effective_contract.result import Result
from tests.support.builders import delivery
from worker.journey.decode.command import decode
from worker.journey.model import Command

SEED = Path(__file__).parent.parent / "seed"
NOT_OF_THE_TOKEN = {"kind", "organisation", "pass_code"}


def seed(name: str) -> bytes:
    return (SEED / name).read_bytes()


def fixture_tokens() -> list[dict[str, Any]]:
    lines = [orjson.loads(line) for line in seed("fixture.ndjson").splitlines()]
    return [line for line in lines if line["kind"] == "access_token"]


def test_the_sample_command_is_one() -> None:
    SetEffectiveCommand.model_validate_json(seed("command.json"))
    command = decode(delivery(seed("command.json")), max_bytes=65_536).request

    assert isinstance(command, Command)
    assert command.authentication_code == "99021047380"
    assert set(field_names(command.fields)) == {
        "verified_by_user",
        "number",
        "rewards_participant",
        "accounts_receivable",
    }


def test_the_sample_result_is_one_and_comes_back_the_same() -> None:
    result = Result.model_validate_json(seed("result.json"))

    assert result.model_dump(mode="json") == orjson.loads(seed("result.json"))
    assert result.status.code is StatusCode.OK


def test_the_sample_result_holds_exactly_the_fields_that_the_sample_command_asks_for() -> None:
    asked = asked_fields(orjson.loads(seed("command.json"))["fields_set"])

    assert fields_mask(orjson.loads(seed("result.json"))["data"]) == asked


@pytest.mark.parametrize("line", fixture_tokens(), ids=lambda line: f"{line['organisation']}-{line['number']}")
def test_a_token_of_the_fixture_has_every_member_but_its_log(line: dict[str, Any]) -> None:
    shown = {name: value for name, value in line.items() if name not in NOT_OF_THE_TOKEN}
    whole = {**shown, "log_information": dict.fromkeys(LogInformation.model_fields)}

    assert AccessToken.model_validate(whole).model_dump(mode="json") == whole
    assert [*shown, "log_information"] == list(FIELD_NAMES)


def result(code: str, data: dict[str, Any], description: str = "", message: str = "") -> dict[str, Any]:
    return {"data": data, "status": {"code": code, "description": description, "message": message}}


@pytest.mark.parametrize("code", [code for code in StatusCode if code is not StatusCode.OK])
def test_a_refusal_shows_no_data_and_its_fixed_sentence(code: StatusCode) -> None:
    Result.model_validate(result(code.value, {}, code.description, "why"))
    with pytest.raises(ValidationError):
        Result.model_validate(result(code.value, {"number": "AT1"}, code.description, "why"))
    with pytest.raises(ValidationError):
        Result.model_validate(result(code.value, {}, "another sentence", "why"))


@pytest.mark.parametrize("data", [{"colour": None}, {"number": None}, {"number": 1}, {"accounts_receivable": {}}])
def test_members_of_the_data_are_exact(data: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Result.model_validate(result("OK", data))
