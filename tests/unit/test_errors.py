"""The border that translates errors of asyncpg and aiokafka: none is left out, and no row's text gets past."""

import asyncio
import inspect
import ssl
from types import ModuleType
from typing import Final

import aiokafka.errors
import asyncpg
import pytest

from worker.errors import (
    KAFKA_ERRORS,
    POSTGRES_ERRORS,
    BatchConflict,
    BatchRefused,
    ClientStuck,
    DependencyUnavailable,
    Fenced,
    LaneBlocked,
    LaneLost,
    LoginRefused,
    MessageTooLarge,
    OutcomeUnknown,
    StampsRefused,
    Unfit,
    WorkerError,
    from_kafka,
    from_postgres,
    is_read_only,
    kafka_away,
)

CANARY: Final = "canary: what a sender wrote"


def exceptions_of(module: ModuleType) -> list[type[BaseException]]:
    """Return every exception class that a module defines or exports, except warnings, which are not raised."""
    found = {
        each
        for each in vars(module).values()
        if inspect.isclass(each) and issubclass(each, BaseException) and each.__module__.startswith(module.__name__)
    }
    warnings = (Warning, asyncpg.exceptions.PostgresWarning, asyncpg.exceptions.InterfaceWarning)
    return sorted((each for each in found if not issubclass(each, warnings)), key=lambda each: each.__name__)


POSTGRES: Final = exceptions_of(asyncpg.exceptions)
KAFKA: Final = exceptions_of(aiokafka.errors)
LOST: Final = (ConnectionRefusedError, ConnectionResetError, BrokenPipeError, TimeoutError, OSError, ssl.SSLError)

# Errors that a row can cause: SQLSTATE classes 21 to 23, 27, 44 and P0, a trigger's exception, and a value too large.
ROW_LEVEL_CLASSES: Final = ("09", "22", "23", "27", "44", "54", "P0", "21")


def raised(kind: type[BaseException]) -> BaseException:
    """Build the error as the libraries do, with a text that quotes a row."""
    error = kind(CANARY)
    if issubclass(kind, asyncpg.PostgresError):
        error.__dict__.update(message=CANARY, detail=CANARY, constraint_name="a_constraint")
    if kind is aiokafka.errors.BrokerResponseError:  # the base class of the numbered errors has no number itself
        error.__dict__.update(errno=999)
    return error


def sqlstate_of(kind: type[BaseException]) -> str:
    return str(getattr(kind, "sqlstate", None) or "")


def test_there_is_something_to_map() -> None:
    assert len(POSTGRES) > 200
    assert len(KAFKA) > 60


@pytest.mark.parametrize("kind", [*POSTGRES, *LOST], ids=lambda kind: kind.__name__)
def test_every_error_of_asyncpg_is_caught_and_mapped(kind: type[BaseException]) -> None:
    assert issubclass(kind, POSTGRES_ERRORS)

    mapped = from_postgres(raised(kind))

    assert isinstance(mapped, BatchRefused | DependencyUnavailable)
    if isinstance(mapped, DependencyUnavailable):
        assert mapped.dependency == "postgres"
        assert kind.__name__ in mapped.reason


@pytest.mark.parametrize(
    "kind", [kind for kind in POSTGRES if sqlstate_of(kind)[:2] in ROW_LEVEL_CLASSES], ids=lambda kind: kind.__name__
)
def test_an_error_that_a_row_can_cause_blames_the_batch_and_does_not_quote_the_row(kind: type[BaseException]) -> None:
    mapped = from_postgres(raised(kind))

    assert isinstance(mapped, BatchRefused)
    assert CANARY not in f"{mapped} {mapped!r} {mapped.reason}"
    assert kind.__name__ in mapped.reason


@pytest.mark.parametrize(
    "kind",
    [kind for kind in POSTGRES if sqlstate_of(kind)[:2] not in ROW_LEVEL_CLASSES],
    ids=lambda kind: kind.__name__,
)
def test_an_error_that_no_row_causes_is_waited_out(kind: type[BaseException]) -> None:
    assert isinstance(from_postgres(raised(kind)), DependencyUnavailable)


@pytest.mark.parametrize(
    "kind",
    [
        asyncpg.QueryCanceledError,
        asyncpg.LockNotAvailableError,
        asyncpg.DeadlockDetectedError,
        asyncpg.SerializationError,
        asyncpg.InvalidCachedStatementError,
        asyncpg.ReadOnlySQLTransactionError,
        asyncpg.CannotConnectNowError,
        asyncpg.TooManyConnectionsError,
        asyncpg.ConnectionDoesNotExistError,
        asyncpg.AdminShutdownError,
        asyncpg.DiskFullError,
        asyncpg.InsufficientPrivilegeError,
        asyncpg.UndefinedTableError,
        asyncpg.InterfaceError,
        asyncpg.exceptions.TargetServerAttributeNotMatched,
    ],
    ids=lambda kind: kind.__name__,
)
def test_a_database_in_trouble_is_waited_out(kind: type[BaseException]) -> None:
    assert isinstance(from_postgres(raised(kind)), DependencyUnavailable)


OF_THE_LOGIN: Final = [kind for kind in POSTGRES if sqlstate_of(kind)[:2] in {"28", "3D"}]
OF_THE_SCHEMA: Final = [kind for kind in POSTGRES if sqlstate_of(kind)[:2] == "42" or sqlstate_of(kind) == "3F000"]


@pytest.mark.parametrize("kind", OF_THE_SCHEMA, ids=lambda kind: kind.__name__)
def test_what_a_person_must_mend_in_the_schema_is_no_absence_and_names_the_way_out(kind: type[BaseException]) -> None:
    mapped = from_postgres(raised(kind))

    assert isinstance(mapped, Unfit)
    assert "effective-worker migrate" in mapped.reason


@pytest.mark.parametrize(
    "error",
    [
        *map(raised, OF_THE_LOGIN),
        ssl.SSLCertVerificationError("certificate verify failed"),
        ConnectionError('PostgreSQL server at "db:5432" rejected SSL upgrade'),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_login_that_is_refused_is_no_absence_and_names_the_variable(error: BaseException) -> None:
    mapped = from_postgres(error)

    assert isinstance(mapped, LoginRefused)
    assert "WORKER_POSTGRES__DSN" in mapped.reason
    assert "WORKER_" not in mapped.what


def test_a_server_that_is_starting_up_is_away_and_lets_in_later() -> None:
    starting = asyncpg.CannotConnectNowError("the database system is starting up")
    lost = ConnectionError("unexpected connection_lost() call")

    assert [type(from_postgres(error)) for error in (starting, lost)] == [DependencyUnavailable, DependencyUnavailable]


def test_a_database_in_trouble_is_not_taken_for_one_that_is_unfit() -> None:
    unfit = {kind for kind in [*POSTGRES, *LOST] if isinstance(from_postgres(raised(kind)), Unfit)}

    assert unfit == {*OF_THE_SCHEMA, *OF_THE_LOGIN}
    assert {asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError, asyncpg.InsufficientPrivilegeError} < unfit


def test_a_lost_connection_says_what_asyncpg_itself_says_of_it() -> None:
    mapped = from_postgres(asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"))

    assert isinstance(mapped, DependencyUnavailable)
    assert mapped.reason.endswith("connection was closed in the middle of operation")


def test_the_constraint_is_named_since_it_says_what_to_mend() -> None:
    mapped = from_postgres(raised(asyncpg.CheckViolationError))

    assert isinstance(mapped, BatchRefused)
    assert mapped.reason == "CheckViolationError of a_constraint"


@pytest.mark.parametrize("constraint", ["transition_not_forged", "lane_not_of_imports"])
def test_what_postgres_refuses_the_worker_itself_is_no_commands_fault(constraint: str) -> None:
    error = raised(asyncpg.IntegrityConstraintViolationError)
    error.__dict__.update(constraint_name=constraint, message="facts are refused: they are not of now")

    mapped = from_postgres(error)

    assert isinstance(mapped, DependencyUnavailable)
    assert mapped.reason == f"IntegrityConstraintViolationError of {constraint}: facts are refused: they are not of now"


def test_only_a_read_only_server_is_read_only() -> None:
    assert [kind for kind in POSTGRES if is_read_only(raised(kind))] == [asyncpg.ReadOnlySQLTransactionError]


@pytest.mark.parametrize("kind", [*KAFKA, *LOST, AssertionError], ids=lambda kind: kind.__name__)
def test_every_error_of_aiokafka_is_caught_and_mapped(kind: type[BaseException]) -> None:
    assert issubclass(kind, KAFKA_ERRORS)

    mapped = from_kafka(raised(kind))

    assert isinstance(mapped, OutcomeUnknown)
    assert kind.__name__ in mapped.reason


@pytest.mark.parametrize("kind", [aiokafka.errors.MessageSizeTooLargeError, aiokafka.errors.RecordListTooLargeError])
def test_a_message_that_the_broker_will_never_take_is_told_apart(kind: type[BaseException]) -> None:
    assert type(from_kafka(raised(kind))) is MessageTooLarge


@pytest.mark.parametrize("kind", [aiokafka.errors.ProducerFenced, aiokafka.errors.InvalidProducerEpoch])
def test_a_fenced_producer_is_told_apart(kind: type[BaseException]) -> None:
    assert type(from_kafka(raised(kind))) is Fenced


def test_a_refused_stamp_is_the_clocks_and_not_kafkas_but_in_a_senders_topic() -> None:
    refused = raised(aiokafka.errors.InvalidTimestampError)
    assert type(from_kafka(refused)) is StampsRefused
    assert type(from_kafka(refused, refused_by_ours=False)) is OutcomeUnknown


def test_no_other_error_of_kafka_is_taken_for_a_fence_a_refused_answer_or_a_refused_stamp() -> None:
    special = {kind for kind in KAFKA if type(from_kafka(raised(kind))) is not OutcomeUnknown}

    assert special == {
        aiokafka.errors.ProducerFenced,
        aiokafka.errors.InvalidProducerEpoch,
        aiokafka.errors.MessageSizeTooLargeError,
        aiokafka.errors.RecordListTooLargeError,
        aiokafka.errors.InvalidTimestampError,
    }


@pytest.mark.parametrize(
    "error",
    [
        DependencyUnavailable("postgres", "away"),
        BatchRefused("a row"),
        BatchConflict(),
        LaneLost("lost"),
        LaneBlocked("blocked"),
        OutcomeUnknown("unknown"),
        Fenced("fenced"),
        MessageTooLarge("too large"),
        ClientStuck("stuck"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_of_ours_passes_both_borders_as_it_is(error: WorkerError) -> None:
    assert from_postgres(error) is error
    assert from_kafka(error) is error


def test_a_cancellation_is_no_error_of_a_dependency() -> None:
    assert not issubclass(asyncio.CancelledError, (*POSTGRES_ERRORS, *KAFKA_ERRORS))


def test_a_bug_stays_a_bug() -> None:
    for bug in (KeyError, TypeError, AttributeError, UnicodeEncodeError, RecursionError):
        assert not issubclass(bug, POSTGRES_ERRORS)
        assert not issubclass(bug, KAFKA_ERRORS)


@pytest.mark.parametrize("kind", [*POSTGRES, *LOST], ids=lambda kind: kind.__name__)
def test_no_text_of_an_error_of_postgres_names_a_class(kind: type[BaseException]) -> None:
    for mapped in (from_postgres(raised(kind)), from_postgres(raised(kind), "db:5432")):
        assert kind.__name__ not in str(mapped)
        assert str(mapped)


@pytest.mark.parametrize("kind", KAFKA, ids=lambda kind: kind.__name__)
def test_no_text_of_an_error_of_kafka_names_a_class(kind: type[BaseException]) -> None:
    for mapped in (from_kafka(raised(kind)), kafka_away(raised(kind), "while reading")):
        assert kind.__name__ not in str(mapped)


def test_a_server_that_does_not_answer_is_told_with_its_place_and_the_variable() -> None:
    refused = ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 5)")

    assert str(from_postgres(refused, "127.0.0.1:5")) == (
        "postgres: no server answers at 127.0.0.1:5 (connection refused); check WORKER_POSTGRES__DSN, or"
        " WORKER_POSTGRES__OWNER_DSN if that is set"
    )
    assert str(from_postgres(ConnectionResetError(104, "any"))) == (
        "postgres: the server does not answer any more (connection reset by peer)"
    )
