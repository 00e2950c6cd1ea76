"""The command line (CONTRACT 8): one module per command, put together here."""

import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Final

import typer

from worker.cli.audit import anchor, verify
from worker.cli.check import check
from worker.cli.contact import erase
from worker.cli.contract import contract
from worker.cli.dead_letters import list_, replay, show
from worker.cli.demo import demo
from worker.cli.explain import explain
from worker.cli.history import history
from worker.cli.import_ import import_
from worker.cli.lanes import list_ as list_lanes
from worker.cli.lanes import mend
from worker.cli.login_token import login_token
from worker.cli.migrate import migrate
from worker.cli.reconcile import reconcile
from worker.cli.run import run
from worker.cli.submit import submit
from worker.cli.terminal import CommandGroup, complain, example
from worker.cli.topics import apply, plan

_REPLAY: Final = "dead-letters replay --code INTERNAL_ERROR --since 2h"
_SUBMITTING: Final = (
    "submit migration.ndjson --token-command 'effective-worker login-token --organisation ORG1 --user mpadmin'",
    'submit cards.csv --token "$TOKEN" --rate 500',
    "submit migration.ndjson.refusals.ndjson --token-command ./login.sh",
)


def application() -> typer.Typer:
    """The commands, each with an example in its help."""
    settings = {"help_option_names": ["-h", "--help"]}
    app = typer.Typer(
        cls=CommandGroup,
        callback=_everything,
        context_settings=settings,
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.command("demo", epilog=example("demo", "demo --commands 50000", "demo --keep --directory here"))(demo)
    app.command("run", epilog=example("run"))(run)
    app.command("migrate", epilog=example("migrate", "migrate --check"))(migrate)
    topics = _group("Create or check the topics.", settings)
    topics.command("plan", epilog=example("topics plan"))(plan)
    topics.command("apply", epilog=example("topics apply"))(apply)
    app.add_typer(topics, name="topics", epilog=example("topics plan", "topics apply"))
    app.command("check", epilog=example("check", "check --json"))(check)
    app.command(
        "import", epilog=example("import fixture.ndjson", "import customers.ndjson --from-start", "import --announce")
    )(import_)
    app.command(
        "login-token",
        epilog=example(
            "login-token --organisation ORG1 --user mpadmin",
            "login-token --organisation ORG1 --user mpadmin --unit 1 --ttl 30m",
        ),
    )(login_token)
    app.command(
        "contract", epilog=example("contract pack", "contract --check schemas/released/0.1.0", "contract pack --json")
    )(contract)
    app.command("submit", epilog=example(*_SUBMITTING))(submit)
    app.command(
        "history",
        epilog=example("history 4D1F0C6E9B7A4F5C8E2B7A90D3C61F55", "history AT0000000671 --organisation ORG1 --json"),
    )(history)
    app.command("explain", epilog=example("explain ce:ORG1:%2Fshop:order-7", "explain order-7 --no-topics"))(explain)
    contact = _group("A customer's personal data.", settings)
    erasing = "contact erase --organisation ORG1 F038161F36C845B98CEE7361A8C92157"
    contact.command("erase", epilog=example(erasing, f"{erasing} --yes --delete-records"))(erase)
    app.add_typer(contact, name="contact", epilog=example(erasing))
    audit = _group("What an auditor asks.", settings)
    verifying = ("audit verify", "audit verify --anchor monday.json --json", "audit verify --no-topic")
    audit.command("verify", epilog=example(*verifying))(verify)
    audit.command("anchor", epilog=example("audit anchor > monday.json"))(anchor)
    app.add_typer(audit, name="audit", epilog=example(*verifying))
    app.add_typer(_lanes(settings), name="lanes", epilog=example("lanes list", "lanes mend 3 --by redo --yes"))
    app.add_typer(_dead_letters(settings), name="dead-letters", epilog=example("dead-letters list", _REPLAY))
    app.command("reconcile", epilog=example("reconcile", "reconcile --json"))(reconcile)
    return app


def _group(what: str, settings: dict[str, list[str]]) -> typer.Typer:
    """Commands under a common name."""
    return typer.Typer(help=what, context_settings=settings, no_args_is_help=True, rich_markup_mode=None)


def _lanes(settings: dict[str, list[str]]) -> typer.Typer:
    app = _group("One lane per partition: where each stands, and the ways out when one does not start.", settings)
    app.command("list", epilog=example("lanes list", "lanes list --json"))(list_lanes)
    mending = ("lanes mend", "lanes mend 3 --by redo", "lanes mend 3 --by redo --yes")
    app.command("mend", epilog=example(*mending))(mend)
    return app


def _dead_letters(settings: dict[str, list[str]]) -> typer.Typer:
    app = _group("Commands that were given up: look at them, and send them again.", settings)
    listing = ("dead-letters list --since 2h", "dead-letters list --code INTERNAL_ERROR --json")
    app.command("list", epilog=example(*listing))(list_)
    app.command("show", epilog=example("dead-letters show 3/17"))(show)
    login = "--login-token-command 'effective-worker login-token --organisation ORG1 --user mpadmin'"
    app.command("replay", epilog=example(_REPLAY, f"{_REPLAY} --rate 50 --yes {login}"))(replay)
    return app


def main() -> None:
    """The console script. Ends the process with the exit code of CONTRACT 8."""
    application()(prog_name="effective-worker")


def _everything(
    show_version: Annotated[bool, typer.Option("--version", is_eager=True, help="Show the version and exit.")] = False,
) -> None:
    """Sets access tokens effective, exactly once: commands in from Kafka, results out to Kafka, state in Postgres.

    Settings come from the environment alone.
    """
    if show_version:
        try:
            sys.stdout.write(f"{version('effective-worker')}\n")
        except PackageNotFoundError:
            complain("not installed, so there is no version")
        raise typer.Exit
