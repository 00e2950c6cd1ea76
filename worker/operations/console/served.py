"""The page's files and its events, as the admin port serves them."""

from collections.abc import AsyncGenerator, Mapping
from importlib.resources import files
from typing import Final

import orjson

from worker.operations.console.feed import Feed
from worker.operations.console.state import Sources, document

_FILES: Final = {
    "/": ("page.html", "text/html"),
    "/console.css": ("page.css", "text/css"),
    "/console.js": ("page.js", "text/javascript"),
}


class Console:
    """The console page of one worker."""

    def __init__(self, sources: Sources) -> None:
        here = files("worker.operations.console")
        self.files: Mapping[str, tuple[bytes, str]] = {
            path: ((here / name).read_bytes(), content_type) for path, (name, content_type) in _FILES.items()
        }
        self._sources = sources
        self._feed = Feed(self._event)

    def events(self) -> AsyncGenerator[bytes, None]:
        """Return the server-sent events for one viewer. Raises ``TooManyViewers``."""
        return self._feed.follow()

    async def _event(self) -> bytes:
        return b"data: " + orjson.dumps(await document(self._sources)) + b"\n\n"
