"""Reply topics that a sender may choose, and the broker requests that check them."""

from collections.abc import Mapping, Sequence
from typing import Final

import orjson
import pytest
from aiokafka.partitioner import murmur2
from msgspec.structs import replace

from effective_contract.codes import StatusCode
from tests.support.builders import delivery
from worker.errors import DependencyUnavailable
from worker.journey.decode.command import decode
from worker.journey.model import Command, Decoded, Refused, ReplyTo
from worker.journey.reply_topics import AVOIDED_SECONDS, KNOWN_SECONDS, MISSING_SECONDS, MOST_TOPICS, Replies
from worker.kafka.delivery import Header

BODY: Final = orjson.dumps({"token": "t", "access_token_identifier": {"authentication_code": "c"}})
OWN: Final = ("commands", "results", "transitions", "dead-letters")


class World:
    """A broker's topics, the requests it got, and the time."""

    def __init__(self, *allowed: str, **topics: int) -> None:
        self.topics = dict(topics)
        self.asked: list[list[str]] = []
        self.away = False
        self.now = 0.0
        self.replies = Replies(allowed, own=OWN, look=self.look, clock=lambda: self.now)

    async def look(self, topics: Sequence[str]) -> Mapping[str, int]:
        self.asked.append(sorted(topics))
        if self.away:
            raise DependencyUnavailable("kafka", "away")
        return {topic: self.topics[topic] for topic in topics if topic in self.topics}

    async def judged(self, *headers: Header, value: bytes = BODY) -> Decoded:
        [item] = await self.replies.judged([decode(delivery(value, headers), max_bytes=65_536)])
        return item

    async def refusal(self, *headers: Header) -> str:
        item = await self.judged(*headers)
        assert isinstance(item.request, Refused)
        assert item.request.code is StatusCode.INVALID_PARAMETER
        assert item.envelope.reply is None
        return item.request.message


def to(topic: str, partition: int | None = None) -> tuple[Header, ...]:
    place = ("reply_to", topic.encode())
    return (place,) if partition is None else (place, ("kafka_replyPartition", partition.to_bytes(4, "big")))


# --- allowed topics ---------------------------------------------------------------------------------------------------


async def test_a_named_partition_is_taken_as_it_is() -> None:
    item = await World("replies", replies=4).judged(*to("replies", 3))

    assert isinstance(item.request, Command)
    assert item.envelope.reply == ReplyTo("reply_to", "replies", 3)


async def test_without_a_partition_the_key_decides_as_with_any_producer() -> None:
    item = await World("replies", replies=7).judged(*to("replies"))

    assert item.envelope.reply == ReplyTo("reply_to", "replies", (murmur2(b"key") & 0x7FFFFFFF) % 7)


async def test_without_a_key_the_lanes_own_number_decides() -> None:
    world = World("replies", replies=4)
    at_six = decode(delivery(BODY, to("replies")), max_bytes=65_536)
    keyless = replace(at_six.delivery, key=None, coordinates=replace(at_six.delivery.coordinates, partition=6))

    [item] = await world.replies.judged([replace(at_six, delivery=keyless)])

    assert item.envelope.reply == ReplyTo("reply_to", "replies", 2)


@pytest.mark.parametrize("pattern", ["shop.replies", "shop.*", "*", "shop.repl?es", "s[ah]op.replies", "x", ""])
async def test_patterns_are_read_as_a_shell_reads_them(pattern: str) -> None:
    world = World("another", pattern, **{"shop.replies": 1, "shopXreplies": 1})

    allowed = isinstance((await world.judged(*to("shop.replies"))).request, Command)

    assert allowed == (pattern not in {"x", ""})
    assert isinstance((await world.judged(*to("shopXreplies"))).request, Refused) or pattern == "*"


async def test_by_default_no_topic_is_allowed_and_nobody_is_asked() -> None:
    world = World(replies=1)

    assert "to which no answers may be sent" in await world.refusal(*to("replies"))
    assert world.asked == []


@pytest.mark.parametrize("topic", OWN)
async def test_the_workers_own_topics_are_nobodys_reply_topic(topic: str) -> None:
    world = World("*", **dict.fromkeys(OWN, 4))

    assert "own topics" in await world.refusal(*to(topic))
    assert world.asked == []


async def test_a_topic_must_exist_and_have_the_partition() -> None:
    world = World("*", replies=4)

    assert "does not exist" in await world.refusal(*to("nowhere"))
    assert "none with the number 4" in await world.refusal(*to("replies", 4))


async def test_what_is_wrong_with_the_body_comes_first_and_is_answered_in_the_results_topic() -> None:
    item = await World("*").judged(*to("nowhere"), value=b"not JSON")

    assert isinstance(item.request, Refused)
    assert item.request.code is StatusCode.MALFORMED_REQUEST
    assert item.envelope.reply is None


async def test_a_refusal_goes_where_its_sender_waits() -> None:
    item = await World("*", replies=1).judged(*to("replies"), value=b"not JSON")

    assert item.envelope.reply == ReplyTo("reply_to", "replies", 0)


# --- requests ---------------------------------------------------------------------------------------------------------


async def test_a_batch_asks_once_for_its_topics_and_the_next_one_not_at_all() -> None:
    world = World("*", a=1, b=1)
    batch = [decode(delivery(BODY, to(topic)), max_bytes=65_536) for topic in ("a", "b", "a", "c")]

    first = await world.replies.judged(batch)

    assert [item.envelope.reply is not None for item in first] == [True, True, True, False]
    assert await world.replies.judged(batch) == first
    assert world.asked == [["a", "b", "c"]]


async def test_a_batch_that_wants_nothing_of_the_kind_is_left_as_it_is() -> None:
    batch = [decode(delivery(BODY), max_bytes=65_536)]

    assert await World("*").replies.judged(batch) is batch


@pytest.mark.parametrize(("topic", "seconds"), [("there", KNOWN_SECONDS), ("missing", MISSING_SECONDS)])
async def test_what_is_known_has_an_age(topic: str, seconds: float) -> None:
    world = World("*", there=1)
    for now in (0.0, seconds - 0.1, seconds):
        world.now = now
        await world.judged(*to(topic))

    assert len(world.asked) == 2


async def test_a_partition_that_is_new_is_seen_soon() -> None:
    world = World("*", grows=1)
    await world.judged(*to("grows", 0))
    world.topics["grows"] = 2

    assert "none with the number 1" in await world.refusal(*to("grows", 1))
    world.now = MISSING_SECONDS
    assert isinstance((await world.judged(*to("grows", 1))).request, Command)


async def test_a_broker_that_is_away_is_waited_for_only_if_nothing_is_known() -> None:
    world = World("*", known=1)
    await world.judged(*to("known"))
    world.away, world.now = True, 10 * KNOWN_SECONDS

    assert (await world.judged(*to("known"))).envelope.reply is not None
    with pytest.raises(DependencyUnavailable):
        await world.judged(*to("unknown"))


async def test_a_sender_of_ever_new_names_fills_no_memory() -> None:
    world = World("*", good=1)
    names = [f"n{number}" for number in range(MOST_TOPICS + 100)]
    batch = [decode(delivery(BODY, to(name)), max_bytes=65_536) for name in [*names, "good"]]

    judged = await world.replies.judged(batch)

    assert judged[-1].envelope.reply is not None
    assert len(world.replies._counts) == MOST_TOPICS
    assert len(world.asked) == 1


# --- avoided requests -------------------------------------------------------------------------------------------------

PLACE: Final = ReplyTo("reply_to", "replies", 1)


async def test_a_topic_to_blame_is_avoided_for_a_while() -> None:
    world = World("*", replies=2, other=2)
    other = replace(PLACE, topic="other")

    await world.replies.failed([PLACE, other], {"replies", "results"})

    assert not world.replies.reachable(PLACE)
    assert world.replies.reachable(other)
    world.now = AVOIDED_SECONDS
    assert world.replies.reachable(PLACE)


@pytest.mark.parametrize("left", [{}, {"replies": 1}])
async def test_a_topic_that_is_gone_is_avoided_even_if_it_was_known(left: dict[str, int]) -> None:
    world = World("*", replies=2)
    await world.judged(*to("replies"))
    world.topics = left

    await world.replies.failed([PLACE], ())

    assert not world.replies.reachable(PLACE)


async def test_a_failure_that_is_nobodys_changes_nothing() -> None:
    world = World("*", replies=2)
    await world.replies.failed([PLACE], ())
    world.away = True
    world.now = 10 * KNOWN_SECONDS
    await world.replies.failed([PLACE], ())

    assert world.replies.reachable(PLACE)
