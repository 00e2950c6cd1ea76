"""The contract pack matches the code, and its samples match its schemas."""

import json
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import orjson
import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary, from_structured
from cloudevents.core.formats.json import JSONFormat
from jsonschema import Draft202012Validator

import effective_contract
from effective_contract.codes import StatusCode
from effective_contract.headers import COMMAND_TYPE
from effective_contract.methods import METHODS, Methods
from effective_contract.statuses import meanings
from effective_contract.transition import verify_chain
from tests.contract.bad_inputs import BAD_INPUTS, BadInput
from tests.support.builders import delivery
from tests.support.sibling import BOTH, SET_NOT_EFFECTIVE
from worker.journey.decode.command import decode
from worker.journey.model import Command
from worker.kafka.topics import _SETTINGS, PARTITIONS
from worker.operations.contract.asyncapi import asyncapi
from worker.operations.contract.deployment import Deployment
from worker.operations.contract.json_schemas import described, json_schema
from worker.operations.contract.pack import pack
from worker.operations.contract.samples import SAMPLES, TOKEN, Record, Sample
from worker.settings import read_settings

ROOT: Final = Path(__file__).parents[2]
PROJECTS: Final = ("pyproject.toml", "schemas/pyproject.toml")
COMMITTED: Final = ROOT / "schemas" / "pack"


def is_right(name: str, value: Any) -> bool:
    return Draft202012Validator(json_schema(name)).is_valid(value)


def committed() -> dict[str, str]:
    paths = (path for path in COMMITTED.rglob("*") if path.is_file())
    return {path.relative_to(COMMITTED).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def test_the_committed_pack_is_what_the_code_says() -> None:
    written = pack(Deployment())
    spare = sorted(committed().keys() - written.keys())
    assert spare == [], "remove these files: the pack has other names for them now"
    assert committed() == written, "write it again with: effective-worker contract schemas/pack"


def test_one_place_has_the_version_of_both_distributions_and_of_the_pack() -> None:
    own, schemas = (tomllib.loads((ROOT / file).read_text("utf-8")) for file in PROJECTS)
    assert (own["project"]["dynamic"], schemas["project"]["dynamic"]) == (["version"], ["version"])
    for file, project in zip(PROJECTS, (own, schemas), strict=True):
        place = (ROOT / file).parent / project["tool"]["hatch"]["version"]["path"]
        assert place.resolve() == ROOT / "schemas" / "effective_contract" / "__init__.py"
    assert f"effective-contract=={effective_contract.__version__}" in own["project"]["dependencies"]
    assert asyncapi(Deployment())["info"]["version"] == effective_contract.__version__


def test_its_defaults_are_those_of_the_settings_and_of_the_topics() -> None:
    settings, deployment = read_settings({}), Deployment()
    topics = settings.topics
    assert (deployment.commands, deployment.results) == (topics.commands, topics.results)
    assert (deployment.transitions, deployment.dead_letters) == (topics.transitions, topics.dead_letters)
    assert deployment.group == settings.kafka.group_id
    assert deployment.bootstrap_servers == settings.kafka.bootstrap_servers
    assert deployment.max_command_bytes == settings.max_command_bytes
    assert deployment.record_retention_days == settings.record_retention_days
    bindings = {
        name: channel["bindings"]["kafka"]
        for name, channel in asyncapi(Deployment(bulk_commands="bulk"))["channels"].items()
        if name != "replies"
    }
    assert {binding["partitions"] for binding in bindings.values()} == {PARTITIONS}
    kept = {name: str(binding["topicConfiguration"]["retention.ms"]) for name, binding in bindings.items()}
    named = {"dead_letters": "deadLetters", "bulk_commands": "bulkCommands"}
    assert kept == {named.get(name, name): each["retention.ms"] for name, each in _SETTINGS.items()}


@pytest.mark.parametrize("name", described())
def test_each_schema_is_one(name: str) -> None:
    Draft202012Validator.check_schema(json_schema(name))


def test_every_status_has_its_meaning_and_its_sample() -> None:
    assert list(meanings()) == list(StatusCode)
    assert {sample.status for sample in SAMPLES} == set(StatusCode)


def parts() -> Iterator[tuple[Sample, str, Record]]:
    for sample in SAMPLES:
        yield sample, "command-structured" if sample.command.is_structured else "command", sample.command
        yield sample, "result", sample.result
        if sample.transition is not None:
            yield sample, "transition", sample.transition


UNREADABLE: Final = {StatusCode.MALFORMED_REQUEST, StatusCode.MISSING_PARAMETER, StatusCode.INVALID_PARAMETER}


@pytest.mark.parametrize(("sample", "name", "record"), [*parts()], ids=lambda part: getattr(part, "name", ""))
def test_each_sample_is_as_its_schemas_say(sample: Sample, name: str, record: Record) -> None:
    assert is_right(f"{name.removesuffix('-structured')}-headers", dict(record.headers))
    if record.is_json:
        assert is_right(name, record.value) == (name != "command" or sample.status not in UNREADABLE)


def test_dead_letters_are_as_their_schema_says() -> None:
    letters = [sample.dead_letter for sample in SAMPLES if sample.dead_letter is not None]
    assert len(letters) == 2
    assert all(is_right("dead-letter-headers", dict(letter.headers)) for letter in letters)
    assert TOKEN not in repr([letter.value for letter in letters])


def test_the_transition_events_of_the_samples_are_a_chain() -> None:
    events = [sample.transition.value for sample in SAMPLES if sample.transition is not None]
    assert len(events) == 2
    assert verify_chain(events) is None


@pytest.mark.parametrize(("sample", "name", "record"), [*parts()], ids=lambda part: getattr(part, "name", ""))
def test_the_sdk_of_cloudevents_reads_each_sample_with_an_id(sample: Sample, name: str, record: Record) -> None:
    if "ce_id" not in record.headers:
        pytest.skip("a command needs no id")
    headers = {each: text.encode() for each, text in record.headers.items()}
    event = from_binary(KafkaMessage(headers, record.key, json.dumps(record.value).encode()), JSONFormat())
    assert event.get_id() == record.headers["ce_id"]
    assert event.get_type() == record.headers["ce_type"]
    assert event.get_source() == record.headers["ce_source"]
    assert event.get_data() == record.value


def test_the_sdk_of_cloudevents_reads_the_sample_that_is_a_whole_event() -> None:
    [command] = [sample.command for sample in SAMPLES if sample.command.is_structured]
    headers = {each: text.encode() for each, text in command.headers.items()}
    event = from_structured(KafkaMessage(headers, command.key, json.dumps(command.value).encode()), JSONFormat())
    assert (event.get_id(), event.get_source(), event.get_type()) == ("order-8", "/shop", COMMAND_TYPE)
    assert event.get_data() == command.value["data"]
    assert is_right("command", event.get_data())


def test_answers_on_a_topic_of_the_sender_s_are_among_the_samples() -> None:
    redirected = {sample.name: dict(sample.result.headers) for sample in SAMPLES if sample.result.topic}
    assert {name: headers.get("kafka_correlationId") for name, headers in redirected.items()} == {
        "reply-to": None,
        "kafka-reply-topic": "16",
    }


def test_a_result_that_is_none_is_refused_by_its_schema() -> None:
    result = next(sample.result.value for sample in SAMPLES if sample.status is StatusCode.ACCESS_DENIED)
    assert is_right("result", result)
    status = result["status"]
    assert not is_right("result", {**result, "data": {"number": "AT1"}})
    assert not is_right("result", {**result, "status": {**status, "description": "another sentence"}})
    assert not is_right("result", {**result, "status": {**status, "code": "PERHAPS"}})
    assert not is_right("result", {**result, "more": 1})


# --- the command's schema and the worker's own reading ----------------------------------------------------------------


def read(value: bytes) -> Any:
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return None


def has_a_member_twice(value: bytes) -> bool:
    """True if a member is given twice: a schema sees only the parsed value."""
    twice: list[bool] = []

    def looked_at(members: list[tuple[str, Any]]) -> None:
        twice.append(len(members) != len(dict(members)))

    with suppress(RecursionError):  # no row this deep is about duplicate members
        json.loads(value, object_pairs_hook=looked_at, parse_int=str)
    return any(twice)


def json_rows() -> list[BadInput]:
    """Return the bad inputs whose fault is in a JSON value of acceptable size without duplicate members."""
    rows = [row for row in BAD_INPUTS if row.stage == "decode" and not row.headers and row.value is not None]
    readable = [row for row in rows if read(row.value or b"") is not None and "larger" not in row.says]
    return [row for row in readable if not has_a_member_twice(row.value or b"")]


@pytest.mark.parametrize("row", json_rows(), ids=lambda row: row.name)
def test_what_the_worker_refuses_is_refused_by_the_schema(row: BadInput) -> None:
    assert not is_right("command", read(row.value or b""))


GOOD: Final = {"token": "x", "access_token_identifier": {"authentication_code": "1"}}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"fields_set": " number , id,\tid\n"},
        {"fields_set": "  "},
        {"fields_set": None, "request_unique_identifier": ""},
        {"access_token_identifier": {"authentication_code": "1", "identifier": "", "pass_code": "ignored"}},
        {"access_token_identifier": {"authentication_code": None, "identifier": "i", "pass_code": "p"}},
        {"access_token_identifier": {"authentication_code": "😀" * 255}},
    ],
)
def test_what_the_worker_takes_is_taken_by_the_schema(changes: dict[str, Any]) -> None:
    value = {**GOOD, **changes}
    assert isinstance(decode(delivery(orjson.dumps(value)), max_bytes=65_536).request, Command)
    assert is_right("command", value)


# --- the AsyncAPI document --------------------------------------------------------------------------------------------


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for each in part.values():
            yield from references(each)
    elif isinstance(part, list):
        for each in part:
            yield from references(each)


@pytest.mark.parametrize("methods", [METHODS, BOTH], ids=["released", "with a sibling"])
def test_every_reference_leads_somewhere(methods: Methods) -> None:
    whole = asyncapi(Deployment(), methods)
    for reference in set(references(whole)):
        part: Any = whole
        for step in reference.removeprefix("#/").split("/"):
            part = part[step]


def test_it_tells_how_to_be_let_in_and_where_the_topics_are() -> None:
    deployment = Deployment(
        bootstrap_servers="a:9092, b:9093",
        security_protocol="SASL_SSL",
        sasl_mechanism="SCRAM-SHA-512",
        commands="mine",
    )
    whole = asyncapi(deployment)
    assert [server["host"] for server in whole["servers"].values()] == ["a:9092", "b:9093"]
    assert {server["protocol"] for server in whole["servers"].values()} == {"kafka-secure"}
    assert whole["servers"]["broker1"]["security"] == [{"$ref": "#/components/securitySchemes/scramSha512"}]
    assert whole["channels"]["commands"]["address"] == "mine"


def test_a_bulk_topic_takes_the_same_commands_and_is_told_of_only_where_there_is_one() -> None:
    assert "bulkCommands" not in asyncapi(Deployment())["channels"]
    whole = asyncapi(Deployment(bulk_commands="bulk"))
    normal, bulk = whole["channels"]["commands"], whole["channels"]["bulkCommands"]
    assert (bulk["address"], bulk["messages"]) == ("bulk", normal["messages"])
    assert whole["operations"]["setEffectiveInBulk"]["reply"] == whole["operations"]["setEffective"]["reply"]


def test_a_sibling_method_has_operations_messages_and_types_of_its_own() -> None:
    whole = asyncapi(Deployment(bulk_commands="bulk"), BOTH)

    operations, messages = whole["operations"], whole["components"]["messages"]
    assert operations["setNotEffective"]["summary"] == "Set an access token not effective."
    assert operations["setNotEffectiveInBulk"]["channel"] == {"$ref": "#/channels/bulkCommands"}
    assert operations["setNotEffectiveAnswer"]["messages"] == [
        {"$ref": "#/channels/results/messages/setNotEffectiveResult"}
    ]
    assert set(whole["channels"]["commands"]["messages"]) == {
        *("command", "structuredCommand", "setNotEffectiveCommand", "setNotEffectiveStructuredCommand")
    }
    said = {each["code"]: each for each in messages["setNotEffectiveResult"]["x-statuses"]}
    assert said["ACCESS_DENIED"]["description"] == "The user is not allowed to set access tokens as not effective."
    assert "ACCESS_TOKENS.SET_NOT_EFFECTIVE" in said["ACCESS_DENIED"]["when"]
    assert said["INVALID_LIFE_CYCLE_STATE"]["when"].startswith("The access token is not EFFECTIVE;")
    assert said["OK"]["when"].startswith("The access token is not effective:")


@pytest.mark.parametrize(
    ("name", "of_sibling", "of_set_effective"),
    [
        ("command-headers", {"ce_type": SET_NOT_EFFECTIVE.command_type}, {"ce_type": COMMAND_TYPE}),
        ("command-headers", {"ce_type": SET_NOT_EFFECTIVE.command_type, "dry_run": "true"}, {}),
    ],
)
def test_the_headers_of_a_sibling_name_its_type(
    name: str, of_sibling: dict[str, str], of_set_effective: dict[str, str]
) -> None:
    sibling = Draft202012Validator(json_schema(f"set-not-effective-{name}", BOTH))
    released = Draft202012Validator(json_schema(name, BOTH))

    assert [sibling.is_valid(each) for each in (of_sibling, of_set_effective)] == [True, False]
    assert [released.is_valid(each) for each in (of_sibling, of_set_effective)] == [False, True]
