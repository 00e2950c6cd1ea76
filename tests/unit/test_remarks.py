"""The Kafka client's remarks, and its errors in words."""

import logging
import socket
import ssl

import pytest
from aiokafka import errors as kafka

from worker.errors import in_words
from worker.kafka.remarks import Remarks, away, remarks

CLIENT = logging.getLogger("aiokafka.client")


def test_a_remark_goes_to_those_who_listen_and_not_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with remarks() as one, remarks() as other:
        CLIENT.error('Unable connect to "%s:%s": %s', "kafka", 9092, ConnectionRefusedError(111, "Connection refused"))
        CLIENT.warning("Topic %s is not available", "commands")
    assert one.said == other.said == ['Unable connect to "kafka:9092": [Errno 111] Connection refused']
    assert one.reasons() == ["kafka:9092: connection refused"]
    assert caplog.records == []
    CLIENT.error("after")
    assert [record.getMessage() for record in caplog.records] == ["after"]


def test_a_reason_is_told_once() -> None:
    with remarks() as said:
        for port in (1, 2, 1):
            CLIENT.error('Unable connect to "%s:%s": %s', "kafka", port, TimeoutError())
    assert said.reasons() == ["kafka:1: no answer in time", "kafka:2: no answer in time"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (kafka.SaslAuthenticationFailed("Authentication failed"), "refuses this login (WORKER_KAFKA__SASL_"),
        (kafka.UnsupportedSaslMechanismError("PLAIN"), "refuses this login (WORKER_KAFKA__SASL_"),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER]"), "WORKER_KAFKA__SECURITY_PROTOCOL"),
        (kafka.KafkaConnectionError("Connection at kafka:9092 closed"), "WORKER_KAFKA__SECURITY_PROTOCOL"),
        (kafka.RequestTimedOutError(), "no answer in time"),
        (TimeoutError(), "no answer in time"),
        (ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 1)"), "connection refused"),
        (OSError("Multiple exceptions: [Errno 111] Connection refused, [Errno 111] refused"), "connection refused"),
        (socket.gaierror(-2, "Name or service not known"), "name or service not known"),
        (ConnectionResetError(), "the connection was lost"),
        (kafka.KafkaConnectionError("Unable to bootstrap from [('kafka', 9092, <A: 2>)]"), "answers at kafka:9092"),
        (OSError("Multiple exceptions"), "multiple exceptions"),
        (kafka.InvalidTopicError("commands"), "invalid topic"),
        (kafka.KafkaError("the producer was dropped"), "the producer was dropped"),
        (kafka.KafkaError(), "does not say why"),
    ],
)
def test_words_have_no_name_of_a_class(error: Exception, words: str) -> None:
    told = in_words(error)
    assert words in told
    assert not any(kind.__name__ in told for kind in type(error).__mro__)


def test_a_certificate_that_is_not_trusted_is_called_so() -> None:
    error = ssl.SSLCertVerificationError(1, "self-signed")
    error.verify_message = "self-signed certificate"
    assert in_words(error) == "its certificate is not trusted: self-signed certificate"


LOST = kafka.KafkaConnectionError("Unable to bootstrap from [('kafka', 1, <AddressFamily.AF_INET: 2>)]")


@pytest.mark.parametrize(
    ("failed", "error", "words"),
    [
        (
            [("a", 1, ConnectionRefusedError(111, "refused")), ("b", 2, TimeoutError())],
            LOST,
            "kafka: no broker answers at a:1 (connection refused), b:2 (no answer in time);"
            " check WORKER_KAFKA__BOOTSTRAP_SERVERS",
        ),
        (
            [("a", 1, kafka.SaslAuthenticationFailed("canary"))],
            LOST,
            "kafka: no broker can be used: a:1: the broker refuses this login (WORKER_KAFKA__SASL_…)"
            " (WORKER_KAFKA__BOOTSTRAP_SERVERS)",
        ),
        (
            [("a", 1, TimeoutError())],
            kafka.InvalidTopicError("commands"),
            f"kafka: {in_words(kafka.InvalidTopicError())}",
        ),
        ([], TimeoutError(), "kafka: no answer in time"),
    ],
)
def test_a_broker_that_is_away_is_told_with_its_place(
    failed: list[tuple[str, int, BaseException]], error: Exception, words: str
) -> None:
    told = away(error, Remarks(failed=failed))
    assert str(told) == words
    assert type(error).__name__ in told.reason
