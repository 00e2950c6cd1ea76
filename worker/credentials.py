"""Pass codes: Argon2id, off the event loop, before the Postgres transaction opens (DESIGN 4)."""

import asyncio
import contextlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
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
    """A pass code compared with the hash that was current then; the decision insists that the hash is still the same."""

    right: bool
    pass_code_hash: str | None = field(repr=False)


class PassCodes:
    """Compares pass codes, two at once: each takes 19 MiB and a core for some 15 ms, and heartbeats must go on."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="argon2")

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def check(
        self, connection: Connection, commands: Sequence[Command | Refused], logins: Sequence[Claims | Refused]
    ) -> list[PassCodeCheck | None]:
        """One check per command that brings an identifier and a verified login, ``None`` for every other."""
        asked = [
            (login.organisation, command.identifier or "", command.pass_code or "")
            if isinstance(login, Claims) and isinstance(command, Command) and command.identifier is not None
            else None
            for command, login in zip(commands, logins, strict=True)
        ]
        distinct = list(dict.fromkeys(question for question in asked if question is not None))
        if not distinct:
            return [None] * len(asked)
        rows = await connection.fetch(
            statement("pass_code_hashes"), [question[0] for question in distinct], [question[1] for question in distinct]
        )
        loop = asyncio.get_running_loop()
        right = await asyncio.gather(
            *(
                loop.run_in_executor(self._threads, _is_right, row["pass_code_hash"], question[2])
                for row, question in zip(rows, distinct, strict=True)
            )
        )
        checks = {
            question: PassCodeCheck(answer, row["pass_code_hash"])
            for question, row, answer in zip(distinct, rows, right, strict=True)
        }
        return [None if question is None else checks[question] for question in asked]


def _is_right(pass_code_hash: str | None, pass_code: str) -> bool:
    right = False
    with contextlib.suppress(argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
        right = HASHER.verify(pass_code_hash or _NOBODY, pass_code)
    return right and pass_code_hash is not None
