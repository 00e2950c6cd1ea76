"""The programs in Java and Go of docs/senders.md, as a sender copies them."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Final

import pytest

from tests.acceptance.scene import Scene, body
from tests.providers import Unavailable
from tests.providers.kafka import broker_program
from tests.support.waiting import run_to_end

ROOT: Final = Path(__file__).parents[2]
MODULE: Final = ROOT / "tests" / "clients" / "replying"
"""A program in Go whose modules are those that the page's program needs."""


def program_in(language: str, scene: Scene) -> str:
    """Return the page's program, with this test's broker and topics in it."""
    page = (ROOT / "docs" / "senders.md").read_text(encoding="utf-8")
    [program] = re.findall(rf"^```{language}\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    here = {
        "kafka:9092": scene.kafka.bootstrap,
        "access-token.set-effective.commands": scene.topics.commands,
        "access-token.set-effective.results": scene.topics.results,
    }
    for theirs, ours in here.items():
        assert f'"{theirs}"' in program
        program = program.replace(f'"{theirs}"', f'"{ours}"')
    return str(program)


def command_of(code: str) -> str:
    return body(code, fields_set="number").decode()


def test_the_program_in_java_gets_its_answer(scene: Scene) -> None:
    try:
        java = broker_program()
    except Unavailable as reason:
        pytest.skip(f"Kafka's client in Java: {reason}")
    [code] = scene.new_tokens(1)
    source = scene.directory / "Send.java"
    source.write_text(program_in("java", scene), encoding="utf-8")
    with scene.worker():
        done = run_to_end([java.java, "-XX:TieredStopAtLevel=1", "-cp", f"{java.jars}/*", source, command_of(code)])

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["data"] == {"number": code}


@pytest.mark.slow(
    why="a Go program with its modules is compiled: a minute of CPU",
    instead="tests/acceptance/test_senders.py::test_the_program_in_java_gets_its_answer",
)
def test_the_program_in_go_gets_its_answer(scene: Scene) -> None:
    if shutil.which("go") is None:
        pytest.skip("go is not installed")
    module = scene.directory / "send"
    module.mkdir()
    for name in ("go.mod", "go.sum"):
        shutil.copy(MODULE / name, module)
    (module / "main.go").write_text(program_in("go", scene), encoding="utf-8")
    environment = {**os.environ, "GOTOOLCHAIN": "local"}
    fetched = run_to_end(["go", "mod", "download"], cwd=module, env=environment, seconds=600)
    if fetched.returncode:
        pytest.skip(f"the modules of the program in Go cannot be had: {fetched.stderr.strip()[-200:]}")
    made = run_to_end(["go", "build", "-o", "send", "."], cwd=module, env=environment, seconds=600)
    assert made.returncode == 0, made.stderr
    [code] = scene.new_tokens(1)
    with scene.worker():
        done = run_to_end([module / "send", command_of(code)])

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["data"] == {"number": code}
