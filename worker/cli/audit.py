"""``effective-worker audit verify`` and ``effective-worker audit anchor``"""

import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from worker.cli.findings import document_of, finding_lines
from worker.cli.terminal import FAILED, Json, example, group, progress_bar, run_to_end, settings_from_environment, show
from worker.kafka.reader import topic_reader
from worker.operations.audit.anchors import Anchor, AnchorError, read_anchor, take_anchor
from worker.operations.audit.report import Audit
from worker.operations.audit.verify import verify as verify_history
from worker.operations.findings import OnProgress
from worker.postgres.connect import owner_connection
from worker.settings import Settings

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


def verify(anchor: AnchorFile = None, key_file: KeyFile = None, no_topic: NoTopic = False, json: Json = False) -> None:
    """Verify every hash chain, and name what is wrong.

    Recomputes the chains, and compares states with histories and the transitions topic with both. Workers may run
    meanwhile. Changes nothing. With --key-file the anchor must be signed with it. Exit 1 if anything is wrong.
    """
    if key_file is not None and anchor is None:
        raise typer.BadParameter("needs --anchor", param_hint="--key-file")
    settings = settings_from_environment()
    earlier = None if anchor is None else _read(anchor, _key(key_file))
    with progress_bar("verifying") as on_progress:
        report = run_to_end(_verify(settings, earlier, on_progress, is_topic_read=not no_topic))
    show(document_of(report, named_as="findings") | {"holds": report.holds}, list(_lines(report)), as_json=json)
    raise typer.Exit(0 if report.holds else FAILED)


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


async def _verify(settings: Settings, anchor: Anchor | None, on_progress: OnProgress, *, is_topic_read: bool) -> Audit:
    async with AsyncExitStack() as opened:
        connection = await opened.enter_async_context(owner_connection(settings.postgres.dsn.get_secret_value()))
        topic = None
        if is_topic_read:
            topic = (await opened.enter_async_context(topic_reader(settings)), settings.topics.transitions)
        kept = timedelta(days=settings.record_retention_days)
        return await verify_history(
            connection, topic=topic, anchor=anchor, kept=kept, batch=settings.max_batch, on_progress=on_progress
        )


async def _anchor(settings: Settings, key: bytes | None) -> Anchor:
    now = datetime.fromtimestamp(time.time(), UTC)
    async with owner_connection(settings.postgres.dsn.get_secret_value()) as connection:
        return await take_anchor(connection, now=now, key=key)


def _lines(report: Audit) -> Iterator[str]:
    yield from finding_lines(report)
    events = "" if report.events is None else f", {report.events} events"
    anchored = "" if report.anchored is None else f", {report.anchored} anchored heads"
    what = f"{report.counts.total()} findings" if report.counts else "everything holds"
    yield f"{report.transitions} transitions in {report.lanes} lanes{events}{anchored}: {what}"
    if report.unpublished:
        yield f"  {report.unpublished} transitions of the last batches were not published yet"


def add(app: typer.Typer) -> None:
    """Add the commands, with examples in their help."""
    auditing = group("Verify the hash chains, and anchor them elsewhere.")
    verifying = ("audit verify", "audit verify --anchor monday.json --key-file auditor.key", "audit verify --no-topic")
    auditing.command("verify", epilog=example(*verifying))(verify)
    auditing.command(
        "anchor", epilog=example("audit anchor > monday.json", "audit anchor --key-file auditor.key > monday.json")
    )(anchor)
    app.add_typer(auditing, name="audit", epilog=example(*verifying))
