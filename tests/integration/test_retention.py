"""Records are retired once they are past their time and settled, in steps that hold no lane up."""

import asyncio
import time
from typing import Final

import pytest

from tests.journey import CARD_CODE, EFFECTIVE_CODE, Journey, Partition, by_code, codes
from tests.providers.postgres import DatabaseUnderTest, PostgresServer
from tests.waiting import in_time, until, until_answered
from worker import retention
from worker.database import Database
from worker.observe import Metrics
from worker.retention import Retention

DAY: Final = 24 * 60 * 60


class Later:
    """The clock of a worker that lives this many days later."""

    def __init__(self, days: float) -> None:
        self.days = days

    def __call__(self) -> float:
        return time.time() + self.days * DAY


def retiring(j: Journey, clock: Later, days: int = 30) -> tuple[Retention, Metrics]:
    metrics = Metrics()
    return Retention(j.database, days=days, clock=clock, metrics=metrics), metrics


async def offsets(j: Journey, lane: Partition) -> list[int]:
    rows = await j.owner.fetch(
        "SELECT record_offset FROM command_record WHERE lane = $1 ORDER BY record_offset", lane.hold.lane
    )
    return [row["record_offset"] for row in rows]


async def test_records_past_their_time_and_below_the_last_batch_are_removed(j: Journey) -> None:
    lane = await j.lane()
    await lane.run(by_code(), by_code(EFFECTIVE_CODE))
    await lane.run(by_code(EFFECTIVE_CODE))
    old, metrics = retiring(j, Later(30.01))

    assert await old.retire(asyncio.Event()) == 2

    assert await offsets(j, lane) == [2]
    assert b"effective_worker_records_retired_total 2.0" in metrics.text()


async def test_records_within_their_time_stay(j: Journey) -> None:
    lane = await j.lane()
    await lane.run(by_code())
    await lane.run(by_code(EFFECTIVE_CODE))

    assert await retiring(j, Later(29.99))[0].retire(asyncio.Event()) == 0
    assert await offsets(j, lane) == [0, 1]


async def test_the_last_batch_stays_however_old_since_it_may_not_be_published(j: Journey) -> None:
    lane = await j.lane()
    first = await lane.run(by_code(), by_code(EFFECTIVE_CODE))

    assert await retiring(j, Later(1000))[0].retire(asyncio.Event()) == 0

    assert await (await lane.taken_over()).take(lane.log) == first


async def test_records_of_every_lane_are_retired(j: Journey) -> None:
    lanes = [await j.lane(number) for number in range(3)]
    for lane in lanes:
        await lane.run(by_code(EFFECTIVE_CODE))
        await lane.run(by_code(EFFECTIVE_CODE))

    assert await retiring(j, Later(31))[0].retire(asyncio.Event()) == 3
    assert [await offsets(j, lane) for lane in lanes] == [[1]] * 3


async def test_a_lane_that_never_decided_anything_has_nothing_to_retire(j: Journey) -> None:
    await j.owner.execute(
        "INSERT INTO lane (cluster, consumer_group, topic, partition, owner, owned_since)"
        " VALUES ('c', 'g', 't', 9, gen_random_uuid(), now())"
    )

    assert await retiring(j, Later(1000))[0].retire(asyncio.Event()) == 0


async def test_a_transition_outlives_its_record_and_the_token_stays_effective(j: Journey) -> None:
    lane = await j.lane()
    await lane.run(by_code(request_id="1"))
    await lane.run(by_code(EFFECTIVE_CODE))
    await retiring(j, Later(31))[0].retire(asyncio.Event())

    answered = await lane.run(by_code(request_id="1"), by_code(CARD_CODE, request_id="1"))

    # The id is free again; the rule of the life cycle holds for ever.
    assert codes(answered) == ["INVALID_LIFE_CYCLE_STATE", "OK"]
    assert await j.count("transition") == 2


async def test_many_records_go_in_small_steps(j: Journey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "STEP_RECORDS", 3)
    monkeypatch.setattr(retention, "PAUSE_SECONDS", 0)
    lane = await j.lane()
    await lane.run(*[by_code(EFFECTIVE_CODE)] * 10)
    await lane.run(by_code(EFFECTIVE_CODE))
    steps = count_steps(monkeypatch)

    assert await retiring(j, Later(31))[0].retire(asyncio.Event()) == 10
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
    lane = await j.lane()
    await lane.run(by_code(EFFECTIVE_CODE))
    await lane.run(by_code(EFFECTIVE_CODE))
    transaction = j.owner.transaction()
    await transaction.start()
    await j.owner.execute("UPDATE lane SET next_offset = next_offset + 1")

    assert await in_time(retiring(j, Later(31))[0].retire(asyncio.Event()), "the step was done") == 1

    await transaction.rollback()


async def test_a_stopped_worker_stops_between_two_steps(j: Journey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "STEP_RECORDS", 1)
    lane = await j.lane()
    await lane.run(*[by_code(EFFECTIVE_CODE)] * 5)
    await lane.run(by_code(EFFECTIVE_CODE))
    stop = asyncio.Event()
    stop.set()

    assert await retiring(j, Later(31))[0].retire(stop) == 0
    await in_time(retiring(j, Later(31))[0].run(stop), "it ended")
    assert len(await offsets(j, lane)) == 6


async def test_it_looks_again_after_a_while(j: Journey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "INTERVAL_SECONDS", 0.01)
    lane = await j.lane()
    await lane.run(by_code(EFFECTIVE_CODE))
    await lane.run(by_code(EFFECTIVE_CODE))
    clock, stop = Later(0), asyncio.Event()
    running = asyncio.ensure_future(retiring(j, clock)[0].run(stop))
    assert await offsets(j, lane) == [0, 1]

    clock.days = 31

    await until_answered(lambda: offsets(j, lane), lambda left: left == [1], what="the older record was removed")

    stop.set()
    await in_time(running, "it ended")


async def test_a_database_that_is_away_ends_nothing(
    database: DatabaseUnderTest, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "INTERVAL_SECONDS", 0.01)
    opened = await Database.open(database.worker_dsn.replace(database.name, "no_such_database"), connections=1)
    stop = asyncio.Event()
    retention_ = Retention(opened, days=30, clock=time.time, metrics=Metrics())
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
