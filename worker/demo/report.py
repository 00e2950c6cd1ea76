"""The results of the demo, for people and as a document."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import orjson
from rich.table import Table

from worker.demo.commands import Attempt, documented, shown
from worker.demo.exchange import Reply
from worker.demo.load import LoadReport
from worker.observability.terminals import console_on
from worker.values import counted

WIDTH: Final = 118
TRYING_OUT: Final = "for trying out: the embedded broker is not Apache Kafka, and this proves nothing about a real one"


@dataclass(frozen=True, slots=True)
class Report:
    """The results. ``replies`` are in the order of ``attempts``; ``seconds`` is the time to the last reply."""

    attempts: Sequence[Attempt]
    replies: Sequence[Reply]
    seconds: float
    load: LoadReport | None = None
    peak_memory: int | None = None
    """The worker's peak memory in bytes during the load."""

    def with_load(self, load: LoadReport, peak_memory: int | None) -> "Report":
        return replace(self, load=load, peak_memory=peak_memory)

    @property
    def as_documented(self) -> bool:
        """True if every command was answered as CONTRACT, Result says, and all of the load once and ``OK``."""
        return all(map(_as_expected, self.attempts, self.replies)) and (
            self.load is None or (self.load.statuses == {"OK": self.load.commands} and not self.load.duplicates)
        )

    def show(self, *, as_json: bool) -> None:
        """Print the report to stdout."""
        console = console_on(sys.stdout)
        if as_json:
            console.out(orjson.dumps(self._document(), option=orjson.OPT_INDENT_2).decode())
            return
        if not console.is_terminal:
            console.width = WIDTH
        console.print(self._table(narrow=console.width < WIDTH))
        for line in self._lines():
            console.print(line)

    def _table(self, *, narrow: bool) -> Table:
        """Return commands and replies side by side: the first in full, of the others only the differences."""
        table = Table(show_lines=True)
        table.add_column("", overflow="fold", width=12 if narrow else 19)
        table.add_column("command", overflow="fold", ratio=1 if narrow else None, width=None if narrow else 44)
        table.add_column("reply", overflow="fold")
        golden = self.replies[0].value["data"]
        for attempt, reply in zip(self.attempts, self.replies, strict=True):
            mark = "as expected" if _as_expected(attempt, reply) else f"expected {attempt.expected}"
            if attempt is self.attempts[0]:
                command, answer = shown(attempt.body, indent=2), _json(reply.value, indent=2)
            else:
                again = bool(golden) and reply.value["data"] == golden
                value = {**reply.value, "data": "… as above"} if again else reply.value
                command, answer = shown(attempt.body), _json(value) + ("  replayed" if reply.replayed else "")
            table.add_row(f"{attempt.name}\n[dim]{mark}[/dim]", _plain(command), _plain(answer))
        return table

    def _lines(self) -> list[str]:
        right = sum(map(_as_expected, self.attempts, self.replies))
        lines = [
            f"{right} of {counted(len(self.attempts), 'command')} answered as documented, the golden one to the letter;"
            f" {self.seconds:.1f} s from nothing",
        ]
        if self.load is not None:
            lines.append(
                f"{counted(self.load.commands, 'command')} at {self.load.rate:.0f}/s,"
                f" {counted(self.load.duplicates, 'duplicate')},"
                f" {', '.join(f'{code} {count}' for code, count in self.load.statuses.items())}"
                + ("" if self.peak_memory is None else f"; peak worker memory {self.peak_memory / 2**20:.0f} MiB")
            )
        return [*lines, TRYING_OUT]

    def _document(self) -> dict[str, Any]:
        return {
            "as_documented": self.as_documented,
            "seconds": self.seconds,
            "commands": [
                {"name": attempt.name, "expected": attempt.expected, "replayed": reply.replayed, "reply": reply.value}
                for attempt, reply in zip(self.attempts, self.replies, strict=True)
            ],
            "load": None
            if self.load is None
            else {**asdict(self.load), "commands_per_second": self.load.rate, "peak_memory_bytes": self.peak_memory},
            "note": TRYING_OUT,
        }


def _as_expected(attempt: Attempt, reply: Reply) -> bool:
    if reply.code != attempt.expected or (attempt.replayed and not reply.replayed):
        return False
    return reply.code != "OK" or reply.value == documented("result.json")


def _json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, indent=indent, ensure_ascii=False)


def _plain(text: str) -> str:
    """Return a text without markup."""
    return text.replace("[", r"\[")
