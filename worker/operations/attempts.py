"""List the series of wrong codes and pass codes, and end the wait of a caller.

See CONTRACT, Command line, ``attempts``.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from worker.journey.attempt_limits import Kind, Limits, wait_after
from worker.journey.attempts import limits_of
from worker.journey.digests import attempt_keys, digest
from worker.postgres.connect import owner_connection
from worker.postgres.pool import Row
from worker.postgres.sql import statement
from worker.settings import Settings

_ALL: Final = 2**31


@dataclass(frozen=True, slots=True)
class Guesses:
    """A series of wrong guesses of one caller; on one identifier if ``identifier_digest`` is given. Times are in UTC.

    ``failures`` counts those in a row, ``failed`` all that are remembered. Until ``waits_until`` the next guess is
    refused unchecked; ``None`` if it is checked.
    """

    organisation: str
    user: str
    account: str | None
    """The consumer application's login, if the caller is one."""
    kind: Kind
    identifier_digest: str | None
    failures: int
    failed: int
    first_at: datetime
    last_at: datetime
    waits_until: datetime | None


async def guesses(
    settings: Settings,
    *,
    organisation: str | None = None,
    user: str | None = None,
    identifier: str | None = None,
    ended: bool = False,
    limit: int = 100,
) -> list[Guesses]:
    """Return the series of guesses, the longest first. An ``identifier`` needs its ``organisation``.

    Raises ``NoDigestKey`` if an ``identifier`` is given and no key is set, and ``DependencyUnavailable`` for Postgres.
    """
    named = _digest(settings, organisation, identifier)
    async with owner_connection(settings.postgres.dsn.get_secret_value()) as connection:
        now = await connection.fetchval(statement("connection/clock"))
        rows = await connection.fetch(statement("attempts/list"), organisation, user, named, ended, limit)
    limits = limits_of(settings)
    return [_guesses(row, limits, now) for row in rows]


async def forgive(
    settings: Settings, organisation: str, *, user: str | None, identifier: str | None, carry_out: bool
) -> list[Guesses]:
    """End the series of a user, of an identifier, or of a user on an identifier. Without ``carry_out`` only find them.

    Raises the errors of ``guesses``.
    """
    found = await guesses(settings, organisation=organisation, user=user, identifier=identifier, limit=_ALL)
    if carry_out:
        named = _digest(settings, organisation, identifier)
        async with owner_connection(settings.postgres.dsn.get_secret_value()) as connection:
            await connection.execute(statement("attempts/forgive"), organisation, user, named)
    return found


def _digest(settings: Settings, organisation: str | None, identifier: str | None) -> bytes | None:
    if identifier is None:
        return None
    return digest(attempt_keys(settings)[0], "identifier", organisation or "", identifier)


def _guesses(row: Row, limits: Limits, now: datetime) -> Guesses:
    kind = Kind(row["kind"])
    until = row["last_at"] + timedelta(seconds=wait_after(kind, row["failures"], limits))
    return Guesses(
        row["organisation"],
        row["user_id"],
        row["account"] or None,
        kind,
        row["identifier"].hex() or None,
        row["failures"],
        row["failed"],
        row["first_at"],
        row["last_at"],
        until if until > now else None,
    )
