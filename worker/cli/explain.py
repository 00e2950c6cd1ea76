"""``effective-worker explain``"""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated

import typer

from worker.cli.output import printable
from worker.cli.terminal import FAILED, Json, example, run_to_end, settings_from_environment, show
from worker.journey.digests import is_digest
from worker.operations import explain as explaining
from worker.operations.explain import Explanation, Reading
from worker.values import rfc3339


def explain(
    command: Annotated[
        str,
        typer.Argument(
            metavar="COMMAND",
            help="An id, as in the header command_id, or your own; or TOPIC/PARTITION/OFFSET of it or of its answer.",
        ),
    ],
    *,
    topics: Annotated[bool, typer.Option("--topics/--no-topics", help="Look for the answer in Kafka, too.")] = True,
    json: Json = False,
) -> None:
    """Explain what happened to a command.

    Says where it was read, who asked, what was decided and why, and where the answer is. Takes the whole id
    (`ce:...`, `req:...`, `rec:...`), the ce_id or request_unique_identifier alone, or a position in Kafka: of the
    command, of its answer or of its dead letter, of the commands topic if none is named. What nothing is recorded of is
    looked for among the answers in the results topic. Exit 1 if nothing is known of it.
    """
    explained = run_to_end(explaining.explain(settings_from_environment(), command, topics=topics))
    show(asdict(explained), list(map(printable, lines(explained))), as_json=json)
    raise typer.Exit(FAILED if explained.state in {"unknown", "waiting"} else 0)


def lines(explained: Explanation) -> Iterator[str]:
    """Yield the explanation as lines for people."""
    yield f"command {explained.command_id}"
    if explained.note:
        yield f"  {explained.state}: {explained.note}"
    looked, is_erased = explained.topics == "searched", is_digest(explained.command_id)
    for number, each in enumerate(explained.readings):
        yield from _lines(each, "read" if number == 0 else "read again", looked=looked, is_erased=is_erased)
    if explained.change is not None:
        change = explained.change
        yield f"transition of the access token {explained.access_token} of {explained.organisation}"
        yield f"  version {change.version}, {change.from_state} → {change.to_state}, at {rfc3339(change.occurred_at)}"
        yield f"  by {_named(change.user, change.username)}, in unit {_named(change.unit, change.unit_name)}"
        yield f"  event {change.sequence} of the lane {change.lane}"
    for dry_run in explained.dry_runs:
        where, kind = dry_run.answer, " (replayed)" if dry_run.replayed else ""
        yield f"  would be {dry_run.status}{kind}, as answered in {where.topic}/{where.partition} offset {where.offset}"
    if explained.topics != "not searched":
        yield f"topics: {explained.topics}"


def _lines(reading: Reading, how: str, *, looked: bool, is_erased: bool) -> Iterator[str]:
    where = reading.read
    at = f"{where.topic}/{where.partition} offset {where.offset}, stamped {where.timestamp.isoformat()}"
    yield f"{how} from {at} (cluster {reading.cluster}, group {reading.group})"
    yield f"  asked by {reading.organisation or 'a login that was not verified'}"
    kind, why = " (replayed)" if reading.replayed else "", f": {reading.message}" if reading.message else ""
    yield f"  decided {reading.status}{kind} at {rfc3339(reading.decided_at)}{why}"
    if reading.refused_user is not None:
        yield f"  tried by the user {reading.refused_user}, on what has the digest {reading.tried_digest}"
    if reading.access_token is not None:
        yield f"  of the access token {reading.access_token}, fields asked for: {', '.join(reading.fields)}"
    if looked:
        answers = ", ".join(f"{each.topic}/{each.partition} offset {each.offset}" for each in reading.results)
        elsewhere = f" (the sender named {reading.reply_to})" if reading.reply_to else ""
        if not answers and is_erased:
            yield "  its answers can no longer be told from others: what it was called was erased with its customer"
        else:
            yield f"  answered in {answers or 'no topic that still has it'}{elsewhere}"
        for letter in reading.dead_letters:
            yield f"  dead letter in {letter.topic}/{letter.partition} offset {letter.offset}"
        if not reading.in_topic:
            yield "  the command itself is no longer in its topic"


def _named(identity: str | None, name: str | None) -> str:
    return f"{identity} ({name})" if name else str(identity)


def add(app: typer.Typer) -> None:
    """Add the command, with examples in its help."""
    asking = ("explain ce:ORG1:%2Fshop:order-7", "explain order-7 --no-topics", "explain 3/17")
    app.command("explain", epilog=example(*asking))(explain)
