"""Both sides of a transition event: the transition in Postgres, and the event in its topic."""

from typing import Any, Final

import orjson
from aiokafka import TopicPartition

from effective_contract.transition import TransitionEvent, event_hash
from worker.operations.findings import Origin, version_place
from worker.operations.reconcile.log_record import moment_of, place_of
from worker.operations.reconcile.messages import Expected, Ledger, Observed
from worker.operations.reconcile.report import Kind, Reconciliation
from worker.postgres.pool import Row
from worker.values import rfc3339

_KEY: Final = ("organisation", "access_token_id", "version")
COMPARED: Final = tuple(name for name in TransitionEvent.model_fields if name not in {*_KEY, "lane"})
"""The members that must be equal on both sides, without the lane, which a row has only as an id."""


def expected_event(row: Row, source: TopicPartition, *, certain: bool) -> Expected:
    """Return the event of a transition. It may be missing unless it is ``certain`` to be published."""
    members = dict(row) | {
        "occurred_at": rfc3339(row["occurred_at"]),
        "previous_hash": row["previous_hash"].hex(),
        "hash": row["hash"].hex(),
    }
    key = (row["organisation"], row["access_token_id"], row["version"])
    says = tuple(members[name] for name in COMPARED)
    return Expected(
        Ledger.EVENTS, key, row["occurred_at"], says, version_place(*key), source, certain, organisation=key[0]
    )


def observed_event(record: Any, report: Reconciliation) -> Observed | None:
    """Read an event; report it if it is no event or was changed."""
    where = place_of(record)
    try:
        event = orjson.loads(record.value or b"")
        key = tuple(event[name] for name in _KEY)
        says = tuple(event[name] for name in COMPARED)
        moment = moment_of(record, event["occurred_at"])
        whole = event_hash(event) == event["hash"]
        if tuple(map(type, key)) != (str, str, int):
            raise TypeError
    except (orjson.JSONDecodeError, KeyError, TypeError):
        report.found(Kind.OTHER_EVENT, where, "is no transition event")
        return None
    if not whole:
        report.found(Kind.OTHER_EVENT, where, "its hash is not that of its members", Origin(key[0], moment))
    return Observed(Ledger.EVENTS, key, moment, says, where, organisation=key[0])
