"""Pass codes: Argon2id, off the event loop, before the Postgres transaction opens (DESIGN 4)."""

import asyncio
import contextlib
import os
import sys
import threading
from collections import deque
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, Generic, TypeVar

import argon2
from argon2.low_level import hash_secret_raw

from worker.journey.model import Claims, Command, Refused
from worker.postgres.pool import Connection
from worker.postgres.sql import statement

HASHER: Final = argon2.PasswordHasher(memory_cost=19 * 1024, time_cost=2, parallelism=1)
# The hash of a pass code that no sender can send: an unknown identifier costs as much as a wrong pass code.
_NOBODY: Final = HASHER.hash("\0")

LEAST_KIB_PASSES: Final = 32 * 1024
"""Memory times passes of the cheapest hash accepted, in KiB. A cheaper one is guessed too quickly once stolen."""
MOST_KIB_PASSES: Final = 46 * 1024
"""Memory times passes of the most expensive hash, in KiB.

Every comparison is filled up to it, so that its time tells nothing about the stored hash.
"""
LEAST_KIB: Final = 7 * 1024
MOST_KIB: Final = 24 * 1024
"""With more memory for the same product, most of the time goes into allocating it, which filling up cannot even out."""
_LEAST_FILL_KIB: Final = 8
"""The least memory that Argon2 takes."""

COMPARED: Final = 16
"""The most pass codes of one batch: they take a tenth of a second, within which another lane has its turn."""
AT_ONCE: Final = 2
"""Comparisons at once. Each takes 19 MiB and a core for some 15 ms, and heartbeats must go on."""
NICENESS: Final = 10
"""The niceness of the threads that compare: the event loop, which every lane waits for, goes first."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PassCodeCheck:
    """A pass code compared with the hash that was current then. Under the lock the hash must still be the same."""

    right: bool
    pass_code_hash: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Question:
    """A pass code to compare, with its caller and with the hash that the identifier had when it was looked up."""

    organisation: str
    caller: str
    identifier: str = field(repr=False)
    pass_code: str = field(repr=False)
    pass_code_hash: str | None = field(default=None, repr=False)


def question(command: Command | Refused, login: Claims | Refused) -> Question | None:
    """Return the pass code that a command needs compared, or None.

    Only a command with an identifier and a verified login needs one compared.
    """
    if isinstance(login, Refused) or isinstance(command, Refused) or command.identifier is None:
        return None
    return Question(login.organisation, login.username, command.identifier, command.pass_code or "")


async def look_up(connection: Connection, questions: Sequence[Question]) -> list[Question]:
    """Return the same questions, each with the hash to compare with."""
    hashes = await hashes_of(connection, [(wanted.organisation, wanted.identifier) for wanted in questions])
    return [replace(wanted, pass_code_hash=each) for wanted, each in zip(questions, hashes, strict=True)]


async def hashes_of(connection: Connection, named: Sequence[tuple[str, str]]) -> list[str | None]:
    """Return the hash of each identifier, which is given with its organisation.

    Postgres refuses more than ``COMPARED`` at once.
    """
    rows = await connection.fetch(
        statement("journey/pass_code_hashes"), [organisation for organisation, _ in named], [name for _, name in named]
    )
    return [row["pass_code_hash"] for row in rows]


def unfit(pass_code_hash: str) -> str | None:
    """Return the reason that a hash does not cost what any other costs to compare; ``None`` if it is accepted."""
    try:
        found = argon2.extract_parameters(pass_code_hash)
    except argon2.exceptions.InvalidHashError:
        return "not an Argon2id hash ($argon2id$...)"
    if found.type is not argon2.Type.ID or found.version != argon2.low_level.ARGON2_VERSION:
        return "not an Argon2id hash ($argon2id$v=19$...)"
    product = found.memory_cost * found.time_cost
    if (
        found.parallelism != 1
        or not LEAST_KIB <= found.memory_cost <= MOST_KIB
        or not LEAST_KIB_PASSES <= product <= MOST_KIB_PASSES
    ):
        return (
            f"m={found.memory_cost},t={found.time_cost},p={found.parallelism} is not taken: p is 1,"
            f" m {LEAST_KIB} to {MOST_KIB}, and m times t {LEAST_KIB_PASSES} to {MOST_KIB_PASSES},"
            " such as m=19456,t=2,p=1"
        )
    return None


class Shares(Generic[T]):
    """A queue with fair shares: each lane has its turn, and within a lane each caller."""

    def __init__(self) -> None:
        self._lanes: dict[Hashable, dict[Hashable, deque[T]]] = {}

    def __len__(self) -> int:
        return sum(len(waiting) for callers in self._lanes.values() for waiting in callers.values())

    def __bool__(self) -> bool:
        return bool(self._lanes)

    def put(self, lane: Hashable, caller: Hashable, item: T) -> None:
        self._lanes.setdefault(lane, {}).setdefault(caller, deque()).append(item)

    def take(self) -> T:
        """Take the next item. Its lane and its caller have their next turn after all others."""
        lane = next(iter(self._lanes))
        callers = self._lanes.pop(lane)
        caller = next(iter(callers))
        waiting = callers.pop(caller)
        item = waiting.popleft()
        if waiting:
            callers[caller] = waiting
        if callers:
            self._lanes[lane] = callers
        return item


class PassCodes:
    """The comparisons of pass codes: ``AT_ONCE`` at once, in fair shares among the lanes and callers that wait."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="argon2", initializer=_give_way)
        self._waiting: Shares[tuple[Question, asyncio.Future[bool]]] = Shares()
        self._under_way = 0

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    @property
    def waiting(self) -> int:
        """The number of pass codes that wait to be compared, or are being compared."""
        return len(self._waiting) + self._under_way

    async def compare(self, lane: int, questions: Sequence[Question]) -> list[PassCodeCheck]:
        """Compare every pass code once, in order. Needs no connection: this is the slow part."""
        loop = asyncio.get_running_loop()
        answers = [loop.create_future() for _ in questions]
        for wanted, answer in zip(questions, answers, strict=True):
            self._waiting.put(lane, (wanted.organisation, wanted.caller), (wanted, answer))
        self._go_on()
        right = await asyncio.gather(*answers)
        return [PassCodeCheck(each, wanted.pass_code_hash) for wanted, each in zip(questions, right, strict=True)]

    def _go_on(self) -> None:
        while self._waiting and self._under_way < AT_ONCE:
            wanted, answer = self._waiting.take()
            if answer.cancelled():  # its lane has gone
                continue
            self._under_way += 1
            work = answer.get_loop().run_in_executor(self._threads, _is_right, wanted.pass_code_hash, wanted.pass_code)
            work.add_done_callback(partial(self._answer, answer))

    def _answer(self, answer: "asyncio.Future[bool]", done: "asyncio.Future[bool]") -> None:
        self._under_way -= 1
        if not answer.cancelled():
            if (error := None if done.cancelled() else done.exception()) is not None:
                answer.set_exception(error)
            elif done.cancelled():
                answer.cancel()
            else:
                answer.set_result(done.result())
        self._go_on()


def _give_way() -> None:
    if sys.platform == "linux":  # elsewhere it would apply to the whole process
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


def _is_right(pass_code_hash: str | None, pass_code: str) -> bool:
    known = pass_code_hash if pass_code_hash is not None and unfit(pass_code_hash) is None else None
    compared = known or _NOBODY
    right = False
    with contextlib.suppress(argon2.exceptions.VerificationError):
        right = HASHER.verify(compared, pass_code)
    _fill_up(compared)
    return right and known is not None


def _fill_up(compared: str) -> None:
    """Spend the time by which this hash is cheaper than the most expensive one."""
    found = argon2.extract_parameters(compared)
    left = MOST_KIB_PASSES - found.memory_cost * found.time_cost
    if left >= _LEAST_FILL_KIB:
        hash_secret_raw(b"", bytes(16), time_cost=1, memory_cost=left, parallelism=1, hash_len=16, type=argon2.Type.ID)
