"""The programs in Java, with Spring and in Go of docs/senders.md, as a sender copies them."""

import json
import os
import re
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final
from uuid import uuid4

import pytest

from tests.acceptance.scene import PARTITIONS, Scene, body
from tests.providers import Unavailable
from tests.providers.kafka import broker_program, create_topics, delete_topics, java_program, packaged
from tests.support.pace import patience
from tests.support.waiting import run_to_end, wait_until

ROOT: Final = Path(__file__).parents[2]
MODULE: Final = ROOT / "tests" / "clients" / "replying"
"""A program in Go whose modules are those that the page's program needs."""
SPRING: Final = {
    "pom.xml": "xml",
    "src/main/resources/application.yaml": "yaml",
    "src/main/java/shop/Send.java": "java",
}
"""The files of the project with Spring, and the languages of their blocks."""


def blocks_of(section: str, names: Mapping[str, str]) -> dict[str, str]:
    """Return the fenced blocks of one section of the page by their languages, with ``names`` replaced in them."""
    page = (ROOT / "docs" / "senders.md").read_text(encoding="utf-8")
    [text] = re.findall(rf"^## {section}\n(.*?)(?=^## )", page, re.DOTALL | re.MULTILINE)
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    programs = {str(language): str(block) for language, block in blocks}
    assert len(programs) == len(blocks)
    for theirs, ours in names.items():
        assert any(theirs in block for block in programs.values())
        programs = {language: block.replace(theirs, ours) for language, block in programs.items()}
    return programs


def program_in(language: str, scene: Scene) -> str:
    """Return the page's program, with this test's broker and topics in it."""
    return blocks_of(language.capitalize(), names_of(scene, "results"))[language]


def names_of(scene: Scene, *topics: str) -> dict[str, str]:
    """Return the broker and the topics of this test by their names on the page."""
    mine = {f"access-token.set-effective.{topic}": getattr(scene.topics, topic) for topic in ("commands", *topics)}
    return {"kafka:9092": scene.kafka.bootstrap, **mine}


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


@pytest.mark.real_kafka
@pytest.mark.slow(
    why="a Spring Boot program is packaged by Maven, and started twice: half a minute of CPU",
    instead="tests/acceptance/test_request_reply.py::test_springs_replying_template_gets_every_reply",
)
def test_the_program_with_spring_gets_its_answer_in_each_instance_that_shares_the_topic(scene: Scene) -> None:
    replies = f"replies-{uuid4().hex[:12]}"
    patient = f"ofSeconds({patience(60):.0f})"
    blocks = blocks_of("Spring", {**names_of(scene), "replies.shop": replies, "ofSeconds(30)": patient})
    project = scene.directory / "send"
    for place, language in SPRING.items():
        (project / place).parent.mkdir(parents=True, exist_ok=True)
        (project / place).write_text(blocks[language], encoding="utf-8")
    try:
        java = java_program()
        packaged(project)
    except Unavailable as reason:
        pytest.skip(f"the program with Spring: {reason}")
    [code] = scene.new_tokens(1)
    program: list[str | Path] = [
        java,
        "-XX:TieredStopAtLevel=1",
        "-jar",
        project / "target" / "send-1.jar",
        command_of(code),
    ]
    create_topics(scene.kafka.bootstrap, replies, partitions=PARTITIONS)
    try:
        with ThreadPoolExecutor() as together:
            instances = [together.submit(run_to_end, program, seconds=300) for _ in range(2)]
            # No worker answers before both of them wait: in one group, one of them would wait in vain.
            wait_until(
                lambda: scene.count_sent() == 2 or any(instance.done() for instance in instances),
                what="both instances had sent their commands",
            )
            with scene.worker(TOPICS__REPLY_TO_ALLOWED=replies):
                ended = [instance.result() for instance in instances]
    finally:
        delete_topics(scene.kafka.bootstrap, replies)

    assert [done.returncode for done in ended] == [0, 0], ended
    assert [json.loads(done.stdout.splitlines()[-1])["data"] for done in ended] == [{"number": code}] * 2
    assert scene.seen(scene.topics.results) == []


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
