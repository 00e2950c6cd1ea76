"""``effective-worker help``"""

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from worker.cli.terminal import example


def _inner(context: typer.Context, names: Sequence[str]) -> Any:
    """Return the context of a command as it would have when it is called. Raises what an unknown name raises."""
    inner: Any = context.find_root()
    for name in names:
        commands: Any = inner.command
        if not hasattr(commands, "commands"):
            inner.fail(f"{inner.command_path} has no commands.")
        _, found, _ = commands.resolve_command(inner, [name])
        inner = type(inner)(found, info_name=name, parent=inner, **found.context_settings)
    return inner


def _names(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    commands: Any = _inner(context, context.params.get("command") or ()).command
    found = getattr(commands, "commands", {}).items()
    return [(name, each.get_short_help_str()) for name, each in found if name.startswith(incomplete)]


def help_(
    context: typer.Context,
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="COMMAND", show_default=False, help="A command.", autocompletion=_names),
    ] = None,
) -> None:
    """Show the help of a command, as --help does."""
    typer.echo(_inner(context, command or ()).get_help())


def add(app: typer.Typer) -> None:
    """Add the command, with examples in its help."""
    app.command("help", epilog=example("help", "help history", "help lanes mend"))(help_)
