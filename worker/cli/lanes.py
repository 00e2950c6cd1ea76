"""``effective-worker lanes list``, ``show``, ``mend`` and ``acknowledge``"""

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final
from uuid import uuid4

import typer
from aiokafka import TopicPartition

from worker.cli.output import print_table
from worker.cli.terminal import FAILED, Json, example, group, run_to_end, settings_from_environment, show
from worker.lanes.losses import Loss
from worker.operations import lanes
from worker.operations.lanes import Lane, Mending, Remedy, State, Way, name
from worker.settings import Settings
from worker.values import rfc3339

COLUMNS: Final = ("lane", "state", "log", "committed", "decided", "behind", "transitions", "worker")
_NUMBERS: Final = {"committed", "decided", "behind", "transitions"}

Partitions = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="PARTITION",
        help="The number of a partition, or TOPIC/NUMBER; every one that does not start, if none is given.",
        show_default=False,
    ),
]


def list_(json: Json = False) -> None:
    """List every partition of the commands topics.

    Who works on it, what is committed, decided and waiting, and its state. Exit 1 if one does not start, or has lost
    commands that are not acknowledged.
    """
    settings = settings_from_environment()
    found = run_to_end(lanes.lanes(settings))
    if json:
        show({"lanes": [_document(lane) for lane in found]}, [], as_json=True)
    elif not found:
        show({}, ["no lanes: none of the commands topics exists"], as_json=False)
    else:
        rows = (_row(lane, settings.topics.commands) for lane in found)
        print_table(COLUMNS, rows, numbers=_NUMBERS, beneath="worker")
        show({}, [line for lane in found for line in _troubles(lane)], as_json=False)
    raise typer.Exit(FAILED if any(map(_is_in_trouble, found)) else 0)


def show_(
    partition: Annotated[
        str, typer.Argument(metavar="PARTITION", help="Its number, or TOPIC/NUMBER.", show_default=False)
    ],
    json: Json = False,
) -> None:
    """Show all that is known of one lane.

    Its log, offsets, last batch and owner, what is lost, and the ways out if it stands. Exit 1 if it does not start, or
    has lost commands that are not acknowledged.
    """
    settings = settings_from_environment()
    lane = run_to_end(lanes.show(settings, _place(settings, partition)))
    ways = lanes.remedies(lane)
    show(_document(lane) | {"ways": list(map(_way, ways))}, list(_whole(lane, ways)), as_json=json)
    raise typer.Exit(FAILED if _is_in_trouble(lane) else 0)


def acknowledge(
    partitions: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PARTITION",
            help="The number of a partition, or TOPIC/NUMBER; all, if none is given.",
            show_default=False,
        ),
    ] = None,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do it. Without this, only say what is lost.")] = False,
    json: Json = False,
) -> None:
    """Acknowledge lost commands: a person has seen which.

    They were removed from the log before they were answered. Nothing else changes: they cannot be brought back, and
    their senders must be told. Health and reconcile are silent about them from then on; ``lanes show`` keeps them.
    """
    settings = settings_from_environment()
    places = [_place(settings, text) for text in dict.fromkeys(partitions or ())]
    now = datetime.fromtimestamp(time.time(), UTC)
    found = run_to_end(lanes.acknowledge(settings, places, carry_out=yes, now=now))
    lines = [f"{name(lane.source)} has lost {loss}" for lane in found for loss in lane.unseen]
    if lines:
        lines.append("acknowledged" if yes else "nothing was changed; acknowledge it with --yes")
    document = {"done": yes, "lanes": [_document(lane) for lane in found]}
    show(document, lines or ["no loss waits to be acknowledged"], as_json=json)


def mend(
    partitions: Partitions = None,
    *,
    by: Annotated[Way | None, typer.Option(help="The way out to take.", show_default=False)] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it. Without this, only say what would be done.")] = False,
    json: Json = False,
) -> None:
    """Mend a lane that does not start, by one of its ways out.

    Without --by, shows the ways out and what comes of each. Workers may run: who has the lane goes on within half a
    minute, the others are not disturbed. Exit 1 if a lane that was named needs no mending, or not by this way; nothing
    was changed then.
    """
    if yes and by is None:
        raise typer.BadParameter("needs --by: a lane has more than one way out", param_hint="--yes")
    settings = settings_from_environment()
    places = [_place(settings, text) for text in dict.fromkeys(partitions or ())]
    now = datetime.fromtimestamp(time.time(), UTC)
    work = run_to_end(lanes.mend(settings, places, by, carry_out=yes, now=now, owner=uuid4()))
    document = {
        "done": work.done,
        "lanes": [_document(lane) | {"ways": list(map(_way, ways))} for lane, ways in work.lanes],
    }
    show(document, list(_lines(work, by)), as_json=json)


def _place(settings: Settings, text: str) -> TopicPartition:
    topic, slash, number = text.rpartition("/")
    topic = topic if slash else settings.topics.commands
    if not (number.isascii() and number.isdecimal()) or topic not in settings.topics.read:
        topics = " or ".join(settings.topics.read)
        raise typer.BadParameter(f"{text!r} is no partition of {topics}", param_hint="PARTITION")
    return TopicPartition(topic, int(number))


def _document(lane: Lane) -> dict[str, Any]:
    decided, member, log = lane.decided, lane.member, lane.log
    return {
        "topic": lane.source.topic,
        "partition": lane.source.partition,
        "state": lane.state,
        "reason": lane.why_blocked,
        "worker": None if member is None else {"member": member.id, "host": member.host},
        "owner": None if decided is None else str(decided.owner),
        "owned_since": None if decided is None else rfc3339(decided.owned_since),
        "log_start": None if log is None else log.begin,
        "log_end": None if log is None else log.end,
        "committed_offset": lane.committed,
        "first_offset": None if decided is None else decided.first,
        "next_offset": None if decided is None else decided.following,
        "ordered_offset": None if decided is None else decided.ordered,
        "behind": lane.behind,
        "transitions": 0 if decided is None else decided.transitions,
        "lost": [_loss(loss) for loss in lane.losses],
    }


def _loss(loss: Loss) -> dict[str, Any]:
    return {
        "from_offset": loss.begin,
        "to_offset": loss.end - 1,
        "decided_up_to": loss.decided,
        "noticed_at": rfc3339(loss.noticed_at),
        "acknowledged_at": None if loss.acknowledged_at is None else rfc3339(loss.acknowledged_at),
    }


def _is_in_trouble(lane: Lane) -> bool:
    return lane.state is State.BLOCKED or bool(lane.unseen)


def _troubles(lane: Lane) -> Iterator[str]:
    if lane.state is State.BLOCKED:
        yield f"{name(lane.source)} does not start: {lane.why_blocked}"
    for loss in lane.unseen:
        yield f"{name(lane.source)} has lost {loss}: see effective-worker lanes acknowledge"


def _whole(lane: Lane, ways: Sequence[Remedy]) -> Iterator[str]:
    decided, member, log = lane.decided, lane.member, lane.log
    yield f"{name(lane.source)}: {lane.state}"
    yield f"  log: {'none' if log is None else f'offsets {log.begin} to {log.end}'}"
    yield f"  committed by the group: {_number(lane.committed)}"
    if decided is not None:
        yield f"  last batch: offsets {_number(decided.first)} to {_number(decided.following)}"
        yield f"  transitions: {decided.transitions}"
        yield f"  owner: {decided.owner} since {rfc3339(decided.owned_since)}"
    yield f"  worker: {'none' if member is None else f'{member.host}, {member.id}'}"
    yield f"  behind: {lane.behind}"
    for loss in lane.losses:
        seen = "no" if loss.acknowledged_at is None else rfc3339(loss.acknowledged_at)
        yield f"  lost: {loss}, noticed {rfc3339(loss.noticed_at)}, acknowledged: {seen}"
    if lane.why_blocked:
        yield f"  does not start: {lane.why_blocked}"
        for remedy in ways:
            yield f"    --by {remedy.way}: {remedy.what}"


def _way(remedy: Remedy) -> dict[str, Any]:
    return {
        "by": remedy.way,
        "first_offset": remedy.first,
        "next_offset": remedy.following,
        "ordered_offset": remedy.ordered,
        "what": remedy.what,
    }


def _row(lane: Lane, usual: str) -> Sequence[str]:
    """Return a lane, member by member of ``COLUMNS``.

    Its name is its number, as on ``/readyz``, with the topic unless that is ``usual``.
    """
    decided, member = lane.decided, lane.member
    return (
        str(lane.source.partition) if lane.source.topic == usual else name(lane.source),
        lane.state,
        "-" if lane.log is None else f"{lane.log.begin} to {lane.log.end}",
        _number(lane.committed),
        "-" if decided is None else _number(decided.following),
        str(lane.behind),
        str(0 if decided is None else decided.transitions),
        "none" if member is None else f"{member.host}, {member.id}",
    )


def _number(offset: int | None) -> str:
    return "-" if offset is None else str(offset)


def _lines(work: Mending, by: Way | None) -> Iterator[str]:
    if not work.lanes:
        yield "nothing keeps any lane from starting"
    for lane, ways in work.lanes:
        yield f"{name(lane.source)} does not start: {lane.why_blocked}" if by is None else f"{name(lane.source)}:"
        for remedy in ways:
            yield f"  --by {remedy.way}: {remedy.what}"
        if by is None:
            yield f"  for example: effective-worker lanes mend {name(lane.source)} --by {ways[0].way} --yes"
    if work.lanes and by is not None:
        done = "ordered: the worker that has the lane goes on within half a minute; see: effective-worker lanes list"
        yield done if work.done else "nothing was changed; do it with --yes"


def add(app: typer.Typer) -> None:
    """Add the commands, with examples in their help."""
    lanes = group("List the lanes, one per partition, and mend one that stands.")
    lanes.command("list", epilog=example("lanes list", "lanes list --json"))(list_)
    mending = ("lanes mend", "lanes mend 3 --by redo", "lanes mend 3 --by redo --yes")
    lanes.command("show", epilog=example("lanes show 3", "lanes show 3 --json"))(show_)
    lanes.command("acknowledge", epilog=example("lanes acknowledge", "lanes acknowledge 3 --yes"))(acknowledge)
    lanes.command("mend", epilog=example(*mending))(mend)
    app.add_typer(lanes, name="lanes", epilog=example("lanes list", "lanes mend 3 --by redo --yes"))
