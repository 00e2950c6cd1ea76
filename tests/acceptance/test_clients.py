"""The outsider's client reads as it should: all conclusions of the acceptance tests rest on this."""

import pytest
from confluent_kafka import KafkaError, KafkaException

from tests.acceptance.clients import (
    Outgoing,
    TooLate,
    asked_again,
    consumed_offsets,
    log_ends,
    read_committed,
    read_to_end,
    send,
    stream_to_end,
    transactional,
    wait_settled,
)
from tests.providers.kafka import KafkaServer, TopicNames


def test_what_was_sent_is_read_as_it_was(kafka: KafkaServer, topics: TopicNames) -> None:
    headers = [("twice", b"1"), ("twice", b"2"), ("ce_id", b"x")]
    places = send(kafka.bootstrap, topics.commands, [Outgoing(b"value", b"key", headers, 2), b"bare"])

    first, second = sorted(read_committed(kafka.bootstrap, topics.commands, until=2), key=lambda r: r.value or b"")[
        ::-1
    ]

    assert (first.partition, first.offset) == places[0]
    assert (first.key, first.value, list(first.headers)) == (b"key", b"value", headers)
    assert first.header("ce_id") == b"x"
    assert (second.key, second.value, second.headers) == (None, b"bare", ())
    assert first.timestamp > 0


def test_a_reader_that_waits_in_vain_says_so(kafka: KafkaServer, topics: TopicNames) -> None:
    send(kafka.bootstrap, topics.commands, [b"only one"])
    with pytest.raises(TooLate, match=r"2 records of commands-.* came; last seen: 1 of 2"):
        read_committed(kafka.bootstrap, topics.commands, until=2, seconds=3)


def test_reading_to_the_end_stops_there_and_passes_markers(kafka: KafkaServer, topics: TopicNames) -> None:
    producer = transactional(kafka.bootstrap, topics.results)
    for text in (b"kept", b"dropped"):
        producer.begin_transaction()
        producer.produce(topics.results, text, partition=1)
        producer.flush()
        if text == b"kept":
            producer.commit_transaction()
        else:
            producer.abort_transaction()
    wait_settled(kafka.bootstrap, topics.results)

    assert [record.value for record in read_to_end(kafka.bootstrap, topics.results)] == [b"kept"]
    assert log_ends(kafka.bootstrap, topics.results)[1] == 4


def test_a_partition_is_read_by_itself(kafka: KafkaServer, topics: TopicNames) -> None:
    send(kafka.bootstrap, topics.commands, [Outgoing(str(n).encode(), partition=n) for n in (0, 1, 2, 1)])

    only = stream_to_end(kafka.bootstrap, topics.commands, only=1)
    assert [(record.partition, record.offset, record.value) for record in only] == [(1, 0, b"1"), (1, 1, b"1")]


@pytest.mark.real_kafka
def test_an_open_transaction_is_neither_read_nor_waited_for(kafka: KafkaServer, topics: TopicNames) -> None:
    producer = transactional(kafka.bootstrap, topics.results)
    producer.begin_transaction()
    producer.produce(topics.results, b"open", partition=0)
    producer.flush()

    assert read_to_end(kafka.bootstrap, topics.results) == []
    with pytest.raises(TooLate, match="no transaction was open in results-"):
        wait_settled(kafka.bootstrap, topics.results, seconds=0.5)

    producer.abort_transaction()
    wait_settled(kafka.bootstrap, topics.results)


def test_a_group_that_never_committed_has_no_offsets(kafka: KafkaServer, topics: TopicNames) -> None:
    assert consumed_offsets(kafka.bootstrap, "nobody", topics.commands) == {}


def test_only_what_passes_by_itself_is_asked_again() -> None:
    said = [KafkaError.OFFSET_NOT_AVAILABLE, KafkaError.NOT_COORDINATOR, KafkaError.TOPIC_AUTHORIZATION_FAILED]

    def question() -> None:
        raise KafkaException(KafkaError(said.pop(0)))

    with pytest.raises(KafkaException, match="TOPIC_AUTHORIZATION_FAILED"):
        asked_again(question)
    assert said == []
