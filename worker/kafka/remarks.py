"""The remarks of the Kafka clients, made for their logs: an error alone does not tell which broker, nor why."""

import logging
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from aiokafka import errors as kafka

_LOGIN_REFUSED: Final = (
    kafka.AuthenticationFailedError,
    kafka.SaslAuthenticationFailed,
    kafka.UnsupportedSaslMechanismError,
    kafka.IllegalSaslStateError,
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


def in_words(error: BaseException) -> str:
    """Return what a client's error says, for people: aiokafka's own texts begin with the name of a class."""
    if isinstance(error, _LOGIN_REFUSED):
        return "the broker refuses this login (WORKER_KAFKA__SASL_…)"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return "TLS fails: is WORKER_KAFKA__SECURITY_PROTOCOL the one of this port?"
    if isinstance(error, TimeoutError | kafka.KafkaTimeoutError | kafka.RequestTimedOutError):
        return "no answer in time"
    if isinstance(error, kafka.KafkaConnectionError):
        return "the connection was closed: is WORKER_KAFKA__SECURITY_PROTOCOL the one of this port?"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    said: object = getattr(error, "description", "") or next(iter(error.args), "") or getattr(error, "message", "")
    return str(said) or "the client does not say why"
