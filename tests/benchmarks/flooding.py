"""A flood of pass codes in one partition, and the waits of senders by code, there and elsewhere.

An open loop of commands by code is timed on an idle worker, and again while a few hundred commands by identifier come
to one partition at once: from callers who are refused in any case, from one who guesses until it must wait, and from
one who is right. Each is a caller of its own.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final
from zlib import crc32

from tests.benchmarks.bulk import RATE, WARM_UP, Place, place_for
from tests.benchmarks.latency import percentile
from tests.benchmarks.load import Written, answered, commands, make_tokens, new_run, send_all
from tests.benchmarks.openloop import Phase, Timed
from tests.benchmarks.report import Report
from tests.benchmarks.stage import Stage
from tests.support.logins import login_token
from worker.journey.pass_codes import HASHER
from worker.kafka.topics import PARTITIONS

COMMANDS: Final = 400
SECONDS: Final = 12.0
QUICK_SECONDS: Final = 6.0
PARTITION: Final = 0
OTHERS_BAR: Final = 3.0
OWN_BAR: Final = 5.0
_PASS_CODE: Final = "correct horse 7"
_GUESSES: Final = frozenset({"INVALID_CREDENTIALS", "ACCESS_DENIED"})


@dataclass(frozen=True, slots=True)
class Flood:
    """A sender, and the statuses that it may get. ``claims`` are those of the login, if not the usual ones."""

    name: str
    statuses: frozenset[str]
    pass_code: str = "wrong"
    claims: Mapping[str, Any] = field(default_factory=dict)
    known: bool = True


FLOODS: Final = (
    Flood("an expired login", frozenset({"EXPIRED_TOKEN"}), claims={"exp": 1}),
    Flood("a revoked login", frozenset({"INVALID_TOKEN"}), claims={"jti": "revoked-login-1"}),
    Flood("a user without the right", frozenset({"ACCESS_DENIED"}), claims={"user": "reader"}),
    Flood("unknown identifiers", _GUESSES, claims={"user": "guesses identifiers"}, known=False),
    Flood("wrong pass codes", _GUESSES, claims={"user": "guesses pass codes"}),
    Flood("right pass codes", frozenset({"OK"}), pass_code=_PASS_CODE),
)


@dataclass(frozen=True, slots=True)
class Waits:
    """The waits of commands by code, in ms: those of other partitions, and those of the flooded one."""

    beside: str
    others: Sequence[float]
    there: Sequence[float]


async def flooding(stage: Stage, report: Report, quick: bool) -> None:
    """Measure and report."""
    phase = Phase.at(RATE, QUICK_SECONDS if quick else SECONDS)
    run, flooded = new_run(), new_run()
    await make_tokens(stage.owner_dsn, run, (len(FLOODS) + 1) * (WARM_UP.count + phase.count))
    await make_tokens(stage.owner_dsn, flooded, COMMANDS)
    async with stage.owner() as connection:
        await connection.execute(
            "UPDATE access_token SET identifier = id, pass_code_hash = $2 WHERE starts_with(id, $1 || '-')",
            flooded,
            HASHER.hash(_PASS_CODE),
        )
        await connection.execute(
            "INSERT INTO app_user (organisation, id, username, rights)"
            " SELECT 'ORG1', name, name, '{ACCESS_TOKENS.SET_EFFECTIVE}' FROM unnest($1::text[]) AS name",
            [str(flood.claims["user"]) for flood in FLOODS if flood.statuses is _GUESSES],
        )
    passes: list[tuple[str, Timed, int]] = []
    async with place_for(stage, bulk=False) as place:
        first = 1
        passes.append(("nothing", await place.timed(run, first, WARM_UP, phase), first))
        for flood in FLOODS:
            first += WARM_UP.count + phase.count
            name = new_run()
            sending = asyncio.create_task(_send(place, flood, flooded if flood.known else new_run(), name))
            passes.append((flood.name, await place.timed(run, first, WARM_UP, phase), first))
            await sending
            await place.through()
            answers = await asyncio.to_thread(answered, stage.bootstrap, place.topics.results, name)
            assert set(answers.statuses) <= flood.statuses, f"{answers.statuses} beside {flood.name}"
            answers.check(COMMANDS, answers.statuses)
    waits = [Waits(name, *_split(run, first, timed)) for name, timed, first in passes]
    columns = ("beside", "others p50", "others p99", "others longest", "there p50", "there p99", "there longest")
    report.table(
        f"Commands by code at {RATE}/s beside {COMMANDS} with pass codes in one partition, in ms",
        columns,
        [(each.beside, *_row(each.others), *_row(each.there)) for each in waits],
    )
    before, *during = waits
    for each in during:
        _judge(report, f"others beside {each.beside}", each.others, before.others, OTHERS_BAR)
        _judge(report, f"its own partition's beside {each.beside}", each.there, before.there, OWN_BAR)


def _row(took: Sequence[float]) -> tuple[float, float, float]:
    return percentile(took, 0.5), percentile(took, 0.99), max(took)


def _judge(report: Report, whose: str, took: Sequence[float], before: Sequence[float], bar: float) -> None:
    ratio = percentile(took, 0.99) / percentile(before, 0.99)
    report.judge(f"p99 of {whose}, by that before", f"<= {bar:g} x", f"{ratio:.2f} x", met=ratio <= bar)


async def _send(place: Place, flood: Flood, tokens: str, name: str) -> None:
    """Let the loop warm up, and send them all at once."""
    await asyncio.sleep(WARM_UP.count / (WARM_UP.rate or RATE) + 1)
    written = list(_written(flood, tokens, name))
    await asyncio.to_thread(send_all, place.stage.bootstrap, place.topics.commands, written)


def _written(flood: Flood, tokens: str, name: str) -> Iterator[Written]:
    login = login_token(**flood.claims)
    keys = _keys(name)
    for number in range(1, COMMANDS + 1):
        identifier = {"identifier": f"{tokens}-{number}", "pass_code": flood.pass_code}
        [(_, value, headers)] = commands(name, [number], token=login, access_token_identifier=identifier)
        yield next(keys), value, headers


def _keys(name: str) -> Iterator[bytes]:
    """Yield keys that librdkafka's partitioner puts into the one partition."""
    numbered = (f"{name}-{number}".encode() for number in range(PARTITIONS * COMMANDS * 10))
    return islice((key for key in numbered if _is_there(key)), COMMANDS)


def _is_there(key: bytes) -> bool:
    return crc32(key) % PARTITIONS == PARTITION


def _split(run: str, first: int, timed: Timed) -> tuple[list[float], list[float]]:
    """Return the times of the commands of other partitions, and those of the flooded one."""
    counted = range(first + WARM_UP.count, first + WARM_UP.count + len(timed.took))
    there = [_is_there(key) for key, _, _ in commands(run, counted)]
    took = list(zip(there, timed.took, strict=True))
    return [each for is_there, each in took if not is_there], [each for is_there, each in took if is_there]
