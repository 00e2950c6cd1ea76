"""The partition of a message: the lane's own number, or the one that every other Kafka client would choose."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Final, cast
from urllib.parse import unquote

import pytest
from aiokafka import TopicPartition
from aiokafka import errors as kafka
from aiokafka.partitioner import murmur2
from hypothesis import example, given
from hypothesis import strategies as st

from worker.errors import DependencyUnavailable, OutcomeUnknown, StampsRefused
from worker.journey.messages import Message
from worker.lanes.context import LaneId
from worker.lanes.publisher import (
    Commits,
    IdempotentPublisher,
    Sent,
    TransactionalPublisher,
    WatchedProducer,
    former_id,
    own_or_keyed,
    send,
    transactional_id,
)

SOURCE: Final = TopicPartition("commands", 2)

# The Java client's own expectations (UtilsTest.testMurmur2), as signed 32-bit numbers.
JAVA_MURMUR2: Final = (
    (b"21", -973932308),
    (b"foobar", -790332482),
    (b"a-little-bit-long-string", -985981536),
    (b"a-little-bit-longer-string", -1486304829),
    (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
    (b"abc", 479470107),
)


@pytest.mark.parametrize(("key", "expected"), JAVA_MURMUR2)
def test_the_hash_of_a_key_is_the_java_clients(key: bytes, expected: int) -> None:
    assert murmur2(key) & 0xFFFFFFFF == expected & 0xFFFFFFFF


@pytest.mark.parametrize(("key", "expected"), JAVA_MURMUR2)
@pytest.mark.parametrize("count", [1, 3, 12, 100])
def test_a_keyed_message_goes_where_the_java_client_would_send_it(key: bytes, expected: int, count: int) -> None:
    assert own_or_keyed(key, 5, 7, count) == (expected & 0x7FFFFFFF) % count


@given(st.binary(max_size=64), st.integers(1, 200), st.integers(0, 199))
def test_where_the_counts_are_equal_a_lane_writes_to_its_own_number(key: bytes, count: int, own: int) -> None:
    own %= count

    assert own_or_keyed(key, own, count, count) == own
    assert own_or_keyed(None, own, count, count) == own


@given(st.one_of(st.none(), st.binary(max_size=64)), st.integers(0, 199), st.integers(0, 200), st.integers(1, 200))
def test_every_message_has_a_partition_that_exists(key: bytes | None, own: int, own_count: int, count: int) -> None:
    assert 0 <= own_or_keyed(key, own, own_count, count) < count


@given(st.binary(max_size=64), st.integers(0, 99), st.integers(0, 99))
def test_where_the_counts_differ_a_key_has_one_partition_whichever_lane_writes(
    key: bytes, one: int, other: int
) -> None:
    assert own_or_keyed(key, one, 100, 7) == own_or_keyed(key, other, 100, 7)


# --- the transactional id ---------------------------------------------------------------------------------------------


def test_one_transactional_id_per_input_partition() -> None:
    assert transactional_id(LaneId("c", "group", SOURCE)) == "group.commands.2"


def test_what_is_no_separator_stays_readable_and_as_it_was() -> None:
    lane = LaneId("c", "effective-worker/Köln 1", TopicPartition("access-token.set-effective.commands", 11))
    assert transactional_id(lane) == "effective-worker/Köln 1.access-token.set-effective.commands.11"
    assert former_id(lane) is None


_GROUPS = st.text(alphabet="a.%2E5/é", min_size=1, max_size=6)
_TOPICS = st.text(alphabet="ab.2E-_", min_size=1, max_size=6)
_LANES = st.builds(LaneId, st.just("c"), _GROUPS, st.builds(TopicPartition, _TOPICS, st.integers(0, 30)))


@given(_LANES, _LANES)
@example(LaneId("c", "a", TopicPartition("b.c", 0)), LaneId("c", "a.b", TopicPartition("c", 0)))
@example(LaneId("c", "a.", TopicPartition("b", 0)), LaneId("c", "a%2E", TopicPartition("b", 0)))
def test_no_two_lanes_share_a_transactional_id(one: LaneId, other: LaneId) -> None:
    assert (transactional_id(one) == transactional_id(other)) == (one == other)


@given(_LANES)
def test_the_parts_of_a_transactional_id_can_be_told(lane: LaneId) -> None:
    group, rest = transactional_id(lane).split(".", 1)
    topic, number = rest.rsplit(".", 1)
    assert LaneId("c", unquote(group), TopicPartition(topic, int(number))) == lane


class Starts:
    """The transactional ids with which producers were started in the lane of ``started``, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ids: list[str | None] = []
        self.refused: dict[str, Exception] = {}
        monkeypatch.setattr("worker.lanes.publisher.started", self._started)

    async def _started(self, options: dict[str, Any], _: float) -> Any:
        name = options.get("transactional_id")
        self.ids.append(name)
        if name in self.refused:
            raise DependencyUnavailable("kafka", "refused") from self.refused[name]
        return SimpleNamespace(drop=self._drop)

    async def _drop(self) -> None:
        pass


def publisher(
    mode: type[TransactionalPublisher] | type[IdempotentPublisher], group: str
) -> TransactionalPublisher | IdempotentPublisher:
    timeout: dict[str, Any] = {"transaction_timeout_ms": 1000, "partitions": lambda: 1}
    lane = LaneId("c", group, SOURCE)
    if mode is TransactionalPublisher:
        return TransactionalPublisher(lane, {}, **timeout)
    return IdempotentPublisher(lane, {}, **timeout, commits=cast(Any, None))


@pytest.mark.parametrize(
    ("mode", "group", "first", "again"),
    [
        (TransactionalPublisher, "group", ["group.commands.2"], ["group.commands.2"]),
        (
            TransactionalPublisher,
            "my.group",
            ["my.group.commands.2", "my%2Egroup.commands.2"],
            ["my%2Egroup.commands.2"],
        ),
        (IdempotentPublisher, "group", ["group.commands.2", None], ["group.commands.2", None]),
        (
            IdempotentPublisher,
            "my.group",
            ["my.group.commands.2", "my%2Egroup.commands.2", None],
            ["my%2Egroup.commands.2", None],
        ),
    ],
)
async def test_an_older_workers_id_is_settled_once_in_a_lanes_life(
    monkeypatch: pytest.MonkeyPatch,
    mode: type[TransactionalPublisher] | type[IdempotentPublisher],
    group: str,
    first: list[str | None],
    again: list[str | None],
) -> None:
    starts = Starts(monkeypatch)
    opened = publisher(mode, group)
    await opened.open()
    assert starts.ids == first
    await opened.open()
    assert starts.ids == first + again


async def test_an_older_workers_id_is_tried_again_if_the_broker_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    starts = Starts(monkeypatch)
    starts.refused["my.group.commands.2"] = TimeoutError()
    opened = publisher(TransactionalPublisher, "my.group")
    with pytest.raises(DependencyUnavailable):
        await opened.open()
    starts.refused.clear()
    await opened.open()
    assert starts.ids == ["my.group.commands.2", "my.group.commands.2", "my%2Egroup.commands.2"]


async def test_an_older_workers_id_that_is_forbidden_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    starts = Starts(monkeypatch)
    starts.refused["my.group.commands.2"] = kafka.TransactionalIdAuthorizationFailed()
    await publisher(TransactionalPublisher, "my.group").open()
    assert starts.ids == ["my.group.commands.2", "my%2Egroup.commands.2"]


# --- sending ----------------------------------------------------------------------------------------------------------


@dataclass
class Batch:
    room: int
    taken: list[dict[str, Any]] = field(default_factory=list)

    def append(self, **message: Any) -> object | None:
        if self.taken and len(self.taken) >= self.room:
            return None
        self.taken.append(message)
        return message


class Producer:
    """The part of a producer that ``send`` uses; every batch takes ``room`` messages."""

    def __init__(self, room: int, **counts: int) -> None:
        self._room = room
        self._counts = counts
        self.client = self
        self.followed: set[str] = set()
        self.sent: list[tuple[str, int, list[dict[str, Any]]]] = []

    def add_topic(self, topic: str) -> None:
        self.followed.add(topic)

    async def partitions_for(self, topic: str) -> set[int]:
        assert topic in self.followed, "the client may forget it"
        return set(range(self._counts[topic]))

    def create_batch(self) -> Batch:
        return Batch(self._room)

    async def send_batch(self, batch: Batch, topic: str, *, partition: int) -> "asyncio.Future[None]":
        assert {"results", "transitions"} & self._counts.keys() <= self.followed, "a client that asks may forget others"
        self.sent.append((topic, partition, batch.taken))
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future


def message(topic: str, number: int, key: bytes | None = b"key") -> Message:
    return Message(topic, key, str(number).encode(), (("name", b"value"),))


def values(batches: Sequence[tuple[str, int, list[dict[str, Any]]]]) -> list[bytes]:
    return [each["value"] for _, _, taken in batches for each in taken]


async def test_every_batch_has_a_future_and_order_is_kept_within_a_partition() -> None:
    producer = Producer(3, results=4, transitions=4)
    written = [message(topic, number) for number in range(10) for topic in ("results", "transitions")]

    futures = await send(producer, written, SOURCE, 4)

    assert len(futures) == len(producer.sent) == 8
    for topic in ("results", "transitions"):
        of_topic = [batch for batch in producer.sent if batch[0] == topic]
        assert {partition for _, partition, _ in of_topic} == {SOURCE.partition}
        assert values(of_topic) == [str(number).encode() for number in range(10)]


async def test_a_message_carries_its_key_and_its_headers() -> None:
    producer = Producer(9, results=4)

    await send(producer, [message("results", 1)], SOURCE, 4)

    [(_, _, [sent])] = producer.sent
    assert sent == {"timestamp": None, "key": b"key", "value": b"1", "headers": [("name", b"value")]}


async def test_a_topic_with_another_count_is_written_by_key() -> None:
    producer = Producer(9, results=4, transitions=7)

    await send(producer, [message("results", 1, b"abc"), message("transitions", 2, b"abc")], SOURCE, 4)

    assert {(topic, partition) for topic, partition, _ in producer.sent} == {
        ("results", 2),
        ("transitions", 479470107 % 7),
    }


async def test_a_redirected_answer_goes_to_its_partition_and_nobody_asks_how_many_there_are() -> None:
    producer = Producer(9, results=4)

    await send(producer, [message("results", 1), Message("replies", b"key", b"2", (), 6)], SOURCE, 4)

    assert {(topic, partition) for topic, partition, _ in producer.sent} == {("results", 2), ("replies", 6)}


# --- the side at fault ------------------------------------------------------------------------------------------------

STAMP: Final = kafka.InvalidTimestampError()
REDIRECTED: Final = (message("results", 1), Message("replies", None, None, (), 0), Message("others", None, None, (), 0))


def sent(**outcomes: bool | Exception | None) -> Sent:
    """Return a publication in which these topics accepted theirs, refused it (for a reason), or have not answered."""
    batches = Sent()
    for topic, outcome in outcomes.items():
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if outcome is True:
            future.set_result(None)
        elif outcome is not None:
            future.set_exception(outcome or kafka.KafkaError())
            future.exception()
        batches.add(topic, future)
    return batches


@pytest.mark.parametrize("outcome", [None, False])
async def test_a_reply_topic_is_to_blame_if_our_own_took_everything(outcome: bool | None) -> None:
    assert sent(results=True, replies=outcome, others=True).to_blame(REDIRECTED) == {"replies"}


async def test_a_reply_topic_that_nothing_could_be_handed_over_to_is_to_blame() -> None:
    assert sent(results=True, others=True).to_blame(REDIRECTED) == {"replies"}


@pytest.mark.parametrize("outcome", [None, False])
async def test_nobody_is_to_blame_if_our_own_topics_did_not_take_theirs(outcome: bool | None) -> None:
    assert sent(results=outcome, replies=None, others=None).to_blame(REDIRECTED) == frozenset()


async def test_without_a_redirected_answer_nobody_is_to_blame() -> None:
    assert sent(results=False).to_blame([message("results", 1)]) == frozenset()


@pytest.mark.parametrize(
    ("results", "replies", "kind"),
    [
        (STAMP, STAMP, StampsRefused),
        (True, STAMP, OutcomeUnknown),
        (None, STAMP, OutcomeUnknown),
        (kafka.NotEnoughReplicasError(), STAMP, OutcomeUnknown),
    ],
    ids=repr,
)
async def test_a_stamp_that_only_a_reply_topic_refuses_proves_nothing_against_the_clock(
    results: bool | Exception | None, replies: Exception, kind: type[OutcomeUnknown]
) -> None:
    """Otherwise the owner of a reply topic could make every worker leave its group."""
    batches = sent(results=results, replies=replies, others=True)
    assert type(batches.failed(replies, REDIRECTED)) is kind


# --- under the surface ------------------------------------------------------------------------------------------------


class Client:
    def __init__(self, error: BaseException | None) -> None:
        self._error = error

    async def send(self, *_: object, **__: object) -> str:
        if self._error is not None:
            raise self._error
        return "answer"


class Inner:
    def __init__(self, error: BaseException | None) -> None:
        self.client = Client(error)


@pytest.mark.parametrize(
    "error", [kafka.KafkaConnectionError(), kafka.RequestTimedOutError(), kafka.NodeNotReadyError()], ids=repr
)
async def test_a_request_whose_answer_was_lost_taints_the_producer(error: Exception) -> None:
    inner = Inner(error)
    watched = WatchedProducer(inner)

    with pytest.raises(type(error)):
        await inner.client.send(0, "request")

    assert watched.tainted


async def test_an_answered_request_leaves_no_taint() -> None:
    inner = Inner(None)
    watched = WatchedProducer(inner)

    assert await inner.client.send(0, "request") == "answer"
    assert not watched.tainted


# --- the commits of all lanes -----------------------------------------------------------------------------------------

ONE, TWO, THREE = (TopicPartition("commands", number) for number in range(3))


class Committing:
    """A consumer whose commits block until they are let through, and then end as told."""

    def __init__(self) -> None:
        self.requests: list[dict[TopicPartition, int]] = []
        self.through: list[asyncio.Future[None]] = []

    async def commit(self, offsets: dict[TopicPartition, int]) -> None:
        self.requests.append(dict(offsets))
        self.through.append(asyncio.get_running_loop().create_future())
        await self.through[-1]


async def turns() -> None:
    """Let every task go on as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


class Under:
    """A commit of lane ONE in progress, with the other lanes waiting behind it."""

    def __init__(self) -> None:
        self.consumer = Committing()
        self.commits = Commits(self.consumer)
        self.first, *self.others = (self._begin(source) for source in (ONE, TWO, THREE))

    def _begin(self, source: TopicPartition) -> "asyncio.Task[None]":
        return asyncio.ensure_future(self.commits.commit(source, 10))

    async def end(self, number: int, failure: BaseException | None = None) -> None:
        """Make the broker answer this request."""
        through = self.consumer.through[number]
        if failure is None:
            through.set_result(None)
        else:
            through.set_exception(failure)
        await turns()


@pytest.fixture
async def under() -> Under:
    under = Under()
    await turns()
    assert under.consumer.requests == [{ONE: 10}]
    return under


async def test_what_comes_while_a_commit_is_under_way_goes_with_the_next(under: Under) -> None:
    await under.end(0)

    assert under.first.done()
    assert not any(other.done() for other in under.others)
    assert under.consumer.requests[1:] == [{TWO: 10, THREE: 10}]
    await under.end(1)
    await asyncio.gather(under.first, *under.others)


async def test_a_failure_is_that_of_every_lane_of_the_request_and_of_no_other(under: Under) -> None:
    await under.end(0)
    await under.end(1, kafka.CommitFailedError())

    assert under.first.exception() is None
    assert [type(other.exception()) for other in under.others] == [kafka.CommitFailedError] * 2
    again = asyncio.ensure_future(under.commits.commit(TWO, 11))
    await turns()
    await under.end(2)
    await again


async def test_a_lane_that_is_gone_takes_its_own_offset_along_and_no_other(under: Under) -> None:
    gone, staying = under.others

    gone.cancel()
    await turns()
    await under.end(0)

    assert under.consumer.requests[1:] == [{THREE: 10}]
    await under.end(1)
    await staying


async def test_when_the_lane_that_sends_for_others_is_gone_another_sends_for_them(under: Under) -> None:
    sender, other = under.others
    await under.end(0)

    sender.cancel()
    await turns()

    assert under.consumer.requests[2:] == [{THREE: 10}]
    await under.end(2)
    await other
