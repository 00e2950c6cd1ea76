"""Faults that a person must fix are no outage: a worker that starts ends and names them, a running one waits."""

import asyncio
from typing import Final
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import pytest

from tests.acceptance.scene import Load, Scene
from worker.postgres.migrate import apply_migrations

pytestmark = pytest.mark.real_kafka

NO_RIGHT: Final = "REVOKE INSERT ON transition FROM effective_worker"

AT_EACH_LOGIN: Final = """
CREATE FUNCTION at_each_login() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('statement_timeout', '1h', false);
END $$;
CREATE EVENT TRIGGER at_each_login ON login EXECUTE FUNCTION at_each_login();
"""


def changed(dsn: str, *, user: str = "", password: str = "", **parts: str) -> str:
    """Return the same DSN with some of its parts replaced."""
    split = urlsplit(dsn)
    login = f"{user or split.username}:{password or split.password}"
    return urlunsplit(split._replace(netloc=f"{login}@{split.hostname}:{split.port}", **parts))


def ends(scene: Scene, **settings: str) -> tuple[int, str]:
    """Start a worker that cannot start; return its exit code, and the line that it ends with."""
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


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (
            {"password": "canary"},
            'password authentication failed for user "worker_login" (28P01)',
        ),
        ({"user": "nobody_of_that_name"}, 'password authentication failed for user "nobody_of_that_name" (28P01)'),
        ({"path": "/no_such_database"}, 'database "no_such_database" does not exist (3D000)'),
        ({"query": "sslmode=require"}, "the server does not do TLS, which sslmode demands"),
        ({"query": "sslmode=verify-all"}, "sslmode must be one of disable, allow, prefer, require"),
        ({"query": "connect_timeout=never"}, "connect_timeout must be a whole number of seconds"),
        ({"password": "can/ary"}, "in a user name or password @ must be written as %40"),
    ],
)
def test_a_worker_whose_dsn_is_wrong_exits_2_and_names_the_variable(
    scene: Scene, wrong: dict[str, str], said: str
) -> None:
    code, line = ends(scene, POSTGRES__DSN=changed(scene.database.worker_dsn, **wrong))
    assert code == 2
    assert line.startswith("error: WORKER_POSTGRES__DSN: ")
    assert said in line
    assert "ary" not in line


def test_a_worker_whose_sessions_are_not_as_it_sets_them_up_exits_1(scene: Scene) -> None:
    version = scene.rows("SELECT current_setting('server_version_num')::int AS number")[0]["number"]
    if version < 170_000:
        pytest.skip("before Postgres 17 there are no triggers of a login")
    scene.execute(AT_EACH_LOGIN)
    code, line = ends(scene)
    assert code == 1
    assert "sessions are not as the worker sets them up: statement_timeout is 1h, not 10s" in line


def test_a_password_that_is_changed_at_work_is_named_and_waited_for(scene: Scene) -> None:
    load = Load(scene, scene.new_tokens(20))
    login = f"login_{uuid4().hex[:8]}"
    scene.execute(f"CREATE ROLE {login} LOGIN PASSWORD 'first' IN ROLE effective_worker")
    with scene.worker(POSTGRES__DSN=changed(scene.database.worker_dsn, user=login, password="first")) as worker:
        scene.execute(f"ALTER ROLE {login} PASSWORD 'second'")
        scene.rows(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{login}'")
        load.send(1, 20)
        worker.wait_unready("postgres is unfit: password authentication failed for user")
        scene.execute(f"ALTER ROLE {login} PASSWORD 'first'")
        scene.wait_consumed()
        worker.wait_ready()
        assert worker.terminate() == 0
    load.check_exactly_once()
    scene.execute(f"DROP ROLE {login}")


def test_rights_that_are_revoked_at_work_are_named_and_burn_no_command(scene: Scene) -> None:
    load = Load(scene, scene.new_tokens(20))
    with scene.worker() as worker:
        scene.execute(NO_RIGHT)
        load.send(1, 20)
        document = worker.wait_unready("postgres is unfit: permission denied for table transition (42501)")
        assert "effective-worker migrate" in document["reason"]
        assert worker.events("dependency_unfit")
        assert worker.events("dependency_away") == []
        asyncio.run(apply_migrations(scene.database.owner_dsn, scene.database.worker_dsn))
        scene.wait_consumed()
        worker.wait_ready()
        assert worker.terminate() == 0
    load.check_exactly_once()
