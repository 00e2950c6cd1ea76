"""``make pythons``: another version of Python is found where it really is, and missed where it is not."""

import sys
import tomllib
from pathlib import Path

import pytest

from tests.gate import pythons
from tests.gate.pythons import ROOT, VERSIONS, candidates, found

HERE = ".".join(map(str, sys.version_info[:2]))


def program(path: Path, script: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def test_a_program_that_is_no_python_or_another_version_is_passed_over(tmp_path: Path) -> None:
    shim = program(tmp_path / "shim", "echo not installed >&2; exit 127")
    other = program(tmp_path / "other", "echo 3.1")
    right = program(tmp_path / "right", "echo 3.99")

    assert found(iter([str(tmp_path / "absent"), shim, other, right]), "3.99") == right
    assert found(iter([shim, other]), "3.99") is None


def test_those_that_version_managers_keep_are_candidates(tmp_path: Path) -> None:
    kept = program(tmp_path / ".pyenv" / "versions" / "3.99.1" / "bin" / "python3", "echo 3.99")
    program(tmp_path / ".pyenv" / "versions" / "3.9.1" / "bin" / "python3", "echo 3.9")

    assert list(candidates("3.99", tmp_path)) == ["python3.99", kept]


def test_the_python_of_all_other_tests_is_not_tried_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert pythons.main([HERE]) == 0
    assert HERE in capsys.readouterr().out


def test_a_version_that_is_not_there_is_not_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))

    assert pythons.main(["3.99"]) == 2
    assert "not checked: there is no Python 3.99" in capsys.readouterr().out


@pytest.mark.parametrize("file", ["pyproject.toml", "schemas/pyproject.toml"])
def test_the_versions_are_those_that_the_distributions_name(file: str) -> None:
    project = tomllib.loads((ROOT / file).read_text(encoding="utf-8"))["project"]
    prefix = "Programming Language :: Python :: "
    named = [each.removeprefix(prefix) for each in project["classifiers"] if each.startswith(prefix)]
    assert project["requires-python"] == f">={VERSIONS[0]}"
    assert set(named) - {"3", "3 :: Only"} <= set(VERSIONS)
