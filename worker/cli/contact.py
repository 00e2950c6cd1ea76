"""``effective-worker contact erase``"""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated

import typer

from worker.cli.progress import tracked
from worker.cli.terminal import Json, example, group, run_to_end, settings_from_environment, show
from worker.operations.erasure import erase as erasing
from worker.operations.erasure.erase import Erasure
from worker.operations.erasure.mentions import Mentions
from worker.values import counted


def erase(
    contact: Annotated[str, typer.Argument(metavar="CONTACT_ID", help="The account owner's id.")],
    *,
    organisation: Annotated[str, typer.Option(help="The organisation's id.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do it. Without this, only show what would be removed.")] = False,
    delete_records: Annotated[
        bool, typer.Option("--delete-records", help="With --yes: delete from Kafka, too, what everybody has read.")
    ] = False,
    json: Json = False,
) -> None:
    """Remove a customer's personal data.

    That is contact, accounts, access tokens and digests. Transitions hold none and stay.

    Kafka cannot remove one record of many: the plan shows which partitions still hold something, up to which offset,
    and when retention removes it. The topics are searched first, and without them nothing is erased (exit 1).
    """
    if delete_records and not yes:
        raise typer.BadParameter("needs --yes", param_hint="--delete-records")
    settings = settings_from_environment()
    with tracked("looking through the topics") as on_progress:
        done = run_to_end(
            erasing.erase(
                settings,
                organisation,
                contact,
                carry_out=yes,
                delete_records=delete_records,
                on_progress=on_progress,
            )
        )
    document = asdict(done) | {
        "mentions": [asdict(each) | {"deletable": each.deletable} for each in done.mentions],
    }
    show(document, list(_lines(done)), as_json=json)


def _lines(done: Erasure) -> Iterator[str]:
    yield f"contact {done.contact} of {done.organisation}: {_end(done)}"
    for table, count in done.rows.items():
        yield f"  {table}: {count}"
    if not done.mentions:
        yield "topics: nothing of it in any"
    for each in done.mentions:
        held = f"{counted(each.records, 'record')} below offset {each.up_to}"
        yield f"{each.topic}/{each.partition}: {held}: {fate(each)}"


def _end(done: Erasure) -> str:
    if done.is_already_done:
        return f"already erased, at {done.erased_before:%F %T} UTC"
    return "erased" if done.done else "would be erased, with --yes"


def fate(each: Mentions) -> str:
    """Return what becomes of the messages in a partition, for people."""
    if each.deleted:
        return f"deleted, with {counted(each.others, 'offset')} of others"
    it, they = ("it", "it") if each.records == 1 else ("them", "they")
    gone = f"retention never removes {it}"
    if each.gone_by is not None:
        gone = f"retention removes {it} by {each.gone_by:%F %T} UTC"
    if not each.readers:
        return f"{gone}; no group's position is known there, so {they} cannot be deleted safely"
    if each.unread_by:
        return f"{gone}; not read so far by {', '.join(each.unread_by)}"
    return f"{gone}; --delete-records deletes {it}, with {counted(each.others, 'offset')} of others"


def add(app: typer.Typer) -> None:
    """Add the command, with examples in its help."""
    contact = group("A customer's personal data.")
    erasing = "contact erase --organisation ORG1 F038161F36C845B98CEE7361A8C92157"
    contact.command("erase", epilog=example(erasing, f"{erasing} --yes --delete-records"))(erase)
    app.add_typer(contact, name="contact", epilog=example(erasing))
