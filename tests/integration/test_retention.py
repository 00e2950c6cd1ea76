"""Records are retired once they are past their time and settled, in steps that block no lane."""

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from annotated_types import Ge
from structlog.testing import capture_logs

from tests.providers.postgres import DatabaseUnderTest
from tests.support.journey import Journey, Partition, by_code, codes
from tests.support.pace import stretched
from tests.support.seeded import CARD_CODE, EFFECTIVE_CODE
from tests.support.waiting import in_time, until, until_answered
from worker.errors import StatementTimeout
from worker.observability.health import Health
from worker.observability.metrics import Metrics
from worker.operations import retention
from worker.operations.retention import Retention
from worker.postgres.pool import Database
from worker.postgres.sql import statement
from worker.settings import Settings


def ahead(seconds: float) -> Callable[[], float]:
    """Return the clock of a worker that is so far ahead."""
    return lambda: time.time() + seconds


class Retiring:
    """A worker's retention for one database, and its log."""

    def __init__(
        self,
        database: Database,
        clock: Callable[[], float] = time.time,
        *,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self.metrics = Metrics()
        self.health = Health()
        self.retention = Retention(
            database, days=30, clock=clock, metrics=self.metrics, health=self.health, timer=timer
        )

    async def retire(self) -> int:
        return await self.retention.retire(asyncio.Event())

    @property
    def said(self) -> dict[str, Any]:
        return self.health.ready()[1]


async def let_days_go_by(j: Journey, days: float) -> None:
    """Make every record so much older."""
    await j.owner.execute("UPDATE command_record SET recorded_at = recorded_at - $1::interval", timedelta(days=days))


async def lane_with_one_due(j: Journey) -> Partition:
    """Make a lane of two batches of one, both old enough; the last one stays all the same."""
    lane = await j.lane()
    await lane.run(by_code(EFFECTIVE_CODE))
    await lane.run(by_code(EFFECTIVE_CODE))
    await let_days_go_by(j, 31)
    return lane


async def after(j: Journey, days: float) -> int:
    """Count the records that a worker removes so many days later."""
    await let_days_go_by(j, days)
    return await Retiring(j.database).retire()


async def offsets(j: Journey, lane: Partition) -> list[int]:
    rows = await j.owner.fetch(
        "SELECT record_offset FROM command_record WHERE lane = $1 ORDER BY record_offset", lane.lease.lane
    )
    return [row["record_offset"] for row in rows]


async def test_records_past_their_time_and_below_the_last_batch_are_removed(j: Journey) -> None:
    lane = await j.lane()
    await lane.run(by_code(), by_code(EFFECTIVE_CODE))
    await lane.run(by_code(EFFECTIVE_CODE))
    await let_days_go_by(j, 30.01)
    old = Retiring(j.database)

    assert await old.retire() == 2

    assert await offsets(j, lane) == [2]
    assert b"effective_worker_records_retired_total 2.0" in old.metrics.text()


async def test_the_time_since_nothing_was_due_grows_until_everything_is_removed(j: Journey) -> None:
    moments = [0.0]
    disagreeing = Retiring(j.database, ahead(3600), timer=lambda: moments[0])
    agreeing = Retiring(j.database, timer=lambda: moments[0])
    moments[0] = 900.0
    await disagreeing.retire()
    await agreeing.retire()
    moments[0] = 960.0
    assert (disagreeing.retention.behind_seconds, agreeing.retention.behind_seconds) == (960.0, 60.0)


async def test_records_within_their_time_stay(j: Journey) -> None:
    lane = await j.lane()
    await lane.run(by_code())
    await lane.run(by_code(EFFECTIVE_CODE))

    assert await after(j, 29.99) == 0
    assert await offsets(j, lane) == [0, 1]


async def test_the_last_batch_stays_however_old_since_it_may_not_be_published(j: Journey) -> None:
    lane = await j.lane()
    first = await lane.run(by_code(), by_code(EFFECTIVE_CODE))

    assert await after(j, 1000) == 0

    assert await (await lane.taken_over()).take(lane.log) == first


async def test_records_of_every_lane_are_retired(j: Journey) -> None:
    lanes = [await j.lane(number) for number in range(3)]
    for lane in lanes:
        await lane.run(by_code(EFFECTIVE_CODE))
        await lane.run(by_code(EFFECTIVE_CODE))

    assert await after(j, 31) == 3
    assert [await offsets(j, lane) for lane in lanes] == [[1]] * 3


async def test_a_lane_that_never_decided_anything_has_nothing_to_retire(j: Journey) -> None:
    await j.owner.execute(
        "INSERT INTO lane (cluster, consumer_group, topic, partition, owner, owned_since)"
        " VALUES ('c', 'g', 't', 9, gen_random_uuid(), now())"
    )

    assert await after(j, 1000) == 0


async def test_a_transition_outlives_its_record_and_the_token_stays_effective(j: Journey) -> None:
    lane = await j.lane()
    await lane.run(by_code(request_id="1"))
    await lane.run(by_code(EFFECTIVE_CODE))
    await after(j, 31)

    answered = await lane.run(by_code(request_id="1"), by_code(CARD_CODE, request_id="1"))

    # The id is free again; the rule of the life cycle holds forever.
    assert codes(answered) == ["INVALID_LIFE_CYCLE_STATE", "OK"]
    assert await j.count("transition") == 2


async def test_how_old_a_record_is_says_postgres_and_no_worker(j: Journey) -> None:
    lane = await j.lane()
    await lane.run(by_code(), by_code(EFFECTIVE_CODE))
    await lane.run(by_code(EFFECTIVE_CODE))

    await j.owner.execute("UPDATE command_record SET decided_at = decided_at - interval '1000 days'")

    assert await Retiring(j.database).retire() == 0
    assert await offsets(j, lane) == [0, 1, 2]


async def test_the_shortest_time_that_can_be_set_is_the_shortest_that_postgres_takes(j: Journey) -> None:
    [least] = [rule.ge for rule in Settings.model_fields["record_retention_days"].metadata if isinstance(rule, Ge)]
    shortest = timedelta(days=int(str(least)))
    await lane_with_one_due(j)
    async with j.database.connection() as connection:
        for refused in (shortest - timedelta(seconds=1), timedelta(days=-1), None):
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="records are kept for a day at least"):
                await connection.fetchval(statement("retention/retire_records"), 1, refused, 10, 0)
        assert await connection.fetchval(statement("retention/retire_records"), 1, shortest, 10, 0) == 1


@pytest.mark.parametrize("seconds", [31 * 24 * 60 * 60, 120, -120])
async def test_a_worker_whose_clock_is_wrong_retires_nothing_and_says_so(j: Journey, seconds: float) -> None:
    lane = await lane_with_one_due(j)
    wrong = Retiring(j.database, ahead(seconds))

    with capture_logs() as lines:
        assert await wrong.retire() == 0

    assert await offsets(j, lane) == [0, 1]
    assert [(line["event"], line["log_level"]) for line in lines] == [("records_not_retired", "error")]
    assert wrong.said["clock_ahead_of_postgres_seconds"] == pytest.approx(seconds, abs=stretched(5))
    assert "records of commands are not retired: the worker's clock is" in wrong.said["reason"]
    assert ("ahead of" if seconds > 0 else "behind") in wrong.said["reason"]


async def test_clocks_that_lie_a_little_apart_hold_nothing_up(j: Journey) -> None:
    await lane_with_one_due(j)
    near = Retiring(j.database, ahead(20))

    assert await near.retire() == 1

    assert near.said["clock_ahead_of_postgres_seconds"] == pytest.approx(20, abs=stretched(5))
    assert "not retired" not in near.said["reason"]


async def test_no_two_workers_retire_records_of_one_lane_at_once_and_none_waits(j: Journey) -> None:
    lanes = [await j.lane(number) for number in range(2)]
    for lane in lanes:
        await lane.run(by_code(EFFECTIVE_CODE))
        await lane.run(by_code(EFFECTIVE_CODE))
    await let_days_go_by(j, 31)
    transaction = j.owner.transaction()
    await transaction.start()
    step = statement("retention/retire_records"), lanes[0].lease.lane, timedelta(days=30), 500, 0
    assert await j.owner.fetchval(*step) == 1

    other = Retiring(j.database)
    assert await in_time(other.retire(), "it left the lane alone") == 1
    assert await offsets(j, lanes[1]) == [1]

    await transaction.rollback()
    assert await other.retire() == 1


async def test_a_lane_that_was_left_to_a_step_under_way_is_looked_at_again_within_seconds(j: Journey) -> None:
    lane = await lane_with_one_due(j)
    # A step that Postgres gave up holds its lock until it has ended there.
    transaction = j.owner.transaction()
    await transaction.start()
    step = statement("retention/retire_records"), lane.lease.lane, timedelta(days=30), 500, 0
    assert await j.owner.fetchval(*step) == 1
    stop, retiring = asyncio.Event(), Retiring(j.database).retention
    running = asyncio.ensure_future(retiring.run(stop))
    await until(lambda: retiring._passed_over, bool, what="the lane was passed over")

    await transaction.rollback()

    await until_answered(lambda: offsets(j, lane), lambda left: left == [1], what="the older record was removed")
    stop.set()
    await in_time(running, "it ended")


async def test_a_lane_whose_offsets_began_anew_is_looked_at_from_its_beginning(j: Journey) -> None:
    lane = await j.lane()
    await lane.run(*[by_code(EFFECTIVE_CODE)] * 5)
    await lane.run(by_code(EFFECTIVE_CODE))
    await let_days_go_by(j, 31)
    retiring = Retiring(j.database)
    assert await retiring.retire() == 5

    await j.owner.execute("UPDATE command_record SET record_offset = 1")
    await j.owner.execute("UPDATE lane SET first_offset = 2, next_offset = 3")

    assert await retiring.retire() == 1


@pytest.mark.parametrize(
    ("asked", "removed", "took", "following"),
    [
        pytest.param(2000, 2000, 0.04, 4000, id="quick, and more to do"),
        pytest.param(8000, 8000, 0.04, 10_000, id="never too large"),
        pytest.param(2000, 2000, 0.16, 2000, id="long enough"),
        pytest.param(2000, 20, 0.01, 2000, id="nothing to learn from"),
        pytest.param(5000, 5000, 0.8, 2500, id="too long"),
        pytest.param(5000, 0, 0.8, 2500, id="too long for nothing"),
        pytest.param(1000, 1000, 9.0, 500, id="a slow disk"),
        pytest.param(150, 150, 9.0, 100, id="never too small"),
    ],
)
def test_a_step_is_as_large_as_its_time_allows(asked: int, removed: int, took: float, following: int) -> None:
    assert retention.next_step(asked, removed, took) == following


async def test_a_step_that_postgres_gives_up_is_tried_again_within_seconds_with_half_as_much(
    j: Journey, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane = await lane_with_one_due(j)
    asked: list[int] = []
    step = Retention._step

    async def slow(self: Retention, lane: int, since: int, records: int) -> tuple[int, int]:
        asked.append(records)
        if len(asked) < 6:
            raise StatementTimeout("postgres", "canceling statement due to statement timeout")
        return await step(self, lane, since, records)

    monkeypatch.setattr(Retention, "_step", slow)
    stop = asyncio.Event()
    with capture_logs() as lines:
        running = asyncio.ensure_future(Retiring(j.database).retention.run(stop))
        await until_answered(lambda: offsets(j, lane), lambda left: left == [1], what="the older record was removed")
        stop.set()
        await in_time(running, "it ended")

    assert asked[:6] == [1000, 500, 250, 125, 100, 100]
    assert [line["event"] for line in lines] == ["retention_failed"] * 5 + ["records_retired"]


async def test_many_records_go_in_small_steps(j: Journey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "FIRST_STEP", 3)
    monkeypatch.setattr(retention, "LARGEST_STEP", 3)
    monkeypatch.setattr(retention, "SMALLEST_STEP", 3)
    lane = await j.lane()
    await lane.run(*[by_code(EFFECTIVE_CODE)] * 10)
    await lane.run(by_code(EFFECTIVE_CODE))
    steps = count_steps(monkeypatch)

    assert await after(j, 31) == 10
    assert steps == [3, 3, 3, 1]


def count_steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    steps: list[int] = []
    inner = Metrics.records_retired

    def counted(metrics: Metrics, count: int) -> None:
        steps.append(count)
        inner(metrics, count)

    monkeypatch.setattr(Metrics, "records_retired", counted)
    return steps


async def test_a_lane_works_on_while_a_step_is_under_way(j: Journey) -> None:
    lane = await j.lane()
    await lane.run(by_code(EFFECTIVE_CODE))
    await lane.run(by_code(EFFECTIVE_CODE))
    transaction = j.owner.transaction()
    await transaction.start()
    await j.owner.execute("DELETE FROM command_record WHERE record_offset = 0")

    assert codes(await lane.run(by_code())) == ["OK"]

    await transaction.rollback()


async def test_a_step_does_not_wait_for_a_batch_under_way(j: Journey) -> None:
    await lane_with_one_due(j)
    transaction = j.owner.transaction()
    await transaction.start()
    await j.owner.execute("UPDATE lane SET next_offset = next_offset + 1")

    assert await in_time(Retiring(j.database).retire(), "the step was done") == 1

    await transaction.rollback()


async def test_a_stopped_worker_stops_between_two_steps(j: Journey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "FIRST_STEP", 1)
    lane = await j.lane()
    await lane.run(*[by_code(EFFECTIVE_CODE)] * 5)
    await lane.run(by_code(EFFECTIVE_CODE))
    stop = asyncio.Event()
    stop.set()

    await let_days_go_by(j, 31)

    assert await Retiring(j.database).retention.retire(stop) == 0
    await in_time(Retiring(j.database).retention.run(stop), "it ended")
    assert len(await offsets(j, lane)) == 6


async def test_it_looks_again_after_a_while(j: Journey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "INTERVAL_SECONDS", 0.01)
    lane = await j.lane()
    await lane.run(by_code(EFFECTIVE_CODE))
    await lane.run(by_code(EFFECTIVE_CODE))
    stop = asyncio.Event()
    running = asyncio.ensure_future(Retiring(j.database).retention.run(stop))
    assert await offsets(j, lane) == [0, 1]

    await let_days_go_by(j, 31)

    await until_answered(lambda: offsets(j, lane), lambda left: left == [1], what="the older record was removed")

    stop.set()
    await in_time(running, "it ended")


async def test_a_database_that_is_away_ends_nothing(
    database: DatabaseUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = await Database.open(database.worker_dsn.replace(database.name, "no_such_database"), connections=1)
    stop = asyncio.Event()
    retention_ = Retiring(opened).retention
    running = asyncio.ensure_future(retention_.run(stop))
    tried = 0
    retire = retention_.retire

    async def counted(told: asyncio.Event) -> int:
        nonlocal tried
        tried += 1
        return await retire(told)

    monkeypatch.setattr(retention_, "retire", counted)
    await until(lambda: tried, lambda times: times > 2, what="it had tried again and again")
    assert not running.done()

    stop.set()
    await in_time(running, "it ended")
    await opened.close()
