"""One session of a submission: send the commands without an outcome, and read every answer (DESIGN 7).

Three tasks: one reads the file and fills the window, one sends, one reads answers. The journal is written before
anything is sent, and once for all answers of one read.
"""

import asyncio
import secrets
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from typing import Final

import orjson

from effective_contract import headers as h
from effective_contract.codes import StatusCode
from worker.errors import OperatorError, WorkerError
from worker.journey.model import Refused
from worker.operations.login_source import LoginFailed
from worker.operations.submit.answers import Answer, Answers, correlation
from worker.operations.submit.flight import Flight, Waiting
from worker.operations.submit.journal import Journal, Outcome
from worker.operations.submit.lines import Ready, Record, Source
from worker.operations.submit.login import Login, OwnLogins
from worker.operations.submit.sending import Header, Outbox, Outgoing

SOURCE: Final = "/effective-worker/submit"
"""``ce_source`` of all submitted commands; their id is the file's digest and the line."""
CHUNK: Final = 1000
"""Lines between two marks in the journal."""
MOST_UNSENT: Final = 3000
"""Commands that may wait for the broker to take them."""
MOST_PATIENCE: Final = 16
"""The factor up to which the patience grows while no answer comes."""
TICK_SECONDS: Final = 0.25
SILENCE_SECONDS: Final = 10.0
"""Seconds without an answer after which the progress says so."""
RENEWALS: Final = 2
"""The number of times that a command is sent again because its login had expired."""
SCOUT: Final = 0
"""The line of a command that is not in the file."""
# Every answer is compared with these: plain texts, which are faster than an enum's members.
_OK: Final = StatusCode.OK.value
_EXPIRED: Final = StatusCode.EXPIRED_TOKEN.value
_LOGIN_REFUSED: Final = frozenset({StatusCode.INVALID_TOKEN, StatusCode.ACCESS_DENIED})

Clock = Callable[[], float]


class SubmitError(OperatorError):
    """The submission cannot go on. It can be resumed."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a submission. ``total`` counts lines until the file has been read to its end, then commands."""

    done: int
    total: int
    ok: int
    waiting: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """``window``: the most commands without an answer; ``rate``: the most per second; ``patience``: in seconds."""

    window: int
    rate: float | None
    patience: float


@dataclass(frozen=True, slots=True)
class Wires:
    """The connections to Kafka. ``elsewhere`` reads the results topic, if that is not the reply topic."""

    outbox: Outbox
    answers: Answers
    elsewhere: Answers | None
    partitions: int
    """The partition count of the commands topic."""


class Bucket:
    """A token bucket of a tenth of a second. Without a rate it is never empty."""

    def __init__(self, rate: float | None, clock: Clock) -> None:
        self._rate = rate
        self._clock = clock
        self._free_at = clock()

    def room(self, wanted: int) -> int:
        """Return the number that may be sent now, at most ``wanted``."""
        if self._rate is None:
            return wanted
        if self._clock() < self._free_at:
            return 0
        return min(wanted, max(1, int(self._rate / 10)))

    def took(self, count: int) -> None:
        if self._rate is not None:
            self._free_at = max(self._free_at, self._clock() - 0.1) + count / self._rate


class Session:
    """The state of a session while it lasts."""

    def __init__(
        self,
        source: Source,
        journal: Journal,
        login: Login,
        wires: Wires,
        *,
        limits: Limits,
        clock: Clock,
        on_progress: Callable[[Progress], None],
    ) -> None:
        """``on_progress`` gets the progress several times a second."""
        facts = journal.facts
        self._source, self._journal, self._login = source, journal, login
        self._outbox, self._answers, self._elsewhere = wires.outbox, wires.answers, wires.elsewhere
        self._partitions, self._limits, self._clock, self._on_progress = wires.partitions, limits, clock, on_progress
        self._flight = Flight(wires.partitions)
        wires.outbox.on_too_large, wires.outbox.on_sent = self._too_large, self._moves
        self._bucket = Bucket(limits.rate, clock)
        self._run, self._digest, self._dry = facts["run"].encode(), facts["digest"].encode(), facts["dry_run"] == "true"
        self._headers = _constant(facts)
        self._number = journal.open_session(clock())
        self._moved = asyncio.Event()
        self._closing = False
        self._confirmed = False
        self._fresh_since = 0
        """The serial of the last sending with a login older than the present one."""
        self._scout = b""
        self._heard_at = self._probed_at = clock()
        self._patience = limits.patience
        self._total = int(facts["lines"]) - source.header_lines
        self._ok = sum(count for code, _, _, count in journal.counts() if code == StatusCode.OK)
        self._done = sum(count for *_, count in journal.counts())

    @property
    def done(self) -> int:
        """The number of lines that have an outcome."""
        return self._done

    @property
    def total(self) -> int:
        """The number of lines, of commands once the file has been read to its end."""
        return self._total

    # --- sending ------------------------------------------------------------------------------------------------------

    async def feed(self) -> None:
        """Send everything without an outcome, and return when all have one. Raises ``SubmitError``, ``LoginFailed``."""
        records = await self._first(await self._taken_up())
        chunk = min(CHUNK, self._limits.window)
        while True:
            await self._until(lambda: self._has_room(chunk))
            most = self._bucket.room(chunk)
            read = await self._send_chunk(records, most)
            if not read:
                break
            self._bucket.took(read)
            await asyncio.sleep(0)
        self._total = self._done + len(self._flight)
        await self._until(lambda: not len(self._flight))
        self._tick()

    def _has_room(self, count: int) -> bool:
        """True if so many may be sent. Commands under way take little memory; those that the broker lacks take much."""
        under_way, unsent = len(self._flight), len(self._outbox)
        return under_way + count <= self._limits.window and unsent <= MOST_UNSENT and self._bucket.room(1) > 0

    def _moves(self) -> None:
        self._moved.set()

    async def _taken_up(self) -> Iterator[Record]:
        """Add the doubtful commands to those under way, and return the records that were never sent."""
        records, settled = self._source.records(), self._journal.settled()
        next_settled, mark = next(settled, None), self._journal.sent_up_to
        for record in records:
            if record.line > mark:
                return chain((record,), records)
            if record.line == next_settled:
                next_settled = next(settled, None)
            else:
                ready = await self._again(record.raw, record.line)
                self._flight.join(Waiting(record.line, record.start, len(record.raw), self._place(ready.name)))
            if record.line % CHUNK == 0:
                await asyncio.sleep(0)
        return iter(())

    async def _first(self, records: Iterator[Record]) -> Iterator[Record]:
        """Wait for an answer to the first sendings before anything new is sent. Raises ``SubmitError``.

        The first sendings can do no harm: in a dry run, which an old worker would execute as a real command, one for an
        access token that does not exist; else the commands of an earlier session; else a single command.
        """
        if self._elsewhere is not None:
            await self._elsewhere.open()
        if self._dry:
            records = await self._send_scout(records)
        elif len(self._flight):
            await self._probe()
        else:
            while not len(self._flight):
                read = await self._send_chunk(records, 1)
                if not read:
                    return records
        while not self._confirmed:
            for answer in [] if self._elsewhere is None else await self._elsewhere.read():
                if answer.session == self._number:
                    raise SubmitError(self._not_allowed(answer))
            await self._until(lambda: self._confirmed, once=True)
        if self._elsewhere is not None:
            await self._elsewhere.close()
        if self._dry and len(self._flight):
            await self._probe()
        return records

    async def _send_scout(self, records: Iterator[Record]) -> Iterator[Record]:
        token = await self._login.token()
        kept = []
        while token is None:
            record = next(records, None)
            if record is None:
                break
            kept.append(record)
            ready = record.fault or self._source.command(record.raw, None)
            if not isinstance(ready, Refused):
                token = orjson.loads(ready.value)["token"]
        if token is not None:
            code = {"authentication_code": f"dry-run-{secrets.token_hex(16)}"}
            self._scout = orjson.dumps({"token": token, "access_token_identifier": code})
            self._send(Waiting(SCOUT, 0, 0, 0), self._scout)
        else:
            self._confirmed = True  # there is nothing to send
        return chain(kept, records)

    async def _send_chunk(self, records: Iterator[Record], most: int) -> int:
        """Read up to ``most`` records, and send those that the worker would take. Returns the number read."""
        token = await self._login.token()
        ready, refused, last = [], [], 0
        read = 0
        for record in islice(records, most):
            judged = record.fault or self._source.command(record.raw, token)
            last, read = record.line, read + 1
            if isinstance(judged, Refused):
                refused.append(Outcome(record.line, judged.code, False, False, None, ""))
            else:
                waiting = Waiting(record.line, record.start, len(record.raw), self._place(judged.name))
                ready.append((waiting, judged.value))
        if read:
            self._journal.mark(last, refused)
            self._done += len(refused)
            if not len(self._flight):
                self._heard_at = self._probed_at = self._clock()
            for waiting, value in ready:
                self._send(waiting, value)
        return read

    def _send(self, waiting: Waiting, value: bytes) -> None:
        line, place = waiting.line, waiting.partition
        serial = self._flight.sending(waiting, self._clock())
        identity = b"%b:%d" % (self._digest, line)
        if line == SCOUT:
            identity += b":%b:%d" % (self._run, self._number)
        mine = [
            (h.CE_ID, identity),
            (h.CORRELATION_ID, correlation(self._run, self._number, serial, place, line)),
        ]
        self._outbox.put(place, Outgoing(line, value, self._headers + mine))

    async def _send_again(self, waiting: Waiting) -> None:
        if waiting.line == SCOUT:
            self._send(waiting, self._scout)
        else:
            raw = self._source.read(waiting.start, waiting.length)
            self._send(waiting, (await self._again(raw, waiting.line)).value)

    async def _again(self, raw: bytes, line: int) -> Ready:
        judged = self._source.command(raw, await self._login.token())
        if isinstance(judged, Refused):
            raise SubmitError(f"line {line} was sent, and cannot be sent again like this: {judged.message}")
        return judged

    async def _probe(self) -> None:
        """Send the oldest command of each partition again: its answer tells which of those before it were lost."""
        for waiting in list(self._flight.oldest()):
            await self._send_again(waiting)

    def _place(self, name: bytes) -> int:
        """Return the partition of a command: all commands for one access token go to one, and keep their order."""
        return zlib.crc32(name) % self._partitions

    def _too_large(self, line: int) -> None:
        """Settle a command that is too large for the broker."""
        self._flight.settle(line)
        message = "the broker takes no record of that size"
        refused = Outcome(line, StatusCode.MALFORMED_REQUEST, False, False, None, message)
        self._journal.answered([refused], {}, self._clock())
        self._done += 1
        self._moved.set()

    # --- hearing ------------------------------------------------------------------------------------------------------

    async def listen(self) -> None:
        """Read answers until the session closes. Raises ``SubmitError``, ``LoginFailed`` and the errors of reading."""
        while not self._closing:
            answers = await self._answers.read()
            if answers:
                await self._hear(answers)

    def close(self) -> None:
        self._closing = True

    async def _hear(self, answers: list[Answer]) -> None:
        now = self._clock()
        outcomes: list[Outcome] = []
        last: dict[int, int] = {}
        fault: WorkerError | None = None
        for answer in answers:
            session, serial, partition, line, code, _, dry_run, _ = answer
            mine = session == self._number
            fault = self._fault(answer) if self._dry > dry_run or (mine and not self._confirmed) else None
            if fault is not None:
                break
            if line == SCOUT:
                self._flight.settle(line)
            elif code != _EXPIRED or not self._is_to_be_renewed(answer):
                outcomes.append(self._settled(answer, now))
            if mine:
                last[partition] = max(serial, last.get(partition, 0))
            self._confirmed = self._confirmed or mine or not self._dry
        self._journal.answered(outcomes, self._answers.positions(), now)
        if fault is not None:
            raise fault
        self._heard_at, self._probed_at, self._patience = now, now, self._limits.patience
        for partition, serial in last.items():
            for waiting in self._flight.lost(partition, serial):
                await self._send_again(waiting)
        self._moved.set()

    def _settled(self, answer: Answer, now: float) -> Outcome:
        """Return the outcome that the answer gives its line. It counts if it is the first."""
        waiting, latency = self._flight.settle(answer.line), None
        if waiting is not None:
            self._done, self._ok = self._done + 1, self._ok + (answer.code == _OK)
            latency = None if waiting.since is None else round((now - waiting.since) * 1000)
        return Outcome(answer.line, answer.code, answer.replayed, True, latency, answer.message)

    def _fault(self, answer: Answer) -> WorkerError | None:
        """Return the reason to send nothing more, if the answer gives one."""
        if self._dry and not answer.dry_run:
            return SubmitError(
                "the worker has answered without the header dry_run: it is too old to know dry runs, and nothing more "
                "is sent to it"
            )
        if answer.code in _LOGIN_REFUSED and not isinstance(self._login, OwnLogins):
            return LoginFailed(f"the worker refuses the login token: {answer.code}: {answer.message}")
        return None

    def _is_to_be_renewed(self, answer: Answer) -> bool:
        """True if the answer, EXPIRED_TOKEN, only means that our login had expired: then it is no outcome."""
        if isinstance(self._login, OwnLogins):
            return False
        waiting = self._flight.get(answer.line)
        if waiting is None or answer.session != self._number:
            return True
        if answer.serial > self._fresh_since:
            self._login.expired()
            self._fresh_since = self._flight.last_serial
        waiting.renewed += 1
        return waiting.renewed <= RENEWALS

    def _not_allowed(self, answer: Answer) -> str:
        return (
            f"the worker does not answer in {self._answers.topic}, but in its results topic: allow it with "
            f"WORKER_TOPICS__REPLY_TO_ALLOWED={self._answers.topic}, and start the worker again "
            f"({answer.code}: {answer.message})"
        )

    # --- waiting ------------------------------------------------------------------------------------------------------

    async def _until(self, condition: Callable[[], bool], *, once: bool = False) -> None:
        """Wait until ``condition`` holds, with progress and probes meanwhile. ``once``: for a moment at most."""
        while not condition():
            self._moved.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(min(TICK_SECONDS, 0.02 if self._limits.rate else TICK_SECONDS)):
                    await self._moved.wait()
            self._tick()
            await self._be_patient()
            if once:
                return

    async def _be_patient(self) -> None:
        """Send a probe if no answer has come for long, and wait twice as long before the next."""
        now = self._clock()
        if len(self._flight) and not len(self._outbox) and now - self._probed_at > self._patience:
            self._patience = min(self._patience * 2, self._limits.patience * MOST_PATIENCE)
            self._probed_at = now
            await self._probe()

    def _tick(self) -> None:
        note = ""
        if self._outbox.trouble:
            note = self._outbox.trouble
        elif len(self._flight) and self._clock() - self._heard_at > SILENCE_SECONDS:
            note = f"no answer yet: does a worker read {self._outbox.topic}? effective-worker lanes list says so"
        self._on_progress(Progress(self._done, self._total, self._ok, len(self._flight), note))


def _constant(facts: dict[str, str]) -> list[Header]:
    """Return the headers that all commands of a run have in common."""
    headers = [
        (h.CE_SPEC_VERSION, h.SPEC_VERSION.encode()),
        (h.CE_SOURCE, SOURCE.encode()),
        (h.CE_TYPE, h.COMMAND_TYPE.encode()),
        (h.CONTENT_TYPE, h.JSON_CONTENT.encode()),
    ]
    if facts["reply_topic"] != facts["results_topic"]:
        headers.append((h.REPLY_TO, facts["reply_topic"].encode()))
    if facts["dry_run"] == "true":
        headers.append((h.DRY_RUN, b"true"))
    return headers
