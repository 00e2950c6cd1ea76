"""Carry out a plan: send the commands again to the partitions where they were read, and account for each."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from aiokafka import AIOKafkaProducer

from worker.errors import KAFKA_ERRORS, OperatorError, WorkerError, kafka_away
from worker.kafka.client import client_options
from worker.kafka.delivery import Delivery
from worker.kafka.internals import follow
from worker.kafka.reader import OffsetRange, TopicReader, topic_reader
from worker.lanes.publisher import started
from worker.operations.dead_letters.letters import Chosen, Letter, OnProgress, Source, letter_of, letters
from worker.operations.dead_letters.plan import CHUNK, Item, Readers, Replay, State, judge, outcomes, readers_of
from worker.operations.login_source import LoginSource
from worker.postgres.connect import owner_connection
from worker.settings import Settings
from worker.values import counted

_CHUNK_BYTES: Final = 8 * 1024 * 1024
"""The most that is held in memory at once, beyond a single command."""
_STEPS_A_SECOND: Final = 5
"""The number of steps a second in which a rate is kept."""
_SHORTEST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 2.0


class OtherOrganisation(OperatorError):
    """The current login token is of another organisation than the one of the plan."""


class NotAnswered(OperatorError):
    """No further answer came for too long."""


@dataclass(frozen=True, slots=True)
class Pace:
    """``rate``: commands a second, ``None`` for as fast as the broker takes them. ``timeout``: seconds without progress
    after which the wait for answers ends.
    """

    rate: float | None = None
    timeout: float = 60.0

    @property
    def step(self) -> int:
        """The number of commands that are sent together."""
        return CHUNK if self.rate is None else max(1, min(CHUNK, round(self.rate / _STEPS_A_SECOND)))


async def carry_out(
    settings: Settings,
    replay: Replay,
    logins: LoginSource,
    pace: Pace,
    *,
    clock: Callable[[], float],
    on_progress: OnProgress = lambda _done, _total: None,
) -> None:
    """Send the planned commands, and wait until all of them are decided. ``replay`` is up to date at any moment.

    ``replay.stopped`` has the reason for an early end; the commands sent by then are waited for all the same. ``clock``
    gives seconds since the epoch; ``on_progress`` gets the sum of commands sent and commands answered, and its total.
    """
    replay.carried_out = True
    planned = replay.counts()[State.PLANNED]
    if not planned:
        return
    organisation = (await logins.current()).organisation
    try:
        async with topic_reader(settings) as kafka:
            work = _Work(settings, kafka, await readers_of(settings, kafka), replay, logins, organisation, clock)
            before = (await kafka.spans(settings.topics.dead_letters)).get(settings.topics.dead_letters, [])
            try:
                await work.send(pace, lambda done: on_progress(done, 2 * planned))
            except WorkerError as error:
                replay.stopped = str(error)
            await work.wait(pace.timeout, lambda done: on_progress(planned + done, 2 * planned))
            await work.look_for_new(before, pace.timeout)
    except WorkerError as error:
        replay.stopped = "; ".join(filter(None, (replay.stopped, str(error))))


@dataclass(frozen=True, slots=True)
class _Work:
    settings: Settings
    kafka: TopicReader
    readers: Readers
    replay: Replay
    logins: LoginSource
    organisation: str
    clock: Callable[[], float]

    # --- sending ------------------------------------------------------------------------------------------------------

    async def send(self, pace: Pace, on_sent: Callable[[int], None]) -> None:
        """Read the planned dead letters again, and send their commands step by step."""
        planned = frozenset(item.place for item in self.replay.of(State.PLANNED))
        seconds = self.settings.kafka.request_timeout_ms / 1000
        options = {**client_options(self.settings.kafka), "enable_idempotence": True}
        producer = await started(options, seconds)
        loop = asyncio.get_running_loop()
        begun, done = loop.time(), 0
        try:
            async for step in _steps(letters(self.kafka, self.settings, Chosen(at=planned)), pace.step):
                await self._send(producer.producer, step, 2 * seconds)
                done += len(step)
                on_sent(done)
                if pace.rate is not None:
                    await asyncio.sleep(max(0.0, begun + done / pace.rate - loop.time()))
        finally:
            await producer.drop()

    async def _send(self, producer: AIOKafkaProducer, step: Sequence[Letter], seconds: float) -> None:
        """Send one step, and note its positions in the log. After any error the producer must be replaced."""
        login = await self.logins.current()
        if login.organisation != self.organisation:
            raise OtherOrganisation(f"the login token is of {login.organisation} now, and was of {self.organisation}")
        groups: dict[tuple[str, int], list[tuple[Item, Delivery]]] = defaultdict(list)
        for letter in step:
            item, again = self.replay.items[letter.place], judge(letter, self.readers, login)
            if isinstance(again, tuple):
                self.replay.put(replace(item, why=again[0], detail=again[1]))
                continue
            where = again.delivery.coordinates
            item = replace(item, handed=True)
            self.replay.put(item)
            groups[where.topic, where.partition].append((item, again.delivery))
        sent = _Sent(self.replay, int(self.clock() * 1000))
        try:
            async with asyncio.timeout(seconds):
                for (topic, partition), group in groups.items():
                    await sent.hand_over(producer, topic, partition, group)
                if sent.batches:
                    await asyncio.wait([future for future, _ in sent.batches])
        except KAFKA_ERRORS as error:
            raise kafka_away(error, "while commands were sent") from error
        finally:
            sent.confirm()
        sent.raise_first()

    # --- what came of it ----------------------------------------------------------------------------------------------

    async def wait(self, seconds: float, on_answered: Callable[[int], None]) -> None:
        """Wait until the record of commands has a decision for every command sent. Raises ``NotAnswered``."""
        waiting = self.replay.of(State.UNANSWERED)
        total, loop = len(waiting), asyncio.get_running_loop()
        patience = _Patience(loop.time, seconds)
        async with owner_connection(self.settings.postgres.dsn.get_secret_value()) as connection:
            while waiting:
                begun = loop.time()
                for first in range(0, len(waiting), CHUNK):
                    page = {item.sent: item for item in waiting[first : first + CHUNK] if item.sent is not None}
                    for sent, row in (await outcomes(connection, self.readers, list(page))).items():
                        status, message = row["status"], row["message"]
                        self.replay.put(replace(page[sent], status=status, message=message, replayed=row["replayed"]))
                left = self.replay.of(State.UNANSWERED)
                if not patience.goes_on(progress=len(left) < len(waiting)) and left:
                    what = f"nothing more of what was sent was answered for {seconds:g} s; is a worker running?"
                    raise NotAnswered(what)
                waiting = left
                on_answered(total - len(waiting))
                if waiting:
                    await asyncio.sleep(max(patience.pause, loop.time() - begun))

    async def look_for_new(self, before: Sequence[OffsetRange], seconds: float) -> None:
        """Find the new dead letters of commands that failed again. Raises ``NotAnswered``.

        ``before`` has the ends of their topic before anything was sent.
        """
        looked_for = {item.sent: item for item in self.replay.of(State.FAILED)}
        begins = {span.source: span.end for span in before}
        patience = _Patience(asyncio.get_running_loop().time, seconds)
        while looked_for:
            topic, found = self.settings.topics.dead_letters, len(looked_for)
            spans = (await self.kafka.spans(topic)).get(topic, [])
            spans = [span.since(begins.get(span.source, 0)) for span in spans]
            self.kafka.open(spans)
            for span in spans:
                async for record in self.kafka.read(span):
                    letter = letter_of(record)
                    if letter.group == self.readers.group and (item := looked_for.pop(letter.source, None)) is not None:
                        self.replay.put(replace(item, dead_letter=letter.place))
                begins[span.source] = span.end
            if not patience.goes_on(progress=len(looked_for) < found) and looked_for:
                raise NotAnswered(f"{counted(len(looked_for), 'new dead letter')} did not appear within {seconds:g} s")
            if looked_for:
                await asyncio.sleep(patience.pause)


async def _steps(found: AsyncIterator[Letter], most: int) -> AsyncIterator[list[Letter]]:
    """Group dead letters into lists of ``most``, or of fewer if they are large."""
    step: list[Letter] = []
    size = 0
    async for letter in found:
        step.append(letter)
        size += len(letter.value or b"")
        if len(step) == most or size > _CHUNK_BYTES:
            yield step
            step, size = [], 0
    if step:
        yield step


class _Patience:
    """A wait that polls less and less often while nothing comes, up to a timeout."""

    def __init__(self, clock: Callable[[], float], timeout: float) -> None:
        self._clock = clock
        self._timeout = timeout
        self._moved = clock()
        self.pause = _SHORTEST_PAUSE

    def goes_on(self, *, progress: bool) -> bool:
        """Return False once the timeout has passed since the last ``progress``. Call it after every poll."""
        if progress:
            self._moved, self.pause = self._clock(), _SHORTEST_PAUSE
        else:
            self.pause = min(2 * self.pause, _LONGEST_PAUSE)
        return self._clock() - self._moved <= self._timeout


class _Sent:
    """The batches of one step, all their commands stamped with one time (milliseconds since the epoch).

    aiokafka returns the time of the first message for every message of a batch, so that time must be known before.
    """

    def __init__(self, replay: Replay, stamp: int) -> None:
        self._replay = replay
        self._stamp = stamp
        self.batches: list[tuple[asyncio.Future[Any], list[Item]]] = []

    async def hand_over(
        self, producer: AIOKafkaProducer, topic: str, partition: int, group: Sequence[tuple[Item, Delivery]]
    ) -> None:
        """Hand over a group in batches: given a single message, a producer may log it. Raises the producer's errors."""
        follow(producer, {topic})
        batch, items = producer.create_batch(), list[Item]()
        for item, delivery in group:
            if not self._appended(batch, delivery):
                self.batches.append((await producer.send_batch(batch, topic, partition=partition), items))
                batch, items = producer.create_batch(), []
                self._appended(batch, delivery)  # an empty batch takes any first record; the broker judges its size
            items.append(item)
        self.batches.append((await producer.send_batch(batch, topic, partition=partition), items))

    def _appended(self, batch: Any, command: Delivery) -> bool:
        headers = list(command.headers)
        added = batch.append(timestamp=self._stamp, key=command.key, value=command.value, headers=headers)
        return added is not None

    def confirm(self) -> None:
        """Note the positions of all commands that the broker has confirmed."""
        for future, items in self.batches:
            if not future.done() or future.cancelled() or future.exception() is not None:
                continue
            batch = future.result()
            stamp = batch.timestamp if batch.timestamp_type else self._stamp
            for place, item in enumerate(items):
                if batch.offset >= 0:
                    sent = Source(batch.topic, batch.partition, batch.offset + place, stamp)
                    self._replay.put(replace(item, sent=sent))

    def raise_first(self) -> None:
        """Raise ``DependencyUnavailable`` if the broker did not take one of the batches."""
        for future, _ in self.batches:
            error = future.exception()
            if error is not None:
                raise kafka_away(error, "while commands were sent") from error
