"""Commands that the log has lost before they were answered are reported until a person has acted (DESIGN 2)."""

import json
from typing import Any

import pytest
from confluent_kafka import TopicPartition

from tests.acceptance.clients import Outgoing
from tests.acceptance.scene import Scene, answer, body, history
from tests.acceptance.test_history_and_explain import run
from tests.acceptance.worker_process import WorkerProcess
from tests.faults.worker import faulty
from tests.support.pace import patience

pytestmark = pytest.mark.real_kafka

PLACE = 1


def send(scene: Scene, count: int, prefix: str) -> None:
    scene.send(*(Outgoing(body(code), partition=PLACE) for code in scene.new_tokens(count, prefix=prefix)))


def remove(scene: Scene, before: int) -> None:
    """Remove the beginning of the partition, as retention does, read or not."""
    admin = scene.admin()
    wanted = TopicPartition(scene.topics.commands, PLACE, before)
    for removed in admin.delete_records([wanted]).values():
        removed.result(timeout=patience(60))


def said(worker: WorkerProcess) -> str:
    """Return the reason that it gives once it is ready: a busy machine may let a heartbeat wait."""
    _, document = worker.wait(lambda: worker.probe("/readyz"), "is ready", wanted=lambda answer: answer[0] == 200)
    return str(document["reason"])


def shown(scene: Scene) -> dict[str, Any]:
    lane: dict[str, Any] = json.loads(run(scene, "lanes", "show", str(PLACE), "--json").stdout)
    return lane


def test_what_was_removed_unread_is_told_until_a_person_acknowledges_it(scene: Scene) -> None:
    send(scene, 8, "before")
    with scene.worker() as worker:
        scene.wait_consumed()
        assert worker.terminate() == 0
    send(scene, 5, "after")
    remove(scene, 11)
    early = run(scene, "reconcile")
    assert (early.returncode, "offsets 8 to 10" in early.stdout) == (1, True), early.stdout

    with scene.worker() as worker:
        scene.results(8 + 2)
        [event] = worker.events("commands_lost")
        assert (event["level"], event["first"], event["last"]) == ("error", 8, 10)
        assert "partition 1 has lost commands before they were answered, at offsets 8 to 10" in said(worker)
        assert "effective_worker_commands_lost_total 3.0" in worker.metrics()
        found = run(scene, "reconcile")
        assert (found.returncode, "commands that were removed unanswered" in found.stdout) == (1, True), found.stdout
        listed = run(scene, "lanes", "list")
        assert (listed.returncode, "/1 has lost offsets 8 to 10" in listed.stdout) == (1, True), listed.stdout
        assert [loss["acknowledged_at"] for loss in shown(scene)["lost"]] == [None]

        assert "nothing was changed" in run(scene, "lanes", "acknowledge").stdout
        assert "has lost" in said(worker)
        owner = {"POSTGRES__OWNER_DSN": scene.database.owner_dsn}
        assert run(scene, "lanes", "acknowledge", "1", "--yes", **owner).stdout.endswith("acknowledged\n")
        worker.wait(lambda: said(worker), "is silent about what was acknowledged", wanted=lambda it: "lost" not in it)
        assert worker.terminate() == 0

    assert run(scene, "lanes", "list").returncode == 0
    clean = run(scene, "reconcile")
    assert clean.returncode == 0, clean.stdout
    [loss] = shown(scene)["lost"]
    assert (loss["from_offset"], loss["to_offset"], loss["acknowledged_at"] is None) == (8, 10, False)
    with scene.worker() as worker:
        send(scene, 1, "last")
        scene.results(8 + 2 + 1)
        assert not worker.events("commands_lost")
        assert worker.terminate() == 0


def test_what_is_removed_unread_under_a_worker_is_told(scene: Scene) -> None:
    with scene.worker() as worker:
        send(scene, 1, "first")
        scene.results(1)
        worker.pause()
        # The worker may hold the first of them already: the broker sends it at once, also to a consumer that stands
        # still.
        send(scene, 1, "fetched")
        send(scene, 4, "unread")
        remove(scene, 5)
        worker.resume()
        worker.wait_event("commands_lost")
        scene.wait_consumed()
        assert "has lost commands before they were answered" in said(worker)
        assert worker.terminate() == 0

    answered = [answer(record)["data"]["authentication_code"] for record in scene.seen(scene.topics.results)]
    assert answered in (["first-1", "unread-4"], ["first-1", "fetched-1", "unread-4"])
    lost = [(loss["from_offset"], loss["to_offset"]) for loss in shown(scene)["lost"]]
    assert lost == [(len(answered) - 1, 4)]


def test_transitions_whose_commands_are_gone_are_published_all_the_same(scene: Scene) -> None:
    send(scene, 6, "decided")
    scene.worker(command=faulty("between_the_commits:1:SIGKILL")).start().wait_end(what="was killed in between")
    decided = len(history(scene))
    assert decided
    assert scene.transitions() == []
    remove(scene, 6)
    send(scene, 1, "last")
    with scene.worker() as worker:
        scene.wait_consumed()
        assert f"({'all of them' if decided == 6 else f'those below {decided}'} decided, and not told)" in said(worker)
        assert worker.terminate() == 0

    assert len(scene.transitions()) == len(history(scene)) == decided + 1
    verified = run(scene, "audit", "verify")
    assert verified.returncode == 0, verified.stdout
    owner = {"POSTGRES__OWNER_DSN": scene.database.owner_dsn}
    run(scene, "lanes", "acknowledge", "--yes", **owner)
    compared = run(scene, "reconcile")
    assert compared.returncode == 0, compared.stdout
