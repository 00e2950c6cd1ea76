"""Compare every access token with its history."""

import asyncpg

from worker.operations.audit.report import Audit, Kind
from worker.operations.findings import Origin, Progress, state_text, token_place
from worker.postgres.pages import by_token
from worker.postgres.sql import statement


async def verify_states(connection: asyncpg.Connection, report: Audit, progress: Progress) -> None:
    """Report every access token that differs from the end of its history, and every history that has a gap.

    A state has no time: the report's restriction to an organisation alone restricts it.
    """

    def advance(count: int) -> None:
        report.states += count
        progress.advance(count)

    own = None if report.restriction is None else report.restriction.organisation
    async for row in by_token(connection, statement("audit/states"), organisation=own, on_page=advance):
        where, origin = token_place(row["organisation"], row["id"]), Origin(row["organisation"])
        if row["is_gap"]:
            report.found(Kind.HISTORY, where, "its versions do not count 1, 2, 3 …", origin)
        if row["is_elsewhere"]:
            report.found(Kind.HISTORY, where, "a transition does not begin where the one before has ended", origin)
        now = state_text(row["life_cycle_state"], row["version"])
        told = state_text(row["told_state"], row["told_version"])
        if row["is_gone"]:
            report.found(Kind.GONE, where, f"its last transition: {told}", origin)
        elif now != told and (row["told_version"] is not None or row["life_cycle_state"] == "EFFECTIVE"):
            report.found(Kind.STATE, where, f"is {now}; its last transition: {told}", origin)
        if row["is_of_others"]:
            report.found(Kind.SIGNED, where, "its updated_* are not those of its last transition", origin)
