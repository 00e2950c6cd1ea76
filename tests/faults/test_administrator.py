"""What is done to a log of commands waits for its moment, and tells what it has seen."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from tests.faults import administrator
from tests.faults.administrator import Place, removed_unread
from tests.faults.ledger import Sent
from tests.faults.past import Past

PLACE = Place("commands", 0)


class Ground:
    """Instead of a stage: one partition, in which eight commands are answered, and whoever is asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ended, self.answered, self.end, self.begin = True, 8, 50, 0
        self.row = {"first_offset": 8, "next_offset": 8}
        self.past = Past()
        self.commands: list[tuple[str, ...]] = []
        self.seen: list[bool] = []
        for name, instead in {
            "consumed_offsets": lambda *_: {0: self.answered},
            "log_ends": lambda *_: {0: self.end},
            "_held": lambda *_: [Sent(0, n, n) for n in range(self.end)],
            "_command": self._command,
            "_places_that_tell": lambda *_: {"lanes list": self._told},
            "DONE_SECONDS": 0.2,
            "MOMENT_SECONDS": 0.2,
        }.items():
            monkeypatch.setattr(administrator, name, instead)

    def _command(self, _: object, *arguments: str) -> Any:
        self.commands.append(arguments)
        return SimpleNamespace(returncode=0, stdout="")

    def _told(self) -> bool:
        """That something is lost, until it is acknowledged."""
        self.seen.append(not self.commands)
        return self.seen[-1]

    def stage(self) -> Any:
        @asynccontextmanager
        async def ended_in_order() -> AsyncIterator[bool]:
            yield self.ended

        def remove_records(_: str, __: int, before: int) -> int:
            self.begin = before
            return before

        return SimpleNamespace(
            past=self.past,
            partitions=1,
            source=lambda _: "commands",
            fleet=SimpleNamespace(ended_in_order=ended_in_order),
            cluster=SimpleNamespace(remove_records=remove_records),
            scene=SimpleNamespace(
                kafka=SimpleNamespace(bootstrap=""), group="group", rows=lambda *_: [self.row] if self.row else []
            ),
        )


@pytest.fixture
def ground(monkeypatch: pytest.MonkeyPatch) -> Ground:
    return Ground(monkeypatch)


async def test_what_is_removed_unread_is_evidence_and_is_acknowledged(ground: Ground) -> None:
    assert await removed_unread(ground.stage(), Random(1))
    assert 10 <= ground.begin <= 48
    assert ground.past.sent == [Sent(0, n, n) for n in range(ground.begin)]
    assert ground.past.removed == [Sent(0, n, n) for n in range(8, ground.begin)]
    assert ground.commands == [("lanes", "acknowledge", "commands/0", "--yes")]
    assert ground.seen == [True, False]
    assert ground.past.untold == []


def drain_in_vain(ground: Ground) -> None:
    ground.ended = False


def lag(ground: Ground) -> None:
    ground.answered = 7


def decide_nothing(ground: Ground) -> None:
    ground.row = {}


def decide_more_than_is_told(ground: Ground) -> None:
    ground.row = {"first_offset": 6, "next_offset": 8}


def send_nothing(ground: Ground) -> None:
    ground.end = 8


@pytest.mark.parametrize("spoil", [drain_in_vain, lag, decide_nothing, decide_more_than_is_told, send_nothing])
async def test_nothing_is_removed_when_it_is_not_known_what_is_unread(
    ground: Ground, spoil: Callable[[Ground], None]
) -> None:
    spoil(ground)
    assert not await removed_unread(ground.stage(), Random(1))
    assert (ground.begin, ground.past.sent, ground.past.removed, ground.commands) == (0, [], [], [])


async def test_a_log_is_changed_by_one_at_a_time(ground: Ground) -> None:
    async with ground.past.one:
        assert not await removed_unread(ground.stage(), Random(1))
    assert ground.begin == 0


async def test_who_says_nothing_of_a_loss_is_written_down(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(administrator, "_places_that_tell", lambda *_: {"/readyz": lambda: False})
    assert await removed_unread(ground.stage(), Random(1))
    [told] = ground.past.untold
    assert told.startswith("/readyz should say that commands/0 has lost offsets 8 to ")


async def test_who_does_not_cease_to_speak_of_a_loss_is_written_down(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(administrator, "_places_that_tell", lambda *_: {"/metrics": lambda: True})
    assert await removed_unread(ground.stage(), Random(1))
    assert ground.past.untold == ["/metrics should say no more what commands/0 has lost, since it is acknowledged"]
