"""The load: a seeded mix of commands, sent in order by a producer that shares no code with the worker's client."""

import json
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from confluent_kafka import KafkaError, Message, Producer

from tests.faults.ledger import NUMBER, SOURCE, Command, Ledger
from tests.support.logins import login_token

FIELDS: Final = ("authentication_code,life_cycle_state", "life_cycle_state", "authentication_code")
DRY_RUNS: Final = 0.1
"""The share of commands that are dry runs."""
FOLLOWERS: Final = 3
"""The most commands that follow another on its token or id: the checker tries every order of lanes."""
RECENT: Final = 30
TICK_SECONDS: Final = 0.05
FLUSH_SECONDS: Final = 120.0
CODECS: Final = ("zstd", "lz4", "gzip", "snappy")
SWOLLEN_BYTES: Final = 4_000_000
"""Bytes of some malformed commands, mostly white space: as large as one record, and small in the log."""
LOGIN_SECONDS: Final = 100 * 24 * 60 * 60
"""Seconds of a login's life: long enough also for a worker whose clock is a month ahead."""
SWOLLEN: Final = 8
"""One malformed command of so many."""

# Out of a hundred commands; the rest are the first for a token of its own.
_FOLLOWS: Final = 18
_FLAWS: Final = (
    ("INVALID_TOKEN", 2),
    ("EXPIRED_TOKEN", 1),
    ("ACCESS_DENIED", 1),
    ("MALFORMED_REQUEST", 1),
    ("MISSING_PARAMETER", 1),
    ("INVALID_PARAMETER", 1),
)
_UNKNOWN: Final = 2
_EFFECTIVE: Final = 2


class Mix:
    """An endless row of commands: new tokens, repetitions, rivals for one token or one id in two lanes, and flaws.

    Some of every kind are dry runs.
    """

    def __init__(self, seed: int, partitions: int, codes: Iterator[str], effective: Sequence[str]) -> None:
        """Begin the row. ``codes`` are of tokens that are not effective yet; the row ends with them."""
        self._random = random.Random(f"load {seed}")
        self._partitions = partitions
        self._codes = codes
        self._effective = effective
        self._recent: deque[tuple[Command, int]] = deque(maxlen=RECENT)
        self._number = 0

    def __iter__(self) -> Iterator[Command]:
        for code in self._codes:
            command = self._next(code)
            while command.code != code:  # the code is kept for the next one
                yield command
                command = self._next(code)
            yield command

    def _next(self, code: str) -> Command:
        chance, roll = self._random, self._random.randrange(100)
        number, self._number = self._number, self._number + 1
        fields = chance.choice(FIELDS)
        identity = f"id-{number}" if chance.random() < 0.9 else None
        dry_run = chance.random() < DRY_RUNS
        new = Command(number, chance.randrange(self._partitions), code, fields, identity, dry_run=dry_run)
        if roll < _FOLLOWS and self._recent:
            return self._follow(new)
        roll -= _FOLLOWS
        for status, share in _FLAWS:
            if 0 <= roll < share:
                return replace(new, code=chance.choice(self._effective), flaw=status)
            roll -= share
        if 0 <= roll < _UNKNOWN:
            return replace(new, code=f"nobody-{number}")
        if _UNKNOWN <= roll < _UNKNOWN + _EFFECTIVE:
            return replace(new, code=chance.choice(self._effective), identity=f"id-{number}")
        self._recent.append((new, 0))
        return new

    def _follow(self, new: Command) -> Command:
        """Return a command for the token or the id of a recent one: mostly in its lane, now and then in another."""
        place = self._random.randrange(len(self._recent))
        first, followers = self._recent[place]
        if followers + 1 == FOLLOWERS:
            del self._recent[place]
        else:
            self._recent[place] = (first, followers + 1)
        partition = first.partition if self._random.random() < 0.7 else new.partition
        same = replace(first, number=new.number, partition=partition, dry_run=new.dry_run)
        roll = self._random.random()
        if roll < 0.5:
            return same
        if roll < 0.7 and first.identity is not None:
            return replace(same, fields=next(each for each in FIELDS if each != first.fields))
        if roll < 0.8 and first.identity is not None:
            return replace(new, partition=partition, identity=first.identity)
        return replace(same, identity=new.identity)


class Writer:
    """Gives a command its bytes, as a sender would. Some malformed ones have ``swollen`` bytes, if any."""

    def __init__(self, swollen: int = 0) -> None:
        self._swollen = swollen
        until = int(time.time()) + LOGIN_SECONDS
        self._logins = {
            None: login_token(exp=until),
            "INVALID_TOKEN": login_token(secret="another secret that is long enough for HS256", exp=until),
            "EXPIRED_TOKEN": login_token(iat=int(time.time()) - 7300, exp=int(time.time()) - 100),
            "ACCESS_DENIED": login_token(user="reader", exp=until),
        }

    def value(self, command: Command) -> bytes:
        if command.flaw == "MALFORMED_REQUEST":
            return b'{"token": '.ljust(0 if command.number % SWOLLEN else self._swollen)
        body: dict[str, Any] = {
            "token": self._logins.get(command.flaw, self._logins[None]),
            "access_token_identifier": {"authentication_code": command.code},
            "fields_set": command.fields,
        }
        if command.flaw == "MISSING_PARAMETER":
            del body["token"]
        if command.flaw == "INVALID_PARAMETER":
            body["fields_set"] = "no_such_field"
        return json.dumps(body).encode()

    @staticmethod
    def headers(command: Command) -> list[tuple[str, str | bytes | None]]:
        named: list[tuple[str, str | bytes | None]] = [(NUMBER, str(command.number).encode())]
        if command.identity is not None:
            named += [("ce_id", command.identity.encode()), ("ce_source", SOURCE.encode())]
        if command.dry_run:
            named.append(("dry_run", b"true"))
        return named


@dataclass(slots=True)
class _Faults:
    """The refusals of the broker. One is enough: then the load differs from the ledger."""

    first: str | None = None

    def told(self, error: KafkaError | None, _: Message) -> None:
        if error is not None and self.first is None:
            self.first = str(error)


class Load(threading.Thread):
    """Sends at a steady rate until told to stop, whatever happens to the brokers meanwhile."""

    def __init__(
        self,
        bootstrap: str,
        source: Callable[[int], str],
        mix: Mix,
        ledger: Ledger,
        *,
        rate: float,
        codec: str,
        doubled_every: int = 0,
    ) -> None:
        """Set up the load.

        ``source`` is the topic of a partition's commands; ``rate`` is in commands a second; ``codec`` is Kafka's. Of so
        many commands as ``doubled_every`` says, if any, one is sent twice, and the ledger does not know: a planted
        failure of the harness that it must notice.
        """
        super().__init__(name="load", daemon=True)
        self._source = source
        self._mix = iter(mix)
        self._ledger = ledger
        self.rate = rate
        """May be changed at any time."""
        self._halt = threading.Event()
        self._faults = _Faults()
        self._doubled_every = doubled_every
        self._turn = threading.Lock()
        """Held while commands are handed over."""
        self._is_paused = False
        self._settings: dict[str, Any] = {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            # With several under way a leader that goes can make librdkafka begin a new epoch and send again records
            # that are in the log already (confluentinc/librdkafka#4953): commands that the ledger has only once.
            "max.in.flight.requests.per.connection": 1,
            "linger.ms": 5,
            "compression.type": codec,
            # The producer counts before it compresses, the broker afterwards.
            "message.max.bytes": 2 * SWOLLEN_BYTES,
            "queue.buffering.max.messages": 2_000_000,
            # Nothing is given up while a broker is away: the ledger says that it was sent.
            "message.timeout.ms": 0,
            "log_level": 0,
        }
        self._producer = Producer(self._settings)

    def run(self) -> None:
        try:
            self._send_all()
        except Exception as error:  # noqa: BLE001 - a thread's error would go unseen
            self._faults.first = self._faults.first or f"{type(error).__name__}: {error}"

    def _send_all(self) -> None:
        writer, looked, due = Writer(SWOLLEN_BYTES), time.monotonic(), 0.0
        while not self._halt.wait(TICK_SECONDS):
            with self._turn:
                now = time.monotonic()
                due, looked = 0.0 if self._is_paused else due + (now - looked) * self.rate, now
                while due >= 1:
                    command = next(self._mix, None)
                    if command is None:
                        return
                    self._send(command, writer)
                    due -= 1
                self._producer.poll(0)

    def _send(self, command: Command, writer: Writer) -> None:
        self._ledger.write(command)
        self._produce(command, writer)
        if self._doubled_every and command.number % self._doubled_every == 0:
            self._produce(command, writer)

    def _produce(self, command: Command, writer: Writer) -> None:
        self._producer.produce(
            self._source(command.partition),
            writer.value(command),
            command.code.encode(),
            command.partition,
            on_delivery=self._faults.told,
            headers=writer.headers(command),
        )

    def pause(self, seconds: float) -> bool:
        """Send no more until ``resume``. True if the broker has all that was sent, within so many seconds."""
        with self._turn:
            self._is_paused = True
        return not self._producer.flush(seconds)

    def resume(self) -> None:
        """Go on at the same rate, without catching up.

        With a new producer if all was taken: the sequence numbers of the former one are of a log that may be another.
        """
        with self._turn:
            if not len(self._producer):
                self._producer = Producer(self._settings)
            self._is_paused = False

    def finish(self) -> str | None:
        """Send no more, and wait until the broker has it all; return its refusals, if any."""
        self._halt.set()
        self.join()
        left = self._producer.flush(FLUSH_SECONDS)
        return self._faults.first or (f"{left} commands were not taken" if left else None)

    def abandon(self) -> None:
        """Send no more, and drop the unsent commands. Safe after ``finish``."""
        self._halt.set()
        if self.is_alive():
            self.join()
        self._producer.purge()
