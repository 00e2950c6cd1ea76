"""Compare the commands topics with the record of commands, states, transitions and all that was published.

Workers may go on meanwhile: everything is compared below the offsets that the group had committed when it began, and
what lies above may be there or not. The order of the looks makes it so: lanes, committed offsets, ends of the topics,
and then Postgres, which is always ahead of Kafka (DESIGN 2). It is read in pages: a later one only knows more.
"""

import math
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

import asyncpg
import orjson
from aiokafka import TopicPartition

from effective_contract import headers as h
from effective_contract.transition import event_hash
from worker.errors import WorkerError
from worker.journey.digests import CommandNames, command_names, is_digest
from worker.journey.messages import DEAD_LETTERED
from worker.journey.model import command_key
from worker.kafka.delivery import Coordinates, coordinates_of
from worker.kafka.reader import Browser, Span, browser, header, is_dry_run
from worker.kafka.topics import admin_client, cluster_id
from worker.lanes.losses import Loss, losses, range_lost, removed, unacknowledged
from worker.operations.lanes import committed_offsets
from worker.operations.reconcile.dry_runs import Rehearsal, Rehearsals
from worker.operations.reconcile.stream_join import Due, Matching, Seen, Unmatched, in_order
from worker.postgres.connect import owner_connection
from worker.postgres.pages import by_token, pages
from worker.postgres.pool import Row
from worker.postgres.sql import statement
from worker.settings import Settings
from worker.values import rfc3339

MOST_NAMED: Final = 10_000
"""Of each kind. The rest is counted."""
_LOOKED_UP: Final = 500
_APART: Final = timedelta(minutes=1)
"""Two lanes that share a partition write each in its own order: what the one decided may lie so far behind what the
other decided before it."""
_RESULTS, _LETTERS, _EVENTS, _REHEARSED = "results", "dead letters", "events", "results of dry runs"
_MEMBERS: Final = (
    "from_state",
    "to_state",
    "occurred_at",
    "user_id",
    "unit_id",
    "command_id",
    "cause",
    "sequence",
    "previous_hash",
    "hash",
)


class NothingToCompare(WorkerError):
    """A topic is missing, or the group has not read anything."""


class Kind(StrEnum):
    """What can differ."""

    NO_RECORD = "a command without a record"
    NO_COMMAND = "a record without a command"
    NO_RESULT = "a command without a result"
    TWO_RESULTS = "a second result"
    UNASKED_RESULT = "a result without a command"
    OTHER_RESULT = "a result that differs from the record"
    NO_TRANSITION = "an applied command without a transition"
    NO_APPLIED = "a transition without an applied command"
    NO_EVENT = "a transition without an event"
    TWO_EVENTS = "a second event"
    UNKNOWN_EVENT = "an event without a transition"
    OTHER_EVENT = "an event that differs from the transition"
    OTHER_STATE = "an access token that differs from its last transition"
    NO_DEAD_LETTER = "a command without its dead letter"
    SPARE_DEAD_LETTER = "a dead letter without a reason"
    OTHER_DEAD_LETTER = "a dead letter that differs from the record"
    RECORDED = "a dry run that was recorded"
    NOT_REHEARSED = "a dry run's result without a dry run"
    LANE = "a lane that differs from the committed offset"
    LOST = "commands that were removed unanswered"


@dataclass(frozen=True, slots=True)
class Difference:
    """``where`` names the record, row or access token; ``what`` says how it differs."""

    kind: Kind
    where: str
    what: str


@dataclass(slots=True)
class Reconciliation:
    """What was compared, what could not be, and every difference (of each kind the first ten thousand)."""

    commands: int = 0
    results: int = 0
    transitions: int = 0
    dead_letters: int = 0
    dry_runs: int = 0
    """Commands of which nothing is due but a result."""
    redirected: int = 0
    """Answers that went to a topic of the sender's choice, and were not looked for there."""
    retired: int = 0
    """Commands, results and dead letters whose record is older than the retention."""
    not_comparable: int = 0
    """Records and transitions of which the topic no longer has what was published."""
    repeated: int = 0
    """Messages that came twice where the delivery allows it."""
    others: int = 0
    """Messages of other groups, and events of imports."""
    compared: dict[TopicPartition, tuple[int, int]] = field(default_factory=dict)
    """By topic and partition: the offsets of the commands from which on, and below which, they could be compared."""
    counts: Counter[Kind] = field(default_factory=Counter)
    differences: list[Difference] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not self.counts

    def differs(self, kind: Kind, where: str, what: str) -> None:
        self.counts[kind] += 1
        if self.counts[kind] <= MOST_NAMED:
            self.differences.append(Difference(kind, where, what))


OnProgress = Callable[[int, int], None]


async def reconcile(
    settings: Settings, *, clock: Callable[[], datetime], on_progress: OnProgress = lambda _done, _total: None
) -> Reconciliation:
    """Compare everything. ``on_progress`` gets how many records of how many were read.

    ``clock`` tells what is older than the retention, also while all this is read.

    Raises ``NothingToCompare`` and ``DependencyAway``.
    """
    dsn, topics = settings.postgres.dsn.get_secret_value(), settings.topics
    async with browser(settings) as kafka:
        cluster, found = await _cluster(settings), await kafka.spans(*topics.read)
        at = (cluster, settings.kafka.group_id, list(topics.read))
        async with owner_connection(dsn) as connection:
            before = await connection.fetch(statement("lanes/of_group"), *at)
            committed = await committed_offsets(settings, [each.source for spans in found.values() for each in spans])
            spans = await kafka.spans(*topics.own)
            for name in topics.own:
                if name not in spans:
                    raise NothingToCompare(f"there is no topic {name}")
            lanes = await connection.fetch(statement("lanes/of_group"), *at)
            work = _Work(
                settings=settings,
                cluster=cluster,
                names=command_names(settings),
                kafka=kafka,
                connection=connection,
                spans=spans,
                committed=committed,
                lanes={_source(row): row["id"] for row in lanes},
                clock=clock,
                on_progress=on_progress,
            )
            _compare_lanes(work.report, committed, before, lanes)
            logs = {span.source: span for each in found.values() for span in each}
            _find_lost(work.report, logs, committed, before, await losses(connection, [row["id"] for row in lanes]))
            await work.commands()
            await work.transitions()
            await work.states()
    return work.report


async def _cluster(settings: Settings) -> str:
    async with admin_client(settings) as admin:
        return await cluster_id(admin)


def _source(lane: Row) -> TopicPartition:
    return TopicPartition(lane["topic"], lane["partition"])


def _compare_lanes(
    report: Reconciliation, committed: Mapping[TopicPartition, int], before: Sequence[Row], lanes: Sequence[Row]
) -> None:
    """``before`` was read before the committed offsets, ``lanes`` after: so a worker at work makes no difference."""
    earlier, later = ({_source(row): row for row in rows} for rows in (before, lanes))
    for source, offset in sorted(committed.items()):
        where, lane = f"{source.topic}/{source.partition}", later.get(source)
        if lane is None or lane["next_offset"] is None:
            if offset:
                report.differs(Kind.LANE, where, f"the committed offset is {offset}, and there is no lane")
            continue
        if offset > lane["next_offset"]:
            what = f"the committed offset is {offset}, but commands were decided up to {lane['next_offset']} only"
            report.differs(Kind.LANE, where, what)
        first = earlier[source]["first_offset"] if source in earlier else None
        if first is not None and offset < first:
            report.differs(Kind.LANE, where, f"the committed offset is {offset}, and was {first} or more: set back")


def _find_lost(
    report: Reconciliation,
    logs: Mapping[TopicPartition, Span],
    committed: Mapping[TopicPartition, int],
    before: Sequence[Row],
    losses: Mapping[int, Sequence[Loss]],
) -> None:
    """Report the losses that nobody has acknowledged, and those that no worker has come to yet."""
    for row in before:
        source = _source(row)
        where = f"{source.topic}/{source.partition}"
        for loss in unacknowledged(losses.get(row["id"], ())):
            report.differs(Kind.LOST, where, f"{loss}; noticed at {rfc3339(loss.noticed_at)}")
        log, first = logs.get(source), row["first_offset"]
        if log is None or first is None or row["ordered_offset"] is not None:
            continue
        if lost := removed(committed.get(source), first, log.begin):
            report.differs(Kind.LOST, where, range_lost(lost.start, lost.stop, row["next_offset"]))


@dataclass(slots=True, kw_only=True)
class _Work:
    """One reconciliation under way."""

    settings: Settings
    kafka: Browser
    connection: asyncpg.Connection
    spans: Mapping[str, list[Span]]
    committed: Mapping[TopicPartition, int]
    lanes: Mapping[TopicPartition, int]
    """The rows of the lanes by what they read."""
    clock: Callable[[], datetime]
    on_progress: OnProgress
    report: Reconciliation = field(default_factory=Reconciliation)
    done: int = 0
    begins: dict[tuple[str, int], datetime] = field(default_factory=dict)
    """By topic and partition: the first moment that is left, where the beginning was removed."""
    matchings: dict[str, Matching] = field(
        default_factory=lambda: {book: Matching() for book in (_RESULTS, _LETTERS, _EVENTS)}
    )
    spare: list[Seen] = field(default_factory=list)
    cluster: str
    names: CommandNames
    """By which facts know commands, and results are matched: an erased record has no other."""
    rehearsals: dict[TopicPartition, Rehearsals] = field(default_factory=lambda: defaultdict(Rehearsals))
    """The dry runs by partition."""
    early: list[Seen] = field(default_factory=list)
    """Results of dry runs that were seen before any such dry run was."""

    async def commands(self) -> None:
        """Commands with their records, and these with results and dead letters."""
        names = self.settings.topics
        every = [span for topic in names.read for span in self.spans[topic]]
        commands = [span.until(self.committed.get(span.source, 0)) for span in every]
        self.kafka.open([*commands, *self.spans[names.results], *self.spans[names.dead_letters]])
        streams = [self._lane(span) for span in commands]
        streams += [self._published(span, self._result) for span in self.spans[names.results]]
        streams += [self._published(span, self._letter) for span in self.spans[names.dead_letters]]
        await self._compare(streams, (_RESULTS, _LETTERS))
        self._rest_of_rehearsals()
        self.report.results += self.matchings[_RESULTS].matched
        self.report.dead_letters = self.matchings[_LETTERS].matched

    async def transitions(self) -> None:
        """Transitions with their applied commands, and with their events."""
        events = self.spans[self.settings.topics.transitions]
        self.kafka.open(events)
        streams = [self._chain(source, lane) for source, lane in self.lanes.items()]
        streams += [self._published(span, self._event) for span in events]
        await self._compare(streams, (_EVENTS,))
        self.report.transitions = self.matchings[_EVENTS].matched

    async def states(self) -> None:
        """Access tokens with their last transitions."""
        async for row in by_token(self.connection, statement("reconcile/states")):
            now = f"{row['life_cycle_state']}, version {row['version']}"
            last = "none" if row["last_version"] is None else f"{row['to_state']}, version {row['last_version']}"
            where = f"access token {row['id']} of {row['organisation']}"
            self.report.differs(Kind.OTHER_STATE, where, f"is {now}; its last transition: {last}")

    async def _compare(self, streams: Iterable[AsyncIterator[Due | Seen]], books: Sequence[str]) -> None:
        async for item in in_order(streams):
            if isinstance(item, Seen) and item.book == _REHEARSED:
                self._rehearsed(item, self.early)
                continue
            for each in self.matchings[item.book].take(item):
                await self._unmatched(each)
        for book in books:
            for each in self.matchings[book].rest():
                await self._unmatched(each)
        await self._look_up()

    # --- what is due --------------------------------------------------------------------------------------------------

    async def _lane(self, span: Span) -> AsyncIterator[Due | Seen]:
        """The merge of a partition's commands with its lane's records, both in the order of the log."""
        commands = self.kafka.read(span)
        records = aiter(self._records(self.lanes.get(span.source)))
        command, record = await anext(commands, None), await anext(records, None)
        self.report.compared[span.source] = (span.begin, span.end)
        begun = False
        while command is not None or record is not None:
            mine = (math.inf, 0) if command is None else (command.offset, command.timestamp)
            its = (math.inf, 0) if record is None else (record["record_offset"], record["record_timestamp"])
            if command is not None and mine <= its:
                self._progressed()
                self.report.commands += 1
            if command is not None and mine <= its and is_dry_run(command):
                self._rehearse(command, span.source, None if mine < its else record)
                command = await anext(commands, None)
                record = await anext(records, None) if mine == its else record
                continue
            if record is None or mine < its:
                self._unrecorded(command, span, retired=not begun)
                command = await anext(commands, None)
                continue
            begun = True
            for due in self._of_record(record, span, command if mine == its else None):
                yield due
            if mine == its:
                command = await anext(commands, None)
            record = await anext(records, None)

    def _unrecorded(self, command: Any, span: Span, *, retired: bool) -> None:
        """Records are retired from the beginning of a lane, by their age."""
        stamped = _at(command.timestamp)
        if retired and stamped < self._kept_since():
            self.report.retired += 1
            self.report.compared[span.source] = (command.offset + 1, span.end)
        else:
            self.report.differs(Kind.NO_RECORD, _where(command), "lies below the committed offset, and was not decided")

    def _of_record(self, record: Row, span: Span, command: Any) -> Iterator[Due]:
        """What a record says should have been published. ``command`` is the command itself, if it is still there."""
        source, offset = span.source, record["record_offset"]
        where = f"{source.topic}/{source.partition} offset {offset}"
        if command is None and span.begin <= offset < span.end:
            what = f"{record['command_id']} was decided there at {rfc3339(record['decided_at'])}"
            self.report.differs(Kind.NO_COMMAND, where, what)
        if record["version"] is not None and not self._is_its(record):
            token = f"access token {record['access_token_id']} of {record['organisation']}"
            found = "there is none" if record["transition_of"] is None else f"that is of {record['transition_of']}"
            what = f"{record['command_id']} gave the {token} its version {record['version']}, but {found}"
            self.report.differs(Kind.NO_TRANSITION, where, what)
        moment = record["decided_at"]
        key = (self.names.of(record["command_id"]), rfc3339(moment))
        redirected = command is not None and _is_redirected(command)
        replayed = "true" if record["replayed"] else "false"
        there = command is not None
        yield Due(_RESULTS, key, moment, (record["status"], replayed), where, source, there, elsewhere=redirected)
        if record["status"] in DEAD_LETTERED:
            place = (source.topic, str(source.partition), str(offset), str(record["record_timestamp"]))
            yield Due(_LETTERS, place, moment, (record["status"],), where, source, there)

    def _is_its(self, record: Row) -> bool:
        """Tell whether the transition is of the command that is said to have brought it about."""
        command = record["transition_of"]
        if command is None or not record["is_in_place"]:
            return False
        return command in self.names.all_of(record["command_id"]) or (is_digest(command) and not self.names.keys)

    async def _chain(self, source: TopicPartition, lane: int) -> AsyncIterator[Due | Seen]:
        settled = self.committed.get(source, 0)
        query = statement("reconcile/transitions")
        async for row in self._rows(query, (0,), lambda row: (row["sequence"],), lane):
            organisation, token, version = row["organisation"], row["access_token_id"], row["version"]
            where = f"version {version} of the access token {token} of {organisation}"
            placed, recorded = row["record_offset"] is not None, row["is_recorded"]
            if placed and not recorded and row["cause"] == "API" and row["occurred_at"] >= self._kept_since():
                what = f"no applied command is recorded at offset {row['record_offset']}, of {row['command_id']}"
                self.report.differs(Kind.NO_APPLIED, where, what)
            certain = not recorded or row["record_offset"] < settled
            members = dict(row) | {
                "occurred_at": rfc3339(row["occurred_at"]),
                "previous_hash": row["previous_hash"].hex(),
                "hash": row["hash"].hex(),
            }
            says = tuple(members[name] for name in _MEMBERS)
            yield Due(_EVENTS, (organisation, token, version), row["occurred_at"], says, where, source, certain)

    async def _records(self, lane: int | None) -> AsyncIterator[Row]:
        if lane is not None:
            query = statement("reconcile/records")
            place = ("record_offset", "record_timestamp")
            async for row in self._rows(query, (-1, 0), lambda row: tuple(row[name] for name in place), lane):
                yield row

    async def _rows(
        self, query: str, begin: tuple[int, ...], key: Callable[[Row], tuple[Any, ...]], lane: int
    ) -> AsyncIterator[Row]:
        async for page in pages(self.connection, query, begin, key, lane):
            for row in page:
                yield row

    def _kept_since(self) -> datetime:
        """The moment before which anything may be retired, also while all this is read."""
        return self.clock() - timedelta(days=self.settings.record_retention_days)

    # --- dry runs -----------------------------------------------------------------------------------------------------

    def _rehearse(self, command: Any, source: TopicPartition, record: Row | None) -> None:
        self.report.dry_runs += 1
        self.rehearsals[source].add(Rehearsal(command.offset, command.timestamp, _is_redirected(command)))
        if record is not None:
            what = f"{record['status']} at {rfc3339(record['decided_at'])}, as {record['command_id']}"
            self.report.differs(Kind.RECORDED, _where(command), what)

    def _rehearsed(self, seen: Seen, unknown: list[Seen]) -> None:
        """A result says itself which dry run it answers. Those are ``unknown`` that answer none."""
        at = seen.key
        if not isinstance(at, Coordinates) or at.cluster != self.cluster or at.topic not in self.settings.topics.read:
            self.report.others += 1
            return
        first = self.rehearsals[TopicPartition(at.topic, at.partition)].answer(at.offset, at.timestamp)
        if first:
            self.report.results += 1
        elif first is None:
            unknown.append(seen)
        elif self.settings.delivery == "at_least_once":
            self.report.repeated += 1
        else:
            self.report.differs(Kind.TWO_RESULTS, seen.where, f"of the dry run {seen.says[0]}")

    def _rest_of_rehearsals(self) -> None:
        unknown: list[Seen] = []
        for seen in self.early:
            self._rehearsed(seen, unknown)
        for seen in unknown:
            assert isinstance(seen.key, Coordinates)
            source = TopicPartition(seen.key.topic, seen.key.partition)
            begin, end = self.report.compared.get(source, (0, 0))
            if begin <= seen.key.offset < end:
                self.report.differs(Kind.NOT_REHEARSED, seen.where, f"says that it is of {seen.says[0]}")
            elif seen.key.offset < begin:
                self.report.not_comparable += 1
        for source, rehearsals in self.rehearsals.items():
            for each in rehearsals.unanswered():
                where, says = f"{source.topic}/{source.partition} offset {each.offset}", ("a dry run",)
                self._missing(Due(_RESULTS, None, _at(each.timestamp), says, where, source, True, each.elsewhere))

    # --- what is seen -------------------------------------------------------------------------------------------------

    async def _published(self, span: Span, read: Callable[[Any], Seen | None]) -> AsyncIterator[Due | Seen]:
        """What stands in a partition; and from which moment on, if its beginning was removed."""
        place = (span.source.topic, span.source.partition)
        if span.begin:
            self.begins[place] = datetime.max.replace(tzinfo=UTC)
        async for record in self.kafka.read(span):
            self._progressed()
            seen = read(record)
            if seen is not None:
                if span.begin:
                    self.begins[place] = min(self.begins[place], seen.moment)
                yield seen

    def _result(self, record: Any) -> Seen:
        told = header(record, h.CE_TIME)
        moment = _moment(told, record)
        if is_dry_run(record):
            subject = header(record, h.CE_SUBJECT)
            return Seen(_REHEARSED, coordinates_of(subject), moment, (subject,), _where(record))
        says = (header(record, h.STATUS_CODE), header(record, h.REPLAYED))
        called = header(record, h.COMMAND_ID)
        return Seen(_RESULTS, (self.names.of(called), told), moment, says, _where(record), called)

    def _letter(self, record: Any) -> Seen | None:
        if header(record, "dl_topic") not in self.settings.topics.read:
            return None
        if header(record, "dl_consumer_group") != self.settings.kafka.group_id:
            return None
        key = tuple(header(record, name) for name in ("dl_topic", "dl_partition", "dl_offset", "dl_timestamp"))
        moment = _moment(header(record, "dl_failed_at"), record)
        return Seen(_LETTERS, key, moment, (header(record, "dl_code"),), _where(record))

    def _event(self, record: Any) -> Seen | None:
        try:
            event = orjson.loads(record.value or b"")
            key = (event["organisation"], event["access_token_id"], event["version"])
            says = tuple(event[name] for name in _MEMBERS)
            moment = _moment(event["occurred_at"], record)
            whole = event_hash(event) == event["hash"]
            if tuple(map(type, key)) != (str, str, int):
                raise TypeError
        except (orjson.JSONDecodeError, KeyError, TypeError):
            self.report.differs(Kind.OTHER_EVENT, _where(record), "is no transition event")
            return None
        if not whole:
            self.report.differs(Kind.OTHER_EVENT, _where(record), "its hash is not that of its members")
        return Seen(_EVENTS, key, moment, says, _where(record))

    def _progressed(self) -> None:
        self.done += 1
        if self.done % 1000 == 0:
            self.on_progress(self.done, sum(span.end - span.begin for found in self.spans.values() for span in found))

    # --- what does not match ------------------------------------------------------------------------------------------

    async def _unmatched(self, each: Unmatched) -> None:
        due, seen = each.due, each.seen
        if due is not None and seen is not None:
            kind = {_RESULTS: Kind.OTHER_RESULT, _LETTERS: Kind.OTHER_DEAD_LETTER, _EVENTS: Kind.OTHER_EVENT}[due.book]
            self.report.differs(kind, seen.where, f"{_said(seen, due)}: {due.where}")
        elif due is not None:
            self._missing(due)
        elif seen is not None:
            self.spare.append(seen)
            if len(self.spare) == _LOOKED_UP:
                await self._look_up()

    def _missing(self, due: Due) -> None:
        if due.elsewhere:
            self.report.redirected += 1
        elif due.moment - (_APART if len(self.settings.topics.read) > 1 else timedelta()) < self._begin_of(due):
            self.report.not_comparable += 1
        elif due.certain:
            kind = {_RESULTS: Kind.NO_RESULT, _LETTERS: Kind.NO_DEAD_LETTER, _EVENTS: Kind.NO_EVENT}[due.book]
            self.report.differs(
                kind, due.where, f"due since {rfc3339(due.moment)}: {', '.join(map(str, due.says[:2]))}"
            )

    def _begin_of(self, due: Due) -> datetime:
        """The moment before which its counterpart may have been removed with the beginning of its topic."""
        names = self.settings.topics
        topic = {_RESULTS: names.results, _LETTERS: names.dead_letters, _EVENTS: names.transitions}[due.book]
        never = datetime.min.replace(tzinfo=UTC)
        read, partition = due.source
        if len(self.spans[topic]) == len(self.spans[read]):
            return self.begins.get((topic, partition), never)
        return max((moment for (name, _), moment in self.begins.items() if name == topic), default=never)

    async def _look_up(self) -> None:
        """Say of what is published and was not due here, whether it is anybody's."""
        spare, self.spare = self.spare, []
        known = await self._known(spare)
        for seen in spare:
            ours = known.get(seen.key)
            if ours is False or (seen.book == _EVENTS and "IMPORT" in seen.says):
                self.report.others += 1
            elif seen.book != _EVENTS and seen.moment < self._kept_since():
                self.report.retired += 1
            elif ours and self.settings.delivery == "at_least_once":
                self.report.repeated += 1
            else:
                kinds = {
                    _RESULTS: Kind.TWO_RESULTS if ours else Kind.UNASKED_RESULT,
                    _LETTERS: Kind.SPARE_DEAD_LETTER,
                    _EVENTS: Kind.TWO_EVENTS if ours else Kind.UNKNOWN_EVENT,
                }
                self.report.differs(kinds[seen.book], seen.where, _named(seen))

    async def _known(self, spare: Sequence[Seen]) -> dict[object, bool]:
        """By key: whether there is such a command or transition in a lane of ours (or, ``False``, of others)."""
        ours = list(self.lanes.values())
        results = [seen for seen in spare if seen.book == _RESULTS]
        ids = {name for seen in results for name in (seen.called, self.names.of(seen.called))}
        commands = await self.connection.fetch(
            statement("reconcile/known_commands"), list(ids), [command_key(each) for each in ids], ours
        )
        by_id = {row["command_id"]: row["ours"] for row in commands}
        found: dict[object, bool] = {
            seen.key: by_id[name]
            for seen in results
            for name in (self.names.of(seen.called), seen.called)
            if name in by_id
        }
        events = [seen.key for seen in spare if seen.book == _EVENTS and isinstance(seen.key, tuple)]
        columns = [[key[place] for key in events] for place in range(3)]
        for row in await self.connection.fetch(statement("reconcile/known_transitions"), *columns, ours):
            found[row["organisation"], row["access_token_id"], row["version"]] = row["ours"]
        return found


def _is_redirected(command: Any) -> bool:
    return bool(header(command, h.REPLY_TO) or header(command, h.KAFKA_REPLY_TOPIC))


def _at(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _moment(text: str, record: Any) -> datetime:
    """What a message says of its moment; the record's own where it says nothing of use."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = _at(record.timestamp)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _where(record: Any) -> str:
    return f"{record.topic}/{record.partition} offset {record.offset}"


def _named(seen: Seen) -> str:
    parts = seen.key if isinstance(seen.key, tuple) else (seen.key,)
    parts = (seen.called, *parts[1:]) if seen.called else parts
    return ", ".join(str(part) for part in (*parts, *seen.says[:2]))


def _said(seen: Seen, due: Due) -> str:
    """How the two differ, by the names of an event's members, or by all that they say."""
    names = _MEMBERS if seen.book == _EVENTS else ("status", "replayed")
    pairs = zip(names, seen.says, due.says, strict=False)
    return "; ".join(f"{name} {found}, not {wanted}" for name, found, wanted in pairs if found != wanted)
