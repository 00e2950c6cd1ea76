"""The schedule: all kinds of faults in an order that the seed decides, alone or together, with quiet in between."""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Final

from tests.faults.kinds import Domain, FaultKind
from tests.faults.rules import Unkept
from tests.faults.stage import Stage

PAIRED: Final = 0.3
PROCESSES: Final = frozenset({Domain.WORKER, Domain.BROKER})
"""The domains of processes. ``PAIRED`` is the share of faults that come with one of another domain."""
LONGEST_SECONDS: Final = 450.0
"""Seconds that exceed any fault, with the healing of the cluster and one wait for quiet (``calm``) included."""


@dataclass(frozen=True, slots=True)
class Strike:
    """One or two faults at a time, and the quiet after them in seconds."""

    kinds: tuple[FaultKind, ...]
    quiet: float
    seed: str


@dataclass(frozen=True, slots=True)
class Struck:
    """A fault that took place. Times are monotonic seconds."""

    name: str
    domain: str
    began: float
    ended: float


@dataclass(slots=True)
class Log:
    """A log of the schedule."""

    struck: list[Struck] = field(default_factory=list)
    missed: Counter[str] = field(default_factory=Counter)
    """Faults whose moment did not come."""
    broken: list[str] = field(default_factory=list)
    """Faults that the harness could not carry out: its own failures."""
    unkept: list[str] = field(default_factory=list)
    """Promises that faults have seen broken."""

    def counts(self) -> dict[str, int]:
        return dict(sorted(Counter(each.name for each in self.struck).items()))


def rows(seed: int, kinds: Sequence[FaultKind], *, alone: bool = False, quiet: float = 2.5) -> list[Iterator[Strike]]:
    """Return endless rows to be played at the same time: one hurts processes, the other their connections.

    ``alone`` makes it one row, in which no fault has company. ``quiet`` is the longest pause after a strike of a row,
    in seconds. The same arguments give the same rows.
    """
    if alone:
        return [_row(f"{seed}", kinds, paired=0.0, quiet=quiet)]
    processes = [kind for kind in kinds if kind.domain in PROCESSES]
    others = [kind for kind in kinds if kind.domain not in PROCESSES]
    return [
        _row(f"{seed}/{name}", part, paired=PAIRED, quiet=quiet)
        for name, part in (("processes", processes), ("others", others))
        if part
    ]


def _row(seed: str, kinds: Sequence[FaultKind], *, paired: float, quiet: float) -> Iterator[Strike]:
    """Yield every kind once in each round, now and then together with one of another domain."""
    chance = Random(f"schedule {seed}")
    number = 0
    while True:
        waiting = chance.sample(kinds, len(kinds))
        while waiting:
            chosen = [waiting.pop()]
            others = [kind for kind in waiting if kind.domain is not chosen[0].domain]
            if others and chance.random() < paired:
                chosen.append(others[-1])
                waiting.remove(others[-1])
            yield Strike(tuple(chosen), chance.uniform(quiet / 8, quiet), f"{seed}/{number}")
            number += 1


async def play(stage: Stage, row: Iterator[Strike], until: float, log: Log) -> None:
    """Play strike after strike until the monotonic clock says ``until``; a strike that has begun is finished.

    It ends early when a server has fallen: the run no longer follows the schedule.
    """
    while True:
        await stage.calm.over()
        if (now := time.monotonic()) >= until or stage.fallen():
            return
        strike = next(row)
        acts = (_carry_out(stage, kind, Random(strike.seed), log) for kind in strike.kinds)
        await asyncio.gather(*acts)
        await asyncio.sleep(min(strike.quiet, max(until - now, 0)))


async def _carry_out(stage: Stage, kind: FaultKind, chance: Random, log: Log) -> None:
    async with stage.calm.work():
        began = time.monotonic()
        sys.stderr.write(f"{datetime.now(UTC):%H:%M:%S} {kind.name}\n")
        try:
            async with asyncio.timeout(LONGEST_SECONDS):
                done = await kind.act(stage, chance)
        except Unkept as seen:
            log.unkept.append(f"{kind.name}: {seen}")
            done = True
        except Exception as error:  # noqa: BLE001 - a failing fault is reported with the verdict, and the run goes on
            log.broken.append(f"{kind.name}: {type(error).__name__}: {error}")
            return
        if done is False:
            log.missed[kind.name] += 1
        else:
            log.struck.append(Struck(kind.name, kind.domain, began, time.monotonic()))
