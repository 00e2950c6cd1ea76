"""A run has one of three verdicts and names the side at fault; errors of the harness are never the product's fault."""

import argparse
import asyncio
import json
import os
import shlex
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, Final

import pytest

from tests.acceptance.clients import Record
from tests.faults.__main__ import DOUBLED_EVERY, Attempt, main, once, parsed
from tests.faults.calm import Calm
from tests.faults.catch_up import CATCH_UP_SECONDS, STANDING_SECONDS, CatchUp, Metronome, follow
from tests.faults.checker import Report, Violation, check
from tests.faults.cluster import Node, Ports
from tests.faults.kinds import Domain, FaultKind
from tests.faults.ledger import Delivery, Evidence, Ledger, Sent, event, result
from tests.faults.load import Load, Mix
from tests.faults.outcome import LAST_LINES, LONGEST_LINE, Outcome, command_of
from tests.faults.rules import EXPLAINS, USAGE, Rule, Side, Verdict, verdict
from tests.faults.schedule import Log, Strike, play
from tests.faults.witness import Witness, understood
from tests.providers.postgres import WheelPostgres
from tests.support.waiting import wait_until
from worker.demo.servers.processes import ServerProcess, until

NOBODY: Final = "127.0.0.1:1"
"""An address at which no broker listens."""


@pytest.fixture(autouse=True)
def _temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Delete logs that are kept by default, with the test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


# --- sides ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("broken", "due"),
    [
        ([], Verdict.KEPT),
        ([Rule.LOST], Verdict.BROKEN),
        ([Rule.SOUND], Verdict.NOT_CHECKED),
        ([Rule.SOUND, Rule.REPEATED, Rule.STATUS, Rule.ORDER], Verdict.NOT_CHECKED),
        ([Rule.SOUND, Rule.REPEATED, Rule.ONCE], Verdict.BROKEN),
        ([Rule.SOUND, Rule.CHAINS], Verdict.BROKEN),
        ([Rule.PLACE, Rule.READERS], Verdict.NOT_CHECKED),
        ([Rule.PLACE, Rule.LOST], Verdict.BROKEN),
        ([Rule.SERVERS], Verdict.NOT_CHECKED),
        ([Rule.SERVERS, Rule.CONSUMED, Rule.LOST], Verdict.NOT_CHECKED),
        ([Rule.SERVERS, Rule.REPEATED], Verdict.BROKEN),
        ([Rule.FAULTS, Rule.LEFT], Verdict.NOT_CHECKED),
        ([Rule.FAULTS, Rule.STATUS], Verdict.BROKEN),
        ([Rule.IN_TIME, Rule.LOST, Rule.CONSUMED], Verdict.NOT_CHECKED),
        ([Rule.IN_TIME, Rule.FORESEEN], Verdict.BROKEN),
        ([Rule.STEADY, Rule.OWNER], Verdict.NOT_CHECKED),
        ([Rule.STEADY, Rule.LOST], Verdict.BROKEN),
        ([Rule.STEADY, Rule.PLACE, Rule.OWNER, Rule.READERS], Verdict.NOT_CHECKED),
        ([Rule.RUN], Verdict.NOT_CHECKED),
        ([Rule.TIDY], Verdict.NOT_CHECKED),
        ([Rule.TIDY, Rule.LOST], Verdict.BROKEN),
    ],
)
def test_every_mix_has_its_verdict(broken: list[Rule], due: Verdict) -> None:
    assert verdict(broken) is due
    assert outcome(*broken).exit_code == {Verdict.KEPT: 0, Verdict.BROKEN: 1, Verdict.NOT_CHECKED: 2}[due]


def test_every_rule_of_the_harness_says_what_it_explains() -> None:
    assert EXPLAINS.keys() == {rule for rule in Rule if rule.side is Side.HARNESS}
    assert {rule.side for rules in EXPLAINS.values() for rule in rules} == {Side.PRODUCT}


# --- repetition, exit codes and the last lines ------------------------------------------------------------------------


def outcome(*broken: Rule, times: int = 1, what: str = "seen") -> Outcome:
    violations = [Violation(rule, f"{what} {n}") for rule in broken for n in range(times)]
    return Outcome(1, Delivery.EXACTLY_ONCE, 1.0, Log(), Report(violations=violations), {}, {}, [], {})


class Attempts:
    """A substitute for runs: one outcome after the other."""

    def __init__(self, *outcomes: Outcome) -> None:
        self._left = list(outcomes)
        self.seeds: list[int] = []
        self.logs: list[Path] = []

    def __call__(self, options: argparse.Namespace, logs: Path) -> Outcome:
        self.seeds.append(options.seed)
        self.logs.append(logs)
        logs.mkdir(parents=True)
        return self._left.pop(0)


def test_a_run_that_kept_everything_is_not_repeated_and_leaves_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    attempts = Attempts(outcome())
    assert main(["--seed", "7"], attempts) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "verdict: KEPT"
    assert attempts.seeds == [7]
    assert not attempts.logs[0].parent.exists()


def test_a_broken_promise_is_not_repeated_and_says_why(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    attempts = Attempts(outcome(Rule.LOST, Rule.ORDER, times=3, what="command"))
    assert main(["--seed", "7", "--seconds", "30", "--logs", str(tmp_path)], attempts) == 1
    assert attempts.seeds == [7]
    assert capsys.readouterr().out.splitlines()[-9:] == [
        "  promised: no answer is lost; not so 3 times:",
        "    command 0",
        "    command 1",
        "  promised: order is kept; not so 3 times:",
        "    command 0",
        "    command 1",
        'again: make faults ARGS="--seconds 30 --seed 7 --rate 200"',
        f"logs: {tmp_path}",
        "verdict: BROKEN",
    ]


def test_a_failure_of_the_harness_is_repeated_once_and_then_loud(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    attempts = Attempts(outcome(Rule.SOUND, Rule.REPEATED), outcome(Rule.SERVERS))
    assert main(["--seed", "7", "--logs", str(tmp_path)], attempts) == 2
    assert attempts.seeds == [7, 7]
    assert attempts.logs == [tmp_path / "run-1", tmp_path / "run-2"]
    assert capsys.readouterr().out.splitlines()[-9:] == [
        "run 1 of 2, with the same seed: NOT CHECKED",
        "  the harness failed: the load is sound: seen 0",
        "  LOOKED BROKEN, which may come of that: no answer is repeated (1 times)",
        "run 2 of 2, with the same seed: NOT CHECKED",
        "  the harness failed: servers end only when the schedule ends them: seen 0",
        "nothing is proved. Twice in a row on a quiet machine it is a fault of the harness: find it",
        'again: make faults ARGS="--seconds 120 --seed 7 --rate 200"',
        f"logs: {tmp_path}",
        "verdict: NOT CHECKED",
    ]


@pytest.mark.parametrize(("second", "code"), [(outcome(), 0), (outcome(Rule.LOST), 1)])
def test_the_second_run_decides(capsys: pytest.CaptureFixture[str], tmp_path: Path, second: Outcome, code: int) -> None:
    assert main(["--logs", str(tmp_path)], Attempts(outcome(Rule.RUN), second)) == code
    told = capsys.readouterr()
    assert "run 1 of 2, with the same seed: NOT CHECKED" in told.out
    assert "NOT CHECKED. Once more" in told.err


def test_a_broken_promise_beside_a_failure_of_the_harness_stays_broken(capsys: pytest.CaptureFixture[str]) -> None:
    attempts = Attempts(outcome(Rule.PLACE, Rule.READERS, Rule.LOST))
    assert main([], attempts) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "  promised: no answer is lost; not so 1 times:" in lines
    assert "  LOOKED BROKEN, which may come of that: both readers saw the same (1 times)" in lines
    assert f"logs: {attempts.logs[0].parent}" in lines
    assert attempts.logs[0].exists()


@pytest.mark.parametrize("rules", [list(Rule), [rule for rule in Rule if rule is not Rule.RUN]])
def test_the_worst_reason_fits_into_a_log_s_last_lines(capsys: pytest.CaptureFixture[str], rules: list[Rule]) -> None:
    worst = outcome(*rules, times=9, what="x" * 1000 + "\nand another line")
    kind = next(iter(parsed(["--only", "worker killed"]).only))
    main(["--only", kind], Attempts(worst, worst))
    lines = capsys.readouterr().out.splitlines()
    reason = lines[lines.index(next(line for line in lines if line.startswith(("run 1", "  promised")))) :]
    assert len(reason) <= LAST_LINES
    assert max(map(len, reason)) <= LONGEST_LINE
    assert reason[-1].startswith("verdict: ")


def test_a_document_has_stdout_for_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--json"], Attempts(outcome(Rule.RUN), outcome(Rule.RUN))) == 2
    told = capsys.readouterr()
    document = json.loads(told.out)
    assert (document["verdict"], document["exit_code"]) == ("not checked", 2)
    assert document["attempts"][0]["harness"] == {"the run comes to its end": 1}
    assert told.err.splitlines()[-1] == "verdict: NOT CHECKED"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--seconds", "soon"],
        ["--no-such-option"],
        ["--only", "no such kind"],
        ["--delivery", "at_least_once", "--only", "END_TXN dropped"],
    ],
)
def test_a_wrong_command_line_is_no_verdict(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments, Attempts())
    assert ended.value.code == USAGE
    assert USAGE not in {0, 1, 2}


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--seed", "3", "--rate", "62.5", "--quiet", "3", "--bulk", "--alone", "--workers", "3"],
        ["--delivery", "at_least_once", "--partitions", "4", "--only", "worker killed", "--only", "locks held"],
        ["--mutant", "no_owner_check", "--plant", "load-doubled"],
    ],
)
def test_the_command_that_is_told_plays_the_same_again(arguments: list[str]) -> None:
    make, faults, words = shlex.split(command_of(parsed(arguments)))
    assert (make, faults, words[:5]) == ("make", "faults", "ARGS=")
    assert parsed(shlex.split(words[5:])) == parsed(arguments)


# --- a run that ends by itself ----------------------------------------------------------------------------------------


def attempted(tmp_path: Path, end: Callable[[Attempt], None]) -> Outcome:
    async def run(_: argparse.Namespace, __: Path, attempt: Attempt) -> None:
        end(attempt)

    return once(parsed([]), tmp_path / "run-1", run)


def test_an_exception_is_a_failure_of_the_harness(tmp_path: Path) -> None:
    def end(attempt: Attempt) -> None:
        attempt.noticed.append(Violation(Rule.SERVERS, "broker 1 ended with 1"))
        raise OSError("no space left\nand all that follows")

    came = attempted(tmp_path, end)

    assert came.verdict is Verdict.NOT_CHECKED
    assert [each.what for each in came.failures()] == ["broker 1 ended with 1", "OSError: no space left"]
    assert "Traceback" in (tmp_path / "run-1" / "traceback.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("broken", "due"), [((), Verdict.NOT_CHECKED), ((Rule.LOST,), Verdict.BROKEN), ((Rule.PLACE,), Verdict.NOT_CHECKED)]
)
def test_an_exception_after_the_verdict_takes_nothing_back(
    tmp_path: Path, broken: tuple[Rule, ...], due: Verdict
) -> None:
    def end(attempt: Attempt) -> None:
        attempt.outcome = outcome(*broken)
        raise OSError("directory not empty")

    came = attempted(tmp_path, end)

    assert came.verdict is due
    assert Rule.TIDY in came.report.counts()


def test_an_interruption_is_not_swallowed(tmp_path: Path) -> None:
    def end(_: Attempt) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attempted(tmp_path, end)


# --- patience ---------------------------------------------------------------------------------------------------------


class Lanes:
    """Partitions with work, and a clock. ``done`` is the number consumed of each a second."""

    def __init__(self, left: Mapping[str, float], done: Mapping[str, float]) -> None:
        self.now = 0.0
        self._left = dict(left)
        self._done = done

    def left(self) -> dict[str, int]:
        counts = {place: int(count - self._done[place] * self.now) for place, count in self._left.items()}
        return {place: count for place, count in counts.items() if count > 0}

    def catch_up(self, look: float = 1.0) -> CatchUp:
        def sleep(_: float) -> None:
            self.now += look

        return follow(self.left, clock=lambda: self.now, sleep=sleep)


def test_who_comes_to_the_end_is_done() -> None:
    assert Lanes({"a-0": 100, "a-1": 100}, {"a-0": 1, "a-1": 50}).catch_up().done


def test_who_does_not_come_on_stands_still_however_fast_others_are() -> None:
    lanes = Lanes({"a-0": 100, "a-1": 100_000}, {"a-0": 0, "a-1": 10})
    assert lanes.catch_up().standing == {"a-0": 100}
    assert lanes.now == pytest.approx(STANDING_SECONDS, abs=2)


def test_who_comes_on_and_does_not_come_to_the_end_is_slow() -> None:
    lanes = Lanes({"a-0": 1000}, {"a-0": 1 / (STANDING_SECONDS / 2)})
    catch_up = lanes.catch_up()
    assert (catch_up.standing, catch_up.slow) == ({}, {"a-0": 995})
    assert lanes.now == pytest.approx(CATCH_UP_SECONDS, abs=2)


def test_a_machine_that_lets_nobody_look_makes_nobody_stand_still() -> None:
    catch_up = Lanes({"a-0": 1000}, {"a-0": 0}).catch_up(look=STANDING_SECONDS)
    assert (catch_up.standing, catch_up.slow) == ({}, {"a-0": 1000})


def test_a_metronome_notes_how_late_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    with Metronome() as metronome:
        pass
    moments: Iterator[float] = iter([0.0, 0.1, 3.2])
    monkeypatch.setattr(time, "monotonic", lambda: next(moments))
    again = Metronome()
    beats = iter([False, False, True])
    monkeypatch.setattr(again, "_halt", SimpleNamespace(wait=lambda _: next(beats)))
    again.run()
    monkeypatch.undo()
    assert metronome.latest < 1
    assert again.latest == pytest.approx(3.0)


# --- servers that end by themselves -----------------------------------------------------------------------------------


def sleeping(tmp_path: Path) -> ServerProcess:
    return ServerProcess.start("sleep", ["/bin/sleep", "60"], log=tmp_path / "log", environment={})


async def killed_from_outside(process: ServerProcess) -> None:
    async def gone() -> bool:
        return process.exit_code is not None

    os.kill(process.pid, signal.SIGKILL)
    await until(gone, 10)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """Yield a running node."""
    node = Node(2, tmp_path, Ports(0, 0, 0, 0))
    node._process = sleeping(tmp_path)
    yield node
    node.kill()


async def test_a_broker_that_ends_by_itself_is_noticed_once(node: Node) -> None:
    assert node._process is not None
    assert node.fallen() == []
    await killed_from_outside(node._process)
    assert node.fallen() == node.fallen() == ["broker 2 ended with -9"]
    node.kill()
    assert node.fallen() == ["broker 2 ended with -9"]


@pytest.mark.parametrize("act", ["kill", "stop"])
async def test_a_broker_that_the_schedule_ends_has_not_fallen(node: Node, act: str) -> None:
    if act == "stop":
        await node.stop()
    else:
        node.kill()
    assert not node.runs
    assert node.fallen() == []


async def test_a_broker_that_fell_is_started_again_and_one_that_was_ended_is_not(
    node: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tests.faults.cluster.start_node", lambda *_, **__: sleeping(tmp_path))
    program: Any = None
    assert node._process is not None
    await killed_from_outside(node._process)
    node.relaunch(program)
    fell = node.runs
    node.kill()
    node.relaunch(program)
    assert (fell, node.runs) == (True, False)
    assert node.fallen() == ["broker 2 ended with -9"]


@pytest.mark.parametrize("asked", [False, True])
async def test_a_postgres_that_ends_by_itself_is_noticed(tmp_path: Path, asked: bool) -> None:
    postgres = WheelPostgres()
    process = sleeping(tmp_path)
    postgres._server._process, postgres._wanted = process, True
    assert postgres.fallen() == []
    if asked:
        await postgres.stop("immediate")
    else:
        await killed_from_outside(process)
    assert postgres.fallen() == ([] if asked else ["Postgres ended with -9"])
    await postgres.dispose()


@pytest.mark.parametrize("fallen", [[], ["broker 1 ended with -9"]])
async def test_the_schedule_ends_when_a_server_has_fallen(fallen: list[str]) -> None:
    async def act(_: object, __: Random) -> None:
        await asyncio.sleep(0)

    stage: Any = SimpleNamespace(fallen=lambda: fallen, calm=Calm())
    strike = Strike((FaultKind("nothing", Domain.WORKER, act),), 1.0, "1/1")
    log = Log()
    await play(stage, iter([strike]), time.monotonic() + 0.01, log)
    assert bool(log.struck) is not bool(fallen)


# --- the load and the reader ------------------------------------------------------------------------------------------


class Books:
    """A substitute for a producer: the commands it was given."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []

    def produce(self, _: str, __: bytes, ___: bytes, partition: int, *, headers: Any, **_____: object) -> None:
        offset = sum(each.partition == partition for each in self.sent)
        self.sent.append(Sent(partition, offset, int(headers[0][1])))

    def poll(self, _: float) -> None:
        return

    def purge(self) -> None:
        return

    def __len__(self) -> int:
        return 0

    def flush(self, _: float) -> int:
        return 0


def loaded(doubled_every: int) -> tuple[Ledger, Books, str | None]:
    """Return a load that was sent to its end."""
    ledger, books = Ledger(), Books()
    mix = Mix(1, 3, (f"t-{n}" for n in range(100)), ["e-1"])
    load = Load(NOBODY, lambda _: "commands", mix, ledger, rate=1e6, codec="zstd", doubled_every=doubled_every)
    instead: Any = books
    load._producer = instead
    load.start()
    load.join()
    return ledger, books, load.finish()


@pytest.mark.parametrize(("doubled_every", "sound"), [(0, True), (DOUBLED_EVERY, False)])
def test_a_load_that_is_sent_twice_is_noticed(doubled_every: int, sound: bool) -> None:
    ledger, books, refused = loaded(doubled_every)
    assert refused is None
    report = check(ledger, Evidence(sent=books.sent))
    assert (Rule.SOUND not in report.counts()) is sound


class Ticks:
    """A substitute for a halt: counts the load's looks at it."""

    def __init__(self) -> None:
        self.count = 0
        self._halt = threading.Event()

    def wait(self, _: float) -> bool:
        self.count += 1
        return self._halt.wait(0.001)

    def set(self) -> None:
        self._halt.set()


def test_a_load_that_is_paused_sends_nothing_until_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, ticks = Books(), Books(), Ticks()
    producers = iter([first, second])
    monkeypatch.setattr("tests.faults.load.Producer", lambda _: next(producers))
    mix = Mix(1, 3, (f"t-{n}" for n in range(1_000_000)), ["e-1"])
    load = Load(NOBODY, lambda _: "commands", mix, Ledger(), rate=1000, codec="zstd")
    halt: Any = ticks
    load._halt = halt
    load.start()
    try:
        wait_until(lambda: first.sent, what="something was sent")
        assert load.pause(1.0)
        count, looked = len(first.sent), ticks.count
        wait_until(lambda: ticks.count > looked + 2, what="the load has looked on")
        assert len(first.sent) == count
        load.resume()
        wait_until(lambda: second.sent, what="the load went on")
        assert (len(first.sent), second.sent[0].number) == (count, count)
    finally:
        load.abandon()


def test_a_load_that_ends_with_an_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise BufferError("queue full")

    monkeypatch.setattr(Books, "produce", full)
    assert loaded(0)[2] == "BufferError: queue full"


def test_a_reader_that_ends_with_an_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    witness = Witness(NOBODY, ["results"])

    def lost() -> None:
        raise KeyError("results")

    monkeypatch.setattr(witness, "_look", lost)
    witness.run()
    assert witness.fault == "KeyError: 'results'"


def test_a_reader_that_does_not_come_to_the_end_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    witness = Witness(NOBODY, ["results"])
    monkeypatch.setattr(witness, "_look", lambda: None)
    witness.start()
    witness.finish({("results", 0): 5}, seconds=0.2)
    assert witness.fault == "it did not come to the end within 0 s"
    assert not witness.is_alive()


def record(value: bytes, *headers: tuple[str, bytes]) -> Record:
    return Record("published", 1, 4, None, value, headers, 0)


GOOD_RESULT: Final = b'{"status": {"code": "MALFORMED_REQUEST"}}'
GOOD_EVENT: Final = b'{"lane": "0", "sequence": 1, "access_token_id": "a"}'
NAMED_TWICE: Final = (("ce_id", b"1"), ("ce_id", b"1"))


@pytest.mark.parametrize(
    ("reading", "good", "bad"),
    [
        (result, record(GOOD_RESULT), record(b"no JSON")),
        (result, record(GOOD_RESULT), record(b"{}")),
        (result, record(GOOD_RESULT), record(b"[]")),
        (result, record(GOOD_RESULT), record(GOOD_RESULT, *NAMED_TWICE)),
        (event, record(GOOD_EVENT), record(b'{"lane": "0"}')),
        (event, record(GOOD_EVENT), record(GOOD_EVENT, *NAMED_TWICE)),
    ],
)
def test_what_cannot_be_read_is_the_product_s_doing_and_ends_no_run(
    reading: Callable[[Record], object], good: Record, bad: Record
) -> None:
    unreadable: list[str] = []
    records: Iterable[Record] = [bad, good]
    assert len(list(understood(records, reading, unreadable))) == 1
    assert [each.partition(" ")[0] for each in unreadable] == ["published-1@4:"]
    assert check(Ledger(), Evidence(unreadable=unreadable)).verdict is Verdict.BROKEN
