"""Every rule of the protocol has a fault that shows its purpose: without the rule the checker finds the damage.

Each scenario runs twice: with the rule undone the checker must catch it, and with the worker as it is it must find
nothing.
"""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final
from urllib.parse import urlsplit

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin._resource import ResourceType

from tests.acceptance.clients import Outgoing, TooLate, consumed_offsets, log_ends, wait_settled
from tests.acceptance.scene import Scene, event_id, history
from tests.acceptance.test_two_workers import wait_still
from tests.acceptance.worker_process import WorkerProcess
from tests.faults.checker import Report, check
from tests.faults.conftest import through
from tests.faults.ledger import NUMBER, SOURCE, Command, Evidence, Ledger, dead_letter, event, result, seen, sent
from tests.faults.load import Writer
from tests.faults.mutants import MUTANTS
from tests.faults.proxy import PostgresProxy
from tests.faults.witness import recorded
from tests.faults.worker import faulty
from tests.support.pace import in_milliseconds, patience, stretched
from tests.support.waiting import SECONDS

pytestmark = [
    pytest.mark.real_kafka,
    pytest.mark.slow(
        why="each rule is undone in a worker that is killed, stopped or fenced: 8 to 25 s each; CI takes a few in turn",
        instead="tests/faults/test_checker.py::test_a_broken_promise_is_noticed",
    ),
]

BATCH: Final = 20
FIELDS: Final = "authentication_code,life_cycle_state"
PATIENCE_SECONDS: Final = 15.0
"""Seconds to wait for a worker without a rule, which may never come to the end."""
QUIET_SECONDS: Final = 4.0
PATIENT: Final = {
    # Long enough for the steps of a scenario while a transaction is open, on any machine.
    "KAFKA__SESSION_TIMEOUT_MS": in_milliseconds(6),
    "KAFKA__REQUEST_TIMEOUT_MS": in_milliseconds(8),
    "KAFKA__TRANSACTION_TIMEOUT_MS": in_milliseconds(60),
    "MAX_BATCH": str(BATCH),
}
ALONE: Final = {
    # A member of that name takes its own place again: no wait for the session of the one before.
    "KAFKA__GROUP_INSTANCE_ID": "the only one",
    # Longer than any process stands still.
    "KAFKA__SESSION_TIMEOUT_MS": in_milliseconds(20),
    "KAFKA__REQUEST_TIMEOUT_MS": in_milliseconds(25),
}


@dataclass
class Arm:
    """One run of a scenario, with a rule undone or without."""

    scene: Scene
    mutant: str | None
    ledger: Ledger = field(default_factory=Ledger)
    disturbed: list[str] = field(default_factory=list)

    def worker(self, *points: str, **settings: str) -> WorkerProcess:
        """Return a worker of this arm, not started yet."""
        return self._worker(faulty(*points, mutant=self.mutant), settings)

    def unusual(self, *, settings: Mapping[str, str], **otherwise: float) -> WorkerProcess:
        """Return the same with something unusual (``tests.faults.worker``)."""
        return self._worker(faulty(mutant=self.mutant, **otherwise), settings)

    def _worker(self, command: tuple[str, ...], settings: Mapping[str, str]) -> WorkerProcess:
        return self.scene.worker(command=command, **{**PATIENT, **settings})

    def send(self, count: int = BATCH, *, dry_run: bool = False) -> None:
        """Send so many commands, each for a token of its own."""
        codes = self.scene.new_tokens(count, prefix=f"load{len(self.ledger.commands)}")
        self.ledger.known |= frozenset(codes)
        writer, first = Writer(), len(self.ledger.commands)
        outgoing = []
        for number, code in enumerate(codes, first):
            command = Command(number, 0, code, FIELDS, f"id-{number}", dry_run=dry_run)
            self.ledger.write(command)
            named = [(NUMBER, str(number).encode()), *event_id(f"id-{number}", SOURCE)]
            named += [("dry_run", b"true")] if dry_run else []
            outgoing.append(Outgoing(writer.value(command), code.encode(), named, 0))
        self.scene.send(*outgoing)

    def wait_consumed(self) -> None:
        """Wait until all is consumed. A worker without a rule may never finish: the checker will say so."""
        seconds = PATIENCE_SECONDS if self.mutant else SECONDS
        try:
            self.scene.wait_consumed(seconds)
        except TooLate:
            assert self.mutant is not None

    def look_for_losses(self, owner: WorkerProcess) -> None:
        """Look for losses. The partition was given to no other worker since this owner started, so it must keep it."""
        reasons = Counter(lost["reason"] for lost in owner.events("lane_lost"))
        self.disturbed += [f"{reason} ({times} times)" for reason, times in reasons.items()]

    def report(self) -> Report:
        """Return the findings of the checker, when all workers are gone."""
        scene, topics = self.scene, self.scene.topics
        bootstrap = scene.kafka.bootstrap
        # Transactions that the last one left open are settled, as its successor would.
        Producer({"bootstrap.servers": bootstrap, "transactional.id": self.transactional_id}).init_transactions(
            patience(SECONDS)
        )
        for topic in (topics.results, topics.transitions, topics.dead_letters):
            wait_settled(bootstrap, topic)
        results, events, dead_letters = (
            scene.seen(topic) for topic in (topics.results, topics.transitions, topics.dead_letters)
        )
        now = {topics.results: [seen(record) for record in results]}
        states = scene.rows("SELECT id, life_cycle_state, version FROM access_token WHERE id LIKE 'load%'")
        evidence = Evidence(
            sent=[sent(record) for record in scene.seen(topics.commands)],
            results=[result(record) for record in results],
            events=[event(record) for record in events],
            dead_letters=[dead_letter(record) for record in dead_letters],
            history=history(scene),
            recorded=recorded(scene),
            states={row["id"]: (row["life_cycle_state"], row["version"]) for row in states},
            committed=consumed_offsets(bootstrap, scene.group, topics.commands),
            ends={place: end for place, end in log_ends(bootstrap, topics.commands).items() if end},
            during=now,
            after=now,
            disturbed=self.disturbed,
        )
        return check(self.ledger, evidence)

    @property
    def transactional_id(self) -> str:
        return f"{self.scene.group}.{self.scene.topics.commands}.0"


# --- parts of a scenario ----------------------------------------------------------------------------------------------


@contextmanager
def running(*workers: WorkerProcess) -> Iterator[None]:
    """Yield workers that are gone after the block, whatever happens in it."""
    with ExitStack() as alive:
        for worker in workers:
            alive.callback(worker.kill)
            worker.start()
        yield


def finish(arm: Arm, worker: WorkerProcess) -> None:
    """Let it consume the backlog, and end."""
    with running(worker):
        arm.wait_consumed()


def killed_at(arm: Arm, *, point: str) -> None:
    """End one life at the point, in the second batch, and start the next one."""
    arm.send(2 * BATCH)
    first = arm.worker(f"{point}:2:SIGKILL", **ALONE)
    with running(first):
        assert first.wait_end() == -signal.SIGKILL
    finish(arm, arm.worker(**ALONE))


# --- the scenarios ----------------------------------------------------------------------------------------------------


def a_batch_too_large_in_all(arm: Arm) -> None:
    """The result topic takes a few answers at once, and not all of a batch's."""
    arm.scene.set_up(arm.scene.topics.results, "max.message.bytes", "4000")
    arm.send()
    finish(arm, arm.worker())


def the_predecessor_commits_while_its_successor_starts(arm: Arm) -> None:
    """It stood still with everything sent but the end of the transaction."""
    arm.send()
    # It dies with the commit, or it would take back its place in the group.
    old = arm.worker("before_the_end:1:SIGSTOP", "after_the_end:1:SIGKILL", **ALONE)
    new = arm.worker("before_the_init:1:SIGSTOP", **ALONE)
    with running(old):
        wait_still(old)
        with running(new):
            wait_still(new)
            old.resume()
            assert old.wait_end() == -signal.SIGKILL
            arm.scene.wait_consumed()
            new.resume()
            new.wait_ready()
            arm.send()
            arm.wait_consumed()


def an_end_arrives_again_in_the_next_transaction(arm: Arm) -> None:
    """It was sent twice because its connection broke; the worker dies before the end of the next transaction."""
    arm.send(2 * BATCH)
    first = arm.worker("late_end:1:SIGKILL", **ALONE)
    with running(first):
        assert first.wait_end() == -signal.SIGKILL
    finish(arm, arm.worker(**ALONE))


def messages_arrive_after_the_next_init(arm: Arm) -> None:
    """They were given up without an answer; the broker takes what it is sent without asking the coordinator."""
    with unverified(arm.scene):
        arm.send()
        worker = arm.worker("late_messages:1:SIGCONT", KAFKA__TRANSACTION_TIMEOUT_MS=in_milliseconds(8))
        finish(arm, worker)
    # The messages were given up, and the late ones came to a producer that had just started.
    assert worker.events("producer_replaced")


def a_deposed_owner_decides_what_its_successor_holds(arm: Arm) -> None:
    """Both stand before the same batch; the older one goes on first."""
    arm.send()
    # It dies with its lane, or it would take back its place in the group.
    old = arm.worker("before_the_decision:1:SIGSTOP", "with_the_lane_lost:1:SIGKILL", **ALONE)
    new = arm.worker("before_the_decision:1:SIGSTOP", **ALONE)
    with running(old):
        wait_still(old)
        with running(new):
            wait_still(new)
            old.resume()
            assert old.wait_end() == -signal.SIGKILL
            new.resume()
            arm.wait_consumed()
            arm.look_for_losses(new)


def a_lane_is_fenced(arm: Arm) -> None:
    """Another producer takes the lane's transactional id, once."""
    arm.send()
    worker = arm.worker()
    with worker:
        arm.scene.wait_consumed()
        fencing = Producer({"bootstrap.servers": arm.scene.kafka.bootstrap, "transactional.id": arm.transactional_id})
        fencing.init_transactions(patience(SECONDS))
        arm.send()
        worker.wait_event("lane_lost")
        arm.wait_consumed()


def a_rebalance_finds_a_lane_in_its_start(arm: Arm) -> None:
    """Its InitProducerId is under way; by the time it arrives another worker has the partition."""
    losing = arm.worker("init_held_up:1:SIGUSR1", KAFKA__GROUP_INSTANCE_ID="z")
    # Partitions go round in the order of the members' names.
    winning = arm.worker(KAFKA__GROUP_INSTANCE_ID="a")
    with running(losing):
        losing.wait(lambda: arm.scene.rows("SELECT owner FROM lane WHERE owner IS NOT NULL"), "is starting a lane")
        with running(winning):
            winning.wait_event("lane_started")
            assert not losing.events("lane_started")
            os.kill(losing.pid, signal.SIGUSR1)
            arm.send()
            arm.wait_consumed()
            # A second heartbeat: a worker that lost the lane and is still a member has tried again.
            time.sleep(stretched(QUIET_SECONDS))
            arm.look_for_losses(winning)


def dry_runs_among_others(arm: Arm) -> None:
    """The worker meets no fault."""
    arm.send()
    arm.send(dry_run=True)
    arm.send()
    finish(arm, arm.worker())


def a_clock_is_a_month_ahead(arm: Arm) -> None:
    """By its clock, records of the day before yesterday are past their time; Postgres keeps today's safe."""
    arm.send()
    worker = arm.unusual(settings={}, days_ahead=31, retention=1)
    with running(worker):
        arm.scene.wait_consumed()
        arm.send()
        arm.scene.wait_consumed()
        arm.scene.execute("UPDATE command_record SET recorded_at = recorded_at - interval '2 days'")
        doubted = len(worker.events("records_not_retired"))
        worker.wait(
            lambda: worker.events("records_retired") or worker.events("records_not_retired")[doubted + 1 :],
            "has looked once more for what to retire",
        )


def postgres_is_away_from_the_owner(arm: Arm) -> None:
    """Another worker hears Postgres as well as Kafka, and has no partition."""
    dsn = arm.scene.database.worker_dsn
    proxy = PostgresProxy(urlsplit(dsn).port or 5432)
    own = {"POSTGRES__DSN": through(proxy, dsn), "KAFKA__GROUP_INSTANCE_ID": "a"}
    owner = arm.unusual(settings=own, without_postgres=2)
    # Partitions go round in the order of the members' names.
    other = arm.worker(KAFKA__GROUP_INSTANCE_ID="z")
    # It is away until both are gone.
    with proxy, ExitStack() as away, running(owner):
        owner.wait_ready()
        with running(other):
            other.wait_ready()
            owner.wait(lambda: owner.probe("/readyz")[1], "has it", wanted=lambda said: said["ready"] and said["lanes"])
            away.enter_context(proxy.cut_off())
            arm.send()
            arm.wait_consumed()


@contextmanager
def unverified(scene: Scene) -> Iterator[None]:
    """Emulate a broker before Kafka 3.6, which does not check that a transaction knows of the partition."""
    verification = "transaction.partition.verification.enable"
    scene.set_up("1", verification, "false", kind=ResourceType.BROKER)
    try:
        yield
    finally:
        scene.set_up("1", verification, "true", kind=ResourceType.BROKER)


SCENARIOS: Final[dict[str, Callable[[Arm], None]]] = {
    "commit_without_gathering": a_batch_too_large_in_all,
    "committed_read_before_init": the_predecessor_commits_while_its_successor_starts,
    "no_replacement_after_hidden_retry": an_end_arrives_again_in_the_next_transaction,
    "abort_sent": messages_arrive_after_the_next_init,
    "no_owner_check": a_deposed_owner_decides_what_its_successor_holds,
    "no_lane_check": a_deposed_owner_decides_what_its_successor_holds,
    "lost_lane_not_restarted": a_lane_is_fenced,
    "start_not_cancelled_on_revoke": a_rebalance_finds_a_lane_in_its_start,
    "offset_outside_transaction": partial(killed_at, point="after_the_end"),
    "no_record_of_commands": partial(killed_at, point="between_the_commits"),
    "dry_run_kept": dry_runs_among_others,
    "age_by_own_clock": a_clock_is_a_month_ahead,
    "partitions_kept_without_postgres": postgres_is_away_from_the_owner,
}


# --- the tests --------------------------------------------------------------------------------------------------------


@pytest.fixture
def partitions() -> int:
    """One lane, whose steps can be counted."""
    return 1


def test_every_mutant_has_its_scenario() -> None:
    assert SCENARIOS.keys() == MUTANTS.keys()


@pytest.mark.parametrize("name", MUTANTS)
def test_without_its_rule_the_worker_is_caught(scene: Scene, name: str) -> None:
    arm = Arm(scene, name)
    SCENARIOS[name](arm)
    assert MUTANTS[name].breaks in arm.report().counts()


@pytest.mark.parametrize("name", MUTANTS)
def test_the_worker_as_it_is_comes_through_the_same_unharmed(scene: Scene, name: str) -> None:
    arm = Arm(scene, None)
    SCENARIOS[name](arm)
    assert list(arm.report().shown()) == []
