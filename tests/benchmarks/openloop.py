"""Commands sent at fixed moments, and the time until each answer: a process beside the ones it measures.

``python -m tests.benchmarks.openloop`` reads a ``Plan`` as JSON on stdin and writes its ``Timed`` to stdout. The loop
is open: a command's time runs from the moment it was due, even if earlier ones have no answer yet or the sender was
late. It ends when the reader, ``read_committed``, holds the answer. Both are librdkafka (confluent-kafka), which does
its work outside of Python's lock: linger 0, no Nagle, idempotent.
"""

import dataclasses
import gc
import json
import os
import random
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import Consumer, Producer, TopicPartition

from effective_contract.headers import CORRELATION_ID, STATUS_CODE
from tests.benchmarks.load import Written, commands
from tests.benchmarks.meter import Meter

ANSWER_SECONDS: Final = 30.0
"""Seconds for which a phase waits for its last answers."""
LEAD_SECONDS: Final = 0.05
IDLE_SECONDS: Final = (0.3, 0.45)
"""Range of the idle seconds before a lone command: random each time, so as not to keep step with any poll."""
_CLIENT: Final[dict[str, Any]] = {"log_level": 0, "socket.nagle.disable": True}


@dataclass(frozen=True, slots=True)
class Phase:
    """``count`` commands, ``rate`` a second; with no ``rate`` each by itself, after all has been idle for a while."""

    count: int
    rate: float | None = None

    @classmethod
    def at(cls, rate: float, seconds: float) -> "Phase":
        """Return the phase of so many seconds."""
        return cls(max(1, round(rate * seconds)), rate)


@dataclass(frozen=True, slots=True)
class Plan:
    """The topics, and the commands ``{run}-{first}`` … of a phase that warms up and one that counts.

    ``status`` is the expected header of every answer; ``pids`` are the processes that work for it.
    """

    bootstrap: str
    commands: str
    results: str
    run: str
    first: int
    warm_up: Phase
    phase: Phase
    status: str | None
    pids: tuple[int, ...]

    @property
    def count(self) -> int:
        """Return the number of commands of both phases."""
        return self.warm_up.count + self.phase.count


@dataclass(frozen=True, slots=True)
class Timed:
    """One phase, in milliseconds: the time of each command, and the sender's own delay for it.

    ``cores`` is the average number of busy ones meanwhile, with the processes of the plan and with the open loop.
    """

    took: Sequence[float]
    late: Sequence[float]
    cores: float


def due(rate: float, number: int) -> float:
    """Return the time at which command ``number``, counted from 0, is due: seconds after the first."""
    return number / rate


class Unanswered(Exception):
    """Commands have no answer, or one with another status than every answer should have."""


class Reader(threading.Thread):
    """Notes the time at which each command was answered: ``arrived``, in their order, 0 while there is no answer."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(name="reader", daemon=True)
        self.arrived = [0.0] * plan.count
        self.refused: str | None = None
        self.count = 0
        self._run = plan.run.encode()
        self._first = plan.first
        self._status = None if plan.status is None else plan.status.encode()
        self._consumer = _reading(plan)
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.is_set():
            message = self._consumer.poll(0.1)
            if message is not None and message.error() is None:
                self._note(time.perf_counter(), dict(message.headers() or ()))
        self._consumer.close()

    def _note(self, now: float, headers: dict[str, Any]) -> None:
        run, _, text = headers.get(CORRELATION_ID, b"").rpartition(b"-")
        if run != self._run:  # from another run
            return
        number = int(text)
        if self._status is not None and headers[STATUS_CODE] != self._status:
            self.refused = f"command {number} was answered {headers[STATUS_CODE].decode()}"
        if not self.arrived[number - self._first]:  # at least once may mean twice
            self.arrived[number - self._first] = now
            self.count += 1

    def wait(self, count: int) -> None:
        """Wait until so many commands have been answered. Raises ``Unanswered``."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while self.count < count and self.refused is None:
            if time.monotonic() > deadline:
                raise Unanswered(f"{count - self.count} of {count} commands have no answer")
            time.sleep(0.001)
        if self.refused is not None:
            raise Unanswered(self.refused)

    def close(self) -> None:
        self._over.set()
        self.join()


def _reading(plan: Plan) -> Consumer:
    """Return a consumer that stands at the end of every partition of the results."""
    consumer = Consumer(
        {
            **_CLIENT,
            "bootstrap.servers": plan.bootstrap,
            "group.id": f"openloop-{plan.run}",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 50,
            "fetch.min.bytes": 1,
            "fetch.error.backoff.ms": 10,
        }
    )
    known = consumer.list_topics(plan.results, timeout=10).topics[plan.results].partitions
    places = [TopicPartition(plan.results, number) for number in known]
    for place in places:
        place.offset = consumer.get_watermark_offsets(place, timeout=10)[1]
    consumer.assign(places)
    return consumer


class Sender:
    """Sends the commands of a plan, one phase after the other."""

    def __init__(self, plan: Plan, reader: Reader) -> None:
        # Idempotent, as a careful sender is: no more than five requests are under way, so at high rates the records
        # that wait for one share the next. A request each would have the broker do nothing else.
        options = {"bootstrap.servers": plan.bootstrap, "enable.idempotence": True, "linger.ms": 0}
        self._producer = Producer({**_CLIENT, **options})
        self._reader = reader
        self._plan = plan
        self._sent = 0

    def run(self, phase: Phase) -> Timed:
        """Send a phase and wait for its answers. Raises ``Unanswered``."""
        first, self._sent = self._sent, self._sent + phase.count
        numbers = range(self._plan.first + first, self._plan.first + self._sent)
        # Written beforehand: a sender that is busy with that would be late.
        written = list(commands(self._plan.run, numbers))
        meter, began = Meter({"all": (os.getpid(), *self._plan.pids)}), time.perf_counter()
        counted, late = self._paced(written, phase.rate) if phase.rate else self._lone(written, first)
        self._reader.wait(self._sent)
        cores = meter.stop().total / (time.perf_counter() - began)
        arrived = self._reader.arrived[first : self._sent]
        took = [_milliseconds(there - since) for there, since in zip(arrived, counted, strict=True)]
        return Timed(took, late, cores)

    def _paced(self, written: Sequence[Written], rate: float) -> tuple[list[float], list[float]]:
        """Send at the due times; return the start of each command's time, and the sender's delays."""
        begin = time.perf_counter() + LEAD_SECONDS
        counted, late = [], []
        for number, command in enumerate(written):
            moment = begin + due(rate, number)
            while (left := moment - time.perf_counter()) > 0:
                time.sleep(left)
            counted.append(moment)
            late.append(_milliseconds(time.perf_counter() - moment))
            self._send(command)
        return counted, late

    def _lone(self, written: Sequence[Written], first: int) -> tuple[list[float], list[float]]:
        counted = []
        for number, command in enumerate(written, start=first + 1):
            time.sleep(random.uniform(*IDLE_SECONDS))
            counted.append(time.perf_counter())
            self._send(command)
            self._reader.wait(number)
        return counted, [0.0] * len(written)

    def _send(self, command: Written) -> None:
        key, value, headers = command
        self._producer.produce(self._plan.commands, value, key, headers=[*headers])
        self._producer.poll(0)


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)


def carry_out(plan: Plan) -> Timed:
    """Warm up, and time the phase that counts. Raises ``Unanswered``."""
    reader = Reader(plan)
    reader.start()
    sender = Sender(plan, reader)
    gc.disable()  # a collection would be measured as latency
    try:
        sender.run(plan.warm_up)
        return sender.run(plan.phase)
    finally:
        reader.close()


def read_plan(text: str) -> Plan:
    """Return the plan that ``json.dumps(dataclasses.asdict(plan))`` wrote."""
    members = json.loads(text)
    phases = {name: Phase(**members[name]) for name in ("warm_up", "phase")}
    return Plan(**{**members, **phases, "pids": tuple(members["pids"])})


def main() -> None:
    timed = carry_out(read_plan(sys.stdin.read()))
    sys.stdout.write(json.dumps(dataclasses.asdict(timed)))


if __name__ == "__main__":
    main()
