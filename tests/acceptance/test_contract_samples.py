"""The golden pairs of the contract pack are true: a running worker answers each command as its sample says."""

import json
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from uuid import uuid4

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary
from cloudevents.core.formats.json import JSONFormat

from effective_contract.headers import RESULT_TYPE, TRANSITION_TYPE
from tests.acceptance.clients import Outgoing, Record, read_to_end
from tests.acceptance.scene import Scene
from tests.providers.kafka import create_topics, delete_topics
from tests.support.logins import login_token
from tests.support.seeded import OTHER_TOKEN_ID
from worker.operations.contract.samples import DIGEST_KEY, PARTITION, REPLIES, SAMPLES, TOKEN, Login, Sample, document
from worker.operations.contract.samples import Record as Shown

pytestmark = pytest.mark.real_kafka

POISONED: Final = OTHER_TOKEN_ID
PLACE: Final = re.compile(r"rec:[^/]+/[^/]+/\d+/\d+@\d+")
MOMENT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6}Z)?")
HEX: Final = re.compile(r"[0-9a-f]{32}|[0-9a-f]{64}")
# The parts that differ in every run, and the form that they must have.
OF_ONE_RUN: Final = {
    "ce_time": MOMENT,
    "occurred_at": MOMENT,
    "updated_date": MOMENT,
    "dl_failed_at": MOMENT,
    "hash": HEX,
    "previous_hash": HEX,
    "dl_topic": re.compile(r"\S+commands\S*|commands-\S+"),
    "dl_offset": re.compile(r"\d+"),
    "dl_timestamp": re.compile(r"\d+"),
    "dl_consumer_group": re.compile(r"\S+"),
    "dl_worker": re.compile(r"\S+"),
    "lane": re.compile(rf"[^/]+/[^/]+/[^/]+/{PARTITION}"),
    "traceparent": re.compile(r"00-0af7651916cd43dd8448eb211c80319c-[0-9a-f]{16}-01"),
}


def same(value: Any, name: str = "") -> Any:
    """Replace the parts that differ from run to run by a word, after checking their form."""
    if isinstance(value, Mapping):
        return {member: same(each, member) for member, each in value.items()}
    if not isinstance(value, str):
        return value
    pattern = OF_ONE_RUN.get(name)
    if pattern is not None:
        assert pattern.fullmatch(value), f"{name}: {value}"
        return f"<{name}>"
    return "<place>" if PLACE.fullmatch(value) else value


def shown(record: Record) -> dict[str, Any]:
    headers = {name: (value or b"").decode() for name, value in record.headers}
    assert len(headers) == len(record.headers)
    return {"key": (record.key or b"").decode(), "headers": headers, "value": record.value}


def compared(record: Record, sample: Shown, *, id_is_of_the_place: bool = False) -> tuple[Any, Any]:
    """Return the answer and the sample, reduced to the parts that every run has in common."""
    came = shown(record)
    said: dict[str, Any] = {"key": sample.key, "headers": dict(sample.headers), "value": sample.value}
    if sample.is_json:
        came["value"] = json.loads(record.value or b"")
    if id_is_of_the_place:
        for each in (came, said):
            assert HEX.fullmatch(each["headers"].pop("ce_id"))
    return same(came), same(said)


def written(sample: Sample, replies: str) -> Outgoing:
    """Return the command with a login token in its place, and the topic ``replies`` in that of ``REPLIES``."""
    command = sample.command
    value = json.dumps(command.value).encode() if command.is_json else command.value
    if sample.login is not None:
        value = value.replace(TOKEN.encode(), token_of(sample.login).encode())
    headers = [(name, (replies if text == REPLIES else text).encode()) for name, text in command.headers.items()]
    return Outgoing(value, command.key.encode(), headers, PARTITION)


def token_of(login: Login) -> str:
    long_ago = int(time.time()) - 86_400
    claims: dict[str, Any] = {"iat": long_ago, "exp": long_ago + 7200} if login.expired else {}
    return login_token(login.organisation, login.user, login.unit, **claims)


@pytest.fixture(scope="module")
def replies(shared_scene: Scene) -> Iterator[str]:
    """Yield a topic of the sender's. It has one partition, so that its answers are in order."""
    name = f"replies-{uuid4().hex[:12]}"
    create_topics(shared_scene.kafka.bootstrap, name, partitions=1)
    yield name
    delete_topics(shared_scene.kafka.bootstrap, name)


@pytest.fixture(scope="module")
def answered(shared_scene: Scene, replies: str) -> list[Record]:
    """Return the answers to all samples, sent to one worker: each from the topic that its sample names."""
    scene = shared_scene
    scene.set_effective()
    scene.execute(
        f"ALTER TABLE access_token ADD CONSTRAINT poison CHECK (id <> '{POISONED}' OR life_cycle_state <> 'EFFECTIVE')"
    )
    scene.send(*(written(sample, replies) for sample in SAMPLES))
    with scene.worker(DIGEST_KEYS=DIGEST_KEY, TOPICS__REPLY_TO_ALLOWED=replies):
        scene.wait_consumed()
    came = {name: read_to_end(scene.kafka.bootstrap, topic) for name, topic in topics_of(scene, replies).items()}
    assert {name: len(records) for name, records in came.items()} == Counter(each.result.topic for each in SAMPLES)
    return [came[sample.result.topic].pop(0) for sample in SAMPLES]


def topics_of(scene: Scene, replies: str) -> dict[str, str]:
    """Return the topics of answers by their names in the samples."""
    return {"": scene.topics.results, REPLIES: replies}


@pytest.mark.parametrize("place", range(len(SAMPLES)), ids=[sample.name for sample in SAMPLES])
def test_the_worker_answers_as_the_sample_says(answered: list[Record], place: int) -> None:
    sample = SAMPLES[place]
    is_applied = sample.status == "OK" and "dry_run" not in sample.command.headers
    came, said = compared(answered[place], sample.result, id_is_of_the_place=not is_applied)
    assert came == said


@pytest.mark.usefixtures("answered")
def test_transition_events_are_those_of_the_samples(shared_scene: Scene) -> None:
    check_all(shared_scene.transitions(), [each.transition for each in SAMPLES if each.transition is not None])


@pytest.mark.usefixtures("answered")
def test_dead_letters_are_those_of_the_samples(shared_scene: Scene) -> None:
    check_all(shared_scene.dead_letters(), [each.dead_letter for each in SAMPLES if each.dead_letter is not None])


def check_all(records: Sequence[Record], samples: Sequence[Shown]) -> None:
    assert len(records) == len(samples)
    for record, sample in zip(records, samples, strict=True):
        came, said = compared(record, sample)
        assert came == said


def test_the_sdk_of_cloudevents_reads_what_the_worker_wrote(answered: list[Record], shared_scene: Scene) -> None:
    transitions = shared_scene.transitions()
    assert len(answered) > len(transitions) > 1
    for record in (*answered, *transitions):
        headers = {name: value or b"" for name, value in record.headers}
        event = from_binary(KafkaMessage(headers, record.key, record.value or b""), JSONFormat())
        assert event.get_id() == headers["ce_id"].decode()
        assert event.get_type() in {RESULT_TYPE, TRANSITION_TYPE}
        assert event.get_data() == json.loads(record.value or b"")


def test_no_sample_holds_a_login_token() -> None:
    assert all("eyJ" not in json.dumps(document(sample)) for sample in SAMPLES)
