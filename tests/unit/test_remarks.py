"""The Kafka client's remarks, and its errors in words."""

import logging
import ssl

import pytest
from aiokafka import errors as kafka

from worker.kafka.remarks import in_words, remarks

CLIENT = logging.getLogger("aiokafka.client")


def test_a_remark_goes_to_those_who_listen_and_not_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with remarks() as one, remarks() as other:
        CLIENT.error('Unable connect to "%s:%s": %s', "kafka", 9092, ConnectionRefusedError(111, "Connection refused"))
        CLIENT.warning("Topic %s is not available", "commands")
    assert one.said == other.said == ['Unable connect to "kafka:9092": [Errno 111] Connection refused']
    assert one.reasons() == ["kafka:9092: Connection refused"]
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
        (ConnectionRefusedError(111, "Connection refused"), "Connection refused"),
        (OSError("Multiple exceptions"), "Multiple exceptions"),
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
