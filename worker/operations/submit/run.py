"""Submit one file, from its fingerprint to its report (CONTRACT, Command line)."""

import asyncio
import secrets
import time
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from worker.errors import OperatorError
from worker.kafka.client import client_options
from worker.kafka.topics import make_reply_topic, survey
from worker.operations.submit.answers import Answers
from worker.operations.submit.journal import Journal, JournalError
from worker.operations.submit.lines import Csv, Fingerprint, Ndjson, source_of
from worker.operations.submit.login import Login, OwnLogins
from worker.operations.submit.report import Report, reported, write_refusals, write_report
from worker.operations.submit.sending import Outbox
from worker.operations.submit.session import Limits, Progress, Session, SubmitError, Wires
from worker.resilience.background import retrieve
from worker.settings import Settings

DEFAULTS: Final = Limits(window=25_000, rate=None, patience=30.0)
LINGER_SECONDS: Final = 5.0
"""Seconds for which answers are read after a stop, at most."""
QUIET_SECONDS: Final = 1.0
"""Seconds without an answer after which that reading ends."""


class Interrupted(OperatorError):
    """The submission was stopped. It can be resumed."""

    def __init__(self, done: int, lines: int) -> None:
        super().__init__(f"stopped: {done:,} of {lines:,} have their outcome")


@dataclass(frozen=True, slots=True)
class Job:
    """The file to submit, and the options. ``reply_topic`` may be the results topic itself."""

    path: Path
    topic: str
    reply_topic: str
    journal_path: Path | None = None
    as_csv: bool = False
    dry_run: bool = False
    limits: Limits = DEFAULTS

    @property
    def journal(self) -> Path:
        return self.journal_path or self._beside("journal")

    @property
    def report(self) -> Path:
        return self._beside("report.json")

    def refusals(self, source: Ndjson | Csv) -> Path:
        return self._beside(f"refusals.{source.form}")

    def _beside(self, what: str) -> Path:
        return self.path.with_name(f"{self.path.name}.{'dry-run.' if self.dry_run else ''}{what}")


class Stop:
    """A request to stop; a second one stops at once."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.at_once = asyncio.Event()
        self.signal = 0
        """The number of the last signal that requested it."""

    def ask(self, number: int = 0) -> None:
        self.signal = number
        (self.at_once if self.asked.is_set() else self.asked).set()


class Submission:
    """The submission of one file."""

    def __init__(
        self,
        job: Job,
        settings: Settings,
        login: Login,
        *,
        stop: Stop,
        on_progress: Callable[[Progress], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``clock`` gives seconds since the epoch."""
        self._job = job
        self._settings = settings
        self._login = login
        self._stop = stop
        self._on_progress = on_progress
        self._clock = clock

    async def run(self) -> tuple[Report, bool]:
        """Submit the file, or the rest of it. Returns the report, and True if the submission had been finished before.

        Report and refusals are written beside the file at the end. Raises ``UnusableFile`` for wrong usage,
        ``Interrupted`` after a stop, and other ``WorkerError``: then another run goes on from there.
        """
        job = self._job
        with closing(source_of(job.path, as_csv=job.as_csv, max_bytes=self._settings.max_command_bytes)) as source:
            found = await self._fingerprint(source)
            with closing(Journal(job.journal)) as journal:
                facts = self._facts(found)
                _check_same(journal, job, facts)
                finished = "finished" in journal.facts
                if not finished:
                    await self._session(source, journal, facts)
                report = reported(job.path, job.refusals(source), journal)
                # The refusals of a finished submission may have been mended since: they are not written again.
                if not finished:
                    own_logins = isinstance(self._login, OwnLogins)
                    write_refusals(job.refusals(source), source, journal.refusals(), own_logins=own_logins)
                    write_report(job.report, report)
                    journal.note({"finished": str(self._clock())})
                return report, finished

    async def _fingerprint(self, source: Ndjson | Csv) -> Fingerprint:
        found = Fingerprint("", 0, 0)
        for found in source.fingerprint():
            await asyncio.sleep(0)
            if self._stop.asked.is_set():
                raise Interrupted(0, found.lines - source.header_lines)
            self._on_progress(Progress(0, found.lines - source.header_lines, 0, 0))
        return found

    def _facts(self, found: Fingerprint) -> dict[str, str]:
        """Return the facts that must be the same to resume the submission."""
        return {
            "digest": found.digest,
            "size": str(found.size),
            "lines": str(found.lines),
            "topic": self._job.topic,
            "reply_topic": self._job.reply_topic,
            "results_topic": self._settings.topics.results,
            "dry_run": "true" if self._job.dry_run else "false",
        }

    async def _session(self, source: Ndjson | Csv, journal: Journal, facts: dict[str, str]) -> None:
        """Run one session. Raises ``WorkerError`` if it ends before every line has an outcome."""
        partitions, cluster = await self._places()
        if journal.facts.get("cluster", cluster) != cluster:
            begun = journal.facts["cluster"]
            raise JournalError(f"{journal.path} was begun on the cluster {begun}, and this is {cluster}")
        run = journal.facts.get("run") or secrets.token_hex(6)
        async with AsyncExitStack() as opened:
            wires = self._wires(run, journal.positions(), partitions)
            for each in (wires.answers, wires.outbox, wires.elsewhere):
                if each is not None:
                    opened.push_async_callback(each.close)
            positions = await wires.answers.open()
            await wires.outbox.open()
            if not journal.facts:
                journal.begin(facts | {"run": run, "cluster": cluster}, positions)
            limits, clock = self._job.limits, self._clock
            session = Session(
                source, journal, self._login, wires, limits=limits, clock=clock, on_progress=self._on_progress
            )
            how = "failed"
            try:
                how = await _played(session, wires.outbox, self._stop)
            finally:
                # A session that did not finish ended with its last answer.
                journal.close_session(how, clock() if how == "finished" else 0.0)
            if how == "interrupted":
                raise Interrupted(session.done, session.total)

    async def _places(self) -> tuple[int, str]:
        """Return the partition count of the commands topic, and the cluster id. Creates the reply topic."""
        job, ground = self._job, await survey(self._settings)
        for topic in (job.topic, self._settings.topics.results):
            if topic not in ground.partitions:
                raise SubmitError(f"there is no topic {topic}: make it with effective-worker topics apply")
        partitions = ground.partitions[job.topic]
        if job.reply_topic not in ground.partitions:
            await make_reply_topic(self._settings, job.reply_topic, partitions)
        return partitions, ground.cluster

    def _wires(self, run: str, positions: dict[int, int], partitions: int) -> Wires:
        options, results = client_options(self._settings.kafka), self._settings.topics.results
        answers = Answers(self._job.reply_topic, options, run, positions)
        elsewhere = None if self._job.reply_topic == results else Answers(results, options, run, {})
        return Wires(Outbox(self._job.topic, partitions, options), answers, elsewhere, partitions)


def _check_same(journal: Journal, job: Job, facts: dict[str, str]) -> None:
    """Raise ``JournalError`` if the journal belongs to another submission."""
    known = journal.facts
    if not known:
        return
    if known["digest"] != facts["digest"]:
        raise JournalError(
            f"{job.path} has changed since {journal.path} was begun: put the file back as it was and go on, or submit "
            "it as a new one, with another --journal. Its lines have new ids then: what was applied is answered "
            "INVALID_LIFE_CYCLE_STATE"
        )
    for name, option in (("topic", "--topic"), ("reply_topic", "--reply-topic"), ("dry_run", "--dry-run")):
        if known[name] != facts[name]:
            raise JournalError(
                f"{journal.path} was begun with {option} {known[name]}, not {facts[name]}: go on as it was begun, or "
                "give another --journal"
            )


async def _played(session: Session, outbox: Outbox, stop: Stop) -> str:
    """Run the session to its end, and return how it ended. Raises the errors of its tasks."""
    feeding, listening = asyncio.create_task(session.feed()), asyncio.create_task(session.listen())
    sending, stopped = asyncio.create_task(outbox.run()), asyncio.create_task(stop.asked.wait())
    every = (feeding, listening, sending, stopped)
    try:
        done, _ = await asyncio.wait(every, return_when=asyncio.FIRST_COMPLETED)
        _raise_first(done)
        if feeding in done:
            return "finished"
        await _end([feeding, sending])
        await _linger(session, listening, stop)
        return "interrupted"
    finally:
        session.close()
        await _end([feeding, sending, stopped])
        # A read of answers must not be cancelled: it ends by itself in a moment.
        await asyncio.wait({listening})
        retrieve(listening)


async def _linger(session: Session, listening: "asyncio.Task[None]", stop: Stop) -> None:
    """Read the answers that still come, for a short while."""
    loop = asyncio.get_running_loop()
    until = loop.time() + LINGER_SECONDS
    done, moved = session.done, loop.time()
    while loop.time() < until and loop.time() - moved < QUIET_SECONDS and not stop.at_once.is_set():
        ended, _ = await asyncio.wait({listening}, timeout=0.1)
        _raise_first(ended)
        if session.done > done:
            done, moved = session.done, loop.time()


async def _end(tasks: Iterable["asyncio.Task[object]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _raise_first(done: Iterable["asyncio.Task[object]"]) -> None:
    for task in done:
        if not task.cancelled() and (failure := task.exception()) is not None:
            raise failure
