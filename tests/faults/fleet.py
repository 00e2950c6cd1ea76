"""The workers of a run: any that ends is started again, as a process manager would do."""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import psutil

from tests.acceptance.worker_process import WorkerProcess
from tests.faults.holdings import EVENT
from tests.faults.within import within
from tests.faults.worker import faulty

WATCH_SECONDS: Final = 0.1
READY_SECONDS: Final = 60.0
ANSWER_SECONDS: Final = 30.0
RETENTION_SECONDS: Final = 5.0
"""Seconds between two looks of a worker for records to retire. None is old enough: any removal is a fault."""
DSN: Final = "WORKER_POSTGRES__DSN"
DRAIN_SECONDS: Final = 40.0
# A SIGTERM before its handler is installed is one of them.
ENDED_BY_US: Final = frozenset({0, -signal.SIGKILL, -signal.SIGTERM})


class Slot:
    """The place of one worker, which is taken by one process after the other."""

    def __init__(self, name: str, settings: Mapping[str, str], directory: Path, mutant: str | None) -> None:
        self.name = name
        self.wanted = True
        """True if it is started again when it has ended."""
        self.lives: list[WorkerProcess] = []
        self.asked: frozenset[int] = frozenset()
        """Exit codes that a fault asks for."""
        self.settings = settings
        self._directory = directory
        self._mutant = mutant

    @property
    def worker(self) -> WorkerProcess:
        return self.lives[-1]

    @property
    def runs(self) -> bool:
        return bool(self.lives) and self.worker.exit_code is None

    def start(self, *points: str, **otherwise: float) -> None:
        command = faulty(*points, mutant=self._mutant, retention=RETENTION_SECONDS, **otherwise)
        self.lives.append(WorkerProcess(self.settings, self._directory, command=command).start())

    def is_ready(self) -> bool:
        return self.runs and self.worker.probe("/readyz")[0] == 200

    def is_stopped(self) -> bool:
        """True if it stands still after a SIGSTOP."""
        try:
            return self.runs and psutil.Process(self.worker.pid).status() == psutil.STATUS_STOPPED
        except psutil.NoSuchProcess:
            return False


class Fleet:
    """All workers.

    ``settings`` are those of each; every other one is a static member of the group. There is one for each of ``dsns``,
    its own way to Postgres.
    """

    def __init__(
        self, settings: Mapping[str, str], directory: Path, dsns: Sequence[str], mutant: str | None = None
    ) -> None:
        self._settings = settings
        self._directory = directory
        self._mutant = mutant
        self.slots = [
            self._slot(f"worker {number}", static=number % 2 == 0, dsn=dsn) for number, dsn in enumerate(dsns, 1)
        ]
        self.extra: list[Slot] = []
        """Workers that come and go."""
        self.ends: Counter[int] = Counter()
        """The number of ends by exit code."""
        self.unasked: list[str] = []
        """Ends that no fault had asked for."""
        self._counted: set[int] = set()

    def _slot(self, name: str, *, static: bool, dsn: str) -> Slot:
        named = {"WORKER_KAFKA__GROUP_INSTANCE_ID": name.replace(" ", "-")} if static else {}
        return Slot(name, {**self._settings, **named, DSN: dsn}, self._directory, self._mutant)

    async def start(self) -> None:
        for slot in self.slots:
            slot.start()
        await asyncio.gather(*(self.ready(slot) for slot in self.slots))

    async def keep(self) -> None:
        """Start again every worker that ends, until cancelled."""
        while True:
            for slot in self.slots:
                self.count_end(slot)
                if slot.wanted and not slot.runs:
                    slot.start()
            await asyncio.sleep(WATCH_SECONDS)

    def count_end(self, slot: Slot) -> None:
        """Record the end of its last process, once."""
        if not slot.lives or slot.runs or id(slot.worker) in self._counted:
            return
        self._counted.add(id(slot.worker))
        code = slot.worker.exit_code or 0
        self.ends[code] += 1
        if code not in ENDED_BY_US | slot.asked:
            told = slot.worker.events("stuck") or slot.worker.logs().splitlines()[-3:]
            self.unasked.append(f"{slot.name} ended with {code}: {told}")

    async def ready(self, slot: Slot, seconds: float = READY_SECONDS) -> bool:
        """Wait until it is ready. True if it came to that."""
        return await holds_within(slot.is_ready, seconds)

    async def stopped(self, slot: Slot, seconds: float) -> bool:
        return await holds_within(slot.is_stopped, seconds)

    async def ended(self, slot: Slot, seconds: float) -> bool:
        return await holds_within(lambda: not slot.runs, seconds)

    async def holdings(self, slot: Slot) -> Mapping[str, Any]:
        """Return the holdings that its process reports. Raises ``TimeoutError`` if there is no report."""
        worker = slot.worker
        told = len(worker.events(EVENT))
        psutil.Process(worker.pid).send_signal(signal.SIGUSR2)
        if not await holds_within(lambda: len(worker.events(EVENT)) > told, ANSWER_SECONDS):
            raise TimeoutError(f"{slot.name} does not say what it holds")
        return worker.events(EVENT)[-1]

    def join(self) -> Slot:
        """Start one more worker, with a name that the group does not know. It is not started again."""
        slot = self._slot(f"guest {len(self.extra) + 1}", static=False, dsn=self._settings[DSN])
        self.extra.append(slot)
        slot.start()
        return slot

    def double(self, slot: Slot) -> Slot:
        """Start one more worker, under the name that this one has in the group. It is not started again."""
        twin = Slot(f"{slot.name} again {len(self.extra) + 1}", slot.settings, self._directory, self._mutant)
        self.extra.append(twin)
        twin.start()
        return twin

    @asynccontextmanager
    async def ended_in_order(self) -> AsyncIterator[bool]:
        """Keep all workers ended by SIGTERM during the block. True if they all ended by themselves."""
        for slot in self.slots:
            slot.wanted = False
            with suppress(psutil.NoSuchProcess):
                psutil.Process(slot.worker.pid).terminate()
        try:
            yield all(await asyncio.gather(*(self.ended(slot, DRAIN_SECONDS) for slot in self.slots)))
        finally:
            for slot in self.slots:
                slot.worker.kill()
                self.count_end(slot)
                slot.wanted = True
            await asyncio.gather(*(self.ready(slot) for slot in self.slots))

    async def drained(self) -> list[str]:
        """Send SIGTERM to all; return the deviations from a clean end."""
        everybody = [slot for slot in (*self.slots, *self.extra) if slot.runs]
        for slot in everybody:
            slot.wanted = False
            slot.worker.resume()
            psutil.Process(slot.worker.pid).terminate()
        faults = []
        for slot in everybody:
            if not await self.ended(slot, DRAIN_SECONDS):
                faults.append(f"{slot.name} did not drain within {DRAIN_SECONDS:.0f} s")
                slot.worker.kill()
            self.count_end(slot)
            if slot.worker.exit_code:
                faults.append(f"{slot.name} ended its drain with {slot.worker.exit_code}")
        return faults

    def kill(self) -> None:
        for slot in (*self.slots, *self.extra):
            slot.wanted = False
            if slot.lives:
                slot.worker.kill()

    def events(self) -> Counter[str]:
        """Count the log events of the workers, over all their lives. Their clients' are left out."""
        lives = [life for slot in (*self.slots, *self.extra) for life in slot.lives]
        logged = (str(entry.get("event")) for life in lives for entry in life.events())
        return Counter(event for event in logged if event.isidentifier())

    def losses(self, since: datetime) -> Sequence[str]:
        """Return the lanes that were thrown back to their start, and the reasons."""
        entries = [(slot.name, entry) for slot in self.slots for life in slot.lives for entry in life.events()]
        return [
            f"{name}, partition {entry['partition']}: {entry.get('reason') or entry['event']}"
            for name, entry in entries
            if entry.get("event") in {"lane_lost", "lane_failed"} and datetime.fromisoformat(entry["timestamp"]) > since
        ]

    def failures(self) -> Sequence[str]:
        """Return the failures that a worker called its own: lanes that ended with an unforeseen error."""
        lives = [life for slot in (*self.slots, *self.extra) for life in slot.lives]
        return [_failure(entry) for life in lives for entry in life.events("lane_failed")]


def _failure(entry: Mapping[str, Any]) -> str:
    """Return the error, and the line that raised it: the last lines have room for no more."""
    trace = [line.strip() for line in str(entry.get("exception", "")).splitlines() if line.strip()]
    places = [line for line in trace if line.startswith("File ")]
    return f"partition {entry['partition']} at {entry['timestamp']}: {' '.join(trace[-1:] + places[-1:])}"


async def holds_within(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until ``condition`` holds, for ``seconds`` at most; return whether it did."""

    async def holds() -> bool:
        return await asyncio.to_thread(condition)

    return await within(seconds, holds)
