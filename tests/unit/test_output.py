"""Output for people: columns on a terminal, tabs in a pipe, and no character that the stream cannot take.

See CONTRACT, Command line.
"""

import io
import json
import os
import shlex
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import pytest

from tests.support.preloaded import ROOT
from tests.support.waiting import run_to_end
from worker.cli import dead_letters, history
from worker.cli.output import fitted, pasteable, print_table, set_up_streams
from worker.cli.terminal import show
from worker.observability.terminals import console_on, takes_colour
from worker.operations.dead_letters.letters import Letter, Place, Source
from worker.operations.history import Change

AT: Final = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
LANE: Final = "c" * 22 + "/effective-worker/access-token.set-effective.commands/0"
CHANGE: Final = Change(
    version=1,
    from_state="NOT_EFFECTIVE",
    to_state="EFFECTIVE",
    occurred_at=AT,
    cause="API",
    user="U" * 32,
    username="mpadmin",
    unit="1",
    unit_name="Admin Unit",
    command_id="n" * 64,
    called="ce:ORG1:%2Fshop:order-7",
    lane=LANE,
    sequence=1,
    hash="h" * 64,
)


class Terminal(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Callable[[io.TextIOBase, int], None]:
    """Return a function that puts something in the place of stdout, with a width."""

    def put(stream: io.TextIOBase, width: int) -> None:
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setattr(sys, "stdout", stream)

    return put


Put = Callable[[io.TextIOBase, int], None]


def said_in(encoding: str, *arguments: str, print_it: Callable[[], None], shown: Put) -> bytes:
    """Return the bytes that a stream of that encoding gets."""
    raw = io.BytesIO()
    shown(io.TextIOWrapper(raw, encoding=encoding, write_through=True), 80)
    set_up_streams(arguments)
    print_it()
    return raw.getvalue()


def print_history() -> None:
    print_table(history.COLUMNS, [history.row(CHANGE)] * 2)


# --- tables -----------------------------------------------------------------------------------------------------------


def test_a_pipe_gets_a_record_a_line_with_tabs_between_its_members(shown: Put) -> None:
    pipe = io.StringIO()
    shown(pipe, 20)
    print_history()
    lines = [line.split("\t") for line in pipe.getvalue().splitlines()]
    assert lines[0] == list(history.COLUMNS)
    assert lines[1] == lines[2] == list(history.row(CHANGE))
    assert lines[1][4] == "ce:ORG1:%2Fshop:order-7"


def test_a_member_has_no_tab_of_its_own(shown: Put) -> None:
    pipe = io.StringIO()
    shown(pipe, 80)
    print_table(("a", "b"), [("1\t2", "3\n4\x1b[31m")])
    assert pipe.getvalue() == "a\tb\n1\\t2\t3\\n4\\x1b[31m\n"


def test_a_terminal_gets_columns(shown: Put) -> None:
    terminal = Terminal()
    shown(terminal, 80)
    print_table(("name", "count"), [("one", "1"), ("eleven", "11")], numbers=("count",))
    assert terminal.getvalue() == "name    count\none         1\neleven     11\n"


def test_a_narrow_terminal_gets_a_block_of_lines_a_record_and_none_is_too_long(shown: Put) -> None:
    terminal = Terminal()
    shown(terminal, 80)
    print_history()
    first, second = terminal.getvalue().split("\n\n")
    assert first.splitlines() == second.splitlines()
    assert first.splitlines()[:2] == ["version            1", "from → to          NOT_EFFECTIVE → EFFECTIVE"]
    # The name of the lane is a word, which is not broken: it is copied whole.
    assert [line for line in first.splitlines() if len(line) > 80 and LANE not in line] == []


def test_a_column_that_does_not_fit_stands_beneath(shown: Put) -> None:
    terminal = Terminal()
    shown(terminal, 24)
    print_table(("lane", "state", "worker"), [("0", "done", "10.0.0.1, member-of-some-length")], beneath="worker")
    assert terminal.getvalue().splitlines() == [
        "lane  state",
        "0     done",
        "      worker 10.0.0.1,",
        "             member-of-some-length",
    ]


# --- lines ------------------------------------------------------------------------------------------------------------


def test_a_long_line_goes_on_indented_on_a_terminal_and_stays_whole_in_a_pipe(shown: Put) -> None:
    line = "  read from " + "word " * 20 + "end"
    shown(Terminal(), 40)
    folded = list(fitted([line]))
    assert all(len(each) <= 40 for each in folded)
    assert [len(each) - len(each.lstrip()) for each in folded] == [2, *[6] * (len(folded) - 1)]
    assert " ".join(" ".join(folded).split()) == " ".join(line.split())
    shown(io.StringIO(), 40)
    assert list(fitted([line])) == [line]


def test_what_a_line_goes_on_with_can_hang_below_its_last_column(shown: Put) -> None:
    shown(Terminal(), 40)
    folded = list(fitted(["failed   topics       missing: " + "commands " * 5], hanging=22))
    assert [len(each) - len(each.lstrip()) for each in folded] == [0, *[22] * (len(folded) - 1)]
    assert len(folded) > 1


def test_a_command_that_is_folded_is_the_same_when_it_is_pasted(shown: Put) -> None:
    command = shlex.join(["kafka-topics.sh", "--bootstrap-server", "k:9092, l:9092", "--topic", *["--config"] * 5])
    shown(Terminal(), 40)
    lines = list(pasteable(command, "  "))
    assert all(len(each) <= 40 for each in lines)
    assert len(lines) > 2
    pasted = "\n".join(lines).replace("kafka-topics.sh", "printf '%s\\n' kafka-topics.sh", 1)
    assert run_to_end(["sh", "-c", pasted]).stdout.splitlines() == shlex.split(command)
    shown(io.StringIO(), 40)
    assert list(pasteable(command, "  ")) == [f"  {command}"]


def test_a_result_is_folded_on_a_terminal_and_whole_in_a_pipe(shown: Put) -> None:
    line = "word " * 20 + "end"
    terminal, pipe = Terminal(), io.StringIO()
    shown(terminal, 40)
    show({}, [line], as_json=False)
    assert max(map(len, terminal.getvalue().splitlines())) <= 40
    shown(pipe, 40)
    show({}, [line], as_json=False)
    assert pipe.getvalue() == f"{line}\n"


def test_a_dead_letter_is_a_record_in_a_pipe_and_fits_a_terminal(shown: Put) -> None:
    letter = Letter(
        place=Place(0, 17),
        key=b"",
        value=b"",
        headers=(),
        code="INTERNAL_ERROR",
        reason="something\twith a tab " * 5,
        source=Source("commands", 0, 3, 1),
        group="g",
        worker="w",
        attempts=6,
        failed_at=AT,
        organisation="ORG1",
        truncated=False,
    )
    shown(io.StringIO(), 80)
    names, record = dead_letters.told(letter, is_first=True)
    assert len(names.split("\t")) == len(record.split("\t")) == 7
    assert record.split("\t")[:2] == ["0/17", "2026-03-04T05:06:07.000000Z"]
    assert len(list(dead_letters.told(letter, is_first=False))) == 1
    shown(Terminal(), 80)
    assert all(len(line) <= 80 for line in dead_letters.told(letter, is_first=True))


# --- characters -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_character_that_the_stream_cannot_take_is_replaced(encoding: str, shown: Put) -> None:
    said = said_in(encoding, print_it=print_history, shown=shown)
    assert said.splitlines()[1].split(b"\t")[1] == b"NOT_EFFECTIVE -> EFFECTIVE"


def test_what_has_no_replacement_is_a_question_mark_and_nothing_else_changes(shown: Put) -> None:
    def print_it() -> None:
        sys.stdout.write("Grüße aus 東京 \udcff\n")

    assert said_in("latin-1", print_it=print_it, shown=shown) == "Grüße aus ?? ?\n".encode("latin-1")
    assert said_in("utf-8", print_it=print_it, shown=shown) == "Grüße aus 東京 ?\n".encode()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_is_exact_whatever_the_stream_takes(encoding: str, shown: Put) -> None:
    text = "ü → 東 😀"

    def print_it() -> None:
        sys.stdout.write(json.dumps({"text": text}, ensure_ascii=False))

    said = said_in(encoding, "--json", print_it=print_it, shown=shown)
    assert json.loads(said.decode(encoding)) == {"text": text}


def test_a_command_sets_its_streams_up() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = run_to_end([sys.executable, "-m", "worker", "contract", "--check", "→東"], cwd=ROOT, env=environment)
    assert done.returncode == 2
    assert "->? is neither" in " ".join(done.stderr.split())


# --- colour -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stream", "environ", "takes"),
    [
        (Terminal(), {"TERM": "xterm"}, True),
        (Terminal(), {"TERM": "xterm", "NO_COLOR": ""}, True),
        (Terminal(), {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {"TERM": "xterm"}, False),
        (io.StringIO(), {"TERM": "xterm", "FORCE_COLOR": "1"}, False),
    ],
)
def test_colour_is_for_terminals_that_want_it(stream: io.StringIO, environ: dict[str, str], takes: bool) -> None:
    assert takes_colour(stream, environ) is takes


@pytest.mark.parametrize(
    ("given", "coloured"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
    ],
    ids=["wanted", "NO_COLOR", "dumb"],
)
def test_a_console_draws_in_colour_only_there(
    given: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    terminal, pipe = Terminal(), io.StringIO()
    console_on(terminal).print("[bold red]text[/]")
    console_on(pipe).print("[bold red]text[/]")
    assert ("\x1b[" in terminal.getvalue()) is coloured
    assert pipe.getvalue() == "text\n"
