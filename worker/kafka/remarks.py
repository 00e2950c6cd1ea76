"""The remarks of the Kafka clients, made for their logs: an error alone does not tell which broker, nor why."""

import logging
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from aiokafka import errors as kafka

from worker.errors import DependencyUnavailable, in_words, kafka_away

_NO_CONNECTION: Final = (
    kafka.KafkaConnectionError,
    kafka.KafkaTimeoutError,
    kafka.NodeNotReadyError,
    kafka.RequestTimedOutError,
    OSError,
    TimeoutError,
)


@dataclass(frozen=True, slots=True)
class Remarks:
    """The errors logged so far, line by line, and the host, port and error of each connection that failed."""

    said: list[str] = field(default_factory=list)
    failed: list[tuple[str, int, BaseException]] = field(default_factory=list)

    def reasons(self) -> list[str]:
        """Return why each broker that was tried cannot be used, in words and without repetition."""
        return list(dict.fromkeys(f"{host}:{port}: {in_words(error)}" for host, port, error in self.failed))


class _Listener(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.remarks = Remarks()

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR:
            self.remarks.said.append(record.getMessage())
        match record.args:
            case (str(host), int(port), BaseException() as error):
                self.remarks.failed.append((host, port, error))


@contextmanager
def remarks(*names: str) -> Iterator[Remarks]:
    """Collect what the loggers of these names are told, and keep it out of the log. Several may listen at once."""
    listener, loggers = _Listener(), [logging.getLogger(name) for name in names or ("aiokafka",)]
    for each in loggers:
        each.addHandler(listener)
        each.propagate = False
    try:
        yield listener.remarks
    finally:
        for each in loggers:
            each.removeHandler(listener)
            each.propagate = not any(isinstance(handler, _Listener) for handler in each.handlers)


def away(error: BaseException, said: Remarks) -> DependencyUnavailable:
    """Return what a client raised as a broker that is away, with the place and the fault of each that was tried."""
    if not said.failed or not isinstance(error, _NO_CONNECTION):
        return kafka_away(error)
    return DependencyUnavailable("kafka", f"{type(error).__name__}: {error}", why_unusable(said))


def why_unusable(said: Remarks) -> str:
    """Return why no broker can be used, by the connections that failed, and the variable to check."""
    if all(map(_is_absence, (error for _, _, error in said.failed))):
        places = dict.fromkeys(f"{host}:{port} ({in_words(error)})" for host, port, error in said.failed)
        return f"no broker answers at {', '.join(places)}; check WORKER_KAFKA__BOOTSTRAP_SERVERS"
    return f"no broker can be used: {'; '.join(said.reasons())} (WORKER_KAFKA__BOOTSTRAP_SERVERS)"


def _is_absence(error: BaseException) -> bool:
    return isinstance(error, OSError | TimeoutError) and not isinstance(error, ssl.SSLError)
