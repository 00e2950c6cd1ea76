"""Logs without secrets, health with reasons, metrics with the contract's names."""

import json
import logging
from collections.abc import Iterator

import pytest
import structlog
from aiokafka import TopicPartition

from effective_contract.codes import StatusCode
from tests.support.clocks import Clock
from worker.errors import DependencyUnavailable
from worker.observability.health import STALLED_SECONDS, Health
from worker.observability.logs import configure_logging, mask_secrets
from worker.observability.metrics import Metrics


def at(partition: int, topic: str = "commands") -> TopicPartition:
    return TopicPartition(topic, partition)


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(clock, wall=clock)


@pytest.fixture
def fresh_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


# --- logs -------------------------------------------------------------------------------------------------------------


def masked(**event: object) -> dict[str, object]:
    return dict(mask_secrets(None, "info", event))


@pytest.mark.parametrize(
    "key", ["token", "login_token", "pass_code", "pass_code_hash", "dsn", "owner_dsn", "secret", "sasl_password"]
)
def test_a_key_that_sounds_like_a_secret_is_masked(key: str) -> None:
    assert masked(**{key: "canary"}) == {key: "***"}
    assert masked(inner={key: "canary"}) == {"inner": {key: "***"}}


def test_the_kafka_client_does_not_repeat_itself_at_once(
    fresh_logging: None, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("info", "json")
    for name in ("aiokafka.conn", "worker.lanes.lane"):
        for attempt in range(3):
            logging.getLogger(name).warning("no broker at attempt %d", attempt)
    logging.getLogger("aiokafka.conn").warning("another line")

    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    said = [(line["logger"], line["event"]) for line in lines]
    assert said == [
        ("aiokafka.conn", "no broker at attempt 0"),
        *(("worker.lanes.lane", f"no broker at attempt {attempt}") for attempt in range(3)),
        ("aiokafka.conn", "another line"),
    ]


def test_the_id_of_an_access_token_is_no_secret() -> None:
    assert masked(access_token_id="231", tokens=4) == {"access_token_id": "231", "tokens": 4}


@pytest.mark.parametrize(
    "text",
    [
        "cannot connect to postgresql://worker:canary@db/e",
        "sent eyJhbGciOiJIUzI1NiJ9.eyJqdGkiOiJjYW5hcnkifQ.canary to",
        "duplicate key\nDETAIL:  Key (number)=(canary) already exists.",
    ],
)
def test_what_looks_like_a_secret_in_a_text_is_masked(text: str) -> None:
    assert "canary" not in str(masked(event=text, exception=text, listed=[text]))


@pytest.mark.usefixtures("fresh_logging")
def test_our_lines_and_those_of_libraries_are_json_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "json")
    structlog.get_logger("worker.test").info("started", partition=3, token="canary")
    logging.getLogger("some.library").warning("a remark of %s", "its own")
    structlog.get_logger("worker.test").debug("too much")
    out, err = capsys.readouterr()
    ours, theirs = (json.loads(line) for line in err.splitlines())
    assert out == ""
    assert (ours["event"], ours["partition"], ours["token"], ours["level"]) == ("started", 3, "***", "info")
    assert (theirs["event"], theirs["logger"]) == ("a remark of its own", "some.library")


@pytest.mark.usefixtures("fresh_logging")
def test_an_exception_is_logged_without_what_postgres_quotes_of_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "json")
    try:
        raise ValueError("broken\nDETAIL:  Failing row contains (canary).")
    except ValueError:
        structlog.get_logger("worker.test").exception("failed")
    err = capsys.readouterr().err
    assert "ValueError: broken" in err
    assert "canary" not in err


# --- health -----------------------------------------------------------------------------------------------------------


def test_a_worker_is_live_while_it_makes_progress(health: Health, clock: Clock) -> None:
    clock.now += STALLED_SECONDS
    assert health.live()[0]
    clock.now += 1
    live, document = health.live()
    assert not live
    assert document == {"live": False, "reason": "no progress for 91 s", "since": "1970-01-01T00:16:40Z"}
    health.progress()
    assert health.live()[0]


def test_a_stuck_worker_is_not_live_and_says_why(health: Health) -> None:
    health.stuck("the fetcher is dead")
    health.progress()
    assert health.live()[1]["reason"] == "the fetcher is dead"


def test_a_worker_is_ready_once_it_is_assigned_and_both_dependencies_answer(health: Health) -> None:
    assert not health.ready()[0]
    health.assigned(True)
    assert health.ready()[0]
    health.away(DependencyUnavailable("postgres", "connection refused"))
    ready, document = health.ready()
    assert not ready
    assert document["reason"] == "postgres is away: connection refused"
    health.back("postgres")
    assert health.ready()[0]


def test_an_absence_keeps_its_beginning_and_shows_its_latest_reason(health: Health, clock: Clock) -> None:
    health.away(DependencyUnavailable("kafka", "refused"))
    clock.now += 30
    health.away(DependencyUnavailable("kafka", "timed out"))
    away = health.ready()[1]["dependencies_away"]["kafka"]
    assert away == {"reason": "timed out", "since": "1970-01-01T00:16:40Z"}


def test_what_only_lanes_miss_is_missed_until_the_last_of_them_is_gone(health: Health, clock: Clock) -> None:
    for partition in range(2):
        health.away(DependencyUnavailable("kafka", "refused"), at(partition))
        clock.now += 30
    health.lane_gone(at(0))
    assert health.dependencies_away()["kafka"].since == clock.now - 60
    returned = health.returned("kafka")
    health.lane_gone(at(1))
    assert not health.dependencies_away()
    assert returned.is_set()


def test_what_somebody_else_misses_too_outlasts_the_lanes(health: Health) -> None:
    health.away(DependencyUnavailable("kafka", "refused"), at(0))
    health.away(DependencyUnavailable("kafka", "no heartbeat"))
    health.lane_gone(at(0))
    assert health.dependencies_away()["kafka"].reason == "no heartbeat"
    health.back("kafka")
    assert not health.dependencies_away()


def test_a_blocked_lane_makes_a_worker_unready_with_its_reason(health: Health) -> None:
    health.assigned(True)
    health.lane(at(0), "working")
    health.lane(at(3), "blocked", "offset 5, expected 7")
    ready, document = health.ready()
    assert not ready
    assert document["reason"] == "partition 3 is blocked: offset 5, expected 7"
    assert document["lanes"]["3"]["state"] == "blocked"
    health.lane_gone(at(3))
    assert health.ready()[0]


def test_a_lane_that_was_lost_makes_a_worker_unready_until_it_works_again(health: Health) -> None:
    health.assigned(True)
    health.lane(at(0), "working")
    health.lane(at(3), "waiting", "postgres: another worker has taken the lane")
    ready, document = health.ready()
    assert not ready
    assert document["reason"] == "partition 3 is waiting: postgres: another worker has taken the lane"
    health.lane(at(3), "starting")
    assert not health.ready()[0]
    health.lane(at(3), "working")
    assert health.ready()[0]


def test_lanes_that_wait_for_a_dependency_do_not_repeat_that_it_is_away(health: Health) -> None:
    health.assigned(True)
    for partition in range(2):
        health.lane(at(partition), "waiting", "postgres: refused")
    health.away(DependencyUnavailable("postgres", "refused"))
    assert health.ready()[1]["reason"] == "postgres is away: refused"
    health.back("postgres")
    assert not health.ready()[0]


def test_lanes_of_the_bulk_topic_are_named_after_it_and_come_last(clock: Clock) -> None:
    health = Health(clock, bulk_topic="bulk", giving_way=lambda: clock.now > 1000)
    health.assigned(True)
    health.lane(at(3, "bulk"), "blocked", "offset 5, expected 7")
    health.lane(at(3), "starting")
    document = health.ready()[1]
    assert document["reason"] == "partition 3 is starting; partition bulk/3 is blocked: offset 5, expected 7"
    assert list(document["lanes"]) == ["3", "bulk/3"]
    assert document["bulk_gives_way"] is False
    clock.now += 1
    assert health.ready()[1]["bulk_gives_way"] is True
    assert "effective_worker_bulk_gives_way 1.0" in Metrics(health).text().decode().splitlines()


def test_without_a_bulk_topic_nothing_is_said_of_it(health: Health) -> None:
    assert "bulk_gives_way" not in health.ready()[1]


def test_clocks_that_disagree_are_named_and_make_no_worker_unready(health: Health) -> None:
    health.assigned(True)
    assert "clock_ahead_of_postgres_seconds" not in health.ready()[1]
    health.clocks(-75.04, agree=False)

    is_ready, document = health.ready()

    assert is_ready
    assert document["clock_ahead_of_postgres_seconds"] == -75.0
    wrong = "records of commands are not retired: the worker's clock is 75 s behind that of Postgres"
    assert document["reason"] == f"partitions assigned, database and broker reachable; {wrong}"

    health.clocks(0.3, agree=True)
    assert health.ready()[1]["reason"] == "partitions assigned, database and broker reachable"


def test_a_lane_in_the_same_state_keeps_its_beginning(health: Health, clock: Clock) -> None:
    health.lane(at(1), "waiting", "refused")
    clock.now += 5
    health.lane(at(1), "waiting", "timed out")
    assert (health.lanes()[at(1)].since, health.lanes()[at(1)].reason) == (1000.0, "timed out")
    health.lane(at(1), "working")
    assert health.lanes()[at(1)].since == 1005.0


def test_a_lane_that_starts_in_vain_keeps_its_beginning(health: Health, clock: Clock) -> None:
    for state in ("blocked", "starting", "blocked", "starting", "blocked"):
        health.lane(at(1), state)
        clock.now += 5
    assert health.lanes()[at(1)].since == 1000.0
    health.lane(at(1), "starting")
    health.lane(at(1), "working")
    health.lane(at(1), "starting")
    health.lane(at(1), "blocked")
    assert health.lanes()[at(1)].since == 1025.0


def test_a_dependency_is_told_with_its_place(health: Health) -> None:
    health.away(DependencyUnavailable("postgres", "ConnectionRefusedError: 111", "no server answers at db:5432"))
    assert health.ready()[1]["reason"].startswith("postgres is away: no server answers at db:5432")


# --- metrics ----------------------------------------------------------------------------------------------------------


def test_metrics_count_what_they_are_told(health: Health) -> None:
    metrics = Metrics(health)
    metrics.answered("OK", replayed=False, count=2)
    metrics.answered("OK", replayed=True)
    metrics.batch(3, 0.01, 0.02)
    metrics.published(2, {StatusCode.INTERNAL_ERROR: 1})
    metrics.lane_restarted("fenced")
    metrics.producer_replaced()
    metrics.waited("kafka")
    metrics.offsets_set_back()
    metrics.records_retired(7)
    metrics.attempts_failed("codes", 3)
    metrics.attempts_limited("codes")
    metrics.attempts_refused(2)
    health.lane(at(0), "working")
    health.away(DependencyUnavailable("kafka", "refused"))
    lines = metrics.text().decode().splitlines()
    for line in (
        'effective_worker_answers_total{code="OK",replayed="false"} 2.0',
        'effective_worker_answers_total{code="OK",replayed="true"} 1.0',
        "effective_worker_batch_commands_sum 3.0",
        "effective_worker_publish_seconds_count 1.0",
        "effective_worker_transitions_total 2.0",
        'effective_worker_dead_letters_total{code="INTERNAL_ERROR"} 1.0',
        'effective_worker_lane_restarts_total{reason="fenced"} 1.0',
        "effective_worker_producers_replaced_total 1.0",
        'effective_worker_waits_total{dependency="kafka"} 1.0',
        "effective_worker_offsets_set_back_total 1.0",
        "effective_worker_records_retired_total 7.0",
        'effective_worker_attempts_failed_total{kind="codes"} 3.0',
        'effective_worker_attempts_limited_total{kind="codes"} 1.0',
        "effective_worker_attempts_refused_total 2.0",
        'effective_worker_lanes{state="working"} 1.0',
        'effective_worker_lanes{state="blocked"} 0.0',
        'effective_worker_dependency_away{dependency="kafka"} 1.0',
    ):
        assert line in lines


def test_two_workers_in_one_process_count_apart() -> None:
    one, other = Metrics(), Metrics()
    one.producer_replaced()
    assert b"producers_replaced_total 0.0" in other.text()
