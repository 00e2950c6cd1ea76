"""The error tree, and the one border where the errors of asyncpg and aiokafka are mapped to it.

A refusal is an answer and never an exception. The errors here stop a batch, a lane or the process (DESIGN 3)::

    WorkerError
    ├── ProtocolError              the worker handles it
    │   ├── DependencyUnavailable    wait, and try again
    │   │   ├── StatementTimeout
    │   │   └── Unfit                  until mended: LoginRefused, SessionUnfit, OutOfDescriptors, ClockRefused
    │   ├── BreakerOpen              pause the lane
    │   ├── BatchRefused             halve the batch
    │   ├── BatchConflict            run the batch again
    │   ├── LaneLost                 restart the lane
    │   ├── LaneBlocked              leave the lane to a person; LaneContradicted: for as long as its row says so
    │   ├── OutcomeUnknown           replace the producer: MessageTooLarge, StampsRefused, Fenced
    │   └── ClientStuck              end the process
    ├── OperatorError              a person mends it: SettingsError, SchemaUnfit, those of operations/ …
    ├── BackgroundFailed           a bug beside the lanes: end the process
    └── Unreadable                 a sender's data: answer the command as malformed
"""

import errno
import os
import re
import socket
import ssl
from typing import Any, ClassVar, Final

import asyncpg
from aiokafka import errors as kafka

MORE_DESCRIPTORS: Final = "Raise the hard limit (ulimit -Hn, LimitNOFILE=)"


class WorkerError(Exception):
    """The root of every error that this package raises on purpose."""


class ProtocolError(WorkerError):
    """An error that the worker handles itself: it waits, halves the batch, restarts the lane, or ends the process."""


class OperatorError(WorkerError):
    """An error that a person must mend. Its text says what happened, to what, and what to do."""


class DependencyUnavailable(ProtocolError):
    """Postgres or the broker cannot work now: wait and try again without end; nothing is dead-lettered.

    Health and the log show ``state`` and ``event``. The log has ``reason``, which may name a class; health and the
    commands have ``told`` in its place, which says where and what to check.
    """

    state: ClassVar[str] = "is away"
    event: ClassVar[str] = "dependency_away"

    def __init__(self, dependency: str, reason: str, told: str = "") -> None:
        super().__init__(f"{dependency}: {told or reason}")
        self.dependency = dependency
        self.reason = reason
        self.told = told or reason


class StatementTimeout(DependencyUnavailable):
    """One statement took too long: Postgres is overloaded, or one command is more than it can carry out."""


class Unfit(DependencyUnavailable):
    """A dependency is there but unusable until an operator mends it: no start, and at work the worker waits for it."""

    state: ClassVar[str] = "is unfit"
    event: ClassVar[str] = "dependency_unfit"


class LoginRefused(Unfit):
    """The server refuses the login that the DSN names, or its method; ``what`` is the text without the variable."""

    def __init__(self, what: str, told: str = "") -> None:
        self.what = f"{told or what}; check user, password, database and sslmode in it"
        way_out = (
            "; check user, password, database and sslmode in WORKER_POSTGRES__DSN, for migrate and import in"
            " WORKER_POSTGRES__OWNER_DSN if that is set"
        )
        super().__init__("postgres", f"{what}{way_out}", f"{told or what}{way_out}")


class SessionUnfit(Unfit):
    """Settings that the worker makes in its sessions do not hold in them."""

    def __init__(self, what: str) -> None:
        super().__init__(
            "postgres",
            f"sessions are not as the worker sets them up: {what}. A pooler or a login trigger is in the way: connect"
            " without it, or let it pass over them (PgBouncer: ignore_startup_parameters) and set the same for the"
            " worker's role (ALTER ROLE ... SET)",
        )


class OutOfDescriptors(Unfit):
    """The worker itself, or its machine, can open neither a file nor a socket: neither dependency is to blame."""

    state: ClassVar[str] = "are used up"
    event: ClassVar[str] = "descriptors_used_up"

    def __init__(self, error: OSError) -> None:
        whose = "this process" if error.errno == errno.EMFILE else "the whole machine"
        super().__init__(
            "descriptors",
            f"{error.strerror}, which is a limit of {whose}. {MORE_DESCRIPTORS}, or give each worker fewer partitions;"
            " effective-worker check tells how many the limit allows",
        )


class ClockRefused(Unfit):
    """The broker refuses the timestamps that this machine's clock puts on records: Kafka itself is not to blame."""

    state: ClassVar[str] = "is wrong"
    event: ClassVar[str] = "clock_refused"

    def __init__(self) -> None:
        super().__init__(
            "clock",
            "the clock of this machine is ahead of what the broker takes (message.timestamp.after.max.ms), or behind"
            " it, if a topic has a message.timestamp.before.max.ms: set it right",
        )


class BreakerOpen(ProtocolError):
    """Too many commands have failed for it to be their own fault: the lane pauses, and nothing more is given up."""

    def __init__(self) -> None:
        super().__init__("too many of the last commands ended in INTERNAL_ERROR: see their dead letters for the reason")


class BatchRefused(ProtocolError):
    """Postgres refused the batch because of a row in it: halve the batch until the bad command stands alone."""

    def __init__(self, reason: str, told: str = "") -> None:
        super().__init__(told or reason)
        self.reason = reason


class BatchConflict(ProtocolError):
    """The state that the batch was decided on changed before it could commit: it was rolled back and is run again."""


class Unreadable(WorkerError):
    """A sender's data cannot be read, or not within the bounds: the record is answered as malformed, and passed."""


class LaneLost(ProtocolError):
    """Another worker owns the lane, or the lane no longer knows its position: it restarts at its first step."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class LaneBlocked(ProtocolError):
    """Postgres and Kafka contradict each other about the offsets: the lane waits for an operator to mend it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class LaneContradicted(LaneBlocked):
    """The lane's decisions do not belong to this log, or are lost.

    Its row keeps that, whatever log and offsets are like later.
    """


class OutcomeUnknown(ProtocolError):
    """A Kafka transaction failed or its outcome is unknown: the producer must be replaced and the offset read.

    ``to_blame`` are the topics that alone did not take their records, or that may not be written to.
    """

    def __init__(self, reason: str, to_blame: frozenset[str] = frozenset(), *, told: str = "") -> None:
        super().__init__(told or reason)
        self.reason = reason
        self.to_blame = to_blame


class MessageTooLarge(OutcomeUnknown):
    """The broker will never take one of the answers (too large): publish in halves until it stands alone."""


class StampsRefused(OutcomeUnknown):
    """One of the worker's own topics refuses the time that the clock has put on a record."""


class Fenced(OutcomeUnknown):
    """A newer producer holds the lane's transactional id."""


class ClientStuck(ProtocolError):
    """A background task of the Kafka client has died, or a lane starves: only a new process helps."""


DEPENDENCIES = ("postgres", "kafka", "descriptors")
"""The dependencies that a lane has found there once it has started (``DependencyUnavailable.dependency``).

Not the clock: it counts as right until the broker refuses its time, and a start proves nothing about it.
"""

# --- in words ---------------------------------------------------------------------------------------------------------

_ADDRESS: Final = re.compile(r"\('([^']+)', (\d+)")
_ERRNO: Final = re.compile(r"\[Errno (\d+)\]")
_LOGIN_REFUSED: Final = (
    kafka.AuthenticationFailedError,
    kafka.SaslAuthenticationFailed,
    kafka.UnsupportedSaslMechanismError,
    kafka.IllegalSaslStateError,
)


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
        if tried := _ADDRESS.findall(str(error)):
            return f"no broker answers at {', '.join(f'{host}:{port}' for host, port in tried)}"
        return "the connection was closed: is WORKER_KAFKA__SECURITY_PROTOCOL the one of this port?"
    if isinstance(error, OSError):
        return _of_the_system(error)
    said: object = getattr(error, "description", "") or next(iter(error.args), "") or getattr(error, "message", "")
    return str(said) or "the client does not say why"


def _of_the_system(error: OSError) -> str:
    """Return an error of the system as ``connection refused``, and of an attempt on several addresses each kind once.

    The event loops put the address, or the number, into the text.
    """
    if isinstance(error, socket.gaierror) or not error.errno:
        numbers = dict.fromkeys(map(int, _ERRNO.findall(str(error))))
        text = ", ".join(os.strerror(number) for number in numbers) or error.strerror or str(error)
    else:
        text = os.strerror(error.errno)
    return f"{text[:1].lower()}{text[1:]}" if text else "the connection was lost"


# --- Postgres ---------------------------------------------------------------------------------------------------------

# Errors that the value of a row can cause by itself, or through a trigger.
_ROW_LEVEL = (
    asyncpg.CardinalityViolationError,
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.PLPGSQLError,
    asyncpg.TriggeredActionError,
    asyncpg.TriggeredDataChangeViolationError,
    asyncpg.WithCheckOptionViolationError,
    asyncpg.exceptions.ProgramLimitExceededError,
)


# A server that starts, ends or fails over raises neither: it says so (57P03), or nothing.
_OF_THE_LOGIN = (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError)
_NOT_PASSED_ON = "unsupported startup parameter"  # by PgBouncer, which calls a server that is away by the same number
_NO_TLS = "rejected SSL upgrade"  # by these words only does the client tell it from a lost connection

# Errors for objects that are missing, are not what a statement takes them for, or may not be used.
_OF_THE_SCHEMA = (asyncpg.exceptions.SyntaxOrAccessError, asyncpg.InvalidSchemaNameError)

_OF_THE_WORKER = frozenset({"transition_not_forged", "lane_not_of_imports"})
"""Constraints that no sender's command can violate. Their text quotes no row."""


def from_postgres(error: BaseException, at: str | None = None) -> WorkerError:
    """Map what asyncpg raised. Only an error that a row can cause blames the batch; all others are waited out.

    Errors that an operator must mend have a class of their own (``Unfit``). The text of a Postgres error is left out if
    it can quote a row, which may hold a sender's text. ``at`` are host and port, if the error came while connecting.
    """
    if isinstance(error, WorkerError):
        return error
    if isinstance(error, asyncpg.UniqueViolationError) and getattr(error, "table_name", None) == "command_record":
        return BatchConflict()  # an id was bound, by another lane or before (``worker.journey.decide.needs_id_lookup``)
    if isinstance(error, _ROW_LEVEL):
        return _from_row(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return LoginRefused(f"the server's certificate is not trusted: {error}")
    if isinstance(error, ConnectionError) and _NO_TLS in str(error):
        return LoginRefused("the server does not do TLS, which sslmode demands")
    if isinstance(error, asyncpg.PostgresError):
        return _from_server(error)
    if isinstance(error, OSError) and error.errno in {errno.EMFILE, errno.ENFILE}:
        return OutOfDescriptors(error)
    return DependencyUnavailable("postgres", _named(error), _without_server(error, at))


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _from_server(error: Any) -> DependencyUnavailable:
    """Map an error that the server itself has sent, with its SQLSTATE."""
    message = error.message or str(error)
    reason, told = f"{type(error).__name__} ({error.sqlstate}): {message}", f"{message} ({error.sqlstate})"
    if isinstance(error, asyncpg.QueryCanceledError):
        return StatementTimeout("postgres", reason, told)
    if isinstance(error, _OF_THE_LOGIN):
        return LoginRefused(reason, told)
    if isinstance(error, asyncpg.ProtocolViolationError) and _NOT_PASSED_ON in str(error):
        return SessionUnfit(str(error))
    if isinstance(error, _OF_THE_SCHEMA):
        way_out = (
            ". Schema or rights are not what this worker needs; see: effective-worker check, and mend it with:"
            " effective-worker migrate"
        )
        return Unfit("postgres", f"{reason}{way_out}", f"{told}{way_out}")
    return DependencyUnavailable("postgres", reason, told)


def _without_server(error: BaseException, at: str | None) -> str:
    """Return, for people, an error that no server has sent."""
    if isinstance(error, asyncpg.exceptions.TargetServerAttributeNotMatched):
        return f"none of the servers{'' if at is None else f' at {at}'} is what target_session_attrs asks for"
    if not isinstance(error, OSError | TimeoutError):
        return str(error) or "the client does not say why"
    why = "TLS fails" if isinstance(error, ssl.SSLError) else in_words(error)
    if at is None:
        return f"the server does not answer any more ({why})"
    variables = "WORKER_POSTGRES__DSN, or WORKER_POSTGRES__OWNER_DSN if that is set"
    return f"no server answers at {at} ({why}); check {variables}"


def _from_row(error: Any) -> BatchRefused | DependencyUnavailable:
    constraint = getattr(error, "constraint_name", None)
    if constraint in _OF_THE_WORKER:
        reason = f"{type(error).__name__} of {constraint}: {error.message}"
        return DependencyUnavailable("postgres", reason, f"{error.message} ({constraint})")
    reason = f"{type(error).__name__}{f' of {constraint}' if constraint else ''}"
    return BatchRefused(reason, f"postgres refuses a row ({error.sqlstate}{f', {constraint}' if constraint else ''})")


# The errors of a lost connection, a server in trouble or a lost race; everything else is a bug and stays one. An
# internal client error is, among others, a list of hosts without one that takes writes: a fail-over under way.
POSTGRES_ERRORS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.exceptions.InternalClientError,
    OSError,
    TimeoutError,
)


def is_read_only(error: BaseException) -> bool:
    """True if the server was demoted: its connections stay open and would fail forever (DESIGN 6)."""
    return isinstance(error, asyncpg.ReadOnlySQLTransactionError)


# --- Kafka ------------------------------------------------------------------------------------------------------------

_TOO_LARGE = (kafka.MessageSizeTooLargeError, kafka.RecordListTooLargeError)
_FENCED = (kafka.ProducerFenced, kafka.InvalidProducerEpoch)


def from_kafka(
    error: BaseException, to_blame: frozenset[str] = frozenset(), *, refused_by_ours: bool = True
) -> WorkerError:
    """Map what a publication raised. Whatever it was, the producer is not used again.

    ``refused_by_ours`` is True if one of the worker's own topics refused a record. A refusal by a sender's topic, whose
    settings are its owner's, proves nothing against the worker's clock.
    """
    if isinstance(error, WorkerError):
        return error
    told = f"kafka: {in_words(error)}"
    if isinstance(error, _TOO_LARGE):
        return MessageTooLarge(type(error).__name__, told=told)
    if isinstance(error, _FENCED):
        return Fenced(type(error).__name__, told=told)
    if isinstance(error, kafka.InvalidTimestampError) and refused_by_ours:
        return StampsRefused(_named(error), told=told)
    if isinstance(error, kafka.TopicAuthorizationFailedError):
        to_blame |= _named_by(error)
    return OutcomeUnknown(_named(error), to_blame, told=told)


def kafka_away(error: BaseException, doing: str = "") -> DependencyUnavailable:
    """Return what a client raised as a broker that is away; ``doing`` says while what: ``"while reading"``."""
    name, doing = type(error).__name__, f" {doing}" if doing else ""
    return DependencyUnavailable("kafka", f"{name}{doing}: {error}", f"{in_words(error)}{doing}")


def _named_by(error: kafka.TopicAuthorizationFailedError) -> frozenset[str]:
    """Return the topics that may not be written to: aiokafka names one, or a set of them."""
    names = error.args[0] if error.args else ()
    return frozenset({names} if isinstance(names, str) else names)


# aiokafka checks its own state with assertions and with two errors outside its tree, and a closed transport surfaces as
# an OSError.
KAFKA_ERRORS = (
    kafka.KafkaError,
    kafka.ConsumerStoppedError,
    kafka.IllegalOperation,
    AssertionError,
    OSError,
    TimeoutError,
)
