"""One acceptance test's world: its topics, its database, and the workers it starts in them."""

import asyncio
import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeVar

import asyncpg
import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType

from effective_contract.transition import verify_chain
from tests.acceptance.clients import (
    Headers,
    Outgoing,
    Record,
    consumed_offsets,
    log_ends,
    read_committed,
    read_to_end,
    send,
    wait_consumed,
    wait_settled,
)
from tests.acceptance.worker_process import USUAL, WorkerProcess
from tests.providers import Unavailable
from tests.providers.kafka import JvmKafka, KafkaServer, TopicNames, create_topics, warm_up
from tests.providers.postgres import DatabaseUnderTest, PostgresServer
from tests.support import waiting
from tests.support.logins import login_token
from tests.support.pace import patience
from tests.support.seeded import EFFECTIVE_CODE

PARTITIONS: Final = 4
NUMBER: Final = "correlation_id"
"""The header with the number of a load's command: the worker returns it with the answer."""

T = TypeVar("T")


def body(code: str, *, token: str | None = None, fields_set: str | None = None, **members: Any) -> bytes:
    """Return a command by authentication code, with a good login of ORG1 unless another ``token`` is given."""
    whole = {"token": token or login_token(), "access_token_identifier": {"authentication_code": code}}
    if fields_set is not None:
        whole["fields_set"] = fields_set
    return json.dumps({**whole, **members}).encode()


def event_id(identity: str, source: str = "/shop") -> Headers:
    """Return the headers by which a sender names a command."""
    return [("ce_id", identity.encode()), ("ce_source", source.encode())]


def answer(record: Record) -> Any:
    """Return a result's value."""
    assert record.value is not None
    return json.loads(record.value)


def status(record: Record) -> tuple[str, str | None]:
    """Return a result's code and replay flag, on which its body and its headers must agree."""
    code = answer(record)["status"]["code"]
    assert record.header("status_code") == code.encode()
    replayed = record.header("replayed")
    return code, None if replayed is None else replayed.decode()


_NEVER_TWICE: Final = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Scene:
    """Topics and a database of the test's own, and the means to run a worker on them."""

    kafka: KafkaServer
    postgres: PostgresServer
    topics: TopicNames
    database: DatabaseUnderTest
    settings: dict[str, str] = field(repr=False)
    directory: Path

    @property
    def group(self) -> str:
        return self.settings["WORKER_KAFKA__GROUP_ID"]

    def worker(self, *, command: Sequence[str] = USUAL, **settings: str) -> WorkerProcess:
        """Return a worker that is not started yet. ``settings`` are variables without their ``WORKER_``."""
        changed = {f"WORKER_{name}": value for name, value in settings.items()}
        return WorkerProcess(self.settings | changed, self.directory, command=command, preloaded=True)

    # --- Kafka --------------------------------------------------------------------------------------------------------

    def send(self, *records: Outgoing | bytes) -> list[tuple[int, int]]:
        return send(self.kafka.bootstrap, self.topics.commands, records)

    def results(self, until: int, *, seconds: float = waiting.SECONDS) -> list[Record]:
        """Return the results, by partition and offset, once there are at least so many. Fails if there are more."""
        read_committed(self.kafka.bootstrap, self.topics.results, until=until, seconds=seconds)
        records = self.seen(self.topics.results)
        assert len(records) == until
        return records

    def seen(self, topic: str) -> list[Record]:
        """Return all that a ``read_committed`` reader sees when no transaction is open any more."""
        wait_settled(self.kafka.bootstrap, topic)
        return read_to_end(self.kafka.bootstrap, topic)

    def transitions(self) -> list[Record]:
        return self.seen(self.topics.transitions)

    def dead_letters(self) -> list[Record]:
        return self.seen(self.topics.dead_letters)

    def count_written(self) -> int:
        """Return the end of the results topic, markers of transactions included: a measure of progress."""
        return sum(log_ends(self.kafka.bootstrap, self.topics.results).values())

    def count_sent(self) -> int:
        """Return the number of commands sent."""
        return sum(log_ends(self.kafka.bootstrap, self.topics.commands).values())

    def count_consumed(self) -> int:
        """Return the number of commands that the group has committed."""
        return sum(consumed_offsets(self.kafka.bootstrap, self.group, self.topics.commands).values())

    def wait_consumed(self, seconds: float = waiting.SECONDS) -> None:
        wait_consumed(self.kafka.bootstrap, self.group, self.topics.commands, seconds=seconds)

    def set_offset(self, partition: int, offset: int) -> None:
        """Set the group's offset by hand, as an operator does it with no worker in the group."""
        place = TopicPartition(self.topics.commands, partition, offset)
        admin = self.admin()
        asked = admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(self.group, [place])])
        for answered in asked[self.group].result(timeout=patience(waiting.SECONDS)).topic_partitions:
            assert answered.error is None

    def admin(self) -> AdminClient:
        """Return an operator's admin client. Keep a reference to it until it has answered."""
        return AdminClient({"bootstrap.servers": self.kafka.bootstrap, "log_level": 0})

    def set_up(self, name: str, setting: str, value: str, *, kind: ResourceType = ResourceType.TOPIC) -> None:
        """Change one setting of a topic, or of a broker; it is in effect when this returns.

        A broker describes a change before it acts on it, but acts on it before it takes in the next one.
        """
        self._change(kind, name, setting, value)
        self._change(ResourceType.TOPIC, self.topics.commands, "segment.jitter.ms", str(next(_NEVER_TWICE)))

    def _change(self, kind: ResourceType, name: str, setting: str, value: str) -> None:
        entry = ConfigEntry(setting, value, incremental_operation=AlterConfigOpType.SET)
        admin, patient = self.admin(), patience(waiting.SECONDS)
        changed = ConfigResource(kind, name, incremental_configs=[entry])
        for altered in admin.incremental_alter_configs([changed]).values():
            altered.result(timeout=patient)

        def described() -> str:
            [entries] = admin.describe_configs([ConfigResource(kind, name)]).values()
            return str(entries.result(timeout=patient)[setting].value)

        waiting.wait_until(described, lambda shown: shown == value, what=f"{name} had {setting}={value}", pause=0.01)

    # --- Postgres -----------------------------------------------------------------------------------------------------

    def ask(self, question: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        """Run a query as the database's owner."""

        async def put() -> T:
            connection = await asyncpg.connect(self.database.owner_dsn)
            try:
                return await question(connection)
            finally:
                await connection.close()

        return asyncio.run(put())

    def rows(self, query: str, *arguments: Any) -> list[dict[str, Any]]:
        return [dict(row) for row in self.ask(lambda connection: connection.fetch(query, *arguments))]

    def set_effective(self, code: str = EFFECTIVE_CODE) -> str:
        """Make an access token of the fixture effective without a history, which only the owner can do."""
        self.execute("UPDATE access_token SET life_cycle_state = 'EFFECTIVE' WHERE authentication_code = $1", code)
        return code

    def execute(self, statement: str, *arguments: Any) -> None:
        self.ask(lambda connection: connection.execute(statement, *arguments))

    def every_table(self) -> dict[str, list[dict[str, Any]]]:
        """Return every row of every table, sorted."""

        async def read(connection: asyncpg.Connection) -> dict[str, list[dict[str, Any]]]:
            names = await connection.fetch(
                "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1"
            )
            return {
                name: sorted((dict(row) for row in await connection.fetch(f'SELECT * FROM "{name}"')), key=str)
                for (name,) in names
            }

        return self.ask(read)

    def new_tokens(self, count: int, *, prefix: str = "load", organisation: str = "ORG1") -> list[str]:
        """Make so many new access tokens that are not effective, and return their authentication codes."""
        self.execute(
            "INSERT INTO access_token (organisation, id, number, life_cycle_state, authentication_code)"
            " SELECT $1, $2 || '-' || n, $2 || '-' || n, 'NOT_EFFECTIVE', $2 || '-' || n"
            " FROM generate_series(1, $3) AS n",
            organisation,
            prefix,
            count,
        )
        return [f"{prefix}-{n}" for n in range(1, count + 1)]


@dataclass(frozen=True, slots=True)
class Load:
    """Commands for one access token each, numbered from 1 and dealt over the partitions in turn."""

    scene: Scene
    codes: list[str]

    def send(self, first: int, last: int) -> None:
        """Send the commands number ``first`` to ``last``."""
        token = login_token()
        self.scene.send(*(self._command(number, token) for number in range(first, last + 1)))

    def _command(self, number: int, token: str) -> Outgoing:
        code = self.codes[number - 1]
        value = body(code, token=token, fields_set="authentication_code,life_cycle_state")
        return Outgoing(value, code.encode(), [(NUMBER, str(number).encode())], number % PARTITIONS)

    def check_exactly_once(self) -> None:
        """Check for one answer per command in their order, one transition per token, whole chains, and no lag."""
        scene = self.scene
        sent = range(1, len(self.codes) + 1)
        in_order = {place: [n for n in sent if n % PARTITIONS == place] for place in range(PARTITIONS)}
        results = scene.seen(scene.topics.results)
        assert numbers_by_partition(results) == in_order
        assert Counter(map(status, results)) == {("OK", "false"): len(self.codes)}
        shown = {"life_cycle_state": "EFFECTIVE"}
        assert [answer(record)["data"] for record in results] == [
            {"authentication_code": self.codes[int(record.header(NUMBER) or 0) - 1], **shown} for record in results
        ]
        assert scene.dead_letters() == []
        self.check_transitions(scene.transitions())
        self.check_consumed()

    def check_at_least_once(self) -> None:
        """Check that every command is answered, and that repetitions are the same by id and in every byte.

        Also check for one transition per token, whole chains, and no lag.
        """
        scene = self.scene
        results = scene.seen(scene.topics.results)
        assert set(map(status, results)) == {("OK", "false")}
        given = {(record.header(NUMBER), record.header("ce_id"), record.value) for record in results}
        numbers, events = {number for number, _, _ in given}, {event for _, event, _ in given}
        assert len(given) == len(numbers) == len(events) == len(self.codes)
        for place in numbers_by_partition(results).values():
            first_answers = list(dict.fromkeys(place))
            assert first_answers == sorted(first_answers)
        assert scene.dead_letters() == []
        self.check_transitions(list({record.value: record for record in scene.transitions()}.values()))
        self.check_consumed()

    def check_transitions(self, records: Sequence[Record]) -> None:
        """Check for one event per token in ``records``, the same in the table, and whole chains in both."""
        published = [answer(record) for record in records]
        assert Counter(event["access_token_id"] for event in published) == Counter(self.codes)
        recorded = history(self.scene)
        assert sorted(published, key=_place) == recorded
        check_chains(recorded)
        state = self.scene.rows(
            "SELECT life_cycle_state, version, count(*) FROM access_token WHERE id = ANY ($1) GROUP BY 1, 2", self.codes
        )
        assert state == [{"life_cycle_state": "EFFECTIVE", "version": 1, "count": len(self.codes)}]

    def check_consumed(self) -> None:
        """Check that the group has committed all that was sent, to the last command."""
        scene = self.scene
        ends = {place: end for place, end in log_ends(scene.kafka.bootstrap, scene.topics.commands).items() if end}
        assert consumed_offsets(scene.kafka.bootstrap, scene.group, scene.topics.commands) == ends
        assert sum(ends.values()) == len(self.codes)


def numbers_by_partition(results: Iterable[Record]) -> dict[int, list[int]]:
    """Return the numbers of the commands that the results answer, in the order of the results."""
    numbers: dict[int, list[int]] = defaultdict(list)
    for record in results:
        numbers[record.partition].append(int(record.header(NUMBER) or 0))
    return dict(numbers)


def history(scene: Scene) -> list[dict[str, Any]]:
    """Return the transitions of the table as the events due for publication, by lane and sequence."""
    rows = scene.rows(
        "SELECT t.*, l.cluster, l.consumer_group, l.topic, l.partition"
        " FROM transition AS t JOIN lane AS l ON l.id = t.lane"
    )
    return sorted(map(_event, rows), key=_place)


def _event(row: dict[str, Any]) -> dict[str, Any]:
    place = [row.pop(name) for name in ("cluster", "consumer_group", "topic", "partition")]
    del row["record_offset"]
    return {
        **row,
        "lane": "/".join(map(str, place)),
        "occurred_at": f"{row['occurred_at']:%Y-%m-%dT%H:%M:%S.%f}Z",
        "previous_hash": row["previous_hash"].hex(),
        "hash": row["hash"].hex(),
    }


def _place(event: dict[str, Any]) -> tuple[str, int]:
    return event["lane"], event["sequence"]


def check_chains(events: Iterable[dict[str, Any]]) -> None:
    """Check that every lane's chain is whole. ``events`` are in order within their lane."""
    lanes: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        lanes[event["lane"]].append(event)
    assert {lane: verify_chain(chain) for lane, chain in lanes.items()} == dict.fromkeys(lanes)


@contextmanager
def on_a_broker_of_its_own(scene: Scene, broker: JvmKafka) -> Iterator[Scene]:
    """Yield the same scene on a broker that no other test uses; skip the test if there is none."""
    try:
        asyncio.run(broker.start())
    except Unavailable as reason:
        pytest.skip(f"a broker of its own: {reason}")
    warm_up(broker.bootstrap)
    topics = scene.topics
    create_topics(broker.bootstrap, topics.commands, topics.results, topics.transitions, topics.dead_letters)
    yield replace(scene, kafka=broker, settings=scene.settings | {"WORKER_KAFKA__BOOTSTRAP_SERVERS": broker.bootstrap})
    asyncio.run(broker.dispose())
