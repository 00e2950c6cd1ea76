"""Breaking changes of the contract are named, by the rules for its writers and its readers."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.sibling import BOTH
from worker.operations.contract.compatibility import breaks
from worker.operations.contract.deployment import Deployment
from worker.operations.contract.older import NotAPack, read
from worker.operations.contract.pack import pack, write

RELEASED: Final = Path(__file__).parents[2] / "schemas" / "released"
VERSIONS: Final = sorted(path.name for path in RELEASED.iterdir())

Pack = dict[str, Any]
Change = Callable[[Pack], object]


@pytest.fixture(scope="module")
def now(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    directory = tmp_path_factory.mktemp("pack")
    write(directory, pack(Deployment()))
    return read(directory)


def test_a_version_was_released() -> None:
    assert VERSIONS


@pytest.mark.parametrize("version", VERSIONS)
def test_the_contract_breaks_nobody_who_was_written_for_a_released_one(now: Pack, version: str) -> None:
    found = [str(each) for each in breaks(read(RELEASED / version), now)]
    assert found == [], "this breaks those who were written for it: see CONTRIBUTING, The contract pack"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_sibling_method_breaks_nobody_either(tmp_path: Path, version: str) -> None:
    write(tmp_path, pack(Deployment(), BOTH))

    assert [str(each) for each in breaks(read(RELEASED / version), read(tmp_path))] == []


def members(whole: Pack, name: str, *path: str) -> dict[str, Any]:
    """Return the members of a schema, or of one of its definitions."""
    schema = whole[f"{name}.schema.json"]
    for step in path:
        schema = schema["$defs"][step]
    found: dict[str, Any] = schema["properties"]
    return found


def command(whole: Pack) -> dict[str, Any]:
    return members(whole, "command")


def identifier(whole: Pack) -> dict[str, Any]:
    return members(whole, "command", "AccessTokenIdentifier")


def data(whole: Pack) -> dict[str, Any]:
    return members(whole, "result", "AccessTokenData")


def event(whole: Pack) -> dict[str, Any]:
    return members(whole, "transition")


def schema(whole: Pack, name: str, *path: str) -> dict[str, Any]:
    found: dict[str, Any] = whole[f"{name}.schema.json"]
    for step in path:
        found = found["$defs"][step]
    return found


def required(whole: Pack, name: str, *path: str) -> list[str]:
    names: list[str] = schema(whole, name, *path)["required"]
    return names


def document(whole: Pack) -> dict[str, Any]:
    found: dict[str, Any] = whole["asyncapi.json"]
    return found


def component(whole: Pack, name: str) -> dict[str, Any]:
    found: dict[str, Any] = document(whole)["components"]["schemas"][name]
    return found


TEXT: Final = {"type": "string"}


def a_new_mandatory_member(whole: Pack) -> None:
    command(whole)["reason"] = TEXT
    required(whole, "command").append("reason")


COMMAND, HEADERS, RESULT = "command.schema.json", "command-headers.schema.json", "result.schema.json"
EVENT, ASYNCAPI = "transition.schema.json", "asyncapi.json"

BREAKING: Final[dict[str, tuple[Change, str, str]]] = {
    # Messages that others send.
    "a new mandatory member": (
        a_new_mandatory_member,
        COMMAND,
        "reason: must be given now",
    ),
    "a member less": (lambda p: command(p).pop("fields_set"), COMMAND, "fields_set: the member is gone"),
    "a member less, deep below": (
        lambda p: identifier(p).pop("identifier"),
        COMMAND,
        "access_token_identifier.identifier: the member is gone",
    ),
    "a header less": (lambda p: members(p, "command-headers").pop("reply_to"), HEADERS, "reply_to: the member is gone"),
    "a shorter text": (
        lambda p: command(p)["token"].update(maxLength=1024),
        COMMAND,
        "token: maxLength is 1024 now, and was 4096",
    ),
    "a longer least text": (
        lambda p: command(p)["token"].update(minLength=2),
        COMMAND,
        "token: minLength is 2 now, and was 1",
    ),
    "a new pattern": (
        lambda p: identifier(p)["authentication_code"]["anyOf"][0].update(pattern="^[0-9]+$"),
        COMMAND,
        'access_token_identifier.authentication_code: pattern was "^[^\\\\u0000]*$", is "^[0-9]+$"',
    ),
    "a field that can no longer be asked for": (
        lambda p: command(p)["fields_set"]["anyOf"][0]["x-comma-separated"].remove("number"),
        COMMAND,
        "fields_set: number is no longer accepted",
    ),
    "another type": (
        lambda p: command(p)["token"].update(type="integer"),
        COMMAND,
        "token: string is no longer accepted",
    ),
    "null no longer": (
        lambda p: command(p).update(request_unique_identifier={"type": "string", "maxLength": 255}),
        COMMAND,
        "request_unique_identifier: null is no longer accepted",
    ),
    "certain values only": (
        lambda p: command(p)["token"].update(enum=["a", "b"]),
        COMMAND,
        "token: only certain values are accepted now",
    ),
    "another constant": (
        lambda p: members(p, "command-headers")["ce_type"].update(const="access_token.set_effective.v2"),
        HEADERS,
        'ce_type: "access_token.set_effective.v1" is no longer accepted',
    ),
    "unknown headers refused": (
        lambda p: schema(p, "command-headers").update(additionalProperties=False),
        HEADERS,
        "(the whole): other members are no longer accepted",
    ),
    "a header that needs another": (
        lambda p: schema(p, "command-headers").update(
            dependentRequired={"ce_id": ["ce_source"], "reply_to": ["correlation_id"]}
        ),
        HEADERS,
        "reply_to: needs correlation_id now",
    ),
    "one way less to name an access token": (
        lambda p: schema(p, "command", "AccessTokenIdentifier")["anyOf"].pop(),
        COMMAND,
        "access_token_identifier: how the members go together (anyOf) has changed",
    ),
    "a rule that was not there": (
        lambda p: schema(p, "command").update({"not": {"required": ["fields_set"]}}),
        COMMAND,
        '(the whole): not was not set, is {"required": ["fields_set"]}',
    ),
    # Messages that others read.
    "a new status": (
        lambda p: schema(p, "result", "StatusCode")["enum"].append("BUSY"),
        RESULT,
        'status.code: an older reader does not know "BUSY"',
    ),
    "a status sentence changed": (
        lambda p: schema(p, "result", "Status")["oneOf"][0]["properties"]["description"].update(const="No."),
        RESULT,
        "status: how the members go together (oneOf) has changed",
    ),
    "a field less in the answer": (
        lambda p: data(p).pop("udf_float_1"),
        RESULT,
        "data.udf_float_1: the member is gone",
    ),
    "a further member in a closed value": (
        lambda p: event(p).update(colour=TEXT),
        EVENT,
        "colour: an older reader does not know this member",
    ),
    "a member that may be absent": (
        lambda p: required(p, "transition").remove("version"),
        EVENT,
        "version: may be absent now",
    ),
    "a member that may be null": (
        lambda p: data(p).update(number={"anyOf": [TEXT, {"type": "null"}]}),
        RESULT,
        "data.number: an older reader does not expect null",
    ),
    "a number where a text was": (
        lambda p: event(p).update(access_token_id={"type": "integer"}),
        EVENT,
        "access_token_id: an older reader does not expect integer",
    ),
    "a fraction where a whole number was": (
        lambda p: event(p)["sequence"].update(type="number"),
        EVENT,
        "sequence: an older reader does not expect number",
    ),
    "a larger number": (
        lambda p: event(p)["version"].update(maximum=2**63),
        EVENT,
        "version: maximum was 9007199254740991, and is 9223372036854775808 now",
    ),
    "values that are not confined": (
        lambda p: event(p)["cause"].pop("enum"),
        EVENT,
        "cause: other values than those known may come now",
    ),
    "open where it was closed": (
        lambda p: schema(p, "result").update(additionalProperties=True),
        RESULT,
        "(the whole): an older reader expects no other members",
    ),
    "a change that a reference leads to, deep below": (
        lambda p: schema(p, "result", "Country")["properties"].pop("name"),
        RESULT,
        "data.rewards_participant.accounts_receivable.account_owner.demographics.country_of_residence.name: "
        "the member is gone",
    ),
    "a schema less": (lambda p: p.pop(EVENT), EVENT, "(the whole): the file is gone"),
    # Definitions used in both directions.
    "another topic": (
        lambda p: document(p)["channels"]["results"].update(address="answers"),
        ASYNCAPI,
        'channels.results.address: was "access-token.set-effective.results", is "answers"',
    ),
    "a channel less": (
        lambda p: (document(p)["channels"].pop("replies"), document(p)["operations"]["setEffective"].pop("reply")),
        ASYNCAPI,
        "channels.replies: the channel is gone",
    ),
    "an operation less": (
        lambda p: document(p)["operations"].pop("answer"),
        ASYNCAPI,
        "operations.answer: the operation is gone",
    ),
    "a message less": (
        lambda p: document(p)["operations"]["setEffective"]["messages"].pop(),
        ASYNCAPI,
        "operations.setEffective.structuredCommand: the message is gone",
    ),
    "another message to be read": (
        lambda p: document(p)["operations"]["answer"]["messages"].append({"$ref": "#/components/messages/transition"}),
        ASYNCAPI,
        "operations.answer.transition: an older reader does not know this message",
    ),
    "another place of the reply address": (
        lambda p: document(p)["components"]["replyAddresses"]["replyTo"].update(location="$message.header#/answer_to"),
        ASYNCAPI,
        "operations.setEffective.reply.address.location: "
        'was "$message.header#/reply_to", is "$message.header#/answer_to"',
    ),
    "another content type": (
        lambda p: document(p)["components"]["messages"]["result"].update(contentType="application/avro"),
        ASYNCAPI,
        'operations.answer.result.contentType: was "application/json", is "application/avro"',
    ),
    "a header less in the document alone": (
        lambda p: component(p, "ResultHeaders")["properties"].pop("command_id"),
        ASYNCAPI,
        "operations.answer.result.headers.command_id: the member is gone",
    ),
}


@pytest.mark.parametrize("name", BREAKING)
def test_a_breaking_change_is_named_with_its_path(now: Pack, name: str) -> None:
    change, file, says = BREAKING[name]
    changed = copy.deepcopy(now)
    change(changed)
    assert f"{file}: {says}" in [str(each) for each in breaks(now, changed)]


HARMLESS: Final[dict[str, Change]] = {
    "nothing at all": lambda _: None,
    "other words": lambda p: command(p)["token"].update(description="Another."),
    "a new optional member of a command": lambda p: command(p).update(note=TEXT),
    "a new optional header of a command": lambda p: members(p, "command-headers").update(priority=TEXT),
    "a longer text in a command": lambda p: command(p)["token"].update(maxLength=8192),
    "a mandatory member of a command that is not any more": lambda p: required(p, "command").remove("token"),
    "null in a command": lambda p: command(p).update(token={"anyOf": [command(p)["token"], {"type": "null"}]}),
    "a further field to ask for": lambda p: command(p)["fields_set"]["anyOf"][0].update(
        {
            "pattern": "^another$",
            "x-comma-separated": [*command(p)["fields_set"]["anyOf"][0]["x-comma-separated"], "colour"],
        }
    ),
    "one more way to name an access token": lambda p: schema(p, "command", "AccessTokenIdentifier")["anyOf"].append(
        {"required": ["number"]}
    ),
    "a rule less for commands": lambda p: schema(p, "command-headers").pop("dependentRequired"),
    "any member in a command": lambda p: schema(p, "command").pop("additionalProperties"),
    "a new header of a result": lambda p: members(p, "result-headers").update(server=TEXT),
    "a status that is not given any more": lambda p: schema(p, "result", "StatusCode")["enum"].remove("ACCESS_DENIED"),
    "never null": lambda p: data(p).update(identifier=TEXT),
    "a member of an event that is confined": lambda p: event(p)["lane"].update(maxLength=10),
    "always there": lambda p: required(p, "result-headers").append("traceparent"),
    "whole numbers where there were others": lambda p: data(p).update(udf_float_1={"type": "integer"}),
    "nullable said in the other way": lambda p: data(p).update(identifier={"type": ["string", "null"]}),
    "a new channel": lambda p: document(p)["channels"].update(more={"address": "more", "messages": {}}),
    "another broker": lambda p: document(p).update(servers={}),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_a_harmless_change_is_none(now: Pack, name: str) -> None:
    changed = copy.deepcopy(now)
    HARMLESS[name](changed)
    assert [str(each) for each in breaks(now, changed)] == []


def test_what_is_harmless_in_a_command_is_not_in_an_answer(now: Pack) -> None:
    """The rules have a direction: turned round, every widening of a command breaks its senders."""
    changed = copy.deepcopy(now)
    command(changed)["token"]["maxLength"] = 8192
    assert [str(each) for each in breaks(changed, now)] == [
        "command.schema.json: token: maxLength is 4096 now, and was 8192"
    ]


def test_a_schema_that_contains_itself_is_followed_once(now: Pack) -> None:
    nested = copy.deepcopy(now)
    schema(nested, "command")["$defs"]["Tree"] = {
        "type": "object",
        "properties": {"leaf": TEXT, "branches": {"type": "array", "items": {"$ref": "#/$defs/Tree"}}},
    }
    command(nested)["tree"] = {"$ref": "#/$defs/Tree"}
    changed = copy.deepcopy(nested)
    assert breaks(nested, changed) == []
    schema(changed, "command")["$defs"]["Tree"]["properties"]["leaf"] = {"type": "integer"}
    assert "command.schema.json: tree.leaf: string is no longer accepted" in map(str, breaks(nested, changed))


def test_a_reference_that_leads_nowhere_says_so(now: Pack) -> None:
    changed = copy.deepcopy(now)
    document(changed)["channels"].pop("replies")
    with pytest.raises(NotAPack, match="#/channels/replies/messages/result leads nowhere"):
        breaks(now, changed)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "no JSON",
        "[]",
        "{}",
        '{"channels": {"commands": 3}, "operations": {}, "components": {"schemas": {}, "messages": {}}}',
        '{"channels": {}, "operations": {"a": {"action": "send"}}, "components": {"schemas": {}, "messages": {}}}',
    ],
)
def test_what_is_no_pack_says_so(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "asyncapi.json").write_text(text, encoding="utf-8")
    with pytest.raises(NotAPack, match="is no contract pack"):
        read(tmp_path)


@pytest.mark.parametrize("schema", ['{"properties": {"token": 3}}', '{"anyOf": {}}', '{"type": 7}', "[]"])
def test_a_schema_that_is_none_says_so(tmp_path: Path, schema: str) -> None:
    write(tmp_path, {**pack(Deployment()), "command.schema.json": schema})
    with pytest.raises(NotAPack, match=r"command\.schema\.json: .* is not as it was written"):
        read(tmp_path)
