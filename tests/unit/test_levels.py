"""Every test is in one of two levels: ``make test``, or ``make verify``, which runs the slow ones too."""

import ast
import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.conftest import steering
from tests.support.scheduling import OWN_SERVERS, scope_of

ROOT: Final = Path(__file__).parents[2]
FILES: Final = {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in ROOT.glob("tests/**/test_*.py")}
FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef)


def marks_of(tree: ast.AST, marker: str) -> Iterator[ast.AST]:
    """Yield every use of a marker below a node, called or bare."""
    called = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) == f"pytest.mark.{marker}":
            yield called.get(id(node), node)


def is_slow(decorator: ast.expr) -> bool:
    """True if a decorator makes the whole test slow, and not only some of its parameters."""
    return any(mark is decorator for mark in marks_of(decorator, "slow"))


def quick_tests() -> set[str]:
    """Return the tests that run in ``make test``, with some of their parameters at least, as ``file::name``."""
    return {
        f"{file}::{node.name}"
        for file, tree in FILES.items()
        if not any(isinstance(node, ast.Assign) and any(marks_of(node, "slow")) for node in tree.body)
        for node in tree.body
        if isinstance(node, FUNCTIONS) and not any(map(is_slow, node.decorator_list))
    }


MARKS: Final = [(file, mark) for file, tree in FILES.items() for mark in marks_of(tree, "slow")]


@pytest.mark.parametrize(("file", "mark"), MARKS, ids=[f"{file}:{getattr(mark, 'lineno', 0)}" for file, mark in MARKS])
def test_a_slow_test_says_why_and_what_stands_for_it(file: str, mark: ast.AST) -> None:
    assert isinstance(mark, ast.Call), f"{file}: slow needs why and instead"
    said = {word.arg: ast.literal_eval(word.value) for word in mark.keywords}
    assert said.keys() == {"why", "instead"}
    assert said["instead"] in quick_tests(), f"{file}: {said['instead']} is no test of make test"


def test_there_is_no_third_level() -> None:
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    assert options["testpaths"] == ["tests"]
    assert "-m" not in options["addopts"]
    makefile = (ROOT / "Makefile").read_text()
    assert makefile.count('-m "not slow"') == 1


def test_a_file_whose_tests_stop_servers_has_no_others() -> None:
    """The file decides which process runs a test, so which servers it may stop (``tests/support/scheduling.py``)."""
    marked = {file for file, tree in FILES.items() if any(marks_of(tree, OWN_SERVERS))}
    assert marked
    assert marked == {file for file in FILES if scope_of(f"{file}::test") == OWN_SERVERS}


def test_what_make_was_told_is_not_told_to_the_programs_that_tests_start() -> None:
    told = {"MAKEFLAGS": "-- ARGS=-x", "MAKELEVEL": "1", "ARGS": "-x", "VENV": "v", "WORKER_LOG__LEVEL": "debug"}
    assert steering({**told, "PATH": "", "TEST_PACE": "1"}) == list(told)
    assert steering(os.environ) == []
