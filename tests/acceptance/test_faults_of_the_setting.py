"""What a person must mend is no outage: a worker that starts ends and says what, and one at work waits and says so."""

import asyncio
from typing import Final

import pytest

from tests.acceptance.scene import Load, Scene
from worker.migrate import apply_migrations

pytestmark = pytest.mark.real_kafka

NO_RIGHT: Final = "REVOKE INSERT ON transition FROM effective_worker"


def ends(scene: Scene, **settings: str) -> tuple[int, str]:
    """A worker that cannot start: its exit code, and the line that it ends with."""
    worker = scene.worker(**settings).start()
    try:
        code = worker.wait_end()
        assert worker.events("dependency_away") == []
        assert "Traceback" not in worker.logs()
        return code, worker.logs().splitlines()[-1]
    finally:
        worker.kill()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("DELETE FROM _pogo_migration WHERE migration_id LIKE '0004%'", "the schema is older than this worker"),
        (NO_RIGHT, "worker_login lacks INSERT on transition. Grant them with: effective-worker migrate"),
    ],
)
def test_a_worker_whose_schema_or_rights_are_not_there_exits_1(scene: Scene, change: str, said: str) -> None:
    scene.execute(change)
    code, line = ends(scene)
    assert code == 1
    assert line.startswith(f"error: {said}")


def test_rights_that_are_revoked_at_work_are_named_and_burn_no_command(scene: Scene) -> None:
    load = Load(scene, scene.new_tokens(20))
    with scene.worker() as worker:
        scene.execute(NO_RIGHT)
        load.send(1, 20)
        document = worker.wait_unready("postgres is unfit: InsufficientPrivilegeError (42501): permission denied")
        assert "effective-worker migrate" in document["reason"]
        assert worker.events("dependency_unfit")
        assert worker.events("dependency_away") == []
        asyncio.run(apply_migrations(scene.database.owner_dsn, scene.database.worker_dsn))
        scene.wait_consumed()
        worker.wait_ready()
        assert worker.terminate() == 0
    load.check_exactly_once()
