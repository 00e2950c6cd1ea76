"""An import into a database restored to before the announcements of imports (CONTRACT, Command line, ``import``)."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from confluent_kafka.admin._acl import AclBinding, AclOperation, AclPermissionType
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType

from effective_contract.transition import verify_chain
from tests.acceptance.scene import Scene, answer
from tests.acceptance.test_first_states import imported, lines, run
from tests.support.pace import patience
from worker.demo.servers.processes import free_port

pytestmark = pytest.mark.real_kafka

KNOWN: Final = 10
ANNOUNCED: Final = 25


def put_back(scene: Scene) -> Scene:
    """Return the scene with a copy of its database as it is now, which is the result of a restore."""
    copy = asyncio.run(scene.postgres.copy(scene.database.name))
    return replace(scene, database=copy, settings=scene.settings | {"WORKER_POSTGRES__DSN": copy.worker_dsn})


@pytest.fixture
def older(scene: Scene, tmp_path: Path) -> Iterator[Scene]:
    """Yield a scene whose database knows some of the first states that were announced."""
    imported(scene, str(lines(tmp_path / "known.ndjson", KNOWN)))
    backup = put_back(scene)
    try:
        imported(scene, str(lines(tmp_path / "lost.ndjson", ANNOUNCED - KNOWN, first=KNOWN + 1)))
        yield backup
    finally:
        asyncio.run(scene.postgres.drop(backup.database.name))


def announced(scene: Scene) -> list[dict[str, Any]]:
    """Return the events of imports in the topic, by sequence."""
    events = [answer(record) for record in scene.transitions()]
    return sorted((event for event in events if event["lane"] == "import"), key=lambda event: event["sequence"])


def numbers(scene: Scene) -> list[int]:
    return [event["sequence"] for event in announced(scene)]


def test_an_import_is_refused_before_it_does_anything_and_goes_on_behind_once_a_person_says_so(
    older: Scene, tmp_path: Path
) -> None:
    held, said = older.every_table(), announced(older)
    file = str(lines(tmp_path / "new.ndjson", 5, first=50))
    for arguments in ([file], [file, "--no-events"], [file, "--from-start", "--json"]):
        done = run(older, "import", *arguments)
        assert done.returncode == 1
        if "--json" in arguments:
            assert "announced up to sequence 25" in json.loads(done.stdout)["error"]
        else:
            assert done.stdout == ""
        assert "announced up to sequence 25, and this database knows of 10 events of theirs only" in done.stderr
        assert "effective-worker import --mend" in done.stderr
    shown = run(older, "import", "--mend")
    assert shown.returncode == 0
    assert "nothing was changed; do it with --yes" in shown.stdout
    assert older.every_table() == held
    assert announced(older) == said

    assert run(older, "import", "--mend", "--yes").stdout.endswith("done: imports go on\n")
    assert run(older, "import", "--mend").stdout == "nothing keeps imports from going on\n"
    assert run(older, "audit", "anchor").returncode == 1  # the head is of an event that is lost
    assert imported(older, file, "--no-events")["events"] is None
    assert imported(older, str(lines(tmp_path / "more.ndjson", 5, first=55)))["events"]["published"] == 10
    assert numbers(older) == list(range(1, ANNOUNCED + 11))
    assert verify_chain(announced(older)) is None
    verified = run(older, "audit", "verify")
    assert (verified.returncode, f"sequence {KNOWN + 1} to {ANNOUNCED}" in verified.stdout) == (1, True)
    assert run(older, "audit", "anchor").returncode == 0


def test_what_was_loaded_while_the_broker_was_away_is_not_announced_under_numbers_that_were_said(
    older: Scene, tmp_path: Path
) -> None:
    said = announced(older)
    away = {"KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port('127.0.0.1')}"}
    loaded = run(older, "import", str(lines(tmp_path / "new.ndjson", 20, first=50)), "--no-events", **away)
    assert loaded.returncode == 0
    assert "whether the database is older than what was announced is not known: kafka: " in loaded.stderr
    done = run(older, "import", "--announce")
    assert done.returncode == 1
    assert "up to sequence 25, and this database has another event there, of 30" in done.stderr
    assert announced(older) == said

    mended = run(older, "import", "--mend", "--yes")
    assert mended.returncode == 0
    assert "in the topic the hashes break there, once" in mended.stdout
    assert run(older, "import", "--announce").stdout == "5 first states announced\n"
    assert numbers(older) == list(range(1, 31))
    assert announced(older)[:ANNOUNCED] == said


def test_an_empty_database_is_known_for_what_it_is_and_may_go_on(scene: Scene, tmp_path: Path) -> None:
    empty = put_back(scene)
    try:
        imported(scene, str(lines(tmp_path / "old.ndjson", 3)))
        file = str(lines(tmp_path / "new.ndjson", 2, first=50))
        done = run(empty, "import", file)
        assert done.returncode == 1
        assert "up to sequence 3, and this database knows of 0 events of theirs only" in done.stderr
        assert run(empty, "import", "--mend", "--yes").returncode == 0
        imported(empty, file)
        assert numbers(empty) == [1, 2, 3, 4, 5]
    finally:
        asyncio.run(scene.postgres.drop(empty.database.name))


def test_who_may_not_keep_the_mark_is_told_so_and_imports_all_the_same(guarded: Scene, tmp_path: Path) -> None:
    group = f"{guarded.group}.import"
    place = (ResourceType.GROUP, group, ResourcePatternType.LITERAL, "User:ANONYMOUS", "*")
    rules = [
        AclBinding(*place, AclOperation.READ, AclPermissionType.DENY),
        AclBinding(*place, AclOperation.DESCRIBE, AclPermissionType.ALLOW),
    ]
    admin = guarded.admin()
    for made in admin.create_acls(rules).values():
        made.result(timeout=patience(60))

    done = run(guarded, "import", str(lines(tmp_path / "new.ndjson", 3)))

    assert (done.returncode, numbers(guarded)) == (0, [1, 2, 3])
    assert f"allow READ on the group {group}" in done.stderr
    assert f"allow READ on the group {group}" in run(guarded, "check").stdout
