"""The faults that befall a log of commands itself, and what a person then does about it (CONTRACT 8)."""

import asyncio
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from subprocess import CompletedProcess
from typing import Any, Final

import asyncpg
from confluent_kafka import KafkaException

from tests.acceptance.clients import consumed_offsets, log_ends, stream_to_end
from tests.acceptance.worker_process import ROOT
from tests.faults.ledger import Sent, sent
from tests.faults.stage import Stage
from tests.waiting import run_to_end
from worker.embedded.processes import until

FEWEST_UNREAD: Final = 2
MOST_UNREAD: Final = 40
MOMENT_SECONDS: Final = 15.0
"""How long the moment is waited for."""
DONE_SECONDS: Final = 60.0
"""Longer than any other fault lets a worker or a person wait."""


@dataclass(frozen=True, slots=True)
class Place:
    """A partition of a topic of commands."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}"


async def removed_unread(stage: Stage, chance: Random) -> bool:
    """Retention, or a person, removes commands that nobody has read; somebody hears of it and acknowledges it."""
    if stage.past.one.locked():
        return False
    async with stage.past.one:
        partition = chance.randrange(stage.partitions)
        place, count = Place(stage.source(partition), partition), chance.randint(FEWEST_UNREAD, MOST_UNREAD)
        async with stage.fleet.ended_in_order() as all_ended:
            lost = await _removed(stage, place, count) if all_ended else None
        if lost is None:
            return False
        told = _places_that_tell(stage, place, lost)
        await _require(stage, told, f"that {place} has lost offsets {lost.start} to {lost.stop - 1}")
        await _carried_out(stage, "lanes", "acknowledge", str(place), "--yes")
        await _require(stage, told, f"no more what {place} has lost, since it is acknowledged", said=False)
        return True


async def _removed(stage: Stage, place: Place, count: int) -> range | None:
    """Remove so many commands that nobody has read, with all before them; ``None`` if it is no moment for it."""
    bootstrap, known = stage.scene.kafka.bootstrap, await asyncio.to_thread(_answered, stage, place)
    if known is None:
        return None
    unread = range(known, known + count)
    if not await _came(lambda: log_ends(bootstrap, place.topic)[place.partition] >= unread.stop, MOMENT_SECONDS):
        return None
    gone = [each for each in await asyncio.to_thread(_held, stage, place) if each.offset < unread.stop]
    if not await _came(lambda: stage.cluster.remove_records(place.topic, place.partition, unread.stop) == unread.stop):
        raise TimeoutError(f"whether {place} was removed up to {unread.stop} is not known")
    stage.past.sent += gone
    stage.past.removed += [each for each in gone if each.offset in unread]
    return unread


def _answered(stage: Stage, place: Place) -> int | None:
    """The offset up to which all is decided and told, if Postgres and Kafka agree on it."""
    scene = stage.scene
    try:
        committed = consumed_offsets(scene.kafka.bootstrap, scene.group, place.topic).get(place.partition)
        query = "SELECT first_offset, next_offset FROM lane WHERE topic = $1 AND partition = $2"
        rows = scene.rows(query, place.topic, place.partition)
    except _HURT:
        return None
    offsets = {row[name] for row in rows for name in ("first_offset", "next_offset")} | {committed}
    return committed if rows and len(offsets) == 1 else None


def _held(stage: Stage, place: Place) -> list[Sent]:
    """What stands in the log."""
    return [sent(record) for record in stream_to_end(stage.scene.kafka.bootstrap, place.topic, only=place.partition)]


# --- people -----------------------------------------------------------------------------------------------------------


def _places_that_tell(stage: Stage, place: Place, lost: range) -> Mapping[str, Callable[[], bool]]:
    """Where a person finds out what was lost, and how to see whether it stands there."""

    def listed() -> bool:
        code, lanes = _listed(stage)
        unseen = [each for each in lanes[place]["lost"] if each["acknowledged_at"] is None]
        ranges = [(each["from_offset"], each["to_offset"]) for each in unseen]
        return code == 1 and ranges == [(lost.start, lost.stop - 1)]

    def in_health() -> bool:
        what = f"has lost commands before they were answered, at offsets {lost.start} to {lost.stop - 1}"
        return any(what in reason for reason in _reasons(stage))

    def measured() -> bool:
        texts = [slot.worker.metrics() for slot in stage.fleet.slots]
        return any("effective_worker_unacknowledged_losses 1" in text for text in texts)

    return {"lanes list": listed, "/readyz": in_health, "/metrics": measured}


async def _require(stage: Stage, told: Mapping[str, Callable[[], bool]], what: str, *, said: bool = True) -> None:
    """Write down who does not come to say ``what``, or, if not ``said``, who does not cease to."""
    for where, look in told.items():
        if not await _came(look, wanted=said):
            stage.past.untold.append(f"{where} should say {what}")


def _listed(stage: Stage) -> tuple[int, Mapping[Place, Mapping[str, Any]]]:
    """The exit code of ``lanes list``, and what it says of each. Raises ``ValueError`` if it lists none."""
    done = _command(stage, "lanes", "list", "--json")
    lanes = json.loads(done.stdout)["lanes"]
    return done.returncode, {Place(lane["topic"], lane["partition"]): lane for lane in lanes}


def _reasons(stage: Stage) -> list[str]:
    """What the workers say of their health. Raises ``OSError`` if one says nothing."""
    documents = [slot.worker.probe("/readyz")[1] for slot in stage.fleet.slots]
    if None in documents:
        raise ConnectionError("a worker is not there")
    return [document["reason"] for document in documents]


def _command(stage: Stage, *arguments: str) -> "CompletedProcess[str]":
    """A command of a person's, whose way to the servers leads through no proxy."""
    scene = stage.scene
    direct = {
        "WORKER_KAFKA__BOOTSTRAP_SERVERS": scene.kafka.bootstrap,
        "WORKER_POSTGRES__DSN": scene.database.worker_dsn,
        "WORKER_POSTGRES__OWNER_DSN": scene.database.owner_dsn,
    }
    environment = {**os.environ, **scene.settings, **direct}
    return run_to_end([sys.executable, "-m", "worker", *arguments], cwd=ROOT, env=environment)


async def _carried_out(stage: Stage, *arguments: str) -> None:
    """Tried again while something else is hurt. Raises ``TimeoutError``."""
    if not await _came(lambda: _command(stage, *arguments).returncode == 0):
        raise TimeoutError(f"effective-worker {' '.join(arguments)} does not come to its end")


_HURT: Final = (
    *(KafkaException, asyncpg.PostgresError, asyncpg.InterfaceError, OSError),
    *(AssertionError, LookupError, ValueError),
)
"""What a look may fail of while another fault is at work."""


async def _came(look: Callable[[], bool], seconds: float | None = None, *, wanted: bool = True) -> bool:
    """Whether what is seen is ``wanted`` within that time (``DONE_SECONDS``)."""

    async def holds() -> bool:
        try:
            return await asyncio.to_thread(look) is wanted
        except _HURT:
            return False

    try:
        await until(holds, DONE_SECONDS if seconds is None else seconds)
    except TimeoutError:
        return False
    return True
