"""``effective-worker audit verify`` and ``effective-worker audit anchor``"""

from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer

from worker.cli.findings import (
    JsonLines,
    OfOrganisation,
    Run,
    Since,
    Until,
    at_minute,
    document_of,
    ending,
    finding_lines,
    followed,
    many,
    opening,
    period,
    refuse_both,
    restriction_of,
    tell,
)
from worker.cli.moments import now
from worker.cli.output import printable
from worker.cli.terminal import Json, example, group, run_to_end, settings_from_environment, show
from worker.kafka.reader import topic_reader
from worker.operations.audit.anchors import Anchor, AnchorError, read_anchor, take_anchor
from worker.operations.audit.report import Audit, Kind
from worker.operations.audit.verify import verify as verify_history
from worker.operations.findings import Finding, OnProgress, Restriction
from worker.postgres.connect import owner_connection
from worker.settings import Settings
from worker.values import counted, rfc3339

SHORTEST_KEY: Final = 32

NoTopic = Annotated[bool, typer.Option("--no-topic", help="Leave the transitions topic out: no broker is needed.")]
AnchorFile = Annotated[
    Path | None,
    typer.Option("--anchor", metavar="FILE", help="What `audit anchor` printed: the chains must still hold it."),
]

KeyFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help=f"The auditor's own key, at least {SHORTEST_KEY} bytes: no worker may have it."),
]


def verify(
    *,
    anchor: AnchorFile = None,
    key_file: KeyFile = None,
    no_topic: NoTopic = False,
    organisation: OfOrganisation = None,
    since: Since = None,
    until: Until = None,
    json: Json = False,
    json_lines: JsonLines = False,
) -> None:
    """Verify every hash chain, and name what is wrong.

    Recomputes the chains, and compares states with histories and the transitions topic with both. Workers may run
    meanwhile. Changes nothing. With --key-file the anchor must be signed with it. Exit 1 if anything is wrong.

    Chains mix organisations, so they are recomputed whole. --organisation, --since and --until restrict the states that
    are compared and the findings that are named; others are counted. Such a run never says that everything holds.
    """
    refuse_both(as_json=json, as_lines=json_lines)
    restriction = restriction_of(organisation, since, until)
    if key_file is not None and anchor is None:
        raise typer.BadParameter("needs --anchor", param_hint="--key-file")
    settings = settings_from_environment()
    key = _key(key_file)
    earlier = None if anchor is None else _read(anchor, key)
    began = now()
    with followed(as_lines=json_lines) as (on_progress, on_found):
        verifying = _verify(
            settings, earlier, restriction, on_progress=on_progress, on_found=on_found, is_topic_read=not no_topic
        )
        report = run_to_end(verifying)
    tell(report, _run(report, earlier, began, has_key=key is not None), as_json=json, as_lines=json_lines)


def _run(report: Audit, anchor: Anchor | None, began: datetime, *, has_key: bool) -> Run:
    read: dict[str, Any] = {
        "lanes": report.lanes,
        "transitions": report.transitions,
        "events": report.events,
        "events_until": None if report.published_until is None else rfc3339(report.published_until),
        "unpublished": report.unpublished,
        "anchored": report.anchored,
        "anchor_taken_at": None if anchor is None else anchor.taken_at,
        "anchor_signature": None if anchor is None else _signature(anchor, has_key=has_key),
    }
    return Run(
        command="audit verify",
        began=began,
        ended=now(),
        read=read,
        document=document_of(report, named_as="findings") | {"holds": report.verdict},
        lines=list(_lines(report, anchor)),
        sentence=sentence(report, anchor, began, has_key=has_key),
    )


def anchor(key_file: KeyFile = None) -> None:
    """Print the heads of all chains, to be stored elsewhere.

    They are one JSON document, with a digest of them. With --key-file it is signed (HMAC-SHA256), so that someone who
    can replace it cannot make another.

    What is removed or replaced later below these heads, the heads with it, `audit verify --anchor` finds.
    """
    settings = settings_from_environment()
    taken = run_to_end(_anchor(settings, _key(key_file)))
    show(msgspec.to_builtins(taken), (), as_json=True)


def _key(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise typer.BadParameter(f"{path} cannot be read: {error.strerror}", param_hint="--key-file") from None
    if len(key) < SHORTEST_KEY:
        raise typer.BadParameter(f"{path} has fewer than {SHORTEST_KEY} bytes", param_hint="--key-file")
    return key


def _read(path: Path, key: bytes | None) -> Anchor:
    try:
        return read_anchor(path.read_bytes(), key=key)
    except OSError as error:
        raise typer.BadParameter(f"{path} cannot be read: {error.strerror}") from None
    except AnchorError as error:
        raise typer.BadParameter(f"{path}: {error}") from None


async def _verify(
    settings: Settings,
    anchor: Anchor | None,
    restriction: Restriction | None,
    *,
    on_progress: OnProgress,
    on_found: Callable[[Finding[Kind]], None] | None,
    is_topic_read: bool,
) -> Audit:
    async with AsyncExitStack() as opened:
        connection = await opened.enter_async_context(owner_connection(settings.postgres.dsn.get_secret_value()))
        topic = None
        if is_topic_read:
            topic = (await opened.enter_async_context(topic_reader(settings)), settings.topics.transitions)
        kept = timedelta(days=settings.record_retention_days)
        return await verify_history(
            connection,
            topic=topic,
            anchor=anchor,
            kept=kept,
            batch=settings.max_batch,
            restriction=restriction,
            on_progress=on_progress,
            on_found=on_found,
        )


async def _anchor(settings: Settings, key: bytes | None) -> Anchor:
    async with owner_connection(settings.postgres.dsn.get_secret_value()) as connection:
        return await take_anchor(connection, now=now(), key=key)


def _lines(report: Audit, anchor: Anchor | None) -> Iterator[str]:
    yield from finding_lines(report)
    events = "" if report.events is None else f", {counted(report.events, 'event')}"
    anchored = "" if anchor is None or report.anchored is None else f", {_heads(report.anchored, len(anchor.heads))}"
    what = counted(report.counts.total(), "finding") if report.counts else "no finding"
    if report.holds:
        what = "everything holds" if report.events is not None else "no finding in what was read"
    read = f"{counted(report.transitions, 'transition')} in {counted(report.lanes, 'lane')}"
    yield f"{read}{events}{anchored}: {what}"
    if report.unpublished:
        were = "was" if report.unpublished == 1 else "were"
        yield f"  {counted(report.unpublished, 'transition')} of the last batches {were} not published yet"


def _heads(found: int, anchored: int) -> str:
    return counted(found, "anchored head") if found == anchored else f"{found} of {counted(anchored, 'anchored head')}"


def sentence(report: Audit, anchor: Anchor | None, at: datetime, *, has_key: bool = False) -> str:
    """Return the verdict as one sentence for an auditor's report."""
    lanes = f"{many(report.lanes, 'lane')} with {many(report.transitions, 'transition')}{period(report)}"
    own = None if report.restriction is None else report.restriction.organisation
    compared = many(report.states, "state") + ("" if own is None else f" of {own}")
    link = " and" if report.events is None else ","
    if report.events is not None:
        until = "" if report.published_until is None else f" up to {at_minute(report.published_until)}"
        compared += f" and with {many(report.events, 'event')} of the transitions topic{until}"
    if report.holds:
        are, agree = ("is", "agrees") if report.lanes == 1 else ("are", "agree")
        did = f"{are} unbroken from the first to the last{link} {agree} with {compared}"
    else:
        were = "was" if report.lanes == 1 else "were"
        did = f"{were} recomputed from the first to the last, and compared with {compared}"
    late = f"; {many(report.unpublished, 'transition')} not published yet" if report.unpublished else ""
    topic = "; the transitions topic was not read" if report.events is None else ""
    more = f"{late}{topic}{_on_anchor(report, anchor, has_key=has_key)}; "
    return f"{opening('Verified', report, at)}{lanes} {did}{more}{ending(report, 'finding')}"


def _on_anchor(report: Audit, anchor: Anchor | None, *, has_key: bool) -> str:
    if anchor is None:
        return "; no anchor was compared"
    try:
        taken = at_minute(datetime.fromisoformat(anchor.taken_at))
    except ValueError:
        taken = printable(anchor.taken_at)
    verdict = "does not hold" if report.counts[Kind.ANCHOR] else "holds"
    return f"; the anchor of {taken} ({_signature(anchor, has_key=has_key)}) {verdict}"


def _signature(anchor: Anchor, *, has_key: bool) -> str:
    """Return what is known of an anchor's signature: with the key, only one that was verified gets this far."""
    if anchor.signature is None:
        return "not signed"
    return "signature verified" if has_key else "signature not checked"


def add(app: typer.Typer) -> None:
    """Add the commands, with examples in their help."""
    auditing = group("Verify the hash chains, and anchor them elsewhere.")
    verifying = (
        "audit verify",
        "audit verify --anchor monday.json --key-file auditor.key",
        "audit verify --no-topic",
        "audit verify --json-lines > findings.jsonl",
        "audit verify --organisation ORG1 --since 1d",
    )
    auditing.command("verify", epilog=example(*verifying))(verify)
    auditing.command(
        "anchor", epilog=example("audit anchor > monday.json", "audit anchor --key-file auditor.key > monday.json")
    )(anchor)
    app.add_typer(auditing, name="audit", epilog=example(*verifying))
