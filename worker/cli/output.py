"""Output for people: the characters that a stream takes, tables, long lines (CONTRACT, Command line).

A terminal gets columns and lines that fit it. A file or a pipe gets one record a line, the members separated by tabs.
"""

import codecs
import io
import shlex
import shutil
import sys
import textwrap
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final

_IN_TEXT: Final = "worker.text"
_IN_JSON: Final = "worker.json"
_INSTEAD: Final = {"→": "->", "…": "...", "·": "-", "—": "-"}
_CONTINUED: Final = " \\"
_GAP: Final = 2
_MORE: Final = 4
"""Columns by which the further lines of a long one are indented beyond the first."""


def _as_text(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_INSTEAD.get(each, "?") for each in error.object[error.start : error.end]), error.end


def _as_json(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2)), error.end


codecs.register_error(_IN_TEXT, _as_text)
codecs.register_error(_IN_JSON, _as_json)


def set_up_streams(arguments: Collection[str]) -> None:
    """Let stdout and stderr replace the characters that they cannot take; ``--json`` escapes them, and stays exact."""
    for stream, errors in ((sys.stdout, _IN_JSON if "--json" in arguments else _IN_TEXT), (sys.stderr, _IN_TEXT)):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def printable(text: str) -> str:
    """Escape control characters: a stranger's text must not move the reader's cursor."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Collection[str] = (), beneath: str = ""
) -> None:
    """Print records. On a terminal that is too narrow for them each is a block of lines.

    ``numbers`` names the columns whose content is aligned to the right. ``beneath`` is the last column: if all others
    fit without it, it goes into a line beneath each record instead.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        right = [column in numbers for column in columns]
        shown = [list(map(_taken, row)) for row in (columns, *cells)]
        lines = _aligned(shown, right, shutil.get_terminal_size().columns, beneath=bool(beneath))
    else:
        lines = iter("\t".join(row) for row in (columns, *cells))
    sys.stdout.writelines(f"{line}\n" for line in lines)
    sys.stdout.flush()


def fitted(lines: Iterable[str], *, hanging: int | None = None) -> Iterator[str]:
    """Yield the lines; on a terminal, what is too long for it goes on in indented lines, or in those of ``hanging``."""
    if not sys.stdout.isatty():
        yield from lines
        return
    width = shutil.get_terminal_size().columns
    for line in map(_taken, lines):
        indent = " " * (len(line) - len(line.lstrip()) + _MORE if hanging is None else hanging)
        yield from _folded(line, width, indent)


def pasteable(command: str, indent: str) -> Iterator[str]:
    """Yield a command of a shell; on a terminal, in lines that fit it and are one command when they are pasted."""
    if not sys.stdout.isatty():
        yield indent + command
        return
    width, line = shutil.get_terminal_size().columns - len(_CONTINUED), ""
    for word in map(shlex.quote, shlex.split(command)):
        if line and len(line) + 1 + len(word) > width:
            yield f"{line}{_CONTINUED}"
            line = indent + " " * _MORE + word
        else:
            line = f"{line} {word}" if line else indent + word
    yield line


def _taken(text: str) -> str:
    """Return the text as stdout shows it: a replacement may be wider than what it replaces."""
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, _IN_TEXT).decode(encoding)


def _folded(line: str, width: int, indent: str, first: str = "") -> list[str]:
    return textwrap.wrap(
        line,
        max(width, len(indent) + 20),
        initial_indent=first,
        subsequent_indent=indent,
        break_long_words=False,  # an id is copied whole
        break_on_hyphens=False,
    ) or [first.rstrip()]


def _aligned(rows: Sequence[Sequence[str]], right: Sequence[bool], width: int, *, beneath: bool) -> Iterator[str]:
    """Yield the lines of a table, whose first row has the names of the columns."""
    from rich.cells import cell_len

    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    for taken in (len(widths), len(widths) - 1 if beneath else 0):
        if taken and sum(widths[:taken]) + _GAP * (taken - 1) <= width:
            break
    else:
        yield from _blocks(rows[0], rows[1:], width)
        return
    for number, row in enumerate(rows):
        padded = (
            " " * (wide - cell_len(cell)) + cell if to_right else cell + " " * (wide - cell_len(cell))
            for cell, wide, to_right in zip(row[:taken], widths[:taken], right[:taken], strict=True)
        )
        yield (" " * _GAP).join(padded).rstrip()
        for name, cell in zip(rows[0][taken:], row[taken:], strict=True) if number else ():
            first = " " * (widths[0] + _GAP) + f"{name} "
            yield from _folded(cell, width, " " * len(first), first=first)


def _blocks(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Iterator[str]:
    """Yield a line per member, and an empty one between two records."""
    wide = max(map(len, columns)) + _GAP
    for number, row in enumerate(rows):
        if number:
            yield ""
        for column, cell in zip(columns, row, strict=True):
            yield from _folded(cell, width, " " * wide, first=column.ljust(wide))
