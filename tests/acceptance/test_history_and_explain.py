"""The history of an access token and the explanation of a command, as an operator sees them.

See CONTRACT, Command line.
"""

import json
import os
import subprocess
from typing import Any

import pytest

from effective_contract.transition import command_name, naming_key
from tests.acceptance.clients import Outgoing, Record
from tests.acceptance.scene import Scene, body, event_id
from tests.acceptance.worker_process import ROOT
from tests.support.logins import SECRET
from tests.support.preloaded import run_to_end

pytestmark = pytest.mark.real_kafka

DRY_RUN = ("dry_run", b"true")
ANOTHER_KEY = "another key of digests that is long"


def run(scene: Scene, *arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, **scene.settings, **{f"WORKER_{name}": value for name, value in settings.items()}}
    done = run_to_end(arguments, cwd=ROOT, env=environment)
    assert "Traceback" not in done.stderr, done.stderr
    return done


class Told:
    """A load that was worked off, and the commands' reports of it."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.code = scene.new_tokens(1)[0]
        self.sent = scene.send(
            Outgoing(body(self.code, fields_set="number"), b"a", event_id("order 7"), 1),
            Outgoing(body(self.code, fields_set="number"), b"a", event_id("order 7"), 2),
            Outgoing(body(self.code), b"a", (), 1),
            Outgoing(b"not JSON", b"a", (), 3),
            Outgoing(body("none", request_unique_identifier="order 8"), b"a", (), 0),
            Outgoing(body("none"), b"a", event_id("order 9", "/a"), 0),
            Outgoing(body("none"), b"a", event_id("order 9", "/b"), 0),
            Outgoing(body(self.code), b"a", [*event_id("order 7"), DRY_RUN], 1),
            Outgoing(body("none"), b"a", [*event_id("order 10"), DRY_RUN], 2),
            Outgoing(b"not JSON", b"a", [DRY_RUN], 2),
            Outgoing(b"not JSON either", b"a", event_id("order 11"), 3),
        )
        with scene.worker(MAX_BATCH="1"):
            self.results: list[Record] = scene.results(11)

    def explain(self, *arguments: str) -> Any:
        return json.loads(run(self.scene, "explain", *arguments, "--json").stdout)

    def id_at(self, partition: int, offset: int) -> str:
        row = self.scene.rows(
            "SELECT command_id FROM command_record JOIN lane ON lane.id = lane"
            " WHERE partition = $1 AND record_offset = $2",
            partition,
            offset,
        )
        return str(row[0]["command_id"])


@pytest.fixture(scope="module")
def told(shared_scene: Scene) -> Told:
    return Told(shared_scene)


def test_an_applied_command_is_explained_with_its_replay_and_its_transition(told: Told) -> None:
    explained = told.explain("ce:ORG1:%2Fshop:order%207")

    assert (explained["state"], explained["organisation"], explained["access_token"]) == ("decided", "ORG1", told.code)
    assert sorted((each["status"], each["replayed"]) for each in explained["readings"]) == [
        ("OK", False),
        ("OK", True),
    ]
    places = {
        (record.partition, record.offset)
        for record in told.results
        if record.header("causation_id") == b"order 7" and record.header("dry_run") is None
    }
    published = [place for each in explained["readings"] for place in each["results"]]
    assert {(place["partition"], place["offset"]) for place in published} == places
    assert len(published) == 2
    assert [each["fields"] for each in explained["readings"]] == [["number"]] * 2
    assert all(each["in_topic"] for each in explained["readings"])
    change = explained["change"]
    assert (change["version"], change["username"], change["unit_name"]) == (1, "mpadmin", "Admin Unit")


def test_a_dry_run_is_explained_by_what_its_topics_still_say(told: Told) -> None:
    partition, offset = told.sent[-2]
    subjects = [(record.header("ce_subject") or b"").decode() for record in told.results]
    [record_id] = [subject for subject in subjects if f"/{partition}/{offset}@" in subject]

    for asked, status in (
        ("ce:ORG1:%2Fshop:order%2010", "ACCESS_TOKEN_NOT_FOUND"),
        ("order 10", "ACCESS_TOKEN_NOT_FOUND"),
        (record_id, "MALFORMED_REQUEST"),
    ):
        explained = told.explain(asked)
        assert (explained["state"], explained["readings"], explained["change"]) == ("dry_run", [], None)
        [dry_run] = explained["dry_runs"]
        assert (dry_run["status"], dry_run["answer"]["partition"]) == (status, partition)
    shown = run(told.scene, "explain", record_id)
    assert (shown.returncode, "would be MALFORMED_REQUEST" in shown.stdout) == (0, True)
    assert run(told.scene, "explain", "ce:ORG1:%2Fshop:order%2010", "--no-topics").returncode == 1


@pytest.mark.parametrize("asked", ["order 7", "order 8"])
def test_a_senders_own_id_is_enough_where_it_names_one_command(told: Told, asked: str) -> None:
    assert told.explain(asked, "--no-topics")["command_id"].endswith(asked.replace(" ", "%20"))


def test_a_senders_own_id_of_several_commands_names_them(told: Told) -> None:
    done = run(told.scene, "explain", "order 9")

    assert done.returncode == 1
    assert "name one of: ce:ORG1:%2Fa:order%209, ce:ORG1:%2Fb:order%209" in done.stderr


def test_a_place_in_the_log_names_the_command_that_stood_there(told: Told) -> None:
    plain = told.id_at(1, 1)
    assert plain.startswith("rec:")
    assert told.explain(plain)["readings"][0]["status"] == "INVALID_LIFE_CYCLE_STATE"

    [row] = told.scene.rows(
        "SELECT record_timestamp FROM command_record JOIN lane ON lane.id = lane"
        " WHERE partition = 1 AND record_offset = 0"
    )
    place = plain.partition("/1@")[0] + f"/0@{row['record_timestamp']}"
    assert told.explain(place, "--no-topics")["command_id"] == "ce:ORG1:%2Fshop:order%207"


def test_a_command_that_could_not_be_read_is_explained_with_its_dead_letter(told: Told) -> None:
    [reading] = told.explain(told.id_at(3, 0))["readings"]

    assert (reading["status"], reading["organisation"]) == ("MALFORMED_REQUEST", None)
    assert [letter["topic"] for letter in reading["dead_letters"]] == [told.scene.topics.dead_letters]


def test_the_position_of_a_command_of_its_answer_and_of_its_dead_letter_name_it(told: Told) -> None:
    topics, unread = told.scene.topics, told.id_at(3, 0)
    [answer] = [each for each in told.results if (each.header("command_id") or b"").decode() == unread]
    [reading] = told.explain("3/0")["readings"]
    [letter] = reading["dead_letters"]
    for place in (
        f"{topics.commands}/3/0",
        f"{topics.results}/{answer.partition}/{answer.offset}",
        f"{topics.dead_letters}/{letter['partition']}/{letter['offset']}",
    ):
        assert told.explain(place)["command_id"] == unread
    assert told.explain("1/0", "--no-topics")["command_id"] == "ce:ORG1:%2Fshop:order%207"
    nowhere = run(told.scene, "explain", "3/4711")
    assert nowhere.returncode == 1
    assert f"nothing is recorded of {topics.commands}/3/4711, and no command, answer or dead letter" in nowhere.stderr


def test_a_senders_own_id_is_enough_where_the_command_could_not_be_read(told: Told) -> None:
    [reading] = told.explain("order 11")["readings"]
    assert (reading["status"], reading["read"]["partition"], reading["read"]["offset"]) == ("MALFORMED_REQUEST", 3, 1)


def test_a_person_reads_it_all_and_no_secret(told: Told) -> None:
    done = run(told.scene, "explain", "order 7")

    assert done.returncode == 0
    for words in (
        "read again from",
        "decided OK (replayed)",
        "NOT_EFFECTIVE → EFFECTIVE",
        "by",
        "mpadmin",
        "answered in",
    ):
        assert words in done.stdout
    assert "eyJ" not in done.stdout + done.stderr


def test_a_retired_record_is_told_from_an_unknown_one(told: Told) -> None:
    scene = told.scene
    kept = scene.rows("SELECT * FROM command_record")
    old = told.id_at(1, 1)
    scene.execute("DELETE FROM command_record")
    try:
        applied, plain = told.explain("ce:ORG1:%2Fshop:order%207"), told.explain(old)
        former = run(scene, "explain", "ce:ORG1:%2Fshop:order%207", DIGEST_KEYS=f"{ANOTHER_KEY},{SECRET}")
        without = run(scene, "explain", "ce:ORG1:%2Fshop:order%207", DIGEST_KEYS=ANOTHER_KEY)
        waiting = told.explain(old.replace("/1@", "/999@"))
        unknown = run(scene, "explain", "req:ORG1:never")
        absurd = run(scene, "explain", f"{old.partition('@')[0]}@{10**17}")
    finally:
        for row in kept:
            names, values = ", ".join(row), ", ".join(f"${n}" for n in range(1, len(row) + 1))
            scene.execute(f"INSERT INTO command_record ({names}) VALUES ({values})", *row.values())

    assert (applied["state"], applied["change"]["version"]) == ("retired", 1)
    assert "older than the retention of 30 days" in applied["note"]
    assert plain["state"] == "retired"
    assert (former.returncode, "the transition remains" in former.stdout) == (0, True)
    assert "the transition remains" not in without.stdout
    assert waiting["state"] == "waiting"
    assert (unknown.returncode, "never read" in unknown.stdout) == (1, True)
    assert "no command stands there with this timestamp" in absurd.stdout


def test_a_broker_that_is_away_leaves_what_the_database_knows(told: Told) -> None:
    done = run(told.scene, "explain", "order 7", "--json", KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:1")
    explained = json.loads(done.stdout)

    assert (done.returncode, explained["state"]) == (0, "decided")
    assert explained["topics"].startswith("not searched: kafka: ")


def test_a_history_shows_every_transition_by_id_or_by_number(told: Told) -> None:
    done = run(told.scene, "history", told.code, "--json")
    whole = json.loads(done.stdout)
    number = run(told.scene, "history", whole["number"])

    assert (done.returncode, whole["organisation"], whole["state"], whole["version"]) == (0, "ORG1", "EFFECTIVE", 1)
    [change] = whole["changes"]
    [row] = told.scene.rows("SELECT * FROM transition WHERE access_token_id = $1", told.code)
    assert (change["from_state"], change["to_state"], change["cause"]) == ("NOT_EFFECTIVE", "EFFECTIVE", "API")
    assert (change["command_id"], change["called"], change["sequence"], change["hash"]) == (
        row["command_id"],
        "ce:ORG1:%2Fshop:order%207",
        row["sequence"],
        row["hash"].hex(),
    )
    assert change["lane"].split("/")[-2] == told.scene.topics.commands
    assert all(word in number.stdout for word in ("mpadmin", "Admin", "API", whole["number"]))


def test_a_command_is_explained_by_the_name_that_its_transition_has_for_it(told: Told) -> None:
    own = told.explain("ce:ORG1:%2Fshop:order%207")
    [row] = told.scene.rows("SELECT * FROM transition WHERE access_token_id = $1", told.code)

    assert row["command_id"] == command_name(naming_key(SECRET), "ce:ORG1:%2Fshop:order%207")
    assert told.explain(row["command_id"]) == own
    assert own["change"]["command_id"] == row["command_id"]


def test_a_token_of_several_organisations_wants_one_named_and_an_unknown_one_is_told(told: Told) -> None:
    both = run(told.scene, "history", "AT0000000671")
    one = run(told.scene, "history", "AT0000000671", "--organisation", "ORG2")
    none = run(told.scene, "history", "nobody")

    assert (both.returncode, "give --organisation: ORG1, ORG2" in both.stderr) == (1, True)
    assert (one.returncode, "no transition so far" in one.stdout) == (0, True)
    assert (none.returncode, "no access token with the id or number nobody" in none.stderr) == (1, True)
