"""The report of a run: tables on the terminal, every figure in ``bench.json``, and a plot for each question."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from rich.console import Console
from rich.table import Table

Cell = str | int | float | bool | None
Log = Literal["", "x", "y", "xy"]
SIZE: Final = (8.0, 4.5)
"""Inches."""
WIDTH: Final = 140
"""Characters."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A claim, and whether it held."""

    what: str
    wanted: str
    found: str
    met: bool


def terminal() -> Console:
    """Return a terminal of its real width; other outputs take wide tables."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDTH)


@dataclass(slots=True)
class Report:
    """Prints everything as soon as it is known, and keeps it for ``write``."""

    directory: Path
    console: Console = field(default_factory=terminal)
    facts: dict[str, Any] = field(default_factory=dict)
    """Written as they are: name and figures."""
    bars: list[Bar] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)

    def say(self, text: str) -> None:
        """Print one line, for the waiting user."""
        self.console.print(text, style="dim", highlight=False)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        """Print a table. Every row has a cell for every column: text to the left, figures to the right."""
        drawn = Table(title=title, title_justify="left")
        for place, column in enumerate(columns):
            texts = all(isinstance(row[place], str) for row in rows)
            drawn.add_column(column, justify="left" if texts else "right")
        for row in rows:
            drawn.add_row(*map(shown, row))
        self.console.print(drawn)
        self.facts[title] = [dict(zip(columns, row, strict=True)) for row in rows]

    def keep(self, name: str, figures: Any) -> None:
        """Keep figures for ``bench.json`` only."""
        self.facts[name] = figures

    def judge(self, what: str, wanted: str, found: str, *, met: bool) -> None:
        """Add a bar to the table at the end."""
        self.bars.append(Bar(what, wanted, found, met))

    def plot(
        self,
        name: str,
        title: str,
        xlabel: str,
        ylabel: str,
        series: Mapping[str, Sequence[tuple[float, float]]],
        *,
        log: Log = "",
    ) -> None:
        """Plot a line for each series, to ``{name}.svg``. ``log`` names the axes that are logarithmic."""
        figure, axes = _pyplot().subplots(figsize=SIZE)
        for label, points in series.items():
            axes.plot([x for x, _ in points], [y for _, y in points], marker="o", label=label)
        if "x" in log:
            axes.set_xscale("log")
        if "y" in log:
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
        axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
        axes.grid(alpha=0.3)
        axes.legend()
        self._save(figure, name)

    def plot_stacks(
        self, name: str, title: str, xlabel: str, stacks: Mapping[str, Mapping[str, float]], *, log: Log = ""
    ) -> None:
        """Plot a horizontal bar for each of ``stacks``, made of its parts, to ``{name}.svg``."""
        figure, axes = _pyplot().subplots(figsize=SIZE)
        ends = dict.fromkeys(stacks, 0.0)
        for part in dict.fromkeys(part for parts in stacks.values() for part in parts):
            widths = [parts.get(part, 0.0) for parts in stacks.values()]
            axes.barh(list(stacks), widths, left=list(ends.values()), label=part)
            ends = {label: end + width for (label, end), width in zip(ends.items(), widths, strict=True)}
        for place, end in enumerate(ends.values()):
            axes.annotate(f" {shown(end)}", (end, place), va="center")
        if "x" in log:
            axes.set_xscale("log")
        axes.margins(x=0.12)
        axes.invert_yaxis()
        axes.set(title=title, xlabel=xlabel)
        if any(len(parts) > 1 for parts in stacks.values()):
            axes.legend()
        self._save(figure, name)

    def write(self) -> None:
        """Write the bars, and ``bench.json``."""
        rows = [(bar.what, bar.wanted, bar.found, "yes" if bar.met else "NO") for bar in self.bars]
        self.table("What was to be shown", ("what", "wanted", "found", "met"), rows)
        path = self.directory / "bench.json"
        path.write_text(json.dumps(self.facts, indent=2) + "\n", encoding="utf-8")
        self.say(f"figures and plots: {self.directory}")

    def _save(self, figure: Any, name: str) -> None:
        figure.tight_layout()
        figure.savefig(self.directory / f"{name}.svg", metadata={"Date": None})
        _pyplot().close(figure)


def _pyplot() -> Any:
    """Import pyplot late: only `make bench` installs it, and the tests of the arithmetic do without."""
    import matplotlib as mpl  # noqa: PLC0415 - see above

    mpl.use("svg")  # before anything is drawn: there may be no display
    from matplotlib import pyplot as plt  # noqa: PLC0415 - see above

    return plt


def shown(cell: Cell) -> str:
    """Return a figure with its significant digits."""
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "yes" if cell else "NO"
    if isinstance(cell, int):
        return f"{cell:,}"
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 100 else f"{cell:.3g}"
    return cell
