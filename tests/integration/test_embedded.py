"""The embedded stack: whole, kept or gone as asked, and never left behind (DESIGN 6)."""

import json
import os
import pwd
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import psutil
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

import worker.demo.servers.stack as stack_module
from tests.support.connections import connected
from tests.support.pace import patience
from tests.support.waiting import SECONDS, output_of, wait_until
from worker.demo.servers import EmbeddedFailed, EmbeddedUnavailable, Stack, embedded_stack

ROOT = Path(__file__).parents[2]
HOLDER = "tests.integration.stack_holder"

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


# --- the running stack -----------------------------------------------------------------------------------------------


async def test_both_roles_can_log_in_and_only_one_is_a_superuser() -> None:
    async with embedded_stack(None) as stack:
        assert await ask(stack.owner_dsn, "SELECT usesuper FROM pg_user WHERE usename = current_user") is True
        assert await ask(stack.worker_dsn, "SELECT usesuper FROM pg_user WHERE usename = current_user") is False


async def test_postgres_keeps_its_promises_at_a_power_cut() -> None:
    async with embedded_stack(None) as stack:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            assert await ask(stack.owner_dsn, "SELECT current_setting($1)", setting) == "on"


async def test_a_wrong_password_does_not_get_in() -> None:
    async with embedded_stack(None) as stack:
        password = urlsplit(stack.worker_dsn).password or ""
        with pytest.raises(asyncpg.InvalidPasswordError):
            await ask(stack.worker_dsn.replace(password, "guessed"), "SELECT 1")


async def test_passwords_are_not_shown() -> None:
    async with embedded_stack(None) as stack:
        assert "postgresql://" not in repr(stack)


Servers = Callable[[], list[psutil.Process]]


@pytest.fixture
def servers() -> Servers:
    """Return the servers started since the test began: those of other tests may be running beside them."""
    before = {process.pid for process in psutil.Process().children()}
    return lambda: [process for process in psutil.Process().children() if process.pid not in before]


async def test_a_user_without_a_name_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 2**31 - 7)
    with pytest.raises(EmbeddedUnavailable, match=f"user id {2**31 - 7}, which has no name"):
        async with embedded_stack(None):
            pass


async def test_the_servers_listen_on_this_machine_only(servers: Servers) -> None:
    async with embedded_stack(None):
        addresses = {c.laddr.ip for s in servers() for c in s.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
        assert addresses == {"127.0.0.1"}


# --- kept and dropped ------------------------------------------------------------------------------------------------


async def test_a_temporary_stack_leaves_nothing_behind(servers: Servers) -> None:
    async with embedded_stack(None) as stack:
        assert stack.directory.is_dir()
        started = [process for server in servers() for process in (server, *server.children(recursive=True))]
    assert not stack.directory.exists()
    assert len(started) > 2
    assert not [process for process in started if is_running(process.pid)]


async def test_a_stack_that_fails_inside_leaves_nothing_behind(servers: Servers) -> None:
    held: list[Stack] = []

    async def fail_inside() -> None:
        async with embedded_stack(None) as stack:
            held.append(stack)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail_inside()
    assert not held[0].directory.exists()
    assert not servers()


async def test_a_kept_stack_has_the_data_of_both_servers_again(kept: Path) -> None:
    async with embedded_stack(kept) as stack:
        await ask(stack.owner_dsn, "CREATE TABLE kept AS SELECT 7 AS seven")
        send_one(stack.bootstrap_servers, "kept-topic")
    async with embedded_stack(kept) as again:
        assert await ask(again.owner_dsn, "SELECT seven FROM kept") == 7
        assert await ask(again.worker_dsn, "SELECT 1") == 1
        assert end_of(again.bootstrap_servers, "kept-topic") == 1


async def test_a_kept_stack_that_lost_one_half_does_not_start(kept: Path) -> None:
    async with embedded_stack(kept):
        pass
    (kept / "broker").rename(kept / "elsewhere")
    with pytest.raises(EmbeddedFailed, match="has lost its broker data"):
        async with embedded_stack(kept):
            pass


async def test_a_start_that_was_cut_short_begins_anew(kept: Path) -> None:
    (kept / "stack.json").write_text(json.dumps({"complete": False, "owner": "x", "worker": "y"}), encoding="utf-8")
    (kept / "postgres").mkdir()
    async with embedded_stack(kept) as stack:
        assert await ask(stack.owner_dsn, "SELECT 1") == 1


async def test_a_directory_of_something_else_is_left_alone(kept: Path) -> None:
    (kept / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(EmbeddedFailed, match="holds something else"):
        async with embedded_stack(kept):
            pass
    assert (kept / "thesis.txt").read_text(encoding="utf-8") == "years of work"


async def test_two_stacks_do_not_share_a_directory(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack_module, "LOCK_SECONDS", 0.2)
    async with embedded_stack(kept):
        with pytest.raises(EmbeddedFailed, match="in use by another run"):
            async with embedded_stack(kept):
                pass


# --- every way to end ------------------------------------------------------------------------------------------------


def test_ctrl_c_leaves_no_process_and_no_directory() -> None:
    with holder() as held:
        held.process.send_signal(signal.SIGINT)
        held.ends()
        assert held.none_runs()
        assert not held.directory.exists()


def test_a_ctrl_c_at_the_terminal_reaches_us_and_not_the_servers() -> None:
    with holder() as held:
        own_group = os.getpgid(held.process.pid)
        assert all(os.getpgid(server) != own_group for server in held.servers)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
def test_even_sigkill_leaves_no_process() -> None:
    with holder() as held:
        held.process.kill()
        held.ends()
        wait_until(
            held.running,
            lambda pids: not pids,
            what="every server had ended by itself (the ids of those that run)",
        )
        subprocess.run(["rm", "-rf", str(held.directory)], check=True)


def test_a_stack_comes_back_after_sigkill(kept: Path) -> None:
    with holder(kept) as held:
        held.process.kill()
        held.ends()
    with holder(kept) as again:
        again.process.send_signal(signal.SIGINT)
        again.ends()
        assert again.none_runs()


# --- under any user --------------------------------------------------------------------------------------------------


@as_root
def test_as_root_postgres_runs_as_nobody() -> None:
    with holder() as held:
        owners = {psutil.Process(pid).username() for pid in held.servers if "postgres" in psutil.Process(pid).name()}
        assert owners == {"nobody"}


@as_root
async def test_as_root_a_postgres_out_of_reach_is_copied(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.demo.servers.postgres.open_to_all", lambda path: "pginstall" not in path.parts)
    for _ in range(2):
        async with embedded_stack(kept) as stack:
            assert await ask(stack.owner_dsn, "SELECT 1") == 1
    assert any(name.startswith("postgres-programs-") for name in os.listdir(kept))  # noqa: PTH208 - no pathlib in here


@as_root
async def test_as_root_a_directory_that_nobody_may_enter_is_named() -> None:
    with (
        tempfile.TemporaryDirectory() as private,
        pytest.raises(EmbeddedFailed, match=r"nobody may not enter .*choose a directory"),
    ):
        async with embedded_stack(Path(private) / "stack"):
            pass


@as_root
def test_an_ordinary_user_runs_everything_as_themselves(readable_python: list[str]) -> None:
    someone = pwd.getpwnam("nobody")
    with holder(user=someone.pw_uid, group=someone.pw_gid, python=readable_python) as held:
        assert {psutil.Process(pid).username() for pid in held.servers} == {"nobody"}
        held.process.send_signal(signal.SIGINT)
        held.ends()
        assert held.none_runs()


# --- unsuitable systems ----------------------------------------------------------------------------------------------


async def test_without_the_extra_a_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack_module, "find_spec", lambda _: None)
    monkeypatch.setattr(stack_module, "has_wheels", lambda: True)
    with pytest.raises(EmbeddedUnavailable, match=r"pip install 'effective-worker\[embedded\]'"):
        async with embedded_stack(None):
            pass


async def test_where_there_are_no_wheels_a_message_points_to_compose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack_module, "find_spec", lambda _: None)
    monkeypatch.setattr(stack_module, "has_wheels", lambda: False)
    with pytest.raises(EmbeddedUnavailable, match=r"for this platform: use deploy/compose\.yaml"):
        async with embedded_stack(None):
            pass


@pytest.mark.parametrize(
    ("system", "machine", "libc", "there_are"),
    [
        ("linux", "x86_64", "glibc", True),
        ("linux", "aarch64", "glibc", True),
        ("linux", "x86_64", "", False),
        ("linux", "riscv64", "glibc", False),
        ("darwin", "arm64", "", True),
        ("win32", "AMD64", "", False),
    ],
)
def test_wheels_exist_for_glibc_and_for_macos(
    system: str, machine: str, libc: str, there_are: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr("platform.libc_ver", lambda: (libc, ""))
    assert stack_module.has_wheels() is there_are


async def test_a_server_that_does_not_start_shows_the_end_of_its_log(kept: Path, servers: Servers) -> None:
    async with embedded_stack(kept):
        pass
    (kept / "postgres" / "PG_VERSION").write_text("9\n", encoding="utf-8")
    with pytest.raises(EmbeddedFailed, match="incompatible with"):
        async with embedded_stack(kept):
            pass
    assert not servers()


# --- helpers ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Held:
    """A program that holds a stack, and its description of it."""

    process: subprocess.Popen[str]
    directory: Path
    servers: tuple[int, ...]
    processes: tuple[int, ...]
    """The servers and the processes that they started, some of which come and go."""

    def ends(self) -> None:
        """Wait until it has ended; its servers may go on."""
        what = "the program that holds the stack ended (whether it has, its processes that run)"
        wait_until(lambda: (self.process.poll() is not None, self.running()), lambda seen: seen[0], what=what)

    def running(self) -> list[int]:
        """Return the ids of those of its processes that run now."""
        return [pid for pid in self.processes if is_running(pid)]

    def none_runs(self) -> bool:
        return not self.running()


@contextmanager
def holder(
    directory: Path | None = None, *, user: int | None = None, group: int | None = None, python: list[str] | None = None
) -> Iterator[Held]:
    """Run the holder.

    ``python`` is the command of an interpreter that the user can reach, where the usual one is not.
    """
    command = [*(python or [sys.executable]), "-m", HOLDER, *([str(directory)] if directory else [])]
    settings: dict[str, Any] = {} if user is None else {"user": user, "group": group, "extra_groups": []}
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True, **settings)
    try:
        assert process.stdout is not None
        said = json.loads(first_line(process))
        yield Held(process, Path(said["directory"]), tuple(said["servers"]), tuple(said["processes"]))
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        output_of(process, "the program that holds the stack ended")


def first_line(process: subprocess.Popen[str]) -> str:
    """Wait for the first line that it writes. A killed one writes none."""
    late = threading.Timer(patience(SECONDS), process.kill)
    late.start()
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
    finally:
        late.cancel()
    assert line, f"it ended, or was killed after {late.interval:.0f} s, before it had its stack: {process.poll()}"
    return line


@pytest.fixture
def readable_python() -> list[str]:
    """Return an interpreter with our packages that an ordinary user can start: this one, or the system's."""
    path = f"PYTHONPATH={ROOT}:{sysconfig.get_path('purelib')}"
    system = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    for command in ([sys.executable], ["/usr/bin/env", path, system]):
        if can_start_the_stack(command):
            return command
    pytest.skip("an ordinary user may not read this Python or this checkout")


def can_start_the_stack(command: list[str]) -> bool:
    someone = pwd.getpwnam("nobody")
    try:
        tried = subprocess.run(
            [*command, "-B", "-c", "import psutil, worker.demo.servers"],
            cwd=ROOT,
            capture_output=True,
            check=False,
            user=someone.pw_uid,
            group=someone.pw_gid,
            extra_groups=[],
        )
    except PermissionError:
        return False
    return tried.returncode == 0


def is_running(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


async def ask(dsn: str, query: str, *arguments: object) -> Any:
    async with connected(dsn) as connection:
        return await connection.fetchval(query, *arguments)


def send_one(bootstrap: str, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(timeout=patience(SECONDS))
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all"})
    producer.produce(topic, b"kept")
    assert producer.flush(patience(SECONDS)) == 0


def end_of(bootstrap: str, topic: str) -> int:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": uuid4().hex})
    try:
        return int(consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=patience(SECONDS))[1])
    finally:
        consumer.close()
