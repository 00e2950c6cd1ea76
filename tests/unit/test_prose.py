"""English as engineers write it: the rules of CONTRIBUTING that a program can hold."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
SOURCES: Final = (
    *sorted((ROOT / "worker").rglob("*.py")),
    *sorted((ROOT / "schemas" / "effective_contract").rglob("*.py")),
    *sorted((ROOT / "tests").rglob("*.py")),
    *sorted((ROOT / "deploy").glob("*.py")),
)
CONTRACT: Final = (ROOT / "schemas" / "CONTRACT.md").read_text(encoding="utf-8")
OPENERS: Final = re.compile(r"(?:What|Who|Whom|Whose|Where|Whether|How|Why|When|Which)\b")
LISTED: Final = re.compile(r"\b(?:upon|anew|for ever|whoever|whom|nobody|befalls|shall)\b", re.IGNORECASE)
_NAME: Final = r"[A-Z][a-z]+(?: [a-z]+)?"
CITED: Final = re.compile(rf"CONTRACT, ({_NAME}(?:, {_NAME})*(?: and {_NAME})?)")


def docstrings(path: Path) -> Iterator[str]:
    """Yield every docstring of a file, those under constants and fields included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            for child in node.body:
                match child:
                    case ast.Expr(ast.Constant(str(docstring))):
                        text = " ".join(docstring.split())
                        yield f"{path.relative_to(ROOT)}:{child.lineno}: {text}"


DOCSTRINGS: Final = [text for path in SOURCES for text in docstrings(path)]


def test_a_docstring_opens_with_what_the_thing_does() -> None:
    assert [text for text in DOCSTRINGS if OPENERS.match(text.split(": ", 1)[1])] == []


def test_a_docstring_has_no_word_that_engineers_do_not_use() -> None:
    # The docstrings of commands are help texts, which users and documents quote.
    assert [text for text in DOCSTRINGS if LISTED.search(text) and not text.startswith("worker/cli/")] == []


def test_code_cites_sections_of_the_contract_that_exist() -> None:
    sections = {line.lstrip("#").strip() for line in CONTRACT.splitlines() if line.startswith("#")}
    cited = {
        name
        for path in SOURCES
        for found in CITED.finditer(" ".join(path.read_text(encoding="utf-8").split()))
        for name in re.split(r", | and (?=[A-Z])", found[1])
    }
    assert {"Command", "Result"} <= cited
    assert {name for name in cited if name not in sections and name.split()[0] not in sections} == set()
