"""The mark of announced imports: the requests for it, and the reading of the answers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from aiokafka import errors as kafka
from aiokafka.protocol.admin import DescribeGroupsRequest_v0, DescribeGroupsResponse_v0, DescribeGroupsResponse_v3
from aiokafka.protocol.commit import OffsetCommitResponse_v3, OffsetFetchResponse_v3

from worker.errors import DependencyUnavailable
from worker.kafka.rights import GroupRights
from worker.operations.imports import mark
from worker.operations.imports.mark import KEPT_MS, Mark, MarkForbidden, mark_of, may_mark, read_mark, write_mark
from worker.settings import Settings, read_settings

HASH: Final = bytes(range(32))
SAID: Final = f"40 {HASH.hex()}"
SETTINGS: Final = read_settings({"WORKER_KAFKA__GROUP_ID": "g", "WORKER_TOPICS__TRANSITIONS": "t"})


class Coordinator:
    """The admin client's side of a cluster.

    ``answers`` are the replies it gets, one after the other, the last repeated forever; an exception ends the search
    for the coordinator.
    """

    def __init__(self, *answers: Any) -> None:
        self._answers = list(answers)
        self.asked: list[Any] = []

    async def find_coordinator(self, group: str) -> int:
        assert group == "g.import"
        if isinstance(self._answers[0], Exception):
            raise self._next()
        return 7

    async def _send_request(self, request: Any, node: int) -> Any:
        assert node == 7
        self.asked.append(request)
        return self._next()

    def _next(self) -> Any:
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make the broker answer so."""

    def answer(*answers: Any) -> Coordinator:
        coordinator = Coordinator(*answers)

        @asynccontextmanager
        async def admin_client(_: Settings) -> AsyncIterator[Coordinator]:
            yield coordinator

        monkeypatch.setattr(mark, "admin_client", admin_client)
        return coordinator

    return answer


def fetched(offset: int = -1, metadata: str = "", *, error: int = 0, whole: int = 0) -> OffsetFetchResponse_v3:
    return OffsetFetchResponse_v3(0, [("t", [(0, offset, metadata, error)])], whole)


def committed(error: int = 0) -> OffsetCommitResponse_v3:
    return OffsetCommitResponse_v3(0, [("t", [(0, error)])])


@pytest.mark.parametrize(
    ("offset", "metadata", "found"),
    [
        (40, SAID, Mark(40, HASH)),
        (0, f"0 {HASH.hex()}", Mark(0, HASH)),
        (41, SAID, None),
        (40, HASH.hex(), None),
        (-1, "", None),
        (-1, None, None),
        (40, "", None),
        (40, None, None),
        (40, "set by hand", None),
        (40, f"40 {HASH.hex().upper()}", None),
        (40, f"{SAID}\n", None),
    ],
)
def test_a_mark_is_what_an_import_has_committed_and_nothing_else(
    offset: int, metadata: str | None, found: Mark | None
) -> None:
    assert mark_of(offset, metadata) == found


async def test_a_mark_is_read_of_the_groups_own_offset(told: Any) -> None:
    coordinator = told(fetched(40, SAID))
    assert await read_mark(SETTINGS) == Mark(40, HASH)
    [asked] = coordinator.asked
    assert (asked._consumer_group, asked._partitions) == ("g.import", [("t", [0])])


@pytest.mark.parametrize("topics", [[], [("t", [])]])
async def test_a_broker_may_leave_out_what_has_no_offset(told: Any, topics: Any) -> None:
    told(OffsetFetchResponse_v3(0, topics, 0))
    assert await read_mark(SETTINGS) is None


async def test_a_mark_is_kept_longer_than_a_group_without_members_remembers(told: Any) -> None:
    coordinator = told(committed())
    await write_mark(SETTINGS, Mark(40, HASH))
    [asked] = coordinator.asked
    assert asked._topics == [("t", [(0, 40, SAID)])]
    assert (asked._consumer_group_generation_id, asked._consumer_id) == (-1, "")  # as a client that is no member
    assert asked._retention_time == KEPT_MS > 10 * 365 * 24 * 60 * 60 * 1000


async def test_a_coordinator_that_is_not_there_yet_is_asked_again(told: Any) -> None:
    told(kafka.GroupCoordinatorNotAvailableError(), fetched(whole=14), fetched(error=16), fetched(5, f"5 {HASH.hex()}"))
    assert await read_mark(SETTINGS) == Mark(5, HASH)


async def test_a_coordinator_that_does_not_come_is_not_waited_for_for_ever(told: Any) -> None:
    told(kafka.GroupCoordinatorNotAvailableError())
    impatient = SETTINGS.model_copy(update={"kafka": SETTINGS.kafka.model_copy(update={"request_timeout_ms": 100})})
    with pytest.raises(DependencyUnavailable, match=r"the coordinator of the group g\.import does not answer"):
        await read_mark(impatient)


@pytest.mark.parametrize(
    "answer",
    [kafka.GroupAuthorizationFailedError(), fetched(whole=30), fetched(error=29)],
    ids=["no look at the group", "the group", "the topic"],
)
async def test_a_right_that_is_lacking_is_named(told: Any, answer: Any) -> None:
    told(answer)
    with pytest.raises(MarkForbidden, match=r"allow READ on the group g\.import and on the topic t"):
        await read_mark(SETTINGS)


@pytest.mark.parametrize(
    ("code", "error"), [(30, MarkForbidden), (29, MarkForbidden), (25, kafka.UnknownMemberIdError)]
)
async def test_a_mark_that_is_not_taken_is_an_error(told: Any, code: int, error: type[Exception]) -> None:
    told(committed(code))
    with pytest.raises(error):
        await write_mark(SETTINGS, Mark(40, HASH))


def described(rights: int, error: int = 0) -> DescribeGroupsResponse_v3:
    return DescribeGroupsResponse_v3(0, [(error, "g.import", "Dead", "", "", [], rights)])


@pytest.mark.parametrize(
    ("answer", "may"),
    [
        (described(1 << 3 | 1 << 8), True),
        (described(1 << 8), False),
        (described(-(2**31)), None),
        (described(-(2**31), 30), False),
        (kafka.GroupAuthorizationFailedError(), False),
        (DescribeGroupsResponse_v0([(0, "g.import", "Dead", "", "", [])]), None),
    ],
    ids=["READ", "DESCRIBE only", "not told", "refused", "not seen", "an older broker"],
)
async def test_a_broker_says_whether_the_mark_may_be_kept(told: Any, answer: Any, may: bool | None) -> None:
    told(answer)
    assert await may_mark(SETTINGS) is may


async def test_a_group_that_cannot_be_looked_at_is_no_right_that_is_lacking(told: Any) -> None:
    told(described(-(2**31), 15))
    with pytest.raises(
        DependencyUnavailable, match=r"the group g\.import cannot be looked at: .* group coordinator is not active"
    ):
        await may_mark(SETTINGS)


@pytest.mark.parametrize(("newest", "version"), [(5, 3), (2, 0)])
def test_rights_are_asked_for_where_broker_and_client_can(newest: int, version: int) -> None:
    asked = GroupRights("g").prepare({DescribeGroupsRequest_v0.API_KEY: (0, newest)})
    assert (type(asked).API_VERSION, bool(asked.encode())) == (version, True)
