"""The protocol with one rule undone (DESIGN 2): the measure of the harness.

A mutant that no fault exposes, or that the checker lets pass, shows that the harness is not good enough. The switches
are here and not in the product: each replaces, in the worker's own process, the code that keeps the rule.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.client import ConnectionGroup, CoordinationType
from aiokafka.errors import KafkaError
from aiokafka.protocol.transaction import EndTxnRequest
from msgspec.structs import replace

from worker import pipeline
from worker.errors import KAFKA_ERRORS, OutcomeUnknown
from worker.lanes import publisher
from worker.lanes.lane import Lane
from worker.lanes.publication import Publication
from worker.lanes.publisher import TransactionalPublisher, WatchedProducer
from worker.lanes.supervisor import Supervisor
from worker.operations.retention import Retention
from worker.pipeline import Lease
from worker.postgres.sql import statement
from worker.resilience.background import retrieve

ABORT_SECONDS: Final = 5.0
KEPT: Final = "an owner keeps its lane"
"""The rule that the ledger cannot judge: exactly once holds, and yet a rightful owner is thrown back to its start."""


@dataclass(frozen=True, slots=True)
class MutantSpec:
    """One mutant. ``undoes``: the rule, and its purpose. ``exposed_by``: the faults without which nothing shows.

    ``breaks``: the checker's rule by which it is caught.
    """

    name: str
    undoes: str
    exposed_by: tuple[str, ...]
    breaks: str
    undo: Callable[[], None]
    kinds: tuple[str, ...] = ()
    """The faults of ``python -m tests.faults`` that caught it within a minute.

    Without any, it was not tried or takes a moment that only its scenario makes (``test_mutants``).
    """


def commit_without_gathering() -> None:
    hand_over = publisher.send

    async def unheeded(*arguments: Any) -> list[Any]:
        for future in await hand_over(*arguments):
            future.add_done_callback(retrieve)
        return []

    _put(publisher, send=unheeded)


def committed_read_before_init() -> None:
    read, open_it = Publication.read_committed, Publication.open

    async def read_and_open(publication: Any) -> None:
        publication.read_too_early = await read(publication)
        await open_it(publication)

    async def remembered(publication: Any) -> int | None:
        committed: int | None = publication.read_too_early
        return committed

    _put(Publication, open=read_and_open, read_committed=remembered)


def no_replacement_after_hidden_retry() -> None:
    async def unwatched(watched: Any, *arguments: Any, **options: Any) -> Any:
        return await watched._send(*arguments, **options)

    _put(WatchedProducer, _watched=unwatched)


def abort_sent() -> None:
    whole = TransactionalPublisher.publish

    async def tidy(publisher: Any, *arguments: Any) -> None:
        try:
            await whole(publisher, *arguments)
        except OutcomeUnknown:
            with contextlib.suppress(*KAFKA_ERRORS):
                async with asyncio.timeout(ABORT_SECONDS):
                    await _abort(publisher._producer.producer)
            raise

    _put(TransactionalPublisher, publish=tidy)


async def _abort(producer: Any) -> None:
    """Send the request of ``abort_transaction``, without its wait for messages that get no answer."""
    manager, sender = producer._txn_manager, producer._sender
    request = EndTxnRequest(
        transactional_id=manager.transactional_id,
        producer_id=manager.producer_id,
        producer_epoch=manager.producer_epoch,
        transaction_result=False,
    )
    node = await sender._find_coordinator(CoordinationType.TRANSACTION, manager.transactional_id)
    await producer.client.send(node, request, group=ConnectionGroup.COORDINATION)


def no_owner_check() -> None:
    _hold_without("AND owner = $2", "AND $2::uuid IS NOT NULL")


def no_lane_check() -> None:
    _hold_without("AND owner = $2 AND next_offset = $3", "AND ($2::uuid, $3::bigint) IS NOT NULL")


def _hold_without(proof: str, nothing: str) -> None:
    whole = statement("lanes/renew")
    assert proof in whole
    unproven = whole.replace(proof, nothing)

    def told(name: str) -> str:
        return unproven if name == "lanes/renew" else statement(name)

    _put(pipeline, statement=told)


def lost_lane_not_restarted() -> None:
    async def once(supervisor: Any, source: Any, drain: asyncio.Event) -> None:
        try:
            await supervisor._make_lane(source, drain).run()
        except Exception as error:  # noqa: BLE001 - as the supervisor does
            supervisor._report(source, error)
            await drain.wait()

    _put(Supervisor, _keep=once)


def start_not_cancelled_on_revoke() -> None:
    keep, let_go, begin = Supervisor._keep, Supervisor._let_go, Lane._start
    starting: dict[Any, asyncio.Task[Any] | None] = {}

    async def noted(lane: Any) -> Any:
        starting[lane._source] = asyncio.current_task()
        lease = await begin(lane)
        starting[lane._source] = None
        return lease

    async def deaf(supervisor: Any, source: Any, drain: asyncio.Event) -> None:
        own, this = asyncio.Event(), asyncio.current_task()
        told = asyncio.ensure_future(drain.wait())
        told.add_done_callback(lambda _: None if starting.get(source) is this else own.set())
        await keep(supervisor, source, own)

    async def sparing(supervisor: Any, seconds: float) -> None:
        supervisor._lanes = {
            source: lane for source, lane in supervisor._lanes.items() if starting.get(source) is not lane
        }
        await let_go(supervisor, seconds)

    _put(Lane, _start=noted)
    _put(Supervisor, _keep=deaf, _let_go=sparing)


def offset_outside_transaction() -> None:
    init, whole = Lane.__init__, TransactionalPublisher.publish

    def made(lane: Any, *arguments: Any, **options: Any) -> None:
        init(lane, *arguments, **options)
        lane._publisher.consumer = lane._context.consumer

    async def left_out(*_: Any) -> None:
        """Leave the offset out: the transaction holds messages only."""

    async def afterwards(publisher: Any, messages: Sequence[Any], offset: int) -> None:
        await whole(publisher, messages, offset)
        try:
            await publisher.consumer.commit({publisher._lane.source: offset})
        except KafkaError as error:
            raise OutcomeUnknown(type(error).__name__) from error

    _put(Lane, __init__=made)
    _put(AIOKafkaProducer, send_offsets_to_transaction=left_out)
    _put(TransactionalPublisher, publish=afterwards)


def no_record_of_commands() -> None:
    async def forgotten(*_: Any) -> None:
        """Write nothing, so that nothing is recalled."""

    _put(pipeline, record=forgotten)


def dry_run_kept() -> None:
    @contextlib.asynccontextmanager
    async def kept(_: Any) -> AsyncIterator[None]:
        yield

    move = pipeline._move

    async def moved(transaction: Any, lease: Lease, *to: Any) -> Lease:
        # The kept value holds the lane's row as well, so that it is no longer where it was locked.
        place = await transaction.fetchval("SELECT ctid FROM lane WHERE id = $1", lease.lane)
        return await move(transaction, replace(lease, place=place), *to)

    _put(pipeline, rolled_back=kept, _move=moved)


def age_by_own_clock() -> None:
    init = Retention.__init__

    def made(retention: Any, *arguments: Any, clock: Callable[[], float], **options: Any) -> None:
        init(retention, *arguments, clock=clock, **options)
        # Its own now in place of that of Postgres, which has this machine's, and takes no less than a day.
        retention._age = max(retention._age - timedelta(seconds=clock() - time.time()), timedelta(days=1))

    async def never_doubted(_: Any) -> bool:
        return True

    _put(Retention, __init__=made, _clocks_agree=never_doubted)


def partitions_kept_without_postgres() -> None:
    init = Supervisor.__init__

    def made(supervisor: Any, *arguments: Any, **options: Any) -> None:
        init(supervisor, *arguments, **{**options, "unfit": str})

    _put(Supervisor, __init__=made)


def _put(owner: Any, **replaced: Any) -> None:
    for name, function in replaced.items():
        setattr(owner, name, function)


_SPECS: Final = (
    MutantSpec(
        "commit_without_gathering",
        "every answer of the broker is awaited before the commit, which succeeds even over a refused batch",
        ("a batch of messages refused",),
        "no answer is lost",
        commit_without_gathering,
    ),
    MutantSpec(
        "committed_read_before_init",
        "the committed offset is read after InitProducerId, which settles what could still move it",
        ("a worker that stands still between messages and commit, and goes on while its successor starts",),
        "no answer is repeated",
        committed_read_before_init,
    ),
    MutantSpec(
        "no_replacement_after_hidden_retry",
        "a producer is replaced after any request that was retried under the surface: the first may still arrive",
        ("an EndTxn that arrives again in the next transaction, and a worker killed there",),
        "no answer is repeated",
        no_replacement_after_hidden_retry,
    ),
    MutantSpec(
        "abort_sent",
        "no abort is sent: the InitProducerId that aborts also tells the partitions of the new epoch",
        ("messages without an answer that arrive late, at brokers that do not verify transactions",),
        "no answer is repeated",
        abort_sent,
    ),
    MutantSpec(
        "no_owner_check",
        "a batch proves first that its lane has no newer owner, who would lose it to an older one",
        ("a worker that stands still before a batch, and goes on when its successor holds the same batch",),
        KEPT,
        no_owner_check,
    ),
    MutantSpec(
        "no_lane_check",
        "a batch proves first that the lane is where its owner left it: what another has decided is not decided again",
        ("a worker that stands still before a batch, and goes on when its successor holds the same batch",),
        "no answer is lost",
        no_lane_check,
    ),
    MutantSpec(
        "lost_lane_not_restarted",
        "a lane ends only with its assignment",
        ("a lane's producer fenced", "a deposed owner in Postgres"),
        "no answer is lost",
        lost_lane_not_restarted,
    ),
    MutantSpec(
        "start_not_cancelled_on_revoke",
        "a revocation cancels the lane wherever it is, or two owners fence each other for ever",
        ("an InitProducerId under way during a rebalance",),
        KEPT,
        start_not_cancelled_on_revoke,
        (
            "rebalance storm",
            "INIT_PRODUCER_ID delayed",
            "INIT_PRODUCER_ID black_holed",
            "worker stopped beyond its session",
        ),
    ),
    MutantSpec(
        "offset_outside_transaction",
        "the offset is committed in the transaction that its results are in",
        ("a worker killed between the end of the transaction and what follows",),
        "no answer is repeated",
        offset_outside_transaction,
        ("worker killed after the end",),
    ),
    MutantSpec(
        "no_record_of_commands",
        "what was decided is recorded with it, and answers the batch that is taken again",
        ("a worker killed between the two commits",),
        "every status is right",
        no_record_of_commands,
    ),
    MutantSpec(
        "dry_run_kept",
        "what a dry run has written is rolled back",
        ("none: a dry run shows it",),
        "topic, table, states and answers agree",
        dry_run_kept,
    ),
    MutantSpec(
        "age_by_own_clock",
        "how old a record is, Postgres says at both ends, and who differs from it by more than a minute retires none",
        ("a worker whose clock is a month ahead",),
        "no record is retired before its time",
        age_by_own_clock,
    ),
    MutantSpec(
        "partitions_kept_without_postgres",
        "a worker that can do nothing must not keep its partitions",
        ("Postgres away from one worker only",),
        "no answer is lost",
        partitions_kept_without_postgres,
        ("postgres away for one worker",),
    ),
)

MUTANTS: Final[dict[str, MutantSpec]] = {spec.name: spec for spec in _SPECS}
