"""Send the golden command, and a few that must be refused, to a running worker; show each beside its answer.

``python try_it.py DIRECTORY`` takes ``command.json`` and ``result.json`` from the directory, and everything else from
the worker's own settings. Exit 0 if every answer is the expected one. A second run sends the same ids: the golden
command is then answered again without a second change (``replayed: true``).
"""

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from worker.kafka import client_options
from worker.settings import Settings, read_settings

ANSWER_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Attempt:
    """A command under an id of its own, and the status that it must be answered with."""

    name: str
    command: dict[str, Any]
    expected: str


@dataclass(frozen=True, slots=True)
class Answer:
    value: dict[str, Any]
    replayed: bool

    @property
    def code(self) -> str:
        return str(self.value["status"]["code"])


def login_token(user: str) -> str:
    """A login token for a user of the fixture, signed with the configured secret as an operator would sign one."""
    command = [sys.executable, "-m", "worker", "login-token", "--organisation", "ORG1", "--user", user, "--unit", "1"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def attempts_of(golden: dict[str, Any]) -> list[Attempt]:
    golden = golden | {"token": login_token("mpadmin")}
    return [
        Attempt("the golden command", golden, "OK"),
        Attempt("a token that is effective", with_code(golden, "99021047381"), "INVALID_LIFE_CYCLE_STATE"),
        Attempt("a code that nobody has", with_code(golden, "00000000000"), "ACCESS_TOKEN_NOT_FOUND"),
        Attempt("a user without the right", golden | {"token": login_token("reader")}, "ACCESS_DENIED"),
        Attempt("a field that does not exist", golden | {"fields_set": "number,pass_code"}, "INVALID_PARAMETER"),
    ]


def with_code(command: dict[str, Any], code: str) -> dict[str, Any]:
    return command | {"access_token_identifier": {"authentication_code": code}}


async def ask(settings: Settings, attempts: list[Attempt]) -> dict[str, Answer]:
    """The answers by the name of the attempt, found as any sender would: by correlation id, read committed."""
    options = client_options(settings.kafka)
    producer = AIOKafkaProducer(**options)
    consumer = AIOKafkaConsumer(settings.topics.results, **options, isolation_level="read_committed")
    await producer.start()
    try:
        await consumer.start()
        try:
            await consumer.seek_to_end()
            run = os.urandom(4).hex()
            ids = {f"{run}-{number}".encode(): attempt for number, attempt in enumerate(attempts)}
            for correlation, attempt in ids.items():
                await send(producer, settings.topics.commands, correlation, attempt)
            async with asyncio.timeout(ANSWER_SECONDS):
                answers = await gathered(consumer, set(ids))
        finally:
            await consumer.stop()
    finally:
        await producer.stop()
    return {ids[correlation].name: answer for correlation, answer in answers.items()}


async def send(producer: AIOKafkaProducer, topic: str, correlation: bytes, attempt: Attempt) -> None:
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", attempt.name.replace(" ", "-").encode()),
        ("ce_source", b"/try"),
        ("ce_type", b"access_token.set_effective.v1"),
        ("correlation_id", correlation),
    ]
    await producer.send_and_wait(topic, json.dumps(attempt.command).encode(), key=b"try", headers=headers)


async def gathered(consumer: AIOKafkaConsumer, waiting: set[bytes]) -> dict[bytes, Answer]:
    answers: dict[bytes, Answer] = {}
    while waiting:
        for records in (await consumer.getmany(timeout_ms=1000)).values():
            for record in records:
                headers = dict(record.headers)
                correlation = headers.get("correlation_id", b"")
                if correlation in waiting:
                    waiting.discard(correlation)
                    answers[correlation] = Answer(json.loads(record.value), headers["replayed"] == b"true")
    return answers


def show(attempt: Attempt, answer: Answer) -> None:
    print(f"\n--- {attempt.name}")
    print("command", json.dumps(attempt.command | {"token": "***"}, indent=2))
    print("answer ", json.dumps(answer.value, indent=2, ensure_ascii=False))
    print(f"expected {attempt.expected}, got {answer.code}{' (replayed)' if answer.replayed else ''}")


def main(directory: Path) -> int:
    settings = read_settings(os.environ, needs_login=True)
    attempts = attempts_of(json.loads((directory / "command.json").read_text(encoding="utf-8")))
    golden = json.loads((directory / "result.json").read_text(encoding="utf-8"))
    answers = asyncio.run(ask(settings, attempts))
    good = True
    for attempt in attempts:
        answer = answers[attempt.name]
        show(attempt, answer)
        good &= answer.code == attempt.expected and (attempt.expected != "OK" or answer.value == golden)
    print("\nevery answer is as documented" if good else "\nan answer is not the documented one")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
