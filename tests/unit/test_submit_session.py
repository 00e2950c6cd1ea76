"""A session with a fake worker and broker: answers get lost, sessions die, and the totals are right."""

import asyncio
import json
import random
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.logins import login_token
from tests.support.waiting import in_time
from worker.operations.login_source import LoginFailed
from worker.operations.submit import session as module
from worker.operations.submit.answers import Answer, Answers
from worker.operations.submit.journal import Journal
from worker.operations.submit.lines import source_of
from worker.operations.submit.login import GivenLogin, Login, OwnLogins
from worker.operations.submit.report import reported
from worker.operations.submit.run import Stop, _played
from worker.operations.submit.sending import Outbox, Outgoing
from worker.operations.submit.session import Limits, Progress, Session, SubmitError, Wires

PARTITIONS: Final = 3
LINES: Final = 120
FACTS: Final = {
    "run": "r",
    "digest": "d",
    "size": "0",
    "lines": str(LINES),
    "topic": "commands",
    "reply_topic": "replies",
    "results_topic": "results",
    "cluster": "c",
    "dry_run": "false",
}


class World:
    """The state that outlives a session: the commands sent, their answers, and the ids that were applied."""

    def __init__(self, seed: int = 0, *, lost: float = 0.0) -> None:
        self.chance = random.Random(seed)
        self.lost = lost
        self.sent: list[list[Outgoing]] = [[] for _ in range(PARTITIONS)]
        self.answered: list[list[Answer]] = [[] for _ in range(PARTITIONS)]
        self.elsewhere: list[Answer] = []
        self.judged = [0] * PARTITIONS
        self.applied: set[bytes] = set()
        self.times: dict[int, int] = {}
        """The number of times that each line was sent."""
        self.now = 1000.0
        self.judge: Callable[[int, Outgoing], str] = lambda line, _: "ACCESS_TOKEN_NOT_FOUND" if line % 7 == 0 else "OK"
        self.dry_run = False
        self.allowed = True

    def work(self) -> None:
        """Judge some of the waiting commands, in order; now and then an answer is lost."""
        for partition, commands in enumerate(self.sent):
            until = min(len(commands), self.judged[partition] + self.chance.randint(0, 10))
            for outgoing in commands[self.judged[partition] : until]:
                answer = self.answer(outgoing)
                if self.chance.random() >= self.lost:
                    (self.answered[partition] if self.allowed else self.elsewhere).append(answer)
            self.judged[partition] = until

    def answer(self, outgoing: Outgoing) -> Answer:
        headers = dict(outgoing.headers)
        session, serial, partition, line = map(int, headers["correlation_id"].split(b":")[1:])
        code, identity = self.judge(line, outgoing), headers["ce_id"]
        replayed = code == "OK" and identity in self.applied
        if code == "OK":
            self.applied.add(identity)
        return Answer(session, serial, partition, line, code, replayed, self.dry_run, "" if code == "OK" else "why")


class FakeOutbox(Outbox):
    def __init__(self, world: World) -> None:
        super().__init__("commands", PARTITIONS, {})
        self._world = world

    def put(self, partition: int, outgoing: Outgoing) -> None:
        self._world.sent[partition].append(outgoing)
        self._world.times[outgoing.line] = self._world.times.get(outgoing.line, 0) + 1

    async def run(self) -> None:
        await asyncio.Event().wait()


class FakeAnswers(Answers):
    """The answers of the reply topic, or those that went elsewhere."""

    def __init__(self, world: World, positions: dict[int, int], *, elsewhere: bool = False) -> None:
        super().__init__("replies", {}, "r", {})
        self._world = world
        self._read_to = positions or dict.fromkeys(range(PARTITIONS), 0)
        self._elsewhere = elsewhere

    async def open(self) -> dict[int, int]:
        return self.positions()

    def positions(self) -> dict[int, int]:
        return dict(self._read_to)

    async def read(self) -> list[Answer]:
        await asyncio.sleep(0)
        self._world.now += 0.05
        if self._elsewhere:
            return self._world.elsewhere
        self._world.work()
        found: list[Answer] = []
        for partition, answers in enumerate(self._world.answered):
            fresh = answers[self._read_to[partition] :][: self._world.chance.randint(1, 20)]
            self._read_to[partition] += len(fresh)
            found += fresh
        return found

    async def close(self) -> None:
        """Do nothing: nothing is open."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    lines = [
        json.dumps({"access_token_identifier": {"authentication_code": f"code-{n % 50}"}}) for n in range(LINES - 1)
    ]
    lines.insert(30, "no JSON")
    path = tmp_path / "file.ndjson"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(autouse=True)
def _in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TICK_SECONDS", 0.002)


async def play(
    file: Path,
    world: World,
    *,
    login: Login | None = None,
    window: int = 40,
    facts: dict[str, str] | None = None,
    dies_after: int | None = None,
    told: list[Progress] | None = None,
) -> None:
    """Play one session, or the part of it before it ``dies_after`` so many reads."""
    with (
        closing(source_of(file, as_csv=False, max_bytes=65_536)) as source,
        closing(Journal(file.with_suffix(".j"))) as journal,
    ):
        if not journal.facts:
            journal.begin(FACTS | (facts or {}), dict.fromkeys(range(PARTITIONS), 0))
        outbox, answers = FakeOutbox(world), FakeAnswers(world, journal.positions())
        elsewhere = FakeAnswers(world, {}, elsewhere=True)
        session = Session(
            source,
            journal,
            login or GivenLogin(login_token()),
            Wires(outbox, answers, elsewhere, PARTITIONS),
            limits=Limits(window, None, 1.0),
            clock=lambda: world.now,
            on_progress=(told if told is not None else []).append,
        )
        playing = asyncio.create_task(_played(session, outbox, Stop()))
        for _ in range(dies_after or 0):
            await asyncio.sleep(0)
        if dies_after is not None:
            # SIGKILL leaves only what was committed.
            journal.close()
            playing.cancel()
            with suppress(BaseException):
                await playing
            return
        assert await in_time(playing, "the session ended", seen=lambda: world.sent) == "finished"
        journal.close_session("finished", world.now)


def the_report(file: Path) -> Any:
    with closing(Journal(file.with_suffix(".j"))) as journal:
        return reported(file, file, journal)


REFUSED: Final = LINES // 7


async def test_every_line_has_its_outcome_and_was_sent_once(file: Path) -> None:
    world, told = World(), list[Progress]()
    await play(file, world, told=told)
    report = the_report(file)
    assert report.statuses == {"ACCESS_TOKEN_NOT_FOUND": REFUSED, "OK": LINES - 1 - REFUSED}
    assert (report.not_sent, report.replayed, report.sessions) == ({"MALFORMED_REQUEST": 1}, 0, 1)
    assert world.times == dict.fromkeys([*range(1, 31), *range(32, LINES + 1)], 1)
    assert max(progress.waiting for progress in told) <= 40
    with closing(Journal(file.with_suffix(".j"))) as journal:
        assert journal.positions() == {place: len(answers) for place, answers in enumerate(world.answered)}
        assert journal.sent_up_to == LINES
    assert (told[-1].done, told[-1].total, told[-1].waiting) == (LINES, LINES, 0)


async def test_commands_for_one_access_token_keep_the_order_of_the_file(file: Path) -> None:
    world = World()
    await play(file, world)
    by_code: dict[str, list[tuple[int, int]]] = {}
    for partition, commands in enumerate(world.sent):
        for outgoing in commands:
            code = json.loads(outgoing.value)["access_token_identifier"]["authentication_code"]
            by_code.setdefault(code, []).append((partition, outgoing.line))
    assert all(len({partition for partition, _ in places}) == 1 for places in by_code.values())
    assert all(places == sorted(places) for places in by_code.values())


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_is_lost_and_whenever_it_dies_the_totals_are_right(file: Path, seed: int) -> None:
    world = World(seed, lost=0.2)
    for _ in range(8):
        await play(file, world, dies_after=world.chance.randint(1, 60))
    await play(file, world)
    report = the_report(file)
    assert report.statuses == {"ACCESS_TOKEN_NOT_FOUND": REFUSED, "OK": LINES - 1 - REFUSED}
    assert report.not_sent == {"MALFORMED_REQUEST": 1}
    assert len(world.applied) == report.ok
    identities = {dict(outgoing.headers)["ce_id"] for commands in world.sent for outgoing in commands}
    assert identities == {f"d:{line}".encode() for line in range(1, LINES + 1) if line != 31}


async def test_of_a_long_backlog_nothing_is_sent_again(file: Path) -> None:
    """A session that dies, and another that waits long for the answers of the first, send probes and no more."""
    world = World()
    worked = world.work
    world.work = lambda: None  # type: ignore[method-assign] # the worker stands still
    # Without an answer nothing new is sent after the first, and no probe either: patience is 20 reads, however slow the
    # machine.
    await play(file, world, dies_after=18)
    assert sum(world.times.values()) == 1
    world.work = worked  # type: ignore[method-assign]
    await play(file, world)
    assert sum(world.times.values()) - (LINES - 1) <= PARTITIONS


async def test_an_answer_that_comes_elsewhere_stops_everything_before_a_second_command(file: Path) -> None:
    world = World()
    world.allowed = False
    with pytest.raises(SubmitError, match="WORKER_TOPICS__REPLY_TO_ALLOWED=replies"):
        await play(file, world)
    assert world.times.keys() == {1}
    world.allowed = True
    world.elsewhere.clear()
    await play(file, world)
    assert the_report(file).ok == LINES - 1 - REFUSED


@pytest.mark.parametrize("code", ["INVALID_TOKEN", "ACCESS_DENIED"])
async def test_a_login_that_is_refused_stops_everything_before_a_second_command(file: Path, code: str) -> None:
    world = World()
    usual, world.judge = world.judge, lambda _line, _outgoing: code
    with pytest.raises(LoginFailed, match=code):
        await play(file, world)
    assert sum(world.times.values()) == 1
    # With another login it goes on, and the first line gets its outcome from that attempt.
    world.judge = usual
    await play(file, world)
    assert the_report(file).statuses == {"ACCESS_TOKEN_NOT_FOUND": REFUSED, "OK": LINES - 1 - REFUSED}


async def test_a_login_that_ends_meanwhile_is_replaced_and_its_commands_are_sent_again(file: Path) -> None:
    world, tokens = World(), [login_token(jti=f"login-{number}") for number in range(9)]
    given: list[str] = []

    class Renewed(GivenLogin):
        def expired(self) -> None:
            given.append(self._token)
            self._token = tokens[len(given)]

    def judge(line: int, outgoing: Outgoing) -> str:
        stale = line > 60 and json.loads(outgoing.value)["token"] == tokens[0]
        return "EXPIRED_TOKEN" if stale else "OK"

    world.judge = judge
    await play(file, world, login=Renewed(tokens[0], clock=lambda: world.now))
    assert the_report(file).statuses == {"OK": LINES - 1}
    assert given == tokens[:1]


async def test_a_login_that_cannot_be_replaced_stops_and_leaves_its_commands_for_the_next(file: Path) -> None:
    world = World()
    usual, world.judge = world.judge, lambda line, _: "EXPIRED_TOKEN" if line > 60 else "OK"
    with pytest.raises(LoginFailed, match="expired"):
        await play(file, world)
    world.judge = usual
    await play(file, world)
    assert "EXPIRED_TOKEN" not in the_report(file).statuses
    assert the_report(file).commands == LINES


async def test_the_expired_login_of_a_commands_own_is_its_answer(tmp_path: Path) -> None:
    world, file = World(), tmp_path / "own.ndjson"
    own = {"token": "its own", "access_token_identifier": {"authentication_code": "code"}}
    file.write_text(json.dumps(own))
    world.judge = lambda _line, _outgoing: "EXPIRED_TOKEN"
    await play(file, world, login=OwnLogins())
    assert the_report(file).statuses == {"EXPIRED_TOKEN": 1}


async def test_a_worker_that_knows_no_dry_runs_gets_nothing_but_a_command_that_changes_nothing(file: Path) -> None:
    world = World()
    with pytest.raises(SubmitError, match="dry_run"):
        await play(file, world, facts={"dry_run": "true"})
    [outgoing] = [each for commands in world.sent for each in commands]
    code = json.loads(outgoing.value)["access_token_identifier"]["authentication_code"]
    assert code.startswith("dry-run-")
    assert ("dry_run", b"true") in outgoing.headers


async def test_a_dry_run_says_so_in_every_command_and_counts_none_of_its_own(file: Path) -> None:
    world = World()
    world.dry_run = True
    await play(file, world, facts={"dry_run": "true"})
    report = the_report(file)
    assert (report.dry_run, report.commands, report.ok) == (True, LINES, LINES - 1 - REFUSED)
    assert all(("dry_run", b"true") in each.headers for commands in world.sent for each in commands)


async def test_a_command_that_no_broker_takes_is_refused_and_the_others_go_on(file: Path) -> None:
    world = World()

    class Narrow(FakeOutbox):
        def put(self, partition: int, outgoing: Outgoing) -> None:
            if outgoing.line == 50:
                self.on_too_large(50)
            else:
                super().put(partition, outgoing)

    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(globals(), "FakeOutbox", Narrow)
        await play(file, world)
    assert the_report(file).not_sent == {"MALFORMED_REQUEST": 2}
    assert the_report(file).commands == LINES
