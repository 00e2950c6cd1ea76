"""Lost sendings: those before an answered one in the same partition, and no others."""

from worker.operations.submit.flight import Flight, Waiting


def sent(flight: Flight, line: int, partition: int = 0) -> int:
    return flight.sending(Waiting(line, 0, 1, partition), 0.0)


def lines(found: list[Waiting]) -> list[int]:
    return [waiting.line for waiting in found]


def test_what_was_sent_before_an_answered_command_and_has_no_answer_is_lost() -> None:
    flight = Flight(2)
    serials = [sent(flight, line, line % 2) for line in (1, 2, 3, 4, 5)]
    flight.settle(3)
    assert lines(flight.lost(1, serials[2])) == [1]
    assert lines(flight.lost(1, serials[2])) == []
    assert lines(list(flight.oldest())) == [2, 5]


def test_what_was_sent_again_has_its_turn_at_its_second_sending() -> None:
    flight = Flight(1)
    first = Waiting(1, 0, 1, 0)
    flight.sending(first, 0.0)
    second = sent(flight, 2)
    again = flight.sending(first, 1.0)
    flight.settle(2)
    assert lines(flight.lost(0, second)) == []
    third = sent(flight, 3)
    flight.settle(3)
    assert lines(flight.lost(0, third)) == [1]
    assert (again, first.since) == (3, 0.0)


def test_those_in_doubt_are_lost_when_a_later_sending_is_answered() -> None:
    flight = Flight(1)
    for line in (1, 2):
        flight.join(Waiting(line, 0, 1, 0))
    probe = flight.sending(next(flight.oldest()), 0.0)
    flight.settle(1)
    assert lines(flight.lost(0, probe)) == [2]


def test_an_answered_command_that_was_not_settled_is_sent_again() -> None:
    flight = Flight(1)
    serial = sent(flight, 1)
    assert lines(flight.lost(0, serial)) == [1]
    assert len(flight) == 1
