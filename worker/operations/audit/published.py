"""Compare the events in the transitions topic with the transitions in Postgres, in both directions."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

import asyncpg
import orjson

from effective_contract.transition import event_hash
from worker.kafka.reader import TopicReader
from worker.operations.audit.lanes import all_lanes, name_of, sequences, stored_hashes
from worker.operations.audit.numbers import Numbers
from worker.operations.audit.report import Audit, Kind
from worker.operations.findings import Origin, Progress, record_place
from worker.postgres.pool import Row

_CHUNK: Final = 1_000
"""Events held in memory at once."""
_LARGEST_SEQUENCE: Final = 2**63 - 1


class _Event(NamedTuple):
    """An event that is complete."""

    where: str
    lane: str
    sequence: int
    hash: str
    organisation: Any
    occurred_at: Any
    """The last two may be anything: only :meth:`origin` looks at them."""
    members: Mapping[str, Any]

    @property
    def origin(self) -> Origin:
        return _origin(self.organisation, self.occurred_at)


async def verify_published(
    topic: tuple[TopicReader, str],
    connection: asyncpg.Connection,
    lanes: Iterable[Row],
    report: Audit,
    progress: Progress,
) -> None:
    """Report every event without its transition, and every transition of these ``lanes`` without its event.

    ``topic`` is a reader of the topic, and the topic's name. The names of lanes are read after the ends of the topic,
    so every event below these ends belongs to a lane that was read.
    """
    kafka, name = topic
    spans = (await kafka.spans(name)).get(name, [])
    progress.begin("transitions topic", sum(span.end - span.begin for span in spans))
    kafka.open(spans)
    ids = {name_of(row): row["id"] for row in await all_lanes(connection)}
    comparison = _Comparison(connection, ids, report, {lane: Numbers() for lane in ids.values()})
    count = 0
    for span in spans:
        events: list[_Event] = []
        async for record in kafka.read(span):
            count += 1
            if (event := _read(record, report)) is not None:
                events.append(event)
            progress.advance()
            if len(events) >= _CHUNK:
                await comparison.compare(events)
                events = []
        await comparison.compare(events)
    report.events = count
    comparison.rest(lanes, is_cut=any(span.begin for span in spans))


def _read(record: Any, report: Audit) -> _Event | None:
    """Read an event; report it and return ``None`` if it is no event or was changed."""
    where = record_place(record.topic, record.partition, record.offset)
    try:
        event = orjson.loads(record.value or b"")
        organisation, occurred_at = event["organisation"], event.get("occurred_at")
        read = _Event(where, event["lane"], event["sequence"], event["hash"], organisation, occurred_at, event)
        if tuple(map(type, read[1:4])) != (str, int, str):
            raise TypeError
        whole = event_hash(event) == read.hash
        key = f"{organisation}:{event['access_token_id']}".encode()
    except (orjson.JSONDecodeError, KeyError, TypeError):
        report.found(Kind.OTHER_EVENT, where, "is no transition event")
        return None
    if record.key != key:
        report.found(Kind.OTHER_EVENT, where, "its key is not that of its access token", read.origin)
    if not whole:
        report.found(Kind.OTHER_EVENT, where, "its hash is not that of its members", read.origin)
        return None
    return read


def _differing(event: Mapping[str, Any], transition: Mapping[str, Any]) -> str:
    """Return the members of a changed transition that its event has otherwise."""
    each = [
        f"{name} is {event.get(name)}, the transition's {transition[name]}"
        for name in sorted(transition)
        if event.get(name) != transition[name]
    ]
    return "; ".join(each) or "its members are those of the transition, which does not hash to its hash"


def _origin(organisation: Any, occurred_at: Any) -> Origin:
    """Return what an event says of itself, as far as that can be read."""
    try:
        moment = datetime.fromisoformat(occurred_at)
    except (TypeError, ValueError):
        moment = None
    known = moment is not None and moment.tzinfo is not None
    return Origin(organisation if isinstance(organisation, str) else None, moment if known else None)


@dataclass(slots=True)
class _Comparison:
    """The events read so far, compared with the transitions."""

    connection: asyncpg.Connection
    ids: Mapping[str, int]
    """The lanes by their names."""
    report: Audit
    published: Mapping[int, Numbers]
    """By lane, the sequences of the transitions that have an event."""

    async def compare(self, events: Sequence[_Event]) -> None:
        """Compare events with their transitions. Postgres commits first, so every published transition is there."""
        self._note_time(events)
        places = [(self.ids.get(event.lane, 0), event.sequence) for event in events]
        possible = {(lane, sequence) for lane, sequence in places if lane and 0 < sequence <= _LARGEST_SEQUENCE}
        stored = await stored_hashes(self.connection, [*possible])
        for event, place in zip(events, places, strict=True):
            lane, sequence = place
            if place not in stored:
                what = f"{event.where}: there is no sequence {sequence}"
                self.report.found(Kind.UNKNOWN_EVENT, f"lane {event.lane}", what, event.origin)
            elif what := self._difference(event, place, stored[place].hex()):
                # The transition may be of another organisation than its event says: this is everybody's.
                self.report.found(Kind.OTHER_EVENT, f"{event.where}, lane {event.lane} sequence {sequence}", what)
            if place in possible:  # a transition that is gone had an event all the same
                self.published[lane].add(sequence)

    def _difference(self, event: _Event, place: tuple[int, int], stored: str) -> str:
        """Return by what an event differs from the transition at its place; empty if it does not."""
        if stored != event.hash:
            return f"its hash is {event.hash}, the transition's {stored}"
        changed = self.report.changed.get(place)
        return "" if changed is None else _differing(event.members, changed)

    def _note_time(self, events: Sequence[_Event]) -> None:
        """Note the time of the last of these events: a partition has them nearly in order."""
        moment = events[-1].origin.moment if events else None
        until = self.report.published_until
        if moment is not None and (until is None or until < moment):
            self.report.published_until = moment

    def rest(self, lanes: Iterable[Row], *, is_cut: bool) -> None:
        """Report the transitions that lack their event. ``is_cut`` says that the topic has lost its beginning."""
        for row in lanes:
            certain = row["chain_sequence"] - row["unpublished"]
            for first, end in self.published[row["id"]].missing(row["chain_sequence"]):
                if first > certain:
                    self.report.unpublished += end - first + 1
                    continue
                self.report.unpublished += max(0, end - certain)
                last = min(end, certain)
                has, were = ("has", "was") if first == last else ("have", "were")
                more = f", or {were} removed with the beginning of the topic" if is_cut and first == 1 else ""
                what = f"{sequences(first, last)} {has} no event{more}"
                self.report.found(Kind.NO_EVENT, f"lane {name_of(row)}", what)
