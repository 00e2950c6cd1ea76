"""``audit``: an honest history holds, and every forgery is named."""

import hashlib
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncpg
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.providers.postgres import DatabaseUnderTest
from tests.support.journey import Journey, by_code, journey
from worker.journey.model import Transition
from worker.operations.audit.anchors import Anchor, AnchorError, read_anchor, take_anchor
from worker.operations.audit.numbers import Numbers
from worker.operations.audit.report import Audit, Kind
from worker.operations.audit.verify import verify
from worker.operations.findings import Finding, Progress, Restriction
from worker.postgres.pages import pages
from worker.postgres.pool import Row

NOW: Final = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
LANE: Final = "cluster/group/commands/0"
TOKENS: Final = 9
"""Six of one lane, three of another."""


@pytest.fixture
async def j(database: DatabaseUnderTest) -> AsyncIterator[Journey]:
    """Yield a history of two lanes, in batches of two."""
    async with journey(database.worker_dsn, database.owner_dsn, whole=True) as opened:
        await opened.owner.execute(
            "INSERT INTO access_token (organisation, id, number, life_cycle_state, authentication_code)"
            " SELECT 'ORG1', 'T' || n, 'T' || n, 'NOT_EFFECTIVE', 'T' || n FROM generate_series(1, $1::integer) AS n",
            TOKENS,
        )
        first, second = await opened.lane(0), await opened.lane(1)
        for number in (1, 3, 5):
            await first.run(by_code(f"T{number}"), by_code(f"T{number + 1}"))
        await second.run(*(by_code(f"T{number}") for number in (7, 8, 9)))
        # The forger is the database's master.
        await opened.owner.execute("SET session_replication_role = replica")
        await opened.owner.execute("ALTER TABLE transition DROP CONSTRAINT transition_rule_check")
        yield opened


async def test_no_snapshot_stays_open_while_it_reads_on(j: Journey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.postgres.pages.ROWS", 2)
    open_: list[bool] = []
    advance = Progress.advance

    def advanced(progress: Progress, count: int = 1) -> None:
        open_.append(j.owner.is_in_transaction())
        advance(progress, count)

    monkeypatch.setattr(Progress, "advance", advanced)
    report = await audited(j)
    assert (report.holds, report.transitions, report.lanes) == (True, TOKENS, 2)
    # Five pages of transitions, and as many of access tokens, half of them with their histories; the last is empty.
    assert set(open_) == {False}
    assert len(open_) > 10
    assert report.states == len(await j.owner.fetch("SELECT FROM access_token"))


async def test_a_lane_that_goes_on_while_it_is_read_holds(j: Journey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.postgres.pages.ROWS", 1)
    lane, fresh = await j.lane(2), iter("AB")
    await j.owner.execute(
        "INSERT INTO access_token (organisation, id, number, life_cycle_state, authentication_code)"
        " SELECT 'ORG1', n, n, 'NOT_EFFECTIVE', n FROM unnest('{A,B}'::text[]) AS n"
    )

    async def pages_with_work(*arguments: Any) -> AsyncIterator[list[Row]]:
        async for page in pages(*arguments):
            yield page
            if (code := next(fresh, None)) is not None:
                await lane.run(by_code(code))

    monkeypatch.setattr("worker.operations.audit.chains.pages", pages_with_work)
    report = await audited(j)
    assert (report.holds, report.transitions) == (True, TOKENS + 2), named(report)


async def audited(j: Journey, anchor: Anchor | None = None) -> Audit:
    return await verify(j.owner, anchor=anchor)


def named(report: Audit) -> set[tuple[Kind, str]]:
    return {(finding.kind, finding.where) for finding in report.findings}


def at(sequence: int) -> str:
    return f"lane {LANE} sequence {sequence}"


def token(name: str) -> str:
    return f"access token {name} of ORG1"


async def test_an_honest_history_holds(j: Journey) -> None:
    told: list[tuple[str, int, int]] = []

    report = await verify(
        j.owner, anchor=await take_anchor(j.owner, now=NOW), on_progress=lambda *now: told.append(now)
    )

    assert told == [("chains", 0, TOKENS), ("states", 0, 0)]
    moments = await j.owner.fetchrow("SELECT min(occurred_at), max(occurred_at) FROM transition")
    assert report.holds
    assert (report.earliest, report.latest) == tuple(moments or ())
    assert (report.lanes, report.transitions, report.anchored, report.events) == (2, TOKENS, 2, None)


async def test_the_role_of_the_worker_may_verify(j: Journey, database: DatabaseUnderTest) -> None:
    connection = await asyncpg.connect(database.worker_dsn)
    try:
        assert (await verify(connection, anchor=await take_anchor(connection, now=NOW))).holds
    finally:
        await connection.close()


# --- a row's contents -------------------------------------------------------------------------------------------------

CHANGES: Final = {
    "organisation": "'ORG2'",
    "access_token_id": "'other'",
    "version": "2",
    "from_state": "'PENDING_VERIFICATION'",
    "to_state": "'NOT_EFFECTIVE'",
    "occurred_at": "occurred_at + interval '1 microsecond'",
    "user_id": "'somebody else'",
    "unit_id": "NULL",
    "command_id": "command_id || '.'",
    "cause": "'IMPORT'",
    "previous_hash": "sha256('')",
    "hash": "sha256('')",
}


@pytest.mark.parametrize("column", CHANGES)
async def test_a_changed_row_is_named_whatever_was_changed(j: Journey, column: str) -> None:
    await j.owner.execute(f"UPDATE transition SET {column} = {CHANGES[column]} WHERE access_token_id = 'T3'")

    assert (Kind.CHANGED, at(3)) in named(await audited(j))


async def test_every_column_is_changed_by_some_test(j: Journey) -> None:
    columns = await j.owner.fetch(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'transition'::regclass AND attnum > 0"
    )

    assert {row["attname"] for row in columns} == {*CHANGES, "lane", "sequence", "record_offset"}


@pytest.mark.parametrize("moment", ["99999-01-01", "0044-03-15 BC", "infinity", "-infinity"])
async def test_a_moment_beyond_every_calendar_hides_nothing(j: Journey, moment: str) -> None:
    await j.owner.execute(
        "UPDATE transition SET occurred_at = $1::text::timestamptz WHERE access_token_id = 'T2'", moment
    )
    await j.owner.execute("UPDATE transition SET user_id = 'else' WHERE access_token_id = 'T5'")

    assert {(Kind.CHANGED, at(2)), (Kind.CHANGED, at(5))} <= named(await audited(j))


async def test_a_row_that_was_given_the_hash_of_what_it_says_now_breaks_the_link_after_it(j: Journey) -> None:
    await forge(j, 3, lambda transition: replace(transition, user="somebody else"))

    report = await audited(j)

    assert named(report) == {(Kind.UNLINKED, at(4)), (Kind.SIGNED, token("T3"))}


async def test_what_was_expected_is_said(j: Journey) -> None:
    hashes = [row["hash"].hex() for row in await j.owner.fetch("SELECT hash FROM transition ORDER BY lane, sequence")]
    await j.owner.execute("DELETE FROM transition WHERE access_token_id = 'T6'")

    [head, state] = (await audited(j)).findings

    what = f"its head is sequence 6, {hashes[5]}; the last transition is sequence 5, {hashes[4]}"
    assert head == Finding(Kind.HEAD, f"lane {LANE}", what)
    assert state == Finding(Kind.STATE, token("T6"), "is EFFECTIVE, version 1; its last transition: none")


# --- rows that come and go --------------------------------------------------------------------------------------------


async def test_a_removed_row_is_named(j: Journey) -> None:
    await j.owner.execute("DELETE FROM transition WHERE access_token_id IN ('T3', 'T4')")

    report = await audited(j)

    assert [finding.what for finding in report.findings if finding.kind is Kind.MISSING] == ["sequence 3 to 4"]
    assert named(report) == {(Kind.MISSING, f"lane {LANE}"), (Kind.STATE, token("T3")), (Kind.STATE, token("T4"))}


async def test_swapped_rows_are_named(j: Journey) -> None:
    for old, new in ((2, 99), (3, 2), (99, 3)):
        await j.owner.execute("UPDATE transition SET sequence = $2 WHERE lane = 1 AND sequence = $1", old, new)

    assert {(Kind.CHANGED, at(2)), (Kind.CHANGED, at(3))} <= named(await audited(j))


async def test_a_row_of_another_lane_is_named(j: Journey) -> None:
    await j.owner.execute("UPDATE transition SET lane = 2, sequence = 4 WHERE access_token_id = 'T6'")

    assert named(await audited(j)) == {
        (Kind.HEAD, f"lane {LANE}"),
        (Kind.UNLINKED, "lane cluster/group/commands/1 sequence 4"),
        (Kind.CHANGED, "lane cluster/group/commands/1 sequence 4"),
        (Kind.HEAD, "lane cluster/group/commands/1"),
        (Kind.LATE, "lane cluster/group/commands/1 sequence 4"),
        (Kind.UNRECORDED, "lane cluster/group/commands/1 sequence 4"),
    }


async def test_an_inserted_row_is_named(j: Journey) -> None:
    await j.owner.execute(
        "INSERT INTO transition (organisation, access_token_id, version, to_state, occurred_at, cause, lane, sequence,"
        " previous_hash, hash) SELECT 'ORG1', 'T1', 2, 'EFFECTIVE', now(), 'API', 1, 7, hash, sha256('')"
        " FROM transition WHERE lane = 1 AND sequence = 6"
    )

    report = await audited(j)

    assert {(Kind.CHANGED, at(7)), (Kind.HEAD, f"lane {LANE}"), (Kind.STATE, token("T1"))} <= named(report)


async def test_a_truncated_table_is_named(j: Journey) -> None:
    await j.owner.execute("TRUNCATE transition")

    report = await audited(j)

    assert report.counts == {Kind.HEAD: 2, Kind.STATE: TOKENS}


async def test_a_removed_lane_is_named(j: Journey) -> None:
    await j.owner.execute("DELETE FROM lane WHERE id = 1")

    assert (Kind.NO_LANE, "lane with the id 1") in named(await audited(j))


# --- access tokens ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["life_cycle_state = 'NOT_EFFECTIVE'", "version = 2", "version = 0"])
async def test_a_changed_access_token_is_named(j: Journey, change: str) -> None:
    await j.owner.execute(f"UPDATE access_token SET {change} WHERE id = 'T5'")

    assert named(await audited(j)) == {(Kind.STATE, token("T5"))}


async def test_a_history_that_is_not_whole_is_named(j: Journey) -> None:
    await j.owner.execute("UPDATE transition SET version = 3 WHERE access_token_id = 'T5'")
    await j.owner.execute("UPDATE access_token SET version = 3 WHERE id = 'T5'")
    await j.owner.execute("UPDATE transition SET access_token_id = 'T1', version = 2 WHERE access_token_id = 'T2'")

    await j.owner.execute(
        "UPDATE transition SET access_token_id = 'T3', version = 2, from_state = NULL WHERE access_token_id = 'T4'"
    )

    report = await audited(j)

    assert {(Kind.HISTORY, token(name)) for name in ("T1", "T3", "T5")} <= named(report)


async def test_an_access_token_that_is_gone_is_named(j: Journey) -> None:
    await j.owner.execute("DELETE FROM access_token WHERE id = 'T5'")

    assert named(await audited(j)) == {(Kind.GONE, token("T5"))}


async def test_one_that_is_effective_without_any_history_is_named(j: Journey) -> None:
    await j.owner.execute(
        "INSERT INTO access_token (organisation, id, number, life_cycle_state)"
        " VALUES ('ORG1', 'A', 'A', 'EFFECTIVE'), ('ORG1', 'B', 'B', 'NOT_EFFECTIVE')"
    )

    assert named(await audited(j)) == {(Kind.STATE, token("A"))}


@pytest.mark.parametrize(
    "change",
    [
        "updated_by_user = 'somebody else'",
        "updated_by_unit = NULL",
        "updated_date = updated_date - interval '1 second'",
    ],
)
async def test_who_is_said_to_have_changed_an_access_token_and_did_not_is_named(j: Journey, change: str) -> None:
    await j.owner.execute(f"UPDATE access_token SET {change} WHERE id = 'T5'")

    assert named(await audited(j)) == {(Kind.SIGNED, token("T5"))}


# --- its lane and its record ------------------------------------------------------------------------------------------


async def test_a_command_without_its_record_is_named_until_records_are_retired(j: Journey) -> None:
    await j.owner.execute("DELETE FROM command_record WHERE access_token_id = 'T4'")

    assert named(await audited(j)) == {(Kind.UNRECORDED, at(4))}
    assert (await verify(j.owner, kept=timedelta(0))).holds


@pytest.mark.parametrize("change", ["version = 2", "lane = 2", "access_token_id = 'T5'", "organisation = 'ORG2'"])
async def test_a_record_of_something_else_is_none(j: Journey, change: str) -> None:
    await j.owner.execute(f"UPDATE command_record SET {change} WHERE access_token_id = 'T4'")

    assert named(await audited(j)) == {(Kind.UNRECORDED, at(4))}


async def test_a_transition_that_is_earlier_than_the_one_before_is_named(j: Journey) -> None:
    await forge(j, 4, lambda transition: replace(transition, occurred_at=transition.occurred_at - timedelta(days=1)))

    assert (Kind.LATE, at(4)) in named(await audited(j))
    assert (Kind.LATE, at(5)) not in named(await audited(j))


async def test_a_transition_of_a_kind_that_is_not_its_lanes_is_named(j: Journey) -> None:
    await j.owner.execute("UPDATE transition SET cause = 'IMPORT' WHERE access_token_id = 'T4'")

    assert (Kind.CAUSE, at(4)) in named(await audited(j))


# --- restricted -------------------------------------------------------------------------------------------------------

OTHERS: Final = Restriction("ORG2")
LATER: Final = Restriction(since=datetime(2999, 1, 1, tzinfo=UTC))


async def restricted(j: Journey, restriction: Restriction) -> Audit:
    return await verify(j.owner, restriction=restriction)


async def test_a_restricted_run_reads_every_chain_and_the_states_of_one_organisation(j: Journey) -> None:
    await j.owner.execute(
        "INSERT INTO access_token (organisation, id, number, life_cycle_state)"
        " VALUES ('ORG0', 'A', 'A', 'EFFECTIVE'), ('ORG8', 'A', 'A', 'NOT_EFFECTIVE'), ('ORG9', 'A', 'A', 'EFFECTIVE')"
    )
    ours = await j.owner.fetchval("SELECT count(*) FROM access_token WHERE organisation = 'ORG1'")

    one, others = await restricted(j, Restriction("ORG1")), await restricted(j, Restriction("ORG8"))

    assert (one.transitions, one.states) == (TOKENS, ours)
    assert (others.transitions, others.states) == (TOKENS, 1)
    assert (one.verdict, others.verdict) == (None, None)
    assert (await audited(j)).counts == {Kind.STATE: 2}


async def test_the_states_of_one_organisation_are_read_in_pages(j: Journey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.postgres.pages.ROWS", 2)
    await j.owner.execute("UPDATE access_token SET version = 7 WHERE id IN ('T2', 'T9')")
    ours = await j.owner.fetchval("SELECT count(*) FROM access_token WHERE organisation = 'ORG1'")

    report = await restricted(j, Restriction("ORG1"))

    assert report.states == ours
    assert named(report) == {(Kind.STATE, token("T2")), (Kind.STATE, token("T9"))}


@pytest.mark.parametrize("restriction", [OTHERS, LATER])
async def test_findings_of_others_and_of_another_time_are_counted(j: Journey, restriction: Restriction) -> None:
    await j.owner.execute("UPDATE transition SET unit_id = 'X' WHERE access_token_id = 'T3'")
    await j.owner.execute("DELETE FROM command_record WHERE access_token_id = 'T4'")
    await j.owner.execute("UPDATE transition SET previous_hash = sha256('') WHERE access_token_id = 'T5'")

    report = await restricted(j, restriction)

    assert report.outside == {Kind.CHANGED: 2, Kind.UNRECORDED: 1, Kind.UNLINKED: 1}
    # A state has no time.
    assert named(report) == (set() if restriction is OTHERS else {(Kind.SIGNED, token("T3"))})
    assert report.verdict is False


async def test_a_row_that_was_given_to_another_organisation_is_not_hidden_from_either(j: Journey) -> None:
    await j.owner.execute("UPDATE transition SET organisation = 'ORG2' WHERE access_token_id = 'T3'")

    one, others = await restricted(j, Restriction("ORG1")), await restricted(j, OTHERS)

    assert (one.outside, named(one)) == ({Kind.CHANGED: 1, Kind.UNRECORDED: 1}, {(Kind.STATE, token("T3"))})
    assert {(Kind.CHANGED, at(3)), (Kind.GONE, "access token T3 of ORG2")} <= named(others)


async def test_a_link_that_does_not_fit_is_of_both_its_ends(j: Journey) -> None:
    """The row before was forged whole; the finding is at the row after it."""
    await j.owner.execute("UPDATE transition SET organisation = 'ORG2' WHERE access_token_id = 'T4'")
    await forge(j, 4, lambda transition: transition)

    assert (Kind.UNLINKED, at(5)) in named(await restricted(j, OTHERS))
    assert (Kind.UNLINKED, at(5)) in named(await restricted(j, Restriction("ORG1")))


async def test_what_is_of_a_whole_lane_is_everybodys(j: Journey) -> None:
    anchor = await take_anchor(j.owner, now=NOW)
    await j.owner.execute("DELETE FROM transition WHERE access_token_id IN ('T2', 'T6')")

    report = await verify(j.owner, anchor=anchor, restriction=OTHERS)

    lane = f"lane {LANE}"
    assert named(report) == {(Kind.MISSING, lane), (Kind.HEAD, lane), (Kind.ANCHOR, lane)}


# --- anchors ----------------------------------------------------------------------------------------------------------


async def test_a_last_row_that_was_removed_with_all_its_traces_is_found_by_the_anchor_alone(j: Journey) -> None:
    anchor = await take_anchor(j.owner, now=NOW)
    await j.owner.execute("DELETE FROM transition WHERE access_token_id = 'T6'")
    await set_heads_back(j)
    await j.owner.execute("UPDATE access_token SET life_cycle_state = 'NOT_EFFECTIVE', version = 0 WHERE id = 'T6'")

    assert (await audited(j)).holds
    assert named(await audited(j, anchor)) == {(Kind.ANCHOR, f"lane {LANE}")}


async def test_a_truncated_table_with_all_its_traces_is_found_by_the_anchor_alone(j: Journey) -> None:
    anchor = await take_anchor(j.owner, now=NOW)
    await j.owner.execute("TRUNCATE transition")
    await j.owner.execute("UPDATE lane SET chain_sequence = 0, chain_hash = decode(repeat('00', 32), 'hex')")
    await j.owner.execute("UPDATE access_token SET life_cycle_state = 'NOT_EFFECTIVE', version = 0 WHERE version > 0")

    assert (await audited(j)).holds
    assert (await audited(j, anchor)).counts == {Kind.ANCHOR: 2}


async def test_a_chain_that_was_made_anew_is_found_by_the_anchor_alone(j: Journey) -> None:
    anchor = await take_anchor(j.owner, now=NOW)
    for number in range(4, 7):
        await forge(j, number, lambda transition: replace(transition, user="somebody else"), relink=True)
    await set_heads_back(j)
    await j.owner.execute("UPDATE access_token SET updated_by_user = 'somebody else' WHERE id IN ('T4', 'T5', 'T6')")

    assert (await audited(j)).holds
    assert named(await audited(j, anchor)) == {(Kind.ANCHOR, f"lane {LANE}")}


async def test_an_anchored_lane_that_is_gone_is_named(j: Journey) -> None:
    anchor = await take_anchor(j.owner, now=NOW)
    await j.owner.execute("DELETE FROM transition WHERE lane = 2")
    await j.owner.execute("DELETE FROM lane WHERE id = 2")

    assert (Kind.ANCHOR, "lane cluster/group/commands/1") in named(await audited(j, anchor))


async def test_no_anchor_is_taken_of_a_head_that_its_chain_does_not_hold(j: Journey) -> None:
    await j.owner.execute("DELETE FROM transition WHERE access_token_id = 'T6'")

    with pytest.raises(AnchorError, match=f"lane {LANE}"):
        await take_anchor(j.owner, now=NOW)


async def test_what_comes_after_an_anchor_is_no_fault(j: Journey) -> None:
    anchor = await take_anchor(j.owner, now=NOW)
    await (await j.lane(0)).run(by_code())

    assert (await audited(j, anchor)).holds


async def test_an_anchor_is_read_as_it_was_printed(j: Journey) -> None:
    anchor = await take_anchor(j.owner, now=NOW)

    assert [(head.lane, head.sequence) for head in anchor.heads] == [(LANE, 6), ("cluster/group/commands/1", 3)]
    assert read_anchor(json.dumps(msgspec.to_builtins(anchor), indent=2).encode()) == anchor


@pytest.mark.parametrize(
    "change",
    [
        lambda anchor: anchor | {"digest": "0" * 64},
        lambda anchor: anchor | {"taken_at": "2026-03-05T00:00:00.000000Z"},
        lambda anchor: anchor | {"heads": anchor["heads"][1:]},
        lambda anchor: anchor | {"format": 2},
        lambda anchor: anchor | {"more": 1},
        lambda anchor: {name: anchor[name] for name in ("heads", "digest")},
        lambda anchor: [anchor],
    ],
)
async def test_an_anchor_that_was_changed_is_none(j: Journey, change: Callable[[object], object]) -> None:
    anchor = msgspec.to_builtins(await take_anchor(j.owner, now=NOW))

    with pytest.raises(AnchorError):
        read_anchor(json.dumps(change(anchor)).encode())


async def test_an_anchor_that_must_be_signed_is_taken_with_its_key_only(j: Journey) -> None:
    key, other = b"the auditor's", b"somebody else's"
    signed, open_ = await take_anchor(j.owner, now=NOW, key=key), await take_anchor(j.owner, now=NOW)
    printed, plain = (json.dumps(msgspec.to_builtins(each)).encode() for each in (signed, open_))

    assert read_anchor(printed, key=key) == read_anchor(printed) == signed
    with pytest.raises(AnchorError, match="not signed with this key"):
        read_anchor(printed, key=other)
    with pytest.raises(AnchorError, match="is not signed"):
        read_anchor(plain, key=key)
    assert b"signature" not in plain
    for secret in (key.decode(), key.hex()):
        assert secret not in printed.decode()


async def test_a_signed_anchor_cannot_be_made_of_other_heads(j: Journey) -> None:
    signed = msgspec.to_builtins(await take_anchor(j.owner, now=NOW, key=b"key"))
    await (await j.lane(0)).run(by_code())
    forged = msgspec.to_builtins(await take_anchor(j.owner, now=NOW)) | {"signature": signed["signature"]}

    assert read_anchor(json.dumps(forged).encode()).signature == signed["signature"]
    with pytest.raises(AnchorError, match="not signed with this key"):
        read_anchor(json.dumps(forged).encode(), key=b"key")


async def test_no_anchor_is_taken_of_a_lane_that_has_decided_nothing(j: Journey) -> None:
    await j.lane(2)

    assert len((await take_anchor(j.owner, now=NOW)).heads) == 2


@given(st.lists(st.integers(1, 20)), st.integers(0, 25))
def test_what_was_not_seen_is_missing(seen: list[int], last: int) -> None:
    numbers = Numbers()
    for number in seen:
        numbers.add(number)

    missing = [number for first, end in numbers.missing(last) for number in range(first, end + 1)]

    assert missing == [number for number in range(1, last + 1) if number not in seen]


# --- a forger's tools -------------------------------------------------------------------------------------------------


async def forge(j: Journey, sequence: int, change: Callable[[Transition], Transition], *, relink: bool = False) -> None:
    """Change a row of the first lane and give it the matching hash; ``relink`` it to the one before."""
    row = await j.owner.fetchrow(
        "SELECT t.*, before.hash AS before FROM transition AS t JOIN transition AS before ON before.lane = t.lane"
        " AND before.sequence = t.sequence - 1 WHERE t.lane = 1 AND t.sequence = $1",
        sequence,
    )
    assert row is not None
    transition = change(
        Transition(
            organisation=row["organisation"],
            token=row["access_token_id"],
            version=row["version"],
            from_state=row["from_state"],
            to_state=row["to_state"],
            occurred_at=row["occurred_at"],
            user=row["user_id"],
            unit=row["unit_id"],
            command_id=row["command_id"],
            cause=row["cause"],
            lane=LANE,
            sequence=sequence,
            previous_hash=row["before"] if relink else row["previous_hash"],
        )
    )
    await j.owner.execute(
        "UPDATE transition SET user_id = $2, previous_hash = $3, hash = $4, occurred_at = $5"
        " WHERE lane = 1 AND sequence = $1",
        sequence,
        transition.user,
        transition.previous_hash,
        hashlib.sha256(transition.canonical()).digest(),
        transition.occurred_at,
    )


async def set_heads_back(j: Journey) -> None:
    await j.owner.execute(
        "UPDATE lane SET chain_sequence = last.sequence, chain_hash = last.hash FROM"
        " (SELECT DISTINCT ON (lane) lane, sequence, hash FROM transition ORDER BY lane, sequence DESC) AS last"
        " WHERE lane.id = last.lane"
    )
