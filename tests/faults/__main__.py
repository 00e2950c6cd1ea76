"""``python -m tests.faults``: every promise, under fire. Prints seed, faults by kind, commands and the verdict.

Exit 0 if every promise was kept, 1 if one was broken, 2 if that was not checked because the harness failed twice, 64
for a wrong command line.
"""

import argparse
import asyncio
import json
import logging
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final, NoReturn

import psutil

from tests.acceptance.clients import log_ends
from tests.faults.catch_up import CatchUp, Metronome, follow
from tests.faults.checker import Report, Violation, check
from tests.faults.holdings import too_much
from tests.faults.kinds import KINDS, FaultKind, kinds_of
from tests.faults.ledger import Delivery, Evidence, Ledger
from tests.faults.load import CODECS, Load, Mix
from tests.faults.mutants import MUTANTS
from tests.faults.outcome import Outcome, command_of, document, last_lines, tell
from tests.faults.rules import USAGE, Rule, Verdict
from tests.faults.schedule import LONGEST_SECONDS, Log, play, rows
from tests.faults.stage import SESSION_SECONDS, Stage, staged
from tests.faults.witness import Witness, gather, sessions

EFFECTIVE: Final = 20
HEARTBEAT_SECONDS: Final = 1.0
"""Seconds between two heartbeats of a worker with such a session."""
QUIET_SECONDS: Final = SESSION_SECONDS + 2 * HEARTBEAT_SECONDS
"""Seconds of the quiet.

A worker that wrongly tries to come back does so with the next heartbeat; the second finds the effect of that, and by
the end of a session every worker has been heard.
"""
TRICKLE: Final = 40.0
"""Commands a second in the quiet: a lane that was fenced notices it when it publishes."""
SESSIONS: Final = 10
"""Sessions that one worker may hold in Postgres."""
DESCRIPTORS: Final = 150
"""Descriptors that one worker may hold: its sockets to three brokers for each lane, and little else."""
TOO_LARGE: Final = frozenset({10, 18})
"""The errors by which a broker says that it will never take a record (Kafka's protocol)."""
KILLED: Final = "broker-killed"
DOUBLED: Final = "load-doubled"
DOUBLED_EVERY: Final = 50
BEFORE_SECONDS: Final = 0.5
AFTER_SECONDS: Final = 1.0
"""Seconds around a fault within which a silence that begins is blamed on it."""


@dataclass(slots=True)
class Attempt:
    """One run, as far as it has got."""

    noticed: list[Violation] = field(default_factory=list)
    """The harness's observations of itself, in case there is no report."""
    outcome: Outcome | None = None


Run = Callable[[argparse.Namespace, Path, Attempt], Coroutine[None, None, None]]


async def run(options: argparse.Namespace, logs: Path, attempt: Attempt) -> None:
    """Run once, from an empty cluster to the outcome."""
    async with staged(
        workers=options.workers,
        partitions=options.partitions,
        delivery=Delivery(options.delivery),
        logs=logs,
        mutant=options.mutant,
        bulk=options.bulk,
    ) as stage:
        try:
            attempt.outcome = await _under_fire(stage, options)
        finally:
            attempt.noticed += [Violation(Rule.SERVERS, what) for what in stage.fallen()]


async def _under_fire(stage: Stage, options: argparse.Namespace) -> Outcome:
    ledger, load = await asyncio.to_thread(_prepared, stage, options)
    stage = replace(stage, load=load)
    topics = stage.scene.topics
    watched = (topics.results, topics.transitions, topics.dead_letters)
    witness = Witness(stage.scene.kafka.bootstrap, watched)
    log, began = Log(), time.monotonic()
    await stage.fleet.start()
    witness.start()
    load.start()
    helpers = [asyncio.create_task(stage.fleet.keep()), asyncio.create_task(stage.watch())]
    if options.plant == KILLED:
        helpers.append(asyncio.create_task(_kill_a_broker(stage, options.seconds / 3)))
    try:
        played = rows(options.seed, _chosen(options), alone=options.alone, quiet=options.quiet)
        until = time.monotonic() + options.seconds
        await asyncio.gather(*(play(stage, row, until, log) for row in played))
        evidence = await _at_rest(stage, load, witness, ledger)
    finally:
        for helper in helpers:
            helper.cancel()
        ends = await asyncio.gather(*helpers, return_exceptions=True)
        await asyncio.to_thread(load.abandon)
        await asyncio.to_thread(witness.abandon)
    evidence.bungled = [*log.broken, *(f"{type(end).__name__}: {end}" for end in ends if isinstance(end, Exception))]
    evidence.unkept = log.unkept
    return Outcome(
        options.seed,
        ledger.delivery,
        time.monotonic() - began,
        log,
        check(ledger, evidence),
        dict(stage.fleet.ends),
        dict(stage.fleet.events().most_common()),
        stage.fleet.unasked,
        _recovery(log, witness, topics.results) if options.alone else {},
    )


async def _kill_a_broker(stage: Stage, seconds: float) -> None:
    """Kill a broker as the system might, outside the schedule."""
    await asyncio.sleep(seconds)
    running = [node.pid for node in stage.cluster.nodes if node.pid is not None]
    os.kill(running[0], signal.SIGKILL)


def _chosen(options: argparse.Namespace) -> list[FaultKind]:
    exposing = MUTANTS[options.mutant].kinds if options.mutant else ()
    return [KINDS[name] for name in options.only or exposing] or kinds_of(Delivery(options.delivery))


def _prepared(stage: Stage, options: argparse.Namespace) -> tuple[Ledger, Load]:
    """Prepare the load, with access tokens that a command may set effective, and some that are."""
    # The load goes on until the last fault is over.
    count = int((options.seconds + LONGEST_SECONDS) * options.rate) + 1000
    fresh = stage.scene.new_tokens(count, prefix="t")
    effective = stage.scene.new_tokens(EFFECTIVE, prefix="e")
    stage.scene.execute("UPDATE access_token SET life_cycle_state = 'EFFECTIVE' WHERE id = ANY ($1)", effective)
    ledger = Ledger(
        known=frozenset(fresh + effective), effective=frozenset(effective), delivery=Delivery(options.delivery)
    )
    mix = Mix(options.seed, options.partitions, iter(sorted(fresh)), sorted(effective))
    doubled_every = DOUBLED_EVERY if options.plant == DOUBLED else 0
    bootstrap = stage.scene.kafka.bootstrap
    codec = CODECS[options.seed % len(CODECS)]
    load = Load(bootstrap, stage.source, mix, ledger, rate=options.rate, codec=codec, doubled_every=doubled_every)
    return ledger, load


async def _at_rest(stage: Stage, load: Load, witness: Witness, ledger: Ledger) -> Evidence:
    """Heal the damage, let the workers catch up and rest for a while, stop them, and gather the evidence."""
    for proxy in stage.proxies:
        proxy.disarm()
    await stage.postgres.start()
    await stage.cluster.start()
    load.rate = TRICKLE
    with Metronome() as metronome:
        catch_up, disturbed = await _in_the_quiet(stage, load, metronome)
        refused = [] if load.is_alive() else ["it came to its end before the quiet did"]
        told = await asyncio.to_thread(load.finish)
        refused += [] if told is None else [told]
        if catch_up.done:
            catch_up = await asyncio.to_thread(follow, stage.left)
        left = [f"{name} is not ready" for name in await _not_ready(stage)]
        left += await _held(stage)
        left += await stage.fleet.drained()
    left += [f"{each} after the last worker ended" for each in await asyncio.to_thread(sessions, stage.scene)]
    evidence = await asyncio.to_thread(gather, stage.scene, witness, sorted(ledger.known), stage.sources, stage.past)
    evidence.disturbed, evidence.left, evidence.refused = disturbed, left, refused
    evidence.failed, evidence.fallen = stage.fleet.failures(), stage.fallen()
    evidence.stalled = [f"{place} stands still with {count} to go" for place, count in catch_up.standing.items()]
    evidence.slow = [f"{place} comes on, with {count} to go" for place, count in catch_up.slow.items()]
    evidence.still_seconds = metronome.latest
    fired = (each.fault for proxy in stage.kafka_proxies for each in proxy.fired)
    evidence.refused_as_too_large = sum(fault.error in TOO_LARGE for fault in fired)
    return evidence


async def _not_ready(stage: Stage) -> list[str]:
    slots = stage.fleet.slots
    ready = await asyncio.gather(*(stage.fleet.ready(slot) for slot in slots))
    return [slot.name for slot, is_ready in zip(slots, ready, strict=True) if not is_ready]


async def _in_the_quiet(stage: Stage, load: Load, metronome: Metronome) -> tuple[CatchUp, Sequence[str]]:
    """Return the lanes that are lost in a while in which no fault is at work and every lane has work.

    It begins when all workers are ready and all that was sent is consumed, and one command more in every partition:
    until then a lane may still notice an earlier fault. Without a load there are no such commands, and no quiet.
    """
    await _not_ready(stage)
    wanted = await asyncio.to_thread(_one_more, stage)
    catch_up = CatchUp({}, {})
    if load.is_alive():
        catch_up = await asyncio.to_thread(follow, partial(stage.left, wanted))
    if not catch_up.done or not load.is_alive():
        return catch_up, ()
    metronome.latest = 0.0  # delays of the machine before this had no effect on a worker
    began = datetime.now(UTC)
    await asyncio.sleep(QUIET_SECONDS)
    return catch_up, stage.fleet.losses(began)


def _one_more(stage: Stage) -> dict[str, dict[int, int]]:
    """Return the end of every partition that gets load and was there from the beginning, plus one."""
    ends = {topic: log_ends(stage.scene.kafka.bootstrap, topic) for topic in stage.sources}
    return {
        topic: {number: end[number] + 1 for number in range(stage.partitions) if stage.source(number) == topic}
        for topic, end in ends.items()
    }


async def _held(stage: Stage) -> list[str]:
    """Return the holdings of resting workers beyond their limits."""
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
        # The look for records to retire is in one for some milliseconds, now and then.
        "SELECT count(*) AS sessions,"
        " count(*) FILTER (WHERE state LIKE 'idle in transaction%' AND xact_start < now() - interval '1 s') AS open"
        " FROM pg_stat_activity WHERE application_name = 'effective-worker'"
    )
    if rows[0]["sessions"] > SESSIONS * len(stage.fleet.slots):
        found.append(f"{rows[0]['sessions']} sessions in Postgres")
    if rows[0]["open"]:
        found.append(f"{rows[0]['open']} transactions open in Postgres")
    return found


def _recovery(log: Log, witness: Witness, topic: str) -> dict[str, tuple[int, float, float]]:
    """Return, by kind, the number of faults, and a partition's median and longest silence in seconds.

    Only faults that come alone are to blame for it.
    """
    silences: dict[str, list[float]] = {}
    for each in log.struck:
        silence = witness.longest_silence(topic, each.began - BEFORE_SECONDS, each.ended + AFTER_SECONDS)
        silences.setdefault(each.name, []).append(silence)
    return {name: (len(all_), round(median(all_), 2), round(max(all_), 2)) for name, all_ in sorted(silences.items())}


# --- from the command line --------------------------------------------------------------------------------------------


def once(options: argparse.Namespace, logs: Path, play_it: Run = run) -> Outcome:
    """Run one attempt, and report its outcome whatever happens to it."""
    attempt, began = Attempt(), time.monotonic()
    logs.mkdir(parents=True, exist_ok=True)
    try:
        asyncio.run(play_it(options, logs, attempt))
    except Exception as error:  # noqa: BLE001 - a run that ends by itself is an outcome too
        (logs / "traceback.txt").write_text(traceback.format_exc(), encoding="utf-8")
        told = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        if attempt.outcome is not None:
            attempt.outcome.report.violations.append(Violation(Rule.TIDY, told))
        else:
            attempt.noticed.append(Violation(Rule.RUN, told))
    outcome = attempt.outcome
    if outcome is None:
        seconds, delivery = time.monotonic() - began, Delivery(options.delivery)
        outcome = Outcome(options.seed, delivery, seconds, Log(), Report(violations=attempt.noticed), {}, {}, [], {})
    every = "\n".join(f"{each.rule.side}: {each.rule}: {each.what}" for each in outcome.report.violations)
    (logs / "outcome.txt").write_text(f"{tell(outcome)}\n\nall that was broken:\n{every}\n", encoding="utf-8")
    return outcome


def main(
    arguments: Sequence[str] | None = None, attempted: Callable[[argparse.Namespace, Path], Outcome] = once
) -> int:
    """Run, and return the exit code. A run spoilt by the harness is repeated, once."""
    options = parsed(arguments)
    if options.list:
        fitting = kinds_of(Delivery(options.delivery))
        sys.stdout.write("".join(f"{kind.domain:10}{kind.name}\n" for kind in fitting))
        return 0
    # The client that asks the brokers if they are up complains while they are not.
    logging.getLogger("aiokafka").addHandler(logging.NullHandler())
    logs = options.logs or Path(tempfile.mkdtemp(prefix="faults-logs-"))
    outcomes = [attempted(options, logs / "run-1")]
    if outcomes[-1].verdict is Verdict.NOT_CHECKED:
        sys.stderr.write("the harness failed: NOT CHECKED. Once more, with the same seed\n")
        outcomes.append(attempted(options, logs / "run-2"))
    outcome = outcomes[-1]
    kept = options.logs is not None or any(each.verdict is not Verdict.KEPT for each in outcomes)
    if not kept:
        shutil.rmtree(logs, ignore_errors=True)
    sys.stdout.write((json.dumps(document(outcomes), indent=2) if options.json else tell(outcome)) + "\n")
    sys.stdout.flush()
    reason = "\n".join(last_lines(outcomes, command_of(options), logs if kept else None)) + "\n"
    # The document has stdout for itself.
    (sys.stderr if options.json else sys.stdout).write(reason)
    return outcome.exit_code


class _Parser(argparse.ArgumentParser):
    """A parser whose errors have an exit code of their own: 2 is a verdict."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(USAGE, f"{self.prog}: error: {message}\n")


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options. Ends the process with ``USAGE`` if they make no sense."""
    parser = _Parser(
        prog="python -m tests.faults",
        description="every promise, under fire",
        epilog="exit codes: 0 kept, 1 broken, 2 not checked: the harness failed twice, 64 a wrong command line",
    )
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
    parser.add_argument(
        "--plant",
        choices=(KILLED, DOUBLED),
        help="let the harness fail: a broker is killed outside the schedule, or a part of the load is sent twice;"
        " to show that the harness notices",
    )
    parser.add_argument(
        "--logs",
        type=Path,
        help="a directory for the logs of every run (by default a new one, which is kept unless the verdict is kept)",
    )
    parser.add_argument("--list", action="store_true", help="list the kinds of faults, and end")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout; the last lines go to stderr")
    options = parser.parse_args(arguments)
    fitting = kinds_of(Delivery(options.delivery))
    for name in options.only:
        if KINDS[name] not in fitting:
            parser.error(f"{name}: its moment does not come with {options.delivery}")
    return options


if __name__ == "__main__":
    # A signal that ends this process also ends the programs it started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
