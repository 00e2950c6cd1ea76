"""Pass codes: Argon2id, off the event loop, before the Postgres transaction opens (DESIGN 4)."""

import asyncio
import contextlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Final

import argon2

from worker.database import Connection
from worker.model import Claims, Command, Refused
from worker.sql import statement

HASHER: Final = argon2.PasswordHasher(memory_cost=19 * 1024, time_cost=2, parallelism=1)
# The hash of nothing anyone can send: an unknown identifier costs what a wrong pass code costs.
_NOBODY: Final = HASHER.hash("\0")


@dataclass(frozen=True, slots=True)
class PassCodeCheck:
    """A pass code compared with the hash that was current then; under the lock it must still be the same."""

    right: bool
    pass_code_hash: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Question:
    """A pass code to compare, with the hash that stood beside the identifier when it was asked."""

    organisation: str
    identifier: str = field(repr=False)
    pass_code: str = field(repr=False)
    pass_code_hash: str | None = field(default=None, repr=False)


def question(command: Command | Refused, login: Claims | Refused) -> Question | None:
    """What is to be compared for a command: nothing, unless it brings an identifier and a verified login."""
    if isinstance(login, Refused) or isinstance(command, Refused) or command.identifier is None:
        return None
    return Question(login.organisation, command.identifier, command.pass_code or "")


async def look_up(connection: Connection, questions: Sequence[Question]) -> list[Question]:
    """The same questions, each with the hash it is compared with."""
    rows = await connection.fetch(
        statement("pass_code_hashes"),
        [asked.organisation for asked in questions],
        [asked.identifier for asked in questions],
    )
    return [replace(asked, pass_code_hash=row["pass_code_hash"]) for asked, row in zip(questions, rows, strict=True)]


class PassCodes:
    """Compares pass codes, two at once: each takes 19 MiB and a core for some 15 ms, and heartbeats must go on."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="argon2")

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def compare(self, questions: Sequence[Question]) -> list[PassCodeCheck]:
        """Compare every pass code once, in order. Needs no connection: this is the slow part."""
        loop = asyncio.get_running_loop()
        answers = await asyncio.gather(
            *(
                loop.run_in_executor(self._threads, _is_right, asked.pass_code_hash, asked.pass_code)
                for asked in questions
            )
        )
        return [PassCodeCheck(right, asked.pass_code_hash) for asked, right in zip(questions, answers, strict=True)]


def _is_right(pass_code_hash: str | None, pass_code: str) -> bool:
    right = False
    with contextlib.suppress(argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
        right = HASHER.verify(pass_code_hash or _NOBODY, pass_code)
    return right and pass_code_hash is not None
