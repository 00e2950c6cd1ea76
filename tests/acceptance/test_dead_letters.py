"""``dead-letters``: their contents, and the outcome of sending them again, each of them accounted for."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from tests.acceptance.clients import Outgoing, Record
from tests.acceptance.scene import PARTITIONS, Scene, body, check_chains, event_id, history, status
from tests.acceptance.test_history_and_explain import run
from tests.acceptance.worker_process import ROOT
from tests.support.logins import login_token
from tests.support.pace import patience, stretched
from tests.support.seeded import IDENTIFIER, PASS_CODE
from tests.support.waiting import output_of, wait_until
from worker.kafka.reader import topic_reader
from worker.operations.dead_letters.letters import Chosen, Place, letters
from worker.operations.dead_letters.plan import Replay, plan
from worker.operations.dead_letters.replay import Pace, carry_out
from worker.operations.login_source import LoginSource
from worker.settings import read_settings

pytestmark = pytest.mark.real_kafka

POISONED: Final = "poisoned"
"""The prefix of the ids of access tokens whose transitions Postgres refuses."""
REFUSE: Final = f"""
CREATE FUNCTION refuse_some() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    ASSERT NEW.access_token_id NOT LIKE '{POISONED}%', 'no'; RETURN NEW;
END $$;
CREATE TRIGGER refuse_some BEFORE INSERT ON transition FOR EACH ROW EXECUTE FUNCTION refuse_some()
"""
CURE: Final = "DROP TRIGGER refuse_some ON transition; DROP FUNCTION refuse_some()"


def poisoned_load(scene: Scene, count: int, prefix: str = POISONED) -> list[str]:
    """Send commands that Postgres refuses, each in one of four shapes, with good ones between. Returns the bad codes.

    The good ones keep the circuit breaker closed.
    """
    token = login_token()
    codes, good = scene.new_tokens(count, prefix=prefix), scene.new_tokens(3 * count, prefix=f"good-{prefix}")
    records = []
    for number, code in enumerate(codes):
        key, place = code.encode(), number % PARTITIONS
        correlation = [("correlation_id", key)]
        records += [
            Outgoing(body(each, token=token), each.encode(), (), place) for each in good[3 * number : 3 * number + 3]
        ]
        value, headers = shaped(number // PARTITIONS % 4, code, body(code, token=token, fields_set="id"))
        records.append(Outgoing(value, key, [*correlation, *headers], place))
    scene.send(*records)
    return codes


def shaped(shape: int, code: str, value: bytes) -> tuple[bytes, list[tuple[str, bytes]]]:
    """Shape a command without an id, with one in the headers, with one in the body, or as a whole event."""
    if shape == 1:
        return value, list(event_id(code))
    if shape == 2:
        return json.dumps(json.loads(value) | {"request_unique_identifier": code}).encode(), []
    if shape == 3:
        event = {"specversion": "1.0", "id": code, "source": "/shop", "type": "access_token.set_effective.v1"}
        content = ("content-type", b"application/cloudevents+json")
        return json.dumps({**event, "data": json.loads(value)}).encode(), [content]
    return value, []


def replayed(scene: Scene, *arguments: str, token: str | None = None, code: int = 0, **settings: str) -> Any:
    """Run ``replay --yes --json``, which must end with ``code``, and return its output."""
    login = token or login_token()
    done = run(scene, "dead-letters", "replay", "--yes", "--login-token", login, "--json", *arguments, **settings)
    assert done.returncode == code, done.stdout + done.stderr
    assert login not in done.stdout + done.stderr
    return json.loads(done.stdout)


def planned(scene: Scene, *arguments: str) -> Any:
    done = run(scene, "dead-letters", "replay", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def counted(document: Any) -> dict[str, int]:
    """Return the number of letters by outcome; the sums must be right."""
    counts = {name: count for name, count in document["counts"].items() if count}
    assert sum(counts.values()) == document["selected"] == len(document["dead_letters"])
    assert sum(document["left_out"].values()) == counts.get("left out", 0)
    assert sum(document["refused"].values()) == counts.get("refused", 0)
    sent = sum(
        counts.get(name, 0)
        for name in ("applied", "answered OK as before", "refused", "failed again", "sent, not answered yet")
    )
    assert document["sent"] == sent
    return counts


def effective(scene: Scene, codes: Sequence[str]) -> Counter[tuple[str, int]]:
    """Return states and versions of access tokens, each of which must have as many transitions as versions."""
    rows = scene.rows(
        "SELECT life_cycle_state, version, (SELECT count(*) FROM transition"
        " WHERE access_token_id = id AND access_token.organisation = transition.organisation) AS transitions"
        " FROM access_token WHERE id = ANY ($1)",
        codes,
    )
    assert len(rows) == len(codes)
    assert all(row["version"] == row["transitions"] for row in rows)
    return Counter((row["life_cycle_state"], row["version"]) for row in rows)


def command(scene: Scene, *arguments: str) -> "subprocess.Popen[str]":
    """Start ``dead-letters`` as a process that goes on by itself."""
    return subprocess.Popen(
        [sys.executable, "-m", "worker", "dead-letters", *arguments],
        cwd=ROOT,
        env={**os.environ, **scene.settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def by_key(records: Sequence[Record], key: str) -> list[tuple[str, str | None]]:
    return [status(record) for record in records if record.key == key.encode()]


def check_reconciled(scene: Scene) -> None:
    done = run(scene, "reconcile", "--json")
    assert done.stdout, f"reconcile ended with {done.returncode}: {done.stderr}"
    assert (done.returncode, json.loads(done.stdout)["differences"]) == (0, [])


# --- one worker, one load, told once ----------------------------------------------------------------------------------


class Story:
    """Dead letters of every kind, a replay that fails again, the cure, and a replay that succeeds."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        scene.execute(REFUSE)
        with scene.worker(MAX_BATCH="50"):
            self.codes = poisoned_load(scene, 16)
            [named] = scene.new_tokens(1, prefix=f"{POISONED}-named")
            scene.execute(
                "UPDATE access_token AS t SET identifier = 'someone', pass_code_hash = o.pass_code_hash"
                " FROM access_token AS o WHERE t.id = $1 AND o.identifier = $2",
                named,
                IDENTIFIER,
            )
            by_identifier = {"identifier": "someone", "pass_code": PASS_CODE}
            scene.send(
                Outgoing(b"not JSON \x1b[31m", b"bad", (), 0),
                Outgoing(body("x", fields_set=7), b"bad", (), 1),  # type: ignore[arg-type]
                Outgoing(body("", access_token_identifier=by_identifier), b"bad", (), 2),
            )
            scene.wait_consumed()
            self.letters = scene.dead_letters()
            self.listed = run(scene, "dead-letters", "list")
            self.listed_json = json.loads(run(scene, "dead-letters", "list", "--json").stdout)
            self.plan = planned(scene)
            self.expired = run(scene, "dead-letters", "replay", "--yes", "--login-token", login_token(exp=1))
            self.again = replayed(scene, code=3)
            self.letters_again = scene.dead_letters()
            self.plan_again = planned(scene)
            scene.execute(CURE)
            self.person = run(scene, "dead-letters", "replay", "--yes", "--limit", "5", "--login-token", login_token())
            self.cured = replayed(scene)
            self.last = replayed(scene)
            scene.wait_consumed()
        self.results = scene.seen(scene.topics.results)


@pytest.fixture(scope="module")
def story(shared_scene: Scene) -> Story:
    return Story(shared_scene)


def test_the_list_has_what_an_independent_reader_sees(story: Story) -> None:
    codes = Counter((record.header("dl_code") or b"").decode() for record in story.letters)
    assert codes == {"INTERNAL_ERROR": 17, "MALFORMED_REQUEST": 2}
    assert story.listed_json["summary"] == {"total": 19, "counts": codes, "limited": False}
    listed = {each["place"]: each for each in story.listed_json["dead_letters"]}
    assert list(listed) == [f"{record.partition}/{record.offset}" for record in story.letters]
    for record in story.letters:
        each = listed[f"{record.partition}/{record.offset}"]
        assert str(each["source"]["offset"]).encode() == record.header("dl_offset")
        assert each["organisation"] == ("ORG1" if each["code"] == "INTERNAL_ERROR" else None)
    assert [line.split("\t")[0] for line in story.listed.stdout.splitlines()[:-1]] == ["place", *listed]
    assert "19 dead letters: INTERNAL_ERROR 17, MALFORMED_REQUEST 2" in story.listed.stdout


async def chosen_places(scene: Scene, chosen: Chosen) -> list[str]:
    settings = read_settings(scene.settings)
    async with topic_reader(settings) as kafka:
        return [str(letter.place) async for letter in letters(kafka, settings, chosen)]


def test_filters_choose_what_they_name(story: Story) -> None:
    def places(**filters: Any) -> list[str]:
        return asyncio.run(chosen_places(story.scene, Chosen(**filters)))

    every = [f"{record.partition}/{record.offset}" for record in story.scene.dead_letters()]
    now, third = datetime.now(UTC), every[2]
    assert places() == every
    assert len(places(codes=frozenset({"MALFORMED_REQUEST"}), since=now - timedelta(hours=1))) == 2
    assert places(until=now - timedelta(hours=1)) == places(source_topic="elsewhere") == places(since=now) == []
    assert len(places(reason="not json")) == 1
    at = Place(*map(int, third.split("/")))
    assert places(at=frozenset({at, Place(at.partition, 9999), Place(99, 0)})) == [third]
    assert places(partitions=frozenset({1, 3})) == [place for place in every if place[0] in "13"]


def test_a_plan_says_what_would_be_sent_and_of_the_rest_why_not(story: Story) -> None:
    assert story.plan["carried_out"] is False
    assert counted(story.plan) == {"to be sent": 16, "left out": 3}
    assert story.plan["left_out"] == {
        "would be refused as it is": 2,
        "its pass code is masked: only its sender can send it again": 1,
    }


def test_a_login_token_that_has_expired_sends_nothing(story: Story) -> None:
    assert (story.expired.returncode, "the login token has expired" in story.expired.stderr) == (1, True)
    assert story.again["selected"] == len(story.letters)


def test_what_fails_again_is_named_with_its_new_dead_letter(story: Story) -> None:
    assert counted(story.again) == {"failed again": 16, "left out": 3}
    written = {f"{record.partition}/{record.offset}": record for record in story.letters_again}
    assert len(written) == 19 + 16
    for each in story.again["dead_letters"]:
        if each["state"] == "failed again":
            record = written[each["dead_letter"]]
            assert record.header("dl_offset") == str(each["sent"]["offset"]).encode()
            assert record.header("dl_topic") == each["sent"]["topic"].encode() == story.scene.topics.commands.encode()


def test_of_several_dead_letters_of_one_command_only_the_last_is_sent(story: Story) -> None:
    assert counted(story.plan_again) == {"to be sent": 16, "left out": 19}
    assert story.plan_again["left_out"]["a later dead letter of the same command is there"] == 16


def test_what_is_cured_is_applied_once_and_the_accounts_are_those_of_the_tables(story: Story) -> None:
    assert "5 sent = 5 applied + 0 answered OK as before" in story.person.stdout
    assert "11 left for later by the limit" in story.person.stdout
    assert story.person.returncode == 0
    assert counted(story.cured) == {"applied": 11, "left out": 24}
    assert story.cured["left_out"]["its command was applied since"] == 10
    assert effective(story.scene, story.codes) == {("EFFECTIVE", 1): 16}
    for code in story.codes:
        assert by_key(story.results, code) == [("INTERNAL_ERROR", "false")] * 2 + [("OK", "false")]


def test_the_answer_goes_to_whoever_waits_for_it(story: Story) -> None:
    for record in story.results:
        if (record.key or b"").startswith(f"{POISONED}-1".encode()):
            assert record.header("correlation_id") == record.key


def test_nothing_is_left_to_send_afterwards(story: Story) -> None:
    assert counted(story.last) == {"left out": 35}


def test_history_and_record_hold_after_replays(story: Story) -> None:
    check_reconciled(story.scene)
    check_chains(history(story.scene))
    plain = next(each for each in story.cured["dead_letters"] if each["state"] == "applied")
    explained = run(story.scene, "explain", plain["command_id"])
    assert (explained.returncode, "decided OK" in explained.stdout) == (0, True)


def test_a_dead_letter_is_shown_whole_and_without_secrets(story: Story) -> None:
    place = next(each["place"] for each in story.plan["dead_letters"] if each["state"] == "to be sent")
    told = run(story.scene, "dead-letters", "show", place)
    machine = json.loads(run(story.scene, "dead-letters", "show", place, "--json").stdout)

    assert told.returncode == 0
    for words in ("header dl_code: INTERNAL_ERROR", '"token": "***"', "decided INTERNAL_ERROR", "asked by ORG1"):
        assert words in told.stdout
    assert "can be sent again: no: its command was applied since" in told.stdout
    assert (machine["replayable"], machine["why_not"]) == (False, "its command was applied since")
    assert machine["explanation"]["readings"][0]["status"] == "INTERNAL_ERROR"
    assert "eyJ" not in told.stdout


def test_what_a_stranger_wrote_does_not_move_the_cursor(story: Story) -> None:
    record = next(each for each in story.letters if b"not JSON" in (each.value or b""))
    told = run(story.scene, "dead-letters", "show", f"{record.partition}/{record.offset}")

    assert "value: not JSON \\x1b[31m" in told.stdout
    assert "\x1b" not in told.stdout


def test_a_list_of_which_somebody_has_seen_enough_ends_in_silence(story: Story) -> None:
    process = command(story.scene, "list")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()

    with process.stderr:
        assert process.stderr.read() == ""
    assert process.wait(timeout=patience(60)) == 141


def test_a_place_where_nothing_stands_is_said(story: Story) -> None:
    done = run(story.scene, "dead-letters", "show", "0/99999")

    assert (done.returncode, "there is no dead letter at 0/99999" in done.stderr) == (1, True)


# --- interrupted ------------------------------------------------------------------------------------------------------


class Replaying:
    """A replay as a process that can be stopped in the middle: slowly, one command at a time."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._before = scene.count_sent()
        login = f"{sys.executable} -m worker login-token --organisation ORG1 --user mpadmin --unit 1"
        self._process = command(scene, "replay", "--yes", "--json", "--rate", "4", "--login-token-command", login)

    def stopped(self, number: signal.Signals, *, after: int) -> tuple[int, str]:
        """Return its exit code and its output, once it was sent the signal after so many commands."""
        try:
            wait_until(
                self._sent,
                lambda sent: sent >= after,
                what=f"{after} commands were sent again",
                pause=0.02,
            )
            self._process.send_signal(number)
            out, err = output_of(self._process, f"the replay ended after {number.name}")
        finally:
            self._process.kill()
        assert "Traceback" not in err, err
        assert "eyJ" not in out + err
        return self._process.returncode, out

    def _sent(self) -> int:
        exit_code = self._process.poll()
        sent = self._scene.count_sent() - self._before
        assert exit_code is None, f"it ended with {exit_code}: {self._process.communicate()}"
        return sent


@pytest.fixture
def cured(scene: Scene) -> tuple[Scene, list[str]]:
    """Return twenty dead letters whose cause is gone; the broker stamps commands itself. No worker runs."""
    scene.set_up(scene.topics.commands, "message.timestamp.type", "LogAppendTime")
    scene.execute(REFUSE)
    with scene.worker(MAX_BATCH="50"):
        codes = poisoned_load(scene, 20)
        scene.wait_consumed()
    scene.execute(CURE)
    return scene, codes


def test_a_replay_that_is_stopped_or_killed_in_the_middle_goes_on_where_it_was(cured: tuple[Scene, list[str]]) -> None:
    scene, codes = cured
    before = scene.count_sent()
    with scene.worker():
        code, said = Replaying(scene).stopped(signal.SIGINT, after=3)
        stopped = json.loads(said)
        terminated, also_said = Replaying(scene).stopped(signal.SIGTERM, after=3)
        killed, nothing = Replaying(scene).stopped(signal.SIGKILL, after=3)
        last = replayed(scene)
        scene.wait_consumed()

    assert (code, stopped["stopped"], killed, nothing) == (130, "interrupted", -signal.SIGKILL, "")
    counts = counted(stopped)
    assert counts["to be sent"] + counts.get("handed over, not confirmed", 0) + stopped["sent"] == 20
    assert 3 <= stopped["sent"] < 20
    assert (terminated, json.loads(also_said)["stopped"]) == (143, "interrupted")
    counts = counted(last)
    assert counts["left out"] >= 9
    assert counts["left out"] + counts["applied"] + counts.get("answered OK as before", 0) == 20
    assert effective(scene, codes) == {("EFFECTIVE", 1): 20}
    assert scene.count_sent() - before <= 20 + 3  # one in flight at each interruption
    check_reconciled(scene)


async def replay_now(scene: Scene, clock: Callable[[], float], seconds: float) -> Replay:
    """Run a replay whose login token is good by ``clock`` for two hours, even if a worker disagrees."""
    settings, token = read_settings(scene.settings), login_token(exp=int(clock()) + 7200)

    async def given() -> str:
        return token

    logins = LoginSource(given, clock=clock, renewable=False)
    found = await plan(settings, Chosen(), login=await logins.current())
    await carry_out(settings, found, logins, Pace(timeout=seconds), clock=time.time)
    return found


def test_what_the_broker_does_not_take_or_nobody_answers_is_said_and_can_be_sent_again(
    cured: tuple[Scene, list[str]],
) -> None:
    scene, codes = cured
    scene.set_up(scene.topics.commands, "max.message.bytes", "100")
    untaken = asyncio.run(replay_now(scene, time.time, stretched(2)))
    scene.set_up(scene.topics.commands, "max.message.bytes", "1048588")
    unanswered = asyncio.run(replay_now(scene, time.time, stretched(2)))
    with scene.worker():
        scene.wait_consumed()
        answered = asyncio.run(replay_now(scene, time.time, patience(60)))

    assert untaken.counts() == {"handed over, not confirmed": 20}
    assert untaken.stopped.endswith(" while commands were sent")
    assert unanswered.counts() == {"sent, not answered yet": 20}
    assert unanswered.stopped.endswith("is a worker running?")
    assert answered.counts() == {"left out": 20}
    assert effective(scene, codes) == {("EFFECTIVE", 1): 20}


def test_a_login_token_that_expires_on_the_way_is_refused_and_nothing_is_lost(cured: tuple[Scene, list[str]]) -> None:
    scene, codes = cured
    with scene.worker():
        refused = asyncio.run(replay_now(scene, lambda: 1_000_000_000.0, patience(60)))
        again = replayed(scene)

    assert (refused.counts(), refused.refused()) == ({"refused": 20}, {"EXPIRED_TOKEN": 20})
    assert counted(again) == {"applied": 20}
    assert effective(scene, codes) == {("EFFECTIVE", 1): 20}
