"""A headless Chromium, driven over its debugging pipe: what a page shows, and what it complains of."""

import json
import os
import shutil
import signal
import subprocess
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.support.waiting import wait_until

NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_OPTIONS: Final = (
    "--headless",
    "--no-sandbox",  # as root it does not start otherwise; it shows a page of ours only
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # A page behind another one goes on as the front one does.
    "--disable-background-timer-throttling",
    "--disable-renderer-backgrounding",
    "--remote-debugging-pipe",
)


def chromium() -> str | None:
    """Return the path of a Chromium, if there is one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """A running browser. Messages are JSON with a NUL behind each (Chrome DevTools Protocol)."""

    def __init__(self, process: subprocess.Popen[bytes], write: int, read: int) -> None:
        self.process = process
        self._write = os.fdopen(write, "wb", buffering=0)
        self._read = os.fdopen(read, "rb", buffering=0)
        self._last = 0
        self._rest = b""
        self.complaints: list[str] = []
        """Exceptions of pages, and what they or their loading wrote as errors."""

    def ask(self, method: str, session: str | None = None, **parameters: Any) -> Any:
        """Send a request and return its result. Raises ``AssertionError`` for an error."""
        self._last += 1
        request: dict[str, Any] = {"id": self._last, "method": method, "params": parameters}
        if session is not None:
            request["sessionId"] = session
        self._write.write(json.dumps(request).encode() + b"\0")
        while True:
            message = self._next()
            if message.get("id") == self._last:
                assert "error" not in message, (method, message["error"])
                return message["result"]
            self._note(message)

    def close(self) -> None:
        """Let go of the pipe, at whose end the browser ends as well."""
        self._write.close()
        self._read.close()

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            some = self._read.read(65_536)
            assert some, "the browser has ended"
            self._rest += some
        one, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(one)
        return message

    def _note(self, message: dict[str, Any]) -> None:
        kind, told = message.get("method"), message.get("params", {})
        if kind == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(told["exceptionDetails"]))
        elif kind == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.complaints.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")


class Page:
    """One page of a browser."""

    def __init__(self, browser: Browser, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        self._browser = browser
        target = browser.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session: str = browser.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._ask(f"{domain}.enable")
        self.resize(width, height)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self._ask("Emulation.setEmulatedMedia", features=scheme)

    def _ask(self, method: str, **parameters: Any) -> Any:
        return self._browser.ask(method, self._session, **parameters)

    def resize(self, width: int, height: int = 900) -> None:
        self._ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def open(self, url: str) -> "Page":
        self._ask("Page.navigate", url=url)
        return self

    def ask(self, expression: str) -> Any:
        """Return the value of an expression, or of the promise that it is."""
        told = self._ask("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def text(self, selector: str) -> str:
        """Return the text of an element as it is shown; empty if there is none."""
        return str(self.ask(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def wait_text(self, selector: str, part: str) -> str:
        """Wait until an element shows a text, and return all of its text."""
        return wait_until(lambda: self.text(selector), lambda text: part in text, what=f"{selector} showed {part!r}")

    def press(self, key: str) -> None:
        """Press and let go of a key that writes no character."""
        for kind in ("keyDown", "keyUp"):
            self._ask("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=_KEYS[key])

    def shoot(self, path: Path) -> None:
        """Write a picture of what the window shows."""
        shot = self._ask("Page.captureScreenshot", format="png")
        path.write_bytes(b64decode(shot["data"]))


_KEYS: Final = {"Tab": 9, "Enter": 13}


@contextmanager
def browser(program: str, directory: Path) -> Iterator[Browser]:
    """Run a browser with a profile in ``directory`` for the length of the block."""
    theirs_read, ours_write = os.pipe()
    ours_read, theirs_write = os.pipe()
    options = " ".join((*_OPTIONS, f"--user-data-dir={directory}"))
    process = subprocess.Popen(
        # Chromium reads requests from descriptor 3 and answers on 4.
        ["bash", "-c", f'exec "$0" {options} 3<&{theirs_read} 4>&{theirs_write}', program],
        pass_fds=(theirs_read, theirs_write),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(theirs_read)
    os.close(theirs_write)
    running = Browser(process, ours_write, ours_read)
    try:
        yield running
    finally:
        running.close()
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
