"""``python -m tests.faults``: every promise, under fire. Prints seed, faults by kind, commands and the verdict.

Exit 0 if every promise was kept, 1 if one was broken, 2 if the harness itself failed.
"""

import argparse
import asyncio
import json
import logging
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Final

import psutil

from tests.acceptance.clients import TooLate, log_ends, wait_consumed
from tests.faults.checker import SOUND, Report, check
from tests.faults.holdings import too_much
from tests.faults.kinds import KINDS, FaultKind, kinds_of
from tests.faults.ledger import Delivery, Evidence, Ledger
from tests.faults.load import Load, Mix
from tests.faults.mutants import MUTANTS
from tests.faults.schedule import LONGEST_SECONDS, Log, play, rows
from tests.faults.stage import SESSION_SECONDS, Stage, staged
from tests.faults.witness import Witness, gather, sessions

EFFECTIVE: Final = 20
CATCH_UP_SECONDS: Final = 240.0
HEARTBEAT_SECONDS: Final = 1.0
"""How often a worker with such a session says that it is there."""
QUIET_SECONDS: Final = SESSION_SECONDS + 2 * HEARTBEAT_SECONDS
"""Whoever wrongly tries to come back does so with the next heartbeat; the second finds what came of it, and by the end
of a session everybody has been heard."""
TRICKLE: Final = 40.0
"""Commands a second in the quiet: a lane that was fenced notices it when it publishes."""
SESSIONS: Final = 10
"""What one worker may hold of Postgres."""
DESCRIPTORS: Final = 150
"""What one worker may hold of the system: its sockets to three brokers for each lane, and little else."""
TOO_LARGE: Final = frozenset({10, 18})
"""The errors by which a broker says that it will never take a record (Kafka's protocol)."""
BEFORE_SECONDS: Final = 0.5
AFTER_SECONDS: Final = 1.0
"""How far around a fault the silence may begin that it is blamed for."""


@dataclass(slots=True)
class Outcome:
    """All that a run has to say."""

    seed: int
    delivery: Delivery
    seconds: float
    log: Log
    report: Report
    worker_ends: dict[int, int]
    worker_events: dict[str, int]
    unasked: list[str]
    recovery: dict[str, tuple[int, float, float]]
    harness: list[str] = field(default_factory=list)
    """What went wrong with the harness, which then has proved nothing."""

    @property
    def exit_code(self) -> int:
        if SOUND in self.report.counts():
            return 2
        if not self.report.clean:
            return 1
        return 2 if self.harness else 0


async def run(options: argparse.Namespace) -> Outcome:
    """One run, from an empty cluster to the verdict."""
    delivery = Delivery(options.delivery)
    async with staged(
        workers=options.workers,
        partitions=options.partitions,
        delivery=delivery,
        mutant=options.mutant,
        bulk=options.bulk,
    ) as stage:
        ledger, load = await asyncio.to_thread(_prepared, stage, options)
        topics = stage.scene.topics
        watched = (topics.results, topics.transitions, topics.dead_letters)
        witness = Witness(stage.scene.kafka.bootstrap, watched)
        log, began = Log(), time.monotonic()
        await stage.fleet.start()
        witness.start()
        load.start()
        keeping = asyncio.create_task(stage.fleet.keep())
        try:
            played = rows(options.seed, _chosen(options), alone=options.alone, quiet=options.quiet)
            until = time.monotonic() + options.seconds
            await asyncio.gather(*(play(stage, row, until, log) for row in played))
            harness, evidence = await _at_rest(stage, load, witness, ledger)
        finally:
            keeping.cancel()
            if options.logs is not None:
                await asyncio.to_thread(_keep_logs, stage, options.logs)
        outcome = Outcome(
            options.seed,
            delivery,
            time.monotonic() - began,
            log,
            check(ledger, evidence),
            dict(stage.fleet.ends),
            dict(stage.fleet.events().most_common()),
            stage.fleet.unasked,
            _recovery(log, witness, topics.results) if options.alone else {},
            [*harness, *log.broken],
        )
        if witness.fault is not None:
            outcome.harness.append(f"the reader along the way: {witness.fault}")
        return outcome


def _chosen(options: argparse.Namespace) -> list[FaultKind]:
    exposing = MUTANTS[options.mutant].kinds if options.mutant else ()
    return [KINDS[name] for name in options.only or exposing] or kinds_of(Delivery(options.delivery))


def _prepared(stage: Stage, options: argparse.Namespace) -> tuple[Ledger, Load]:
    """The load, with access tokens that a command may set effective, and some that are."""
    # The load goes on until the last fault is over.
    count = int((options.seconds + LONGEST_SECONDS) * options.rate) + 1000
    fresh = stage.scene.new_tokens(count, prefix="t")
    effective = stage.scene.new_tokens(EFFECTIVE, prefix="e")
    stage.scene.execute("UPDATE access_token SET life_cycle_state = 'EFFECTIVE' WHERE id = ANY ($1)", effective)
    ledger = Ledger(
        known=frozenset(fresh + effective), effective=frozenset(effective), delivery=Delivery(options.delivery)
    )
    mix = Mix(options.seed, options.partitions, iter(sorted(fresh)), sorted(effective))
    return ledger, Load(stage.scene.kafka.bootstrap, stage.source, mix, ledger, rate=options.rate)


async def _at_rest(stage: Stage, load: Load, witness: Witness, ledger: Ledger) -> tuple[list[str], Evidence]:
    """Heal what is hurt, let the workers catch up and be for a while, stop them, and gather the evidence."""
    harness = []
    for proxy in (*stage.kafka_proxies, stage.postgres_proxy):
        proxy.disarm()
    await stage.postgres.start()
    await stage.cluster.start()
    load.rate = TRICKLE
    disturbed = await _in_the_quiet(stage)
    if not load.is_alive():
        harness.append("the load: it came to its end before the quiet did")
    refused = await asyncio.to_thread(load.finish)
    if refused is not None:
        harness.append(f"the load: {refused}")
    # A worker that does not catch up shows in the evidence, as commands without an answer.
    with suppress(TooLate):
        await asyncio.to_thread(_all_consumed, stage)
    left = [f"{name} is not ready" for name in await _not_ready(stage)]
    left += await _held(stage)
    left += await stage.fleet.drained()
    left += [f"{each} after the last worker ended" for each in await asyncio.to_thread(sessions, stage.scene)]
    left += stage.fleet.failures()
    evidence = await asyncio.to_thread(gather, stage.scene, witness, sorted(ledger.known), stage.sources)
    evidence.disturbed, evidence.left = disturbed, left
    fired = (each.fault for proxy in stage.kafka_proxies for each in proxy.fired)
    evidence.refused_as_too_large = sum(fault.error in TOO_LARGE for fault in fired)
    return harness, evidence


def _all_consumed(stage: Stage) -> None:
    for topic in stage.sources:
        wait_consumed(stage.scene.kafka.bootstrap, stage.scene.group, topic, seconds=CATCH_UP_SECONDS)


async def _not_ready(stage: Stage) -> list[str]:
    slots = stage.fleet.slots
    ready = await asyncio.gather(*(stage.fleet.ready(slot) for slot in slots))
    return [slot.name for slot, is_ready in zip(slots, ready, strict=True) if not is_ready]


async def _in_the_quiet(stage: Stage) -> Sequence[str]:
    """The lanes that are lost in a while in which nothing hurts anyone and every lane has work.

    It begins when all workers are ready and all that was sent is consumed, and one command more in every partition:
    so far a lane may find out what was done to it before.
    """
    await _not_ready(stage)
    try:
        await asyncio.to_thread(_one_more_consumed, stage)
    except TooLate as late:
        return [str(late)]
    began = datetime.now(UTC)
    await asyncio.sleep(QUIET_SECONDS)
    return stage.fleet.losses(began)


def _one_more_consumed(stage: Stage) -> None:
    bootstrap = stage.scene.kafka.bootstrap
    ends = {topic: log_ends(bootstrap, topic) for topic in stage.sources}
    for topic, end in ends.items():
        # The load goes to the partitions that were there from the beginning.
        wanted = {number: end[number] + 1 for number in range(stage.partitions) if stage.source(number) == topic}
        wait_consumed(bootstrap, stage.scene.group, topic, seconds=CATCH_UP_SECONDS, at_least=wanted)


async def _held(stage: Stage) -> list[str]:
    """What workers that are at rest hold more than they should."""
    found = []
    for slot in stage.fleet.slots:
        try:
            count = psutil.Process(slot.worker.pid).num_fds()
            if count > DESCRIPTORS:
                found.append(f"{slot.name} holds {count} file descriptors")
            found += [f"{slot.name} holds {what}" for what in too_much(await stage.fleet.holdings(slot))]
        except (psutil.NoSuchProcess, TimeoutError) as error:
            found.append(f"{slot.name}: {error}")
    return found + await asyncio.to_thread(_sessions_held, stage)


def _sessions_held(stage: Stage) -> list[str]:
    found = []
    rows = stage.scene.rows(
        "SELECT count(*) AS sessions, count(*) FILTER (WHERE state LIKE 'idle in transaction%') AS open"
        " FROM pg_stat_activity WHERE application_name = 'effective-worker'"
    )
    if rows[0]["sessions"] > SESSIONS * len(stage.fleet.slots):
        found.append(f"{rows[0]['sessions']} sessions in Postgres")
    if rows[0]["open"]:
        found.append(f"{rows[0]['open']} transactions open in Postgres")
    return found


def _keep_logs(stage: Stage, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for path in stage.scene.directory.glob("worker-*.log"):
        shutil.copy(path, target)
    for slot in (*stage.fleet.slots, *stage.fleet.extra):
        for number, life in enumerate(slot.lives, 1):
            (target / f"{slot.name.replace(' ', '-')}-life-{number}.log").write_text(life.logs(), encoding="utf-8")
    for node in stage.cluster.nodes:
        (target / f"broker-{node.number}.log").write_text(node.log(), encoding="utf-8")


def _recovery(log: Log, witness: Witness, topic: str) -> dict[str, tuple[int, float, float]]:
    """By kind: how many, and the median and longest silence of a partition in seconds. Only alone is it their doing."""
    silences: dict[str, list[float]] = {}
    for each in log.struck:
        silence = witness.longest_silence(topic, each.began - BEFORE_SECONDS, each.ended + AFTER_SECONDS)
        silences.setdefault(each.name, []).append(silence)
    return {name: (len(all_), round(median(all_), 2), round(max(all_), 2)) for name, all_ in sorted(silences.items())}


# --- what is told -----------------------------------------------------------------------------------------------------


def document(outcome: Outcome) -> dict[str, Any]:
    """The outcome as JSON."""
    return {
        "seed": outcome.seed,
        "delivery": outcome.delivery,
        "seconds": round(outcome.seconds, 1),
        "faults": sum(outcome.log.counts().values()),
        "kinds": outcome.log.counts(),
        "missed": dict(outcome.log.missed),
        "commands": outcome.report.commands,
        "transitions": outcome.report.transitions,
        "statuses": dict(outcome.report.statuses.most_common()),
        "races": outcome.report.races,
        "repeated": outcome.report.repeated,
        "worker_ends": outcome.worker_ends,
        "worker_events": outcome.worker_events,
        "unasked": outcome.unasked,
        "silence_seconds": outcome.recovery,
        "violations": outcome.report.counts(),
        "first_violations": [asdict(each) for each in outcome.report.shown()],
        "harness": outcome.harness,
        "exit_code": outcome.exit_code,
    }


def tell(outcome: Outcome) -> str:
    """The outcome for people."""
    report, log = outcome.report, outcome.log
    counts = log.counts()
    lines = [
        f"seed {outcome.seed}, delivery {outcome.delivery}:"
        f" {sum(counts.values())} faults of {len(counts)} kinds in {outcome.seconds:.0f} s"
    ]
    for name, count in counts.items():
        told = outcome.recovery.get(name)
        silence = f"   longest silence {told[1]:.1f} s (median), {told[2]:.1f} s (max)" if told else ""
        lines.append(f"  {count:4} {name:50}{silence}")
    lines += [f"       missed its moment: {name} ({count})" for name, count in sorted(log.missed.items())]
    lines.append(f"commands {report.commands}, transitions {report.transitions}, races between lanes {report.races}")
    lines.append("  " + ", ".join(f"{name} {count}" for name, count in report.statuses.most_common()))
    if report.repeated:
        lines.append(f"  given again {report.repeated}")
    lines.append("workers ended: " + ", ".join(f"{count} x {code}" for code, count in outcome.worker_ends.items()))
    lines += [f"  not asked for: {each}" for each in outcome.unasked]
    lines += [f"BROKEN PROMISE: {rule} ({count} times)" for rule, count in report.counts().items()]
    lines += [f"  {each.rule}: {each.what}" for each in report.shown()]
    lines += [f"THE HARNESS FAILED: {each}" for each in outcome.harness]
    verdict = {0: "clean", 1: "PROMISES WERE BROKEN", 2: "nothing is proved: the harness failed"}[outcome.exit_code]
    return "\n".join([*lines, f"verdict: {verdict}"])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="every promise, under fire")
    parser.add_argument(
        "--delivery", choices=list(Delivery), default="exactly_once", help="what is promised (default exactly_once)"
    )
    parser.add_argument("--seconds", type=float, default=120.0, help="how long faults are made (default 120)")
    parser.add_argument("--seed", type=int, default=1, help="decides the load and the faults (default 1)")
    parser.add_argument("--workers", type=int, default=2, help="worker processes (default 2)")
    parser.add_argument("--rate", type=float, default=200.0, help="commands a second (default 200)")
    parser.add_argument("--partitions", type=int, default=6, help="of each topic (default 6)")
    parser.add_argument("--bulk", action="store_true", help="a bulk topic, which has the load of every other partition")
    parser.add_argument("--only", action="append", default=[], choices=sorted(KINDS), metavar="KIND", help="this kind")
    parser.add_argument(
        "--alone", action="store_true", help="never two faults at a time; tells the silence each caused"
    )
    parser.add_argument(
        "--quiet", type=float, default=2.5, help="seconds of quiet after a fault, at most (default 2.5)"
    )
    parser.add_argument(
        "--mutant",
        choices=sorted(MUTANTS),
        help="undo one rule in the workers; if no kind is named, with the faults that are known to show it",
    )
    parser.add_argument("--logs", type=Path, help="a directory for the logs of workers and brokers")
    parser.add_argument("--list", action="store_true", help="list the kinds of faults, and end")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options = parser.parse_args()
    fitting = kinds_of(Delivery(options.delivery))
    if options.list:
        sys.stdout.write("".join(f"{kind.domain:10}{kind.name}\n" for kind in fitting))
        return 0
    for name in options.only:
        if KINDS[name] not in fitting:
            parser.error(f"{name}: its moment does not come with {options.delivery}")
    # The client by which brokers are asked whether they are up complains while they are not.
    logging.getLogger("aiokafka").addHandler(logging.NullHandler())
    outcome = asyncio.run(run(options))
    sys.stdout.write((json.dumps(document(outcome), indent=2) if options.json else tell(outcome)) + "\n")
    return outcome.exit_code


if __name__ == "__main__":
    sys.exit(main())
