"""The cost of ``import``: time, memory and CPU.

It imports new access tokens, the same again, pass codes, and with an import that is killed again and again.
"""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.acceptance.worker_process import worker_settings
from tests.benchmarks.meter import PROC, cpu_seconds, status_bytes
from tests.benchmarks.report import Report
from tests.benchmarks.stage import Stage
from worker.journey.pass_codes import HASHER
from worker.kafka.topics import PARTITIONS

TOKENS: Final = 1_000_000
PASS_CODES: Final = 2_000
"""Plain pass codes, which are hashed here."""
KILLS: Final = 5
SHARE: Final = 5
"""Access tokens that have an account, its owner and a rewards participant in common."""
FEW: Final = 100
"""Classifications, users, and units."""
BAD_EACH: Final = 10_000
"""Of so many lines one cannot be loaded."""
MEMORY_BAR: Final = 200
"""MiB."""
POLL_SECONDS: Final = 0.05
_TABLES: Final = (
    "access_token",
    "accounts_receivable",
    "contact",
    "rewards_participant",
    "classification",
    "app_user",
    "unit",
)


@dataclass(frozen=True, slots=True)
class Imported:
    """A run of ``import``: its JSON output, and its cost. Memory in bytes, the most at one moment."""

    said: Mapping[str, Any]
    seconds: float
    memory: int
    cpu: float
    postgres: float


# --- lines ------------------------------------------------------------------------------------------------------------


def write_lines(path: Path, organisation: str, tokens: int, pass_code_hash: str) -> int:
    """Write access tokens as another system might; return the number of bad lines."""
    chance = random.Random(tokens)
    bad = 0
    with path.open("w", encoding="utf-8") as file:
        for line in _reference(organisation):
            file.write(json.dumps(line) + "\n")
        for number in range(1, tokens + 1):
            token = _token(organisation, number, chance)
            if number % 10 == 0:
                token["pass_code_hash"] = pass_code_hash
            if number % BAD_EACH == BAD_EACH // 2:
                token["number"] = None
                bad += 1
            elif number % BAD_EACH == 0:
                token["authentication_code"] = f"C{number - 1}"  # another one has it, so Postgres must say so
                bad += 1
            file.write(json.dumps(token) + "\n")
    return bad


def _reference(organisation: str) -> Iterator[dict[str, Any]]:
    yield {"kind": "organisation", "id": organisation, "name": "Imported"}
    for number in range(FEW):
        yield {"kind": "unit", "organisation": organisation, "id": f"unit-{number}", "name": f"Unit {number}"}
        yield {
            "kind": "user",
            "organisation": organisation,
            "id": f"user-{number}",
            "username": f"user{number}",
            "unit": f"unit-{number}",
            "rights": ["ACCESS_TOKENS.SET_EFFECTIVE"],
        }


def _token(organisation: str, number: int, chance: random.Random) -> dict[str, Any]:
    account = _account(number // SHARE)
    return {
        "kind": "access_token",
        "organisation": organisation,
        "id": f"{chance.getrandbits(128):032X}",
        "number": f"N{number}",
        "life_cycle_state": "EFFECTIVE" if number % 4 == 0 else "NOT_EFFECTIVE",
        "authentication_code": f"C{number}",
        "identifier": f"customer{number}@example.com",
        "card_masked_number": f"************{number % 10_000:04}",
        "card_last_4_digits": f"{number % 10_000:04}",
        "verified_date": "2016-10-05T13:19:56",
        "verified_by_user": _user(number % FEW),
        "udf_string_1": "brought over",
        "udf_float_1": number / 8,
        "udf_date_1": "2020-02-29T00:00:00",
        "classification": {"id": f"class-{number % FEW}", "name": f"Class {number % FEW}", "alternative_code": None},
        "accounts_receivable": account,
        "rewards_participant": {
            "number": f"RP{number // SHARE}",
            "accounts_receivable": account,
            "id": f"rewards-{number // SHARE}",
            "life_cycle_state": "EFFECTIVE",
        },
        "log_information": {
            "created_date": "2016-10-05T13:19:56",
            "updated_date": "2019-03-01T08:00:00",
            "created_by_user": _user(number % FEW),
            "updated_by_user": _user((number + 1) % FEW),
            "created_by_unit": _unit(number % FEW),
            "updated_by_unit": _unit((number + 1) % FEW),
        },
    }


def _account(number: int) -> dict[str, Any]:
    country = {"id": "300", "name": "Greece", "alternative_code": "GR", "two_character_code": "GR"}
    return {
        "number": f"ACR{number}",
        "name": f"Papadopoulou {number}",
        "id": f"account-{number}",
        "life_cycle_state": "ACTIVE",
        "account_owner": {
            "company_profile": None,
            "company_name": None,
            "name": f"Eleni Papadopoulou {number}",
            "last_name": "Papadopoulou",
            "id": f"contact-{number}",
            "life_cycle_state": "FINANCIAL",
            "middle_name": None,
            "title": "Mrs",
            "type": "PERSON",
            "first_name": "Ελένη",
            "demographics": {
                "name_day": {"month": 5, "day": 21},
                "gender": "FEMALE",
                "country_of_residence": country,
                "date_of_birth": {"month": 1, "year": 1980, "day": 1 + number % 28},
                "industry": {"id": "7", "name": "Shipping", "alternative_code": None},
            },
        },
    }


def _user(number: int) -> dict[str, Any]:
    return {"id": f"user-{number}", "username": f"user{number}", "person_name": f"User {number}", "email": None}


def _unit(number: int) -> dict[str, Any]:
    return {"id": f"unit-{number}", "name": f"Unit {number}", "description": "As it was there"}


# --- runs -------------------------------------------------------------------------------------------------------------


async def importing(stage: Stage, report: Report, quick: bool) -> None:
    """Import a million new access tokens with all that belongs to them, announce them, and import them again.

    Then import others while the process is killed on the way, and then plain pass codes. Each import has an
    organisation of its own.
    """
    count = TOKENS // (50 if quick else 1)
    topics = await stage.new_topics(PARTITIONS)
    settings = worker_settings(stage.bootstrap, topics, stage.dsn)
    run = Run(stage, settings | {"WORKER_POSTGRES__OWNER_DSN": stage.owner_dsn})
    file, given = stage.directory / "import.ndjson", HASHER.hash("2468")
    bad = write_lines(file, "IMPORTED", count, given)
    report.say(f"{count:,} access tokens are {file.stat().st_size / 2**20:,.0f} MiB, and {bad} of the lines are bad")
    first = await asyncio.to_thread(run.once, str(file), "--no-events")
    announced = await asyncio.to_thread(run.once, "--announce")
    again = await asyncio.to_thread(run.once, str(file), "--no-events")
    assert first.said == again.said, f"{first.said} and {again.said} of the same file"
    bad = write_lines(file, "KILLED", count, given)
    killed = await asyncio.to_thread(run.killed, KILLS, first.seconds, str(file), "--no-events")
    assert first.said["bad_count"] == killed.said["bad_count"] == bad
    assert [first.said[name] for name in ("read", "loaded")] == [killed.said[name] for name in ("read", "loaded")]
    assert await _held(stage, "IMPORTED") == await _held(stage, "KILLED"), "a killed import ended otherwise"
    hashed = PASS_CODES // (10 if quick else 1)
    _write_pass_codes(file, hashed)
    plain = await asyncio.to_thread(run.once, str(file), "--no-events")
    rows = [
        _row("new access tokens", first, first.said["read"]),
        _row("the same again", again, again.said["read"]),
        _row(f"others, killed {KILLS} times", killed, killed.said["read"]),
        _row("first states announced", announced, announced.said["events"]["published"]),
        _row("plain pass codes", plain, hashed),
    ]
    columns = ("import", "lines", "min", "lines/s", "µs import", "µs Postgres", "peak MiB")
    report.table("What it takes to import", columns, rows)
    memory = max(each.memory for each in (first, announced, again, killed, plain)) / 2**20
    report.judge("memory to import", f"<= {MEMORY_BAR} MiB", f"{memory:.0f} MiB", met=memory <= MEMORY_BAR)
    file.unlink()
    await stage.drop_topics(topics)


def _row(label: str, run: Imported, count: int) -> tuple[str, int, float, float, float, float, float]:
    each = 1e6 / count
    return (
        label,
        count,
        run.seconds / 60,
        count / run.seconds,
        run.cpu * each,
        run.postgres * each,
        run.memory / 2**20,
    )


@dataclass(frozen=True, slots=True)
class Run:
    """Runs ``import`` as a migrating user would."""

    stage: Stage
    settings: Mapping[str, str] = field(repr=False)

    def once(self, *arguments: str) -> Imported:
        """Run it to its end."""
        return self.killed(0, 0.0, *arguments)

    def killed(self, kills: int, seconds: float, *arguments: str) -> Imported:
        """Run it to its end, which may take ``seconds``, after killing it so many times at random moments."""
        chance = random.Random(kills)
        began, postgres = time.monotonic(), cpu_seconds(self.stage.postgres_pid)
        memory, cpu, said = 0, 0.0, ""
        for until in [*(chance.uniform(0.2, 0.8) * seconds / kills for _ in range(kills)), None]:
            said, held, used_here = self._process(arguments, until)
            memory, cpu = max(memory, held), cpu + used_here
        taken = time.monotonic() - began
        return Imported(json.loads(said), taken, memory, cpu, cpu_seconds(self.stage.postgres_pid) - postgres)

    def _process(self, arguments: Sequence[str], until: float | None) -> tuple[str, int, float]:
        """Return its output, its peak memory, and the CPU that it used: ``until`` it was killed, or all."""
        began, memory = time.monotonic(), 0
        with subprocess.Popen(
            [sys.executable, "-m", "worker", "import", *arguments, "--json"],
            env={**os.environ, **self.settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:
            cpu = 0.0
            while process.poll() is None:
                # It has no children; a process that has ended and was not reaped yet reports no memory.
                status = (PROC / str(process.pid) / "status").read_text(encoding="utf-8")
                memory = max(memory, status_bytes(status).get("VmHWM", 0))
                cpu = max(cpu, cpu_seconds(process.pid))
                if until is not None and time.monotonic() - began > until:
                    process.kill()
                time.sleep(POLL_SECONDS)
            assert process.stdout is not None
            said = process.stdout.read()
        assert process.returncode in {0, 1, -signal.SIGKILL}, said
        return said, memory, cpu


async def _held(stage: Stage, organisation: str) -> Mapping[str, Any]:
    """Return a digest of each table's rows for an organisation, whose name is left out."""
    async with stage.owner() as connection:
        return {
            table: await connection.fetchval(
                f"SELECT md5(string_agg(md5((to_jsonb(t) - 'organisation')::text), '' ORDER BY id)) FROM {table} AS t"
                " WHERE organisation = $1",
                organisation,
            )
            for table in _TABLES
        }


def _write_pass_codes(path: Path, count: int) -> None:
    chance = random.Random(count)
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps({"kind": "organisation", "id": "HASHED", "name": "Hashed here"}) + "\n")
        for number in range(1, count + 1):
            token = {"id": f"{chance.getrandbits(128):032X}", "number": f"N{number}", "life_cycle_state": "EFFECTIVE"}
            whose = {"kind": "access_token", "organisation": "HASHED", "pass_code": f"{number:06}"}
            file.write(json.dumps(whose | token) + "\n")
