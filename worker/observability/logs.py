"""Log lines: structlog and the libraries in one format on stderr, with secrets masked."""

import logging
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog
from structlog.typing import EventDict, Processor

from worker.observability.terminals import takes_colour

_SECRET_KEYS: Final = re.compile(r"token|pass_?code|dsn|secret|password|authorization|verification_code", re.IGNORECASE)
# An id or a count of access tokens is no secret.
_OPEN_KEYS: Final = re.compile(r"access_tokens?(_id)?|tokens", re.IGNORECASE)
_IN_TEXT: Final = (
    # A DSN's password.
    (re.compile(r"(\w+://[^:@/\s]*):[^@\s]*@"), r"\1:***@"),
    # A login token.
    (re.compile(r"eyJ[\w-]*\.[\w-]+\.[\w-]*"), "***"),
    # The row that Postgres quotes.
    (re.compile(r"DETAIL:.*"), "DETAIL: ***"),
)

REPEAT_SECONDS: Final = 5.0
"""Seconds for which a line of the Kafka client is not repeated."""


def configure_logging(
    level: str = "info",
    format: str | None = None,  # noqa: A002 - named like its setting
    *,
    of_libraries: bool = True,
) -> None:
    """Send every log line to stderr, structlog's and the libraries' alike.

    ``format`` is ``"json"`` or ``"console"``; unset, it is JSON when stderr is not a terminal. Without ``of_libraries``
    their lines are left out, unless the level is ``"debug"``.
    """
    as_json = format == "json" or (format is None and not sys.stderr.isatty())
    handler = _handler(as_json=as_json)
    if not of_libraries and level != "debug":
        handler.addFilter(logging.Filter("worker"))
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    # An access log line per probe is of no use, and the client repeats at INFO the worker's own lines.
    for noisy in ("aiohttp.access", "aiokafka"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLogger().level))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *_shared_processors(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def _shared_processors() -> list[Processor]:
    """Return the processors of every line, from structlog or from a library."""
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        mask_secrets,
    ]


def _handler(*, as_json: bool) -> logging.Handler:
    last: Processor = (
        structlog.processors.JSONRenderer(default=str)
        if as_json
        else structlog.dev.ConsoleRenderer(colors=takes_colour(sys.stderr, os.environ))
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_shared_processors(),
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
        )
    )
    handler.addFilter(_NotAgain())
    return handler


class _NotAgain(logging.Filter):
    """A filter on the Kafka client's lines, which it would repeat a thousand times a second without its broker."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._said: dict[tuple[str, int], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith("aiokafka"):
            return True
        now, line = self._clock(), (record.name, record.lineno)
        if now - self._said.get(line, -REPEAT_SECONDS) < REPEAT_SECONDS:
            return False
        self._said[line] = now
        return True


def mask_secrets(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Mask secrets, as a structlog processor: the values of keys that sound secret, and text that looks it."""
    return {key: _masked(key, value) for key, value in event.items()}


def masked_text(text: str) -> str:
    """Mask what looks secret in a text."""
    for pattern, replacement in _IN_TEXT:
        text = pattern.sub(replacement, text)
    return text


def _masked(key: str, value: Any) -> Any:
    if _SECRET_KEYS.search(key) and not _OPEN_KEYS.fullmatch(key):
        return "***"
    if isinstance(value, str):
        return masked_text(value)
    if isinstance(value, Mapping):
        return {inner: _masked(str(inner), item) for inner, item in value.items()}
    if isinstance(value, list | tuple):
        return [_masked("", item) for item in value]
    return value
