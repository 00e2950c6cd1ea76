"""Records of a few kilobytes that inflate to up to a thousand megabytes, and their effect on other commands.

An open loop of commands is timed on an idle worker, and again while one such record a second comes to a partition. The
waits of its neighbours are compared; the wait behind it in its own partition has a bound.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from zlib import crc32

from effective_contract.headers import STATUS_CODE
from tests.benchmarks.bulk import RATE, WARM_UP, Place, place_for
from tests.benchmarks.latency import percentile
from tests.benchmarks.load import commands, make_tokens, new_run, read_headers
from tests.benchmarks.meter import PROC, status_bytes
from tests.benchmarks.openloop import Phase, Timed
from tests.benchmarks.report import Report
from tests.benchmarks.stage import Stage
from tests.support.batches import BROKERS_LIMIT, CODECS, PLACES, batch, large, send
from worker.kafka.topics import PARTITIONS

MB: Final = 10**6
SIZES: Final = (1, 20, 60, 106, 200, 1000)
"""MB. Sizes that the broker does not accept by default are left out."""
PARTITION: Final = 0
PAUSE_SECONDS: Final = 1.0
NEIGHBOURS_BAR: Final = 3.0
BEHIND_BAR: Final = 2000
"""Milliseconds."""
MEMORY_BAR: Final = 400
"""MiB."""


@dataclass(frozen=True, slots=True)
class Harm:
    """A harmful record: its size in MB, the place of that in the record, and its batch as it is sent."""

    size: int
    place: str
    codec: str
    data: bytes


def harms(sizes: Sequence[int]) -> Iterator[Harm]:
    """Yield every size in every place under every codec, as far as the broker accepts it."""
    for size in sizes:
        for codec in CODECS:
            for place in PLACES:
                if codec == "none" and size > min(SIZES):
                    continue  # larger than the broker accepts: not worth making
                data = batch([large(place, size * MB)], codec, timestamp=time.time_ns() // 1_000_000)
                if len(data) <= BROKERS_LIMIT:
                    yield Harm(size, place, codec, data)


async def inflating(stage: Stage, report: Report, quick: bool) -> None:
    """Measure and report."""
    chosen = list(harms(SIZES[:2] if quick else SIZES))
    phase = Phase.at(RATE, len(chosen) * PAUSE_SECONDS)
    run = new_run()
    await make_tokens(stage.owner_dsn, run, 2 * (WARM_UP.count + phase.count))
    async with place_for(stage, bulk=False) as place:
        before = await place.timed(run, 1, WARM_UP, phase)
        first = 1 + WARM_UP.count + phase.count
        sending = asyncio.create_task(_send(stage, place, chosen))
        during = await place.timed(run, first, WARM_UP, phase)
        await sending
        await place.through()
        memory = status_bytes((PROC / str(place.worker.pid) / "status").read_text(encoding="ascii"))["VmHWM"] / 2**20
        refused = await asyncio.to_thread(_refused, place)
        live = (place.worker.probe("/livez")[0], place.worker.probe("/readyz")[0])
    assert (refused, live) == (len(chosen), (200, 200)), f"{refused} of {len(chosen)} refused; live and ready: {live}"
    quiet, neighbours, behind = _neighbours(run, 1, before)[0], *_neighbours(run, first, during)
    rows = [
        (name, len(took), percentile(took, 0.5), percentile(took, 0.99), max(took))
        for name, took in (("nothing", quiet), ("its neighbours", neighbours), ("its own partition", behind))
    ]
    told = ", ".join(sorted({f"{harm.size} MB {harm.codec}" for harm in chosen}))
    report.say(f"one a second, each in {', '.join(PLACES)}: {told}")
    report.table(
        f"Commands at {RATE}/s beside records that inflate, in ms", ("", "commands", "p50", "p99", "longest"), rows
    )
    ratio = percentile(neighbours, 0.99) / percentile(quiet, 0.99)
    report.judge(
        "p99 of the neighbours, by that before",
        f"<= {NEIGHBOURS_BAR:g} x",
        f"{ratio:.2f} x",
        met=ratio <= NEIGHBOURS_BAR,
    )
    report.judge(
        "the longest wait behind one", f"<= {BEHIND_BAR} ms", f"{max(behind):.0f} ms", met=max(behind) <= BEHIND_BAR
    )
    report.judge("memory of the worker", f"<= {MEMORY_BAR} MiB", f"{memory:.0f} MiB", met=memory <= MEMORY_BAR)


async def _send(stage: Stage, place: Place, chosen: Sequence[Harm]) -> None:
    options = {"bootstrap_servers": stage.bootstrap, "request_timeout_ms": 60_000}
    for harm in chosen:
        await send(options, place.topics.commands, PARTITION, harm.data)
        await asyncio.sleep(PAUSE_SECONDS)


def _refused(place: Place) -> int:
    answers = read_headers(place.stage.bootstrap, place.topics.results)
    return sum(headers[STATUS_CODE] == b"MALFORMED_REQUEST" for headers, _ in answers)


def _neighbours(run: str, first: int, timed: Timed) -> tuple[list[float], list[float]]:
    """Return the times of the commands of other partitions, and those of the partition's own."""
    counted = range(first + WARM_UP.count, first + WARM_UP.count + len(timed.took))
    # By librdkafka's partitioner, which differs from all others.
    own = [crc32(key) % PARTITIONS == PARTITION for key, _, _ in commands(run, counted)]
    took = list(zip(own, timed.took, strict=True))
    return [each for is_own, each in took if not is_own], [each for is_own, each in took if is_own]
