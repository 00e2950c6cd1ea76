"""The worker as an operator runs it: a process of its own, controlled by its environment and by signals."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar
from uuid import uuid4

import tests.support.preloaded
from tests.providers.kafka import TopicNames
from tests.support import waiting
from tests.support.logins import SECRET
from tests.support.pace import in_milliseconds, patience, stretched
from tests.support.preloaded import Program
from tests.support.settings import variables_for

ROOT: Final = Path(__file__).parents[2]
SECONDS: Final = waiting.SECONDS
USUAL: Final = ("-m", "worker", "run")
LAST_LINES: Final = 60
"""Lines of its log that an error of a failed wait shows."""

T = TypeVar("T")


class Ended(AssertionError):
    """The worker ended during a wait."""


def worker_settings(bootstrap: str, topics: TopicNames, dsn: str, *, group: str | None = None) -> dict[str, str]:
    """Return the environment of a test's own worker: quick to notice dead peers, and on a free port."""
    return {
        **variables_for(bootstrap, topics),
        "WORKER_KAFKA__GROUP_ID": group or f"group-{uuid4().hex[:12]}",
        "WORKER_KAFKA__SESSION_TIMEOUT_MS": in_milliseconds(6),
        "WORKER_KAFKA__REQUEST_TIMEOUT_MS": in_milliseconds(9),
        "WORKER_KAFKA__TRANSACTION_TIMEOUT_MS": in_milliseconds(10),
        "WORKER_POSTGRES__DSN": dsn,
        "WORKER_LOGIN__SECRETS": SECRET,
        "WORKER_DRAIN_SECONDS": f"{stretched(10):.0f}",
        "WORKER_ADMIN__PORT": "0",
        "WORKER_LOG__FORMAT": "json",
    }


class WorkerProcess:
    """``python -m worker run``. A context manager: whatever happens in the block, the process is gone after it.

    ``settings`` are WORKER_ variables; ``command`` replaces the program, for workers with a fault built in.
    ``preloaded`` spares a standard worker the cost of its imports (``tests.support.preloaded``).
    """

    def __init__(
        self,
        settings: Mapping[str, str],
        directory: Path,
        *,
        command: Sequence[str] = USUAL,
        preloaded: bool = False,
    ) -> None:
        self.settings = dict(settings)
        self._preloaded = preloaded and tests.support.preloaded.SUPPORTED and command == USUAL
        self._command = [sys.executable, *command]
        self._log = directory / f"worker-{uuid4().hex[:8]}.log"
        self._process: subprocess.Popen[bytes] | Program | None = None

    @property
    def group(self) -> str:
        """Return its consumer group."""
        return self.settings["WORKER_KAFKA__GROUP_ID"]

    @property
    def pid(self) -> int:
        return self._running.pid

    @property
    def exit_code(self) -> int | None:
        """Return ``None`` as long as it runs; minus the signal's number if a signal ended it."""
        return self._running.poll()

    def start(self) -> "WorkerProcess":
        """Start it, and return at once."""
        # Also found from here: a test may have put its own ahead.
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        environment = {**os.environ, **self.settings, "PYTHONPATH": path}
        with self._log.open("ab") as log:
            if self._preloaded:
                self._process = tests.support.preloaded.start(
                    ["run"], cwd=ROOT, env=environment, stdout=log, stderr=log
                )
                return self
            self._process = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self

    def __enter__(self) -> "WorkerProcess":
        return self.start().wait_ready()

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.kill()

    def wait_ready(self, seconds: float = SECONDS) -> "WorkerProcess":
        """Wait until ``/readyz`` says yes. Raises ``Ended`` or ``TooLate``, with the logs, if it ends or does not."""
        self.wait(lambda: self.probe("/readyz"), "is ready", seconds, wanted=lambda answer: answer[0] == 200)
        return self

    def wait_unready(self, reason: str, seconds: float = SECONDS) -> dict[str, Any]:
        """Wait until ``/readyz`` says no for ``reason``, a part of the one it gives; return the document."""

        def is_said(answer: tuple[int, Any]) -> bool:
            return answer[0] == 503 and reason in answer[1]["reason"]

        answer = self.wait(lambda: self.probe("/readyz"), f"says that {reason}", seconds, wanted=is_said)
        document: dict[str, Any] = answer[1]
        return document

    def wait_event(self, event: str, seconds: float = SECONDS) -> dict[str, Any]:
        """Wait for the first log line of that name, and return it."""
        return self.wait(lambda: self.events(event), f"logs {event}", seconds)[0]

    def wait(
        self, look: Callable[[], T], what: str, seconds: float = SECONDS, *, wanted: Callable[[T], object] = bool
    ) -> T:
        """Look until the result is ``wanted``, and return it.

        Raises ``Ended`` if the worker ends before, or ``TooLate``: with the last result and the end of the log.
        """

        def looked() -> T:
            # In this order: its actions before it ended count.
            exit_code = self.exit_code
            seen = look()
            if exit_code is not None and not wanted(seen):
                last = f"last seen: {waiting.shown(seen)}\n{self._state()}"
                raise Ended(f"the worker ended with {exit_code} before it {what}; {last}")
            return seen

        return waiting.wait_until(looked, wanted, what=f"the worker {what}", seconds=seconds, tell=self._state)

    def probe(self, path: str) -> tuple[int, Any]:
        """Return status and document of ``/livez`` or ``/readyz``; status 0 while nothing listens."""
        status, body = self._get(path)
        return status, json.loads(body) if body else None

    def metrics(self) -> str:
        """Return the text of ``/metrics``."""
        status, body = self._get("/metrics")
        assert status == 200
        return body.decode()

    def event(self) -> str:
        """Return the first event of the console page."""
        with urllib.request.urlopen(f"{self.admin}/events", timeout=patience(20)) as events:
            line: bytes = events.readline()
        return line.decode()

    def terminate(self, seconds: float = SECONDS) -> int:
        """Send SIGTERM, wait until it has drained and ended, and return its exit code."""
        return self.signal_and_wait(signal.SIGTERM, seconds)

    def signal_and_wait(self, which: signal.Signals, seconds: float = SECONDS) -> int:
        """Send the signal and return the exit code. Raises ``TooLate``, with the logs, if it does not end."""
        self._running.send_signal(which)
        return self.wait_end(seconds, what=f"ended after {which.name}")

    def wait_end(self, seconds: float = SECONDS, *, what: str = "ended by itself") -> int:
        """Wait until it ends by itself, and return its exit code. Raises ``TooLate``, with the logs, if it does not."""
        try:
            return self._running.wait(patience(seconds))
        except subprocess.TimeoutExpired:
            late = waiting.TooLate(f"{patience(seconds):.0f} s went by before the worker {what}\n{self._state()}")
            self.kill()
            raise late from None

    def pause(self) -> None:
        """Send SIGSTOP: to all others it looks dead."""
        self._running.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Send SIGCONT: it goes on as if no time had passed."""
        self._running.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Send SIGKILL. Safe to call twice."""
        self._running.kill()
        self._running.wait()

    def logs(self) -> str:
        """Return its whole output so far, over every start."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def events(self, event: str | None = None) -> list[dict[str, Any]]:
        """Return its log lines, those of one name if given. Lines that are no JSON object are left out."""
        found = []
        for line in self.logs().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and event in {None, entry.get("event")}:
                found.append(entry)
        return found

    def _state(self) -> str:
        """Return its known state, for an error of a failed wait."""
        lines = self.logs().splitlines()
        status, document = self.probe("/readyz")
        return "\n".join(
            [
                f"exit code: {self.exit_code}; /readyz: {status} {json.dumps(document)}",
                f"the last {min(len(lines), LAST_LINES)} of {len(lines)} lines of {self._log}:",
                *lines[-LAST_LINES:],
            ]
        )

    @property
    def _running(self) -> subprocess.Popen[bytes] | Program:
        assert self._process is not None, "the worker was not started"
        return self._process

    @property
    def admin(self) -> str:
        """The address of its admin port, without a slash at the end; empty before it listens."""
        announced = self.events("admin_listening")
        # The last one: the process may have been started again.
        return f"http://127.0.0.1:{announced[-1]['port']}" if announced else ""

    def _get(self, path: str) -> tuple[int, bytes]:
        if not self.admin:
            return 0, b""
        try:
            with urllib.request.urlopen(self.admin + path, timeout=patience(20)) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()
        except OSError:
            return 0, b""
