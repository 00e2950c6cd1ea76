"""Pass codes are compared in fair shares, at one cost, and only with acceptable hashes."""

import asyncio
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Final

import argon2
import pytest
from argon2.low_level import ARGON2_VERSION

from worker.journey import pass_codes as module
from worker.journey.pass_codes import (
    AT_ONCE,
    COMPARED,
    HASHER,
    LEAST_KIB,
    MOST_KIB,
    MOST_KIB_PASSES,
    NICENESS,
    PassCodes,
    Question,
    Shares,
    unfit,
)
from worker.pipeline import affordable

TAIL: Final = "$c29tZXNhbHRzb21lc2FsdA$9sTbSlTio3Biev89thdrlKKiCaYsjjYVJxGAL3swxpQ"


def of(memory: int, passes: int, lanes: int = 1, version: int = ARGON2_VERSION, kind: str = "argon2id") -> str:
    return f"${kind}$v={version}$m={memory},t={passes},p={lanes}{TAIL}"


@pytest.fixture
def pass_codes() -> Iterator[PassCodes]:
    made = PassCodes()
    yield made
    made.close()


# --- accepted hashes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "taken",
    [HASHER.hash("x"), of(19456, 2), of(12288, 3), of(9216, 4), of(7168, 5), of(16384, 2), of(MOST_KIB_PASSES // 2, 2)],
    ids=["ours", *(str(number) for number in range(6))],
)
def test_what_is_recommended_is_taken(taken: str) -> None:
    assert unfit(taken) is None


@pytest.mark.parametrize(
    ("refused", "why"),
    [
        (of(8, 1), "m=8,t=1,p=1 is not taken"),
        (of(512 * 1024, 3), "m=524288,t=3,p=1 is not taken"),
        (of(65536, 3, lanes=4), "p is 1"),
        (of(19456, 2, lanes=2), "p is 1"),
        (of(LEAST_KIB - 1, 6), f"m {LEAST_KIB} to {MOST_KIB}"),
        (of(MOST_KIB + 1, 1), f"m {LEAST_KIB} to {MOST_KIB}"),
        (of(MOST_KIB, 2), "m times t"),
        (of(19456, 1), "m times t"),
        (of(19456, 2, version=16), "v=19"),
        (of(19456, 2, kind="argon2i"), "not an Argon2id hash"),
        ("$2b$12$abcdefghijklmnopqrstuv", "not an Argon2id hash"),
        ("", "not an Argon2id hash"),
    ],
)
def test_what_is_too_cheap_too_dear_or_of_another_kind_is_refused_with_what_is_taken(refused: str, why: str) -> None:
    assert why in (unfit(refused) or "")


# --- one price --------------------------------------------------------------------------------------------------------


def worked(pass_code_hash: str | None, monkeypatch: pytest.MonkeyPatch) -> tuple[int, bool]:
    """Return memory times passes of a comparison with this hash, and its verdict on the right pass code."""
    done: list[int] = []
    verify, fill = HASHER.verify, argon2.low_level.hash_secret_raw

    def verified(compared: str, pass_code: str) -> bool:
        found = argon2.extract_parameters(compared)
        done.append(found.memory_cost * found.time_cost)
        return verify(compared, pass_code)

    def filled(*given: bytes, **options: int) -> bytes:
        done.append(options["memory_cost"] * options["time_cost"])
        return fill(*given, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(module, "HASHER", type("Watched", (), {"verify": staticmethod(verified)}))
        patched.setattr(module, "hash_secret_raw", filled)
        said = module._is_right(pass_code_hash, "right")
    return sum(done), said


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        (None, False),
        (HASHER.hash("right"), True),
        (HASHER.hash("wrong"), False),
        (argon2.PasswordHasher(time_cost=5, memory_cost=7168, parallelism=1).hash("right"), True),
        (argon2.PasswordHasher(time_cost=3, memory_cost=12288, parallelism=1).hash("right"), True),
        (argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("right"), False),
        (of(512 * 1024, 4), False),
    ],
    ids=["unknown", "right", "wrong", "small", "smaller", "too cheap", "too dear"],
)
def test_every_comparison_works_off_the_same(stored: str | None, said: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert worked(stored, monkeypatch) == (MOST_KIB_PASSES, said)


# --- fair shares ------------------------------------------------------------------------------------------------------


def test_lanes_take_turns_and_so_do_the_callers_of_a_lane() -> None:
    shares: Shares[str] = Shares()
    for number in range(3):
        shares.put(1, "flood", f"1 flood {number}")
    shares.put(1, "other", "1 other 0")
    shares.put(2, "one", "2 one 0")
    taken = []
    while shares:
        taken.append(shares.take())
    assert taken == ["1 flood 0", "2 one 0", "1 other 0", "1 flood 1", "1 flood 2"]


def test_who_asks_anew_waits_for_those_who_wait() -> None:
    shares: Shares[int] = Shares()
    shares.put("a", "x", 1)
    shares.put("b", "y", 2)
    assert shares.take() == 1
    shares.put("a", "x", 3)
    assert [shares.take(), shares.take()] == [2, 3]
    assert not shares


def asked(caller: str, pass_code: str = "right", stored: str | None = None) -> Question:
    return Question("ORG1", caller, "someone", pass_code, stored)


async def test_a_flood_in_one_lane_leaves_the_others_their_turn(
    pass_codes: PassCodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    def compared(_: str | None, pass_code: str) -> bool:
        order.append(pass_code)
        return False

    monkeypatch.setattr(module, "_is_right", compared)
    flood = asyncio.ensure_future(pass_codes.compare(1, [asked("a", f"flood {number}") for number in range(200)]))
    await asyncio.sleep(0)
    await pass_codes.compare(2, [asked("b", "other")])
    await flood
    # The comparisons under way, and one more of the flood's own turns.
    assert order.index("other") <= 2 * AT_ONCE


async def test_each_is_told_about_its_own_in_the_order_asked(pass_codes: PassCodes) -> None:
    right, wrong = asked("a", stored=HASHER.hash("right")), asked("a", "wrong", HASHER.hash("right"))
    nobody = asked("b")
    checks = await pass_codes.compare(1, [wrong, right, nobody, replace(right, caller="b")])
    assert [check.right for check in checks] == [False, True, False, True]
    assert [check.pass_code_hash for check in checks] == [each.pass_code_hash for each in (wrong, right, nobody, right)]


async def test_a_lane_that_goes_takes_along_what_it_waits_for(
    pass_codes: PassCodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, order = threading.Event(), []

    def compared(_: str | None, pass_code: str) -> bool:
        order.append(pass_code)
        held.wait()
        return True

    monkeypatch.setattr(module, "_is_right", compared)
    going = asyncio.ensure_future(pass_codes.compare(1, [asked("a", f"gone {number}") for number in range(50)]))
    await asyncio.sleep(0)
    going.cancel()
    staying = asyncio.ensure_future(pass_codes.compare(2, [asked("b", "stays")]))
    await asyncio.sleep(0)
    held.set()
    assert [check.right for check in await staying] == [True]
    assert len(order) <= AT_ONCE + 1


async def test_what_goes_wrong_in_a_thread_is_raised_and_the_next_is_compared(
    pass_codes: PassCodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: str | None, pass_code: str) -> bool:
        if pass_code == "memory":
            raise MemoryError
        return True

    monkeypatch.setattr(module, "_is_right", broken)
    with pytest.raises(MemoryError):
        await pass_codes.compare(1, [asked("a", "memory")])
    assert [check.right for check in await pass_codes.compare(1, [asked("a")])] == [True]


@pytest.mark.skipif(os.uname().sysname != "Linux", reason="elsewhere no thread has a priority of its own")
async def test_comparing_gives_way_to_the_event_loop(pass_codes: PassCodes) -> None:
    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    found = await asyncio.get_running_loop().run_in_executor(
        pass_codes._threads, lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    )
    assert found == min(19, NICENESS) != before
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before


# --- the share of a batch ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch", "decided"),
    [
        ("", 0),
        ("....", 4),
        ("...p..", 3),  # pass codes before the first command do not wait for it
        ("p", 1),
        ("p.....", 6),
        ("p" * COMPARED, COMPARED),
        ("p" * (COMPARED + 1), COMPARED),
        ("p." * COMPARED + "..p..", 2 * COMPARED + 2),
    ],
)
def test_a_batch_ends_before_its_pass_codes_take_too_long(batch: str, decided: int) -> None:
    assert affordable([each == "p" for each in batch]) == decided


def test_every_part_of_a_batch_is_decided_in_a_few_parts() -> None:
    batch, ends = [place % 3 == 1 for place in range(500)], [0]
    while ends[-1] < len(batch):
        ends.append(ends[-1] + affordable(batch[ends[-1] :]))
    assert all(before < after for before, after in pairwise(ends))
    assert len(ends) - 1 <= 2 * (sum(batch) // COMPARED + 1)
