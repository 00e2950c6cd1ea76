"""``effective-worker dead-letters``"""

import sys
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Any, Final

import orjson
import typer

from worker.cli import explain as explain_command
from worker.cli import terminal
from worker.cli.login import LoginTokenCommand, LoginTokenFile, LoginTokenText, login_source
from worker.cli.moments import moment_of
from worker.cli.output import fitted, printable
from worker.cli.progress import tracked
from worker.cli.terminal import (
    FAILED,
    LOGIN,
    REFUSED,
    SIGNALLED,
    Json,
    complain,
    example,
    group,
    run_to_end,
    settings_from_environment,
    until_signalled,
)
from worker.errors import OperatorError, WorkerError
from worker.journey.messages import DEAD_LETTERED
from worker.kafka.delivery import Coordinates
from worker.kafka.reader import topic_reader
from worker.operations.dead_letters import plan as planning
from worker.operations.dead_letters.letters import Chosen, Letter, OnProgress, Place, letters
from worker.operations.dead_letters.plan import Item, Replay, State, readers_of
from worker.operations.dead_letters.replay import Pace, carry_out
from worker.operations.explain import Explanation, explain
from worker.operations.login_source import LoginSource, LoginToken
from worker.settings import Settings
from worker.values import counted, rfc3339

Codes = Annotated[list[str] | None, typer.Option("--code", help="Only these: MALFORMED_REQUEST, INTERNAL_ERROR.")]
Since = Annotated[
    str | None, typer.Option(metavar="WHEN", help="Given up since: 2h (ago), or an RFC 3339 time.", show_default=False)
]
Until = Annotated[str | None, typer.Option(metavar="WHEN", help="Given up before: likewise.", show_default=False)]
Partitions = Annotated[list[int] | None, typer.Option("--partition", min=0, help="Of the topic of dead letters.")]
Reason = Annotated[str, typer.Option(help="A part of the reason, in any case.", show_default=False)]
SourceTopic = Annotated[str | None, typer.Option(help="The topic in which the command was read.")]
Organisation = Annotated[str | None, typer.Option(help="Whose login the command brought.")]
At = Annotated[
    list[str] | None, typer.Option("--at", metavar="PARTITION/OFFSET", help="Only what stands there. Repeatable.")
]

COLUMNS: Final = ("place", "given up at", "code", "attempts", "from", "organisation", "reason")


class NoDeadLetter(OperatorError):
    """There is no dead letter at the given position."""


def list_(
    *,
    code: Codes = None,
    since: Since = None,
    until: Until = None,
    partition: Partitions = None,
    reason: Reason = "",
    source_topic: SourceTopic = None,
    organisation: Organisation = None,
    at: At = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The most to list.")] = None,
    json: Json = False,
) -> None:
    """List dead letters, partition after partition.

    Where each stands, when and why it was given up, where it came from. Whoever is asked for everything holds nothing
    of it: each is printed as it is read.
    """
    chosen = _chosen(
        code=code,
        since=since,
        until=until,
        partition=partition,
        reason=reason,
        source_topic=source_topic,
        organisation=organisation,
        at=at,
    )
    settings, listing = settings_from_environment(), _Listing(as_json=json)
    try:
        signalled, _ = run_to_end(until_signalled(_list(settings, chosen, limit, listing)))
    except WorkerError as error:
        listing.stop(str(error))
        complain(str(error))
        raise typer.Exit(FAILED) from None
    if signalled:
        listing.stop("interrupted")
        raise typer.Exit(SIGNALLED + signalled)


async def _list(settings: Settings, chosen: Chosen, limit: int | None, listing: "_Listing") -> None:
    async with topic_reader(settings) as kafka:
        async for letter in letters(kafka, settings, chosen):
            listing.add(letter)
            if listing.counts.total() == limit:
                break
    listing.end(is_limited=listing.counts.total() == limit)


class _Listing:
    """A list that is printed while it is read: what keeps it from its end stands in its document, too."""

    def __init__(self, *, as_json: bool) -> None:
        self.counts: Counter[str] = Counter()
        self._as_json = as_json

    def add(self, letter: Letter) -> None:
        """Print one."""
        if self._as_json:
            sys.stdout.write(f"{self._between()}{orjson.dumps(facts(letter)).decode()}")
        else:
            sys.stdout.writelines(f"{each}\n" for each in told(letter, is_first=not self.counts))
        self.counts[letter.code] += 1

    def end(self, *, is_limited: bool) -> None:
        """Print how many there are."""
        if self._as_json:
            summary = {"total": self.counts.total(), "counts": self.counts, "limited": is_limited}
            self._close({"summary": summary})
        else:
            limited = ", and perhaps more" if is_limited else ""
            sys.stdout.write(f"{counted(self.counts.total(), 'dead letter')}{limited}{_each(self.counts)}\n")

    def stop(self, what: str) -> None:
        """Complete the document of a list that has no end."""
        if self._as_json:
            self._close({"error": what})

    def _between(self) -> str:
        return ",\n" if self.counts else '{"dead_letters": [\n'

    def _close(self, members: dict[str, Any]) -> None:
        head = "" if self.counts else '{"dead_letters": ['
        sys.stdout.write(f"{head}\n], {orjson.dumps(members).decode()[1:]}\n")


def show(
    place: Annotated[str, typer.Argument(metavar="PARTITION/OFFSET", help="Where it stands, as `list` says.")],
    *,
    json: Json = False,
) -> None:
    """Show a dead letter whole, secrets masked.

    Its headers, its value, what the record of commands knows of it, and whether it can be sent again.
    """
    settings, wanted = settings_from_environment(), _place(place)
    letter, item, explained = run_to_end(_look(settings, wanted))
    document = facts(letter) | {
        "key": _shown(letter.key),
        "value": _shown(letter.value),
        "headers": [{"name": name, "value": _shown(value)} for name, value in letter.headers],
        "replayable": item.why is None,
        "why_not": item.why,
        "detail": item.detail,
        "explanation": None if explained is None else asdict(explained),
    }
    terminal.show(document, list(_whole(letter, item, explained)), as_json=json)


async def _look(settings: Settings, place: Place) -> tuple[Letter, Item, Explanation | None]:
    chosen = Chosen(at=frozenset({place}))
    async with topic_reader(settings) as kafka:
        readers = await readers_of(settings, kafka)
        found = [letter async for letter in letters(kafka, settings, chosen)]
    if not found:
        raise NoDeadLetter(f"there is no dead letter at {place} of {settings.topics.dead_letters}")
    [letter], source = found, found[0].source
    planned = await planning.plan(settings, chosen)
    if source is None or source.topic not in readers.partitions:
        return letter, planned.items[place], None
    where = Coordinates(readers.cluster, source.topic, source.partition, source.offset, source.timestamp)
    return letter, planned.items[place], await explain(settings, where.command_id)


def _whole(letter: Letter, item: Item, explained: Explanation | None) -> Iterator[str]:
    yield line(letter)
    yield f"key: {_printable(letter.key)}"
    for name, value in letter.headers:
        yield f"header {_printable(name.encode())}: {_printable(value)}"
    yield f"value: {_printable(letter.value)}"
    if explained is not None:
        yield from map(printable, explain_command.lines(explained))
    yield f"can be sent again: {'yes' if item.why is None else f'no: {item.why}'}{_more(item.detail)}"


def replay(
    *,
    code: Codes = None,
    since: Since = None,
    until: Until = None,
    partition: Partitions = None,
    reason: Reason = "",
    source_topic: SourceTopic = None,
    organisation: Organisation = None,
    at: At = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The most to send.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it. Without this, only show what would be sent.")] = False,
    login_token: LoginTokenText = None,
    login_token_file: LoginTokenFile = None,
    login_token_command: LoginTokenCommand = None,
    rate: Annotated[float | None, typer.Option(min=0.01, help="The most to send, in commands a second.")] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds without a further answer until it gives up.")] = 60,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="A line for each dead letter.")] = False,
    json: Json = False,
) -> None:
    """Send the commands of dead letters again.

    Each where it was read, with a fresh login token; then account for all. Without --yes this is a plan. What was
    answered since is left out, so running it again is always safe. Exit 0 if all that was sent was answered OK, 3 if
    some was refused or failed again, 1 if not all was sent and answered.
    """
    chosen = _chosen(
        code=code,
        since=since,
        until=until,
        partition=partition,
        reason=reason,
        source_topic=source_topic,
        organisation=organisation,
        at=at,
    )
    source = login_source(login_token, login_token_file, login_token_command)
    if yes and source is None:
        what = "needs --login-token, --login-token-file or --login-token-command"
        raise typer.BadParameter(what, param_hint="--yes")
    settings = settings_from_environment()
    with tracked("looking") as on_progress:
        found = run_to_end(_plan(settings, chosen, source, limit, on_progress))
    signalled = 0
    if yes and source is not None:
        with tracked("sending") as on_progress:
            sending = carry_out(settings, found, source, Pace(rate, timeout), clock=time.time, on_progress=on_progress)
            signalled, _ = run_to_end(until_signalled(sending))
    if signalled:
        found.stopped = "interrupted"
    terminal.show(_accounts(found), list(_report(found, verbose=verbose)), as_json=json)
    raise typer.Exit(SIGNALLED + signalled if signalled else exit_code(found))


async def _plan(
    settings: Settings, chosen: Chosen, source: LoginSource | None, limit: int | None, on_progress: OnProgress
) -> Replay:
    login: LoginToken | None = None if source is None else await source.current()
    return await planning.plan(settings, chosen, login=login, limit=limit, on_progress=on_progress)


def exit_code(found: Replay) -> int:
    """Return 0 if everything sent was answered ``OK``; 3 if some otherwise; 1 if not all was sent and answered."""
    counts = found.counts()
    if not found.carried_out:
        return 0
    if found.stopped or counts[State.PLANNED] or counts[State.UNCONFIRMED] or counts[State.UNANSWERED]:
        return FAILED
    return REFUSED if counts[State.REFUSED] or counts[State.FAILED] else 0


# --- options ----------------------------------------------------------------------------------------------------------


def _chosen(
    *,
    code: list[str] | None,
    since: str | None,
    until: str | None,
    partition: list[int] | None,
    reason: str,
    source_topic: str | None,
    organisation: str | None,
    at: list[str] | None,
) -> Chosen:
    for each in code or ():
        if each not in DEAD_LETTERED:
            raise typer.BadParameter(f"no such code of dead letters: {each}", param_hint="--code")
    return Chosen(
        codes=frozenset(code or ()),
        since=None if since is None else moment_of(since, "--since"),
        until=None if until is None else moment_of(until, "--until"),
        partitions=frozenset(partition or ()),
        reason=reason,
        source_topic=source_topic,
        organisation=organisation,
        at=frozenset(map(_place, at or ())),
    )


def _place(text: str) -> Place:
    partition, _, offset = text.partition("/")
    if not all(part.isascii() and part.isdigit() and len(part) < 19 for part in (partition, offset)):
        raise typer.BadParameter(f"not a place like 3/17: {text}", param_hint="PARTITION/OFFSET")
    return Place(int(partition), int(offset))


# --- output -----------------------------------------------------------------------------------------------------------


def facts(letter: Letter) -> dict[str, Any]:
    """Return a dead letter for a JSON document, without its key, its value and its other headers."""
    return {
        "place": str(letter.place),
        "failed_at": rfc3339(letter.failed_at),
        "code": letter.code,
        "attempts": letter.attempts,
        "source": None if letter.source is None else asdict(letter.source),
        "reason": letter.reason,
        "organisation": letter.organisation,
        "group": letter.group,
        "worker": letter.worker,
        "truncated": letter.truncated,
    }


def told(letter: Letter, *, is_first: bool) -> Iterator[str]:
    """Yield the lines of a list for a dead letter: a record behind the names of the columns, if no terminal has it."""
    if sys.stdout.isatty():
        yield from fitted((line(letter),))
        return
    if is_first:
        yield "\t".join(COLUMNS)
    source, organisation = str(letter.source or "-"), letter.organisation or "-"
    members = (str(letter.place), rfc3339(letter.failed_at), letter.code or "-", str(letter.attempts), source)
    yield "\t".join(map(printable, (*members, organisation, letter.reason)))


def line(letter: Letter) -> str:
    """Return a dead letter as one line for people."""
    parts = (
        str(letter.place),
        rfc3339(letter.failed_at),
        letter.code or "not written by a worker",
        f"attempts {letter.attempts}",
        f"from {letter.source}" if letter.source else "source unknown",
        f"of {letter.organisation}" if letter.organisation else "organisation unknown",
        letter.reason,
    )
    return printable("  ".join(parts))


def _shown(value: bytes | None) -> str | dict[str, str] | None:
    """Return bytes for a JSON document: as text if they are text."""
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(value or b"").decode()}


def _printable(value: bytes | None) -> str:
    return "none" if value is None else printable(value.decode(errors="backslashreplace"))


def _accounts(found: Replay) -> dict[str, Any]:
    counts = found.counts()
    return {
        "carried_out": found.carried_out,
        "stopped": found.stopped,
        "selected": len(found.items),
        "sent": _sent(found),
        "counts": {str(state): counts[state] for state in State},
        "left_out": {str(why): count for why, count in found.left_out().items()},
        "refused": dict(found.refused()),
        "dead_letters": [_document(item) for item in found.items.values()],
    }


def _document(item: Item) -> dict[str, Any]:
    places = {"place": str(item.place), "dead_letter": item.dead_letter and str(item.dead_letter)}
    return {**asdict(item), **places, "state": item.state}


def _sent(found: Replay) -> int:
    return sum(item.sent is not None for item in found.items.values())


def _report(found: Replay, *, verbose: bool) -> Iterator[str]:
    if verbose:
        yield from map(_item, found.items.values())
    counts, selected = found.counts(), counted(len(found.items), "dead letter")
    if not found.carried_out:
        planned = counts[State.PLANNED]
        yield f"{selected}: {planned} would be sent, with --yes; {counts[State.LEFT_OUT]} left out"
    else:
        unsent = [f"{counts[each]} {each}" for each in (State.PLANNED, State.UNCONFIRMED) if counts[each]]
        yield f"{selected} = {' + '.join((f'{_sent(found)} sent', f'{counts[State.LEFT_OUT]} left out', *unsent))}"
    for why, count in found.left_out().most_common():
        yield f"  left out: {count} {why}"
    if found.carried_out:
        after = (State.APPLIED, State.REPLAYED, State.REFUSED, State.FAILED, State.UNANSWERED)
        yield f"{_sent(found)} sent = {' + '.join(f'{counts[each]} {each}' for each in after)}"
        for status, count in found.refused().most_common():
            yield f"  refused: {count} {status}"
        for item in () if verbose else found.of(State.FAILED):
            yield f"  {_item(item)}"
    if found.stopped:
        yield f"stopped: {printable(found.stopped)}; running it again is safe: what was answered is left out then"
    unknown = sum(bool(item.detail) for item in found.of(State.PLANNED))
    if unknown and not verbose:
        yield f"of {unknown} to be sent not everything is known: see --verbose"


def _item(item: Item) -> str:
    says = str(item.why or item.state)
    if item.status and item.state is not State.REPLAYED:
        says = f"{item.state}: {item.status}{_more(item.message)}" if item.state is not State.APPLIED else says
    stands = f"; now at {item.dead_letter}" if item.dead_letter else ""
    where = item.sent or item.source
    return printable(f"{item.place}  {item.code}  {where or ''}  {says}{_more(item.detail)}{stands}")


def _more(detail: str) -> str:
    return f" ({detail})" if detail else ""


def _each(counts: Counter[str]) -> str:
    named = ", ".join(f"{code or 'not written by a worker'} {count}" for code, count in counts.most_common())
    return f": {named}" if named else ""


def add(app: typer.Typer) -> None:
    """Add the commands, with examples in their help."""
    letters = group("Look at commands that were given up, and send them again.")
    listing = ("dead-letters list --since 2h", "dead-letters list --code INTERNAL_ERROR --json")
    letters.command("list", epilog=example(*listing))(list_)
    letters.command("show", epilog=example("dead-letters show 3/17"))(show)
    again = "dead-letters replay --code INTERNAL_ERROR --since 2h"
    login = f"--login-token-command 'effective-worker {LOGIN}'"
    letters.command("replay", epilog=example(again, f"{again} --rate 50 --yes {login}"))(replay)
    app.add_typer(letters, name="dead-letters", epilog=example("dead-letters list", again))
