"""The broker of the wheel ``noida-db``: one process that speaks Kafka's protocol, groups and transactions included."""

import os
import shutil
import signal
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from worker.demo.servers.processes import EmbeddedUnavailable, ServerProcess, free_port, listens

HOST: Final = "127.0.0.1"
START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 5.0


class Broker:
    """A broker that stores its topics in ``directory``, where they survive a stop. Nothing runs before ``start``."""

    def __init__(self, directory: Path, *, log: Path) -> None:
        self._directory = directory
        self._log = log
        self._port = free_port(HOST)
        self._process: ServerProcess | None = None

    @property
    def bootstrap_servers(self) -> str:
        """The address, which is the same at every start of this object."""
        return f"{HOST}:{self._port}"

    async def start(self, *, held: Sequence[int] = ()) -> None:
        """Start the broker. Safe to call if it is running.

        Raises ``EmbeddedUnavailable`` without the wheel and ``EmbeddedFailed`` if the broker does not come up.
        """
        if self._process is not None and self._process.exit_code is None:
            return
        command = [str(_program(self._directory)), "start", "--only", "kafka", "--host", HOST]
        command += ["--kafka-port", str(self._port), "--data-dir", str(self._directory)]
        self._process = ServerProcess.start(
            "the embedded broker",
            command,
            log=self._log,
            # None of its files may end up in the user's home.
            environment={"HOME": str(self._directory), "PATH": os.defpath},
            death_signal=signal.SIGTERM,
            held=held,
        )
        await self._process.ready(lambda: answers(self.bootstrap_servers), seconds=START_SECONDS)

    async def stop(self) -> None:
        """Stop the broker. Safe to call twice, and if it was never started."""
        if self._process is not None:
            await self._process.stop(seconds=STOP_SECONDS)

    def kill(self) -> None:
        """End it as a power failure would."""
        if self._process is not None:
            self._process.kill()


async def answers(bootstrap_servers: str) -> bool:
    """True if the broker at this one address describes its cluster."""
    host, _, port = bootstrap_servers.rpartition(":")
    # The client would log every refused connection as an error.
    if not await listens(host, int(port)):
        return False
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers, request_timeout_ms=2000)
    try:
        await admin.start()
        await admin.describe_cluster()
    except KafkaError:
        return False
    finally:
        await admin.close()
    return True


def _program(directory: Path) -> Path:
    spec = find_spec("noida_db")
    if spec is None or spec.origin is None:
        raise EmbeddedUnavailable("the embedded broker is not installed")
    # The wheel's own command would run between us and the broker, and leave the broker behind if killed.
    program = Path(spec.origin).parent / "noida-db"
    if not program.is_file():
        raise EmbeddedUnavailable("the installed broker has no program for this platform")
    directory.mkdir(parents=True, exist_ok=True)
    if os.access(program, os.X_OK):
        return program
    copy = directory / "noida-db"
    shutil.copyfile(program, copy)
    copy.chmod(0o755)
    return copy
