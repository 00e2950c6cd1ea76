"""Numbers of things, as people are told them."""

import ast
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest

from worker.cli.contact import fate
from worker.operations.erasure.mentions import Mentions
from worker.values import counted

ROOT: Final = Path(__file__).parents[2]
SOURCES: Final = sorted((ROOT / "worker").rglob("*.py"))
EXEMPT: Final = {
    "worker/operations/explain.py": "it names several",
    "worker/journey/apply.py": "of a bug",
    "worker/journey/reply_topics.py": "the text of an answer, which senders may compare",
}
"""The modules that may write a number before a plural."""
_THINGS: Final = re.compile(
    r" (?:commands|records|lines|files|offsets|events|findings|differences|transitions|results|(?:new )?dead letters"
    r"|partitions|lanes|duplicates|sessions|first states)\b"
)


def bare_counts(path: Path) -> Iterator[str]:
    """Yield the plurals that stand behind a number, whatever the number is."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.JoinedStr):
            continue
        for before, after in pairwise(node.values):
            if isinstance(before, ast.FormattedValue) and isinstance(after, ast.Constant):
                found = _THINGS.match(str(after.value))
                if found is not None:
                    yield f"{path.relative_to(ROOT)}:{node.lineno}:{found.group()}"


def test_no_text_has_a_plural_behind_any_number() -> None:
    found = [text for path in SOURCES for text in bare_counts(path)]
    assert [text for text in found if text.split(":")[0] not in EXEMPT] == []


@pytest.mark.parametrize(
    ("count", "words", "text"),
    [
        (0, ("record",), "0 records"),
        (1, ("record",), "1 record"),
        (2, ("dead letter",), "2 dead letters"),
        (1, ("reply", "replies"), "1 reply"),
        (2, ("reply", "replies"), "2 replies"),
    ],
)
def test_a_number_of_things_has_its_grammar(count: int, words: tuple[str, ...], text: str) -> None:
    assert counted(count, *words) == text


def test_a_large_number_can_be_grouped() -> None:
    assert counted(25_000, "command", form=",") == "25,000 commands"


@pytest.mark.parametrize(
    ("records", "words"), [(1, "retention removes it by"), (2, "retention removes them by")], ids=["one", "two"]
)
def test_one_record_to_erase_is_an_it(records: int, words: str) -> None:
    gone_by = datetime(2026, 3, 4, tzinfo=UTC)
    told = fate(Mentions("t", 0, records, 5, 1, gone_by, (), ("g",)))
    assert words in told
    assert told.endswith("with 1 offset of others")
