"""``effective-worker config``"""

import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final

import typer

from worker.cli.env_file import EnvFile, env_file_of
from worker.cli.output import print_table
from worker.cli.terminal import WRONG_USAGE, Json, complain, example, group, show
from worker.operations.config import Shown, shown_settings
from worker.settings import Settings

COLUMNS: Final = ("variable", "value", "source", "default", "fault")


def show_(context: typer.Context, json: Json = False) -> None:
    """Show every setting, its source and its default.

    Secrets are masked. Settings that are wrong are shown, too, with what is wrong; exit 2 then.
    """
    file = env_file_of(context) or EnvFile("", {})
    settings, faults = shown_settings(os.environ, file.path, file.variables)
    if json:
        show({"settings": list(map(_document, settings)), "faults": dict(faults)}, (), as_json=True)
    elif sys.stdout.isatty():
        show({}, [line for each in settings for line in lines_of(each)], as_json=False)
    else:
        print_table(COLUMNS, map(_row, settings))
    for variable, what in faults.items():
        complain(f"{variable}: {what}")
    raise typer.Exit(WRONG_USAGE if faults else 0)


def schema() -> None:
    """Print the JSON Schema of the settings.

    The member NAME of SECTION is the variable WORKER_SECTION__NAME, where a list is separated by commas.
    """
    show({"$schema": "https://json-schema.org/draft/2020-12/schema", **Settings.model_json_schema()}, (), as_json=True)


def _document(each: Shown) -> dict[str, Any]:
    return {
        "variable": each.variable,
        "value": each.value,
        "source": each.origin.kind,
        "env_file": each.origin.env_file,
        "file": each.origin.file,
        "default": each.default,
        "secret": each.secret,
        "fault": each.fault,
    }


def _row(each: Shown) -> Sequence[str]:
    return each.variable, _text(each.value), str(each.origin), _text(each.default), each.fault or "-"


def lines_of(each: Shown) -> Iterator[str]:
    """Yield a setting as lines for people."""
    if each.origin.kind == "default":
        yield f"{each.variable} = {_text(each.value)} (default)"
    else:
        yield f"{each.variable} = {_text(each.value)}"
        yield f"    from {each.origin}; default: {_text(each.default)}"
    if each.fault:
        yield f"    wrong: {each.fault}"


def _text(value: Any) -> str:
    """Return a value as a variable would have it; ``-`` if there is none."""
    if isinstance(value, list):
        return ",".join(map(_text, value)) or "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "-" if value is None else str(value)


def add(app: typer.Typer) -> None:
    """Add the commands, with examples in their help."""
    config = group("Show the settings, or their JSON Schema.")
    showing = ("config show", "--env-file worker.env config show --json")
    config.command("show", epilog=example(*showing))(show_)
    config.command("schema", epilog=example("config schema"))(schema)
    app.add_typer(config, name="config", epilog=example("config show", "config schema"))
