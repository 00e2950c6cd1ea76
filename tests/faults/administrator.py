"""Faults of a log of commands itself, and a person's response to them (CONTRACT, Command line)."""

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from subprocess import CompletedProcess
from typing import Any, Final

import asyncpg
from confluent_kafka import KafkaException

from tests.acceptance.clients import consumed_offsets, log_ends, stream_to_end
from tests.acceptance.worker_process import ROOT
from tests.faults.calm import CALM_SECONDS
from tests.faults.ledger import Sent, sent
from tests.faults.stage import Stage
from tests.faults.within import within
from tests.providers import Unavailable
from tests.support.waiting import run_to_end

FEWEST_UNREAD: Final = 2
MOST_UNREAD: Final = 40
MOST_CUT: Final = 3
"""Record batches that are cut at most."""
MOMENT_SECONDS: Final = 15.0
"""The longest wait for the moment of a fault."""
AT_WORK: Final = frozenset({"new", "done", "behind"})
"""The states of a lane that needs no person."""
PATIENCE_SECONDS: Final = 30.0
"""Seconds for a promised reaction among other faults; after that they are held back, and it is judged."""
DONE_SECONDS: Final = 60.0
"""Seconds that the harness allows for its own actions."""
LOSSES: Final = "effective_worker_unacknowledged_losses"


@dataclass(frozen=True, slots=True)
class Place:
    """A partition of a topic of commands."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}"


async def removed_unread(stage: Stage, chance: Random) -> bool:
    """Remove unread commands, as retention or a person does; a person hears of it and acknowledges it."""
    if stage.past.one.locked():
        return False
    async with stage.past.one:
        partition = chance.randrange(stage.partitions)
        place, count = Place(stage.source(partition), partition), chance.randint(FEWEST_UNREAD, MOST_UNREAD)
        async with stage.fleet.ended_in_order() as all_ended:
            lost = await _removed(stage, place, count) if all_ended else None
        if lost is None:
            return False
        what = f"say that {place} has lost offsets {lost.start} to {lost.stop - 1}"
        is_told = await _require(stage, _places_that_tell(stage, place, lost), what)
        if await _carried_out(stage, "lanes", "acknowledge", str(place), "--yes") and is_told:
            what = f"say no more what {place} has lost, since it is acknowledged"
            await _require(stage, _places_that_tell(stage, place, None), what)
        return True


async def made_anew(stage: Stage, chance: Random) -> bool:
    """Delete a topic of commands and make it again: a lane that decided on the former one waits for a person."""
    if stage.past.one.locked():
        return False
    async with stage.past.one:
        topic = chance.choice(stage.sources)
        async with _all_answered(stage) as is_answered:
            decided = await asyncio.to_thread(_decided, stage, topic) if is_answered else None
            if not decided:
                return False
            await _replaced(stage, topic)
        what = f"say that {topic} waits for a person"
        is_told = await _require(stage, _places_that_tell_of_blocks(stage, decided), what)
        await _mended(stage, "from-start", judged=is_told)
        return True


async def cut_off(stage: Stage, chance: Random) -> bool:
    """Lose answered commands at the end of a log, whose offsets others will have: a lane that decided on them waits.

    As after an unclean election: acknowledged records are in no log any more.
    """
    if stage.past.one.locked():
        return False
    partition, count = chance.randrange(stage.partitions), chance.randint(1, MOST_CUT)
    place = Place(stage.source(partition), partition)
    async with stage.past.one, _all_answered(stage) as is_answered:
        decided = await asyncio.to_thread(_decided, stage, place.topic) if is_answered else ()
        if place not in decided:
            return False
        stage.past.sent += await asyncio.to_thread(_held, stage, place.topic, partition)
        end = await stage.cluster.lose_end(place.topic, partition, count)
        if not await _came(lambda: log_ends(stage.scene.kafka.bootstrap, place.topic)[partition] == end):
            raise TimeoutError(f"{place} does not end at {end}")
        what = f"say that {place} waits for a person"
        is_told = await _require(stage, _places_that_tell_of_blocks(stage, [place]), what)
        # All that is in the log is answered: nothing of it may be decided again.
        await _mended(stage, "from-end", judged=is_told)
        return True


async def _mended(stage: Stage, way: str, *, judged: bool) -> None:
    """Take the way out of every lane that does not start, and check that they all do."""
    if await _carried_out(stage, "lanes", "mend", "--by", way, "--yes") and judged:
        starts = {"every lane": lambda: all(lane["state"] in AT_WORK for lane in _listed(stage)[1].values())}
        await _require(stage, starts, f"start, since it is mended {way}")


async def _replaced(stage: Stage, topic: str) -> None:
    """Read the log, delete the topic, and make one of the same name with as many partitions."""
    count = len(await asyncio.to_thread(log_ends, stage.scene.kafka.bootstrap, topic))
    held = await asyncio.to_thread(_held, stage, topic)
    if not await _came(lambda: stage.cluster.is_gone(topic)):
        raise TimeoutError(f"{topic} is not gone")
    stage.past.sent += held
    if not await _came(lambda: stage.cluster.is_there(topic, count)):
        raise TimeoutError(f"{topic} is not made anew")


@asynccontextmanager
async def _all_answered(stage: Stage) -> AsyncIterator[bool]:
    """Pause the load. True if all that was sent before is answered, and every broker is well.

    Other faults are held back until then: among them that moment hardly ever comes.
    """
    load = stage.load
    assert load is not None
    try:
        async with stage.calm.asked() as is_calm:
            taken = is_calm and await asyncio.to_thread(load.pause, MOMENT_SECONDS)
            is_answered = taken and await _came(lambda: not stage.left(), MOMENT_SECONDS) and await _is_whole(stage)
        yield is_answered
    finally:
        load.resume()


async def _is_whole(stage: Stage) -> bool:
    try:
        await stage.cluster.healed(MOMENT_SECONDS)
    except Unavailable:
        return False
    return True


def _decided(stage: Stage, topic: str) -> frozenset[Place]:
    """Return the partitions with decisions; none if Postgres cannot tell."""
    try:
        rows = stage.scene.rows("SELECT partition FROM lane WHERE topic = $1 AND next_offset > 0", topic)
    except _HURT:
        return frozenset()
    return frozenset(Place(topic, row["partition"]) for row in rows)


async def _removed(stage: Stage, place: Place, count: int) -> range | None:
    """Remove so many unread commands, with all before them; ``None`` if the moment is wrong for it."""
    bootstrap, known = stage.scene.kafka.bootstrap, await asyncio.to_thread(_answered, stage, place)
    if known is None:
        return None
    unread = range(known, known + count)
    if not await _came(lambda: log_ends(bootstrap, place.topic)[place.partition] >= unread.stop, MOMENT_SECONDS):
        return None
    held = await asyncio.to_thread(_held, stage, place.topic, place.partition)
    gone = [each for each in held if each.offset < unread.stop]
    if not await _came(lambda: stage.cluster.remove_records(place.topic, place.partition, unread.stop) == unread.stop):
        raise TimeoutError(f"whether {place} was removed up to {unread.stop} is not known")
    stage.past.sent += gone
    stage.past.removed += [each for each in gone if each.offset in unread]
    return unread


def _answered(stage: Stage, place: Place) -> int | None:
    """Return the offset up to which all is decided and published, if Postgres and Kafka agree on it."""
    scene = stage.scene
    try:
        committed = consumed_offsets(scene.kafka.bootstrap, scene.group, place.topic).get(place.partition)
        query = "SELECT next_offset FROM lane WHERE topic = $1 AND partition = $2"
        decided = [row["next_offset"] for row in scene.rows(query, place.topic, place.partition)]
    except _HURT:
        return None
    return committed if decided == [committed] else None


def _held(stage: Stage, topic: str, only: int | None = None) -> list[Sent]:
    """Read the logs of a topic, or that of one partition."""
    return [sent(record) for record in stream_to_end(stage.scene.kafka.bootstrap, topic, only=only)]


# --- people -----------------------------------------------------------------------------------------------------------


def _places_that_tell(stage: Stage, place: Place, lost: range | None) -> Mapping[str, Callable[[], bool]]:
    """Return the places that tell a person of a loss, each with a look that returns its report or ``None``."""

    def listed() -> bool:
        code, lanes = _listed(stage)
        unseen = [each for each in lanes[place]["lost"] if each["acknowledged_at"] is None]
        ranges = [(each["from_offset"], each["to_offset"]) for each in unseen]
        return (code, ranges) == ((0, []) if lost is None else (1, [(lost.start, lost.stop - 1)]))

    def in_health() -> bool:
        what = "has lost commands before they were answered"
        if lost is None:
            return not any(what in reason for reason in _reasons(stage))
        # Text after the last offset is no further digit of it.
        pattern = re.compile(rf"{what}, at offsets {lost.start} to {lost.stop - 1}(?!\d)")
        return any(pattern.search(reason) for reason in _reasons(stage))

    def measured() -> bool:
        counts = [_measured(slot.worker.metrics(), LOSSES) for slot in stage.fleet.slots]
        return not any(counts) if lost is None else max(counts) == 1

    return {"lanes list": listed, "/readyz": in_health, "/metrics": measured}


def _measured(text: str, name: str) -> float:
    """Return the value of a metric without labels. Raises ``LookupError`` if it is not there."""
    values = [line.split()[1] for line in text.splitlines() if line.startswith(f"{name} ")]
    return float(values[0])


def _places_that_tell_of_blocks(stage: Stage, places: Collection[Place]) -> Mapping[str, Callable[[], bool]]:
    """Return the places that tell a person that these lanes do not start, each with a look that checks for it."""

    def written() -> bool:
        rows = stage.scene.rows("SELECT topic, partition FROM lane WHERE blocked IS NOT NULL")
        return {Place(row["topic"], row["partition"]) for row in rows} >= set(places)

    def listed() -> bool:
        code, lanes = _listed(stage)
        return code == 1 and all(lanes[place]["state"] == "blocked" for place in places)

    def in_health() -> bool:
        said = "; ".join(_reasons(stage))
        usual = stage.scene.topics.commands
        names = [str(place.partition) if place.topic == usual else str(place) for place in places]
        return all(f"partition {name} is blocked" in said for name in names)

    return {"its row": written, "lanes list": listed, "/readyz": in_health}


async def _require(stage: Stage, told: Mapping[str, Callable[[], bool]], what: str) -> bool:
    """Record the places that do not come to do ``what``. True if all did. Raises ``TimeoutError`` if that cannot be
    judged.

    All are looked at at once: an act has a time of its own, in which it ends even if no place reports it.
    """
    silent = await _not_come(told, PATIENCE_SECONDS)
    if silent:
        async with stage.calm.asked() as is_calm:
            if not is_calm:
                raise TimeoutError(f"other faults do not come to their end, before {', '.join(silent)} should {what}")
            silent = await _not_come({where: told[where] for where in silent}, CALM_SECONDS)
    stage.past.untold += [f"{where} should {what}" for where in silent]
    return not silent


async def _not_come(told: Mapping[str, Callable[[], bool]], seconds: float) -> list[str]:
    """Return the places in which it is not seen within that time."""
    came = await asyncio.gather(*(_came(look, seconds) for look in told.values()))
    return [where for where, is_seen in zip(told, came, strict=True) if not is_seen]


def _listed(stage: Stage) -> tuple[int, Mapping[Place, Mapping[str, Any]]]:
    """Return the exit code of ``lanes list``, and its line for each. Raises ``ValueError`` if it lists none."""
    done = _command(stage, "lanes", "list", "--json")
    lanes = json.loads(done.stdout)["lanes"]
    return done.returncode, {Place(lane["topic"], lane["partition"]): lane for lane in lanes}


def _reasons(stage: Stage) -> list[str]:
    """Ask the workers for the reasons of their health. Raises ``OSError`` if one does not answer."""
    documents = [slot.worker.probe("/readyz")[1] for slot in stage.fleet.slots]
    if None in documents:
        raise ConnectionError("a worker is not there")
    return [document["reason"] for document in documents]


def _command(stage: Stage, *arguments: str) -> "CompletedProcess[str]":
    """Run a person's command, which reaches the servers without a proxy."""
    scene = stage.scene
    direct = {
        "WORKER_KAFKA__BOOTSTRAP_SERVERS": scene.kafka.bootstrap,
        "WORKER_POSTGRES__DSN": scene.database.worker_dsn,
        "WORKER_POSTGRES__OWNER_DSN": scene.database.owner_dsn,
    }
    environment = {**os.environ, **scene.settings, **direct}
    return run_to_end([sys.executable, "-m", "worker", *arguments], cwd=ROOT, env=environment)


async def _carried_out(stage: Stage, *arguments: str) -> bool:
    """Run it, again while another fault is at work. True if it came to its end, which people are promised too."""
    name = f"effective-worker {' '.join(arguments)}"
    return await _require(stage, {name: lambda: _command(stage, *arguments).returncode == 0}, "come to its end")


_HURT: Final = (
    KafkaException,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    OSError,
    AssertionError,
    LookupError,
    ValueError,
)
"""The errors of a look while another fault is at work."""


async def _came(look: Callable[[], bool], seconds: float | None = None) -> bool:
    """True if it is seen within that time (``DONE_SECONDS``)."""

    async def holds() -> bool:
        try:
            return await asyncio.to_thread(look)
        except _HURT:
            return False

    return await within(DONE_SECONDS if seconds is None else seconds, holds)
