"""The worker's life: open, work until told to stop, drain, close (CONTRACT, Command line, ``run``)."""

import asyncio
import os
import socket
import time
import uuid
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor

from effective_contract.methods import METHODS, Methods
from worker.errors import (
    DEPENDENCIES,
    KAFKA_ERRORS,
    ClientStuck,
    DependencyUnavailable,
    LoginRefused,
    OperatorError,
    Unfit,
)
from worker.journey.attempts import Attempts, limits_of
from worker.journey.authorise import Logins, key_fingerprint
from worker.journey.digests import attempt_keys, command_names
from worker.journey.messages import OutgoingTopics
from worker.journey.pass_codes import PassCodes
from worker.journey.reply_topics import Replies
from worker.kafka.backlog import Backlog, Behind
from worker.kafka.client import TopicLook, client_options
from worker.kafka.clock import ClockRefusal
from worker.kafka.group import StaticMembership, hear_offset_errors
from worker.kafka.internals import fetch_past
from worker.kafka.record_batches import Bounds, bound_fetches
from worker.kafka.topic_watch import TopicWatch
from worker.kafka.watchdog import Watchdog
from worker.lanes.context import LaneContext, LaneId, LaneRun
from worker.lanes.lane import Lane
from worker.lanes.membership import Membership
from worker.lanes.priority import Priority
from worker.lanes.publisher import Commits, IdempotentPublisher, Publisher, TransactionalPublisher
from worker.lanes.supervisor import Supervisor
from worker.observability import vocabulary as v
from worker.observability.descriptors import raise_limit, really, require_enough
from worker.observability.health import Health
from worker.observability.http import serve_admin
from worker.observability.metrics import Metrics
from worker.observability.otlp import sends
from worker.observability.probe import Probe
from worker.observability.pulse import Pulse
from worker.observability.recent import Recent
from worker.operations.config import changed
from worker.operations.console.group import Group
from worker.operations.console.history import History
from worker.operations.console.served import Console
from worker.operations.console.state import About, Sources
from worker.operations.contract.deployment import deployment
from worker.operations.contract.served import Contract
from worker.operations.lanes import other_groups
from worker.operations.retention import Retention
from worker.pipeline import Pipeline, Policy
from worker.postgres.pool import Database
from worker.postgres.schema import WorkerRole, require_schema
from worker.resilience.background import beside
from worker.resilience.backoff import Backoff, wait_unless
from worker.resilience.circuit_breaker import CircuitBreaker
from worker.settings import PREFIX, Settings, SettingsError

STOP_SECONDS: Final = 5.0
LANES_SHARE: Final = 0.6
"""The share of the drain time for the lanes; the rest is for leaving the group and closing."""
WITHOUT_POSTGRES_SECONDS: Final = 60.0
"""Seconds without Postgres after which a worker leaves the group: longer than a restart or a fail-over takes, in which
all workers lose it alike."""
CLOCK_REFUSED_SECONDS: Final = 60.0
"""Seconds after which a worker leaves the group because the broker refuses its clock's time.

Not at once: if one broker of several has the wrong clock, the others still take the records of busy lanes, which would
miss this worker.
"""
STEP_SECONDS: Final = 30.0
"""Seconds that a silent dependency has at the start before it counts as away."""
HEARTBEAT_MS: Final = 1000
"""Milliseconds between heartbeats, by which a worker learns of a rebalance, and that a lost lane may be its own: until
then nothing flows."""
METADATA_MS: Final = 10_000
FETCH_WAIT_MS: Final = 100
"""An idle partition must not hold up the busy ones of the same broker for longer (DESIGN 6)."""
BESIDE_BULK_MS: Final = 20
"""The same with a bulk topic, whose untaken records must not hold up the interactive ones for longer either."""
KEY_AND_HEADERS: Final = 128 * 1024
"""Bytes that a record may have in addition to a value of the largest size."""

T = TypeVar("T")
log = structlog.get_logger(__name__)


TO_CREATE: Final = "effective-worker topics apply"


class TopicsMissing(OperatorError):
    """Topics that the worker needs do not exist."""

    def __init__(self, names: list[str], others: Collection[str] = ()) -> None:
        """``others`` are the topics that exist: one of them may be meant."""
        super().__init__(f"these topics do not exist: {', '.join(names)}{_meant(names, others)}")
        self.names = names


def _meant(names: Sequence[str], others: Collection[str]) -> str:
    similar = [each[0] for name in names if (each := get_close_matches(name, others, n=1, cutoff=0.8))]
    if similar:
        return f". There is {', '.join(similar)}: is a setting misspelt? If not, create them with: {TO_CREATE}"
    return f". Create them with: {TO_CREATE}"


async def serve(
    settings: Settings,
    *,
    stop: asyncio.Event,
    on_ready: Callable[[int], None] | None = None,
    methods: Methods = METHODS,
) -> int:
    """Carry out ``methods`` until ``stop`` is set, drain, and return the exit code: 0 when clean, 1 on a failure.

    ``on_ready`` is called with the admin port once it listens. The worker waits for dependencies that are away, at the
    start too. Raises ``SettingsError``, ``TopicsMissing``, ``SchemaUnfit``, ``TooFewDescriptors``, ``Unfit`` and,
    having drained, ``BackgroundFailed`` or ``InstanceTaken``.
    """
    limit = raise_limit()
    log.info("descriptors", limit=limit)
    log.info("login_keys", keys=[key_fingerprint(each.get_secret_value()) for each in settings.login.secrets])
    require_enough(limit, connections=settings.postgres.connections)
    for variable, what in settings.exposed.items():
        log.warning("unprotected", variable=variable, what=what)
    async with AsyncExitStack() as opened:
        process = _Process(settings, methods, stop, opened)
        port = await process.listen()
        await process.send_metrics()
        if on_ready is not None:
            on_ready(port)
        database = await process.open_database()
        await process.begin("pulse", Pulse(process.health, settings.kafka.session_timeout_ms / 1000).run)
        start = _Start(settings, process.health, stop)
        await start.schema(database)
        cluster = await start.topics()
        consumer = await start.consumer()
        if cluster is None or consumer is None:  # told to stop before everything was there
            return 0
        await process.begin("retention", process.retention(database).run)
        membership = Membership(consumer, settings.kafka.session_timeout_ms / 1000)
        context = await process.context(database, consumer, membership)
        return await _work(settings, stop, cluster, context, membership)


@dataclass(frozen=True, slots=True)
class _Watched:
    """The parts that the console page looks at once the worker takes part in the group."""

    backlog: Backlog
    membership: Membership


def _name() -> str:
    """Return the name under which this process writes."""
    return f"{socket.gethostname()}:{os.getpid()}"


class _Process:
    """The parts of one process: made from its settings, opened in order, and closed in reverse by ``opened``."""

    def __init__(self, settings: Settings, methods: Methods, stop: asyncio.Event, opened: AsyncExitStack) -> None:
        self._settings = settings
        self._methods = methods
        self._stop = stop
        self._opened = opened
        self._priority = priority = Priority(settings.max_batch)
        self._recent = Recent()
        self._watched: _Watched | None = None
        self.health = Health(bulk_topic=settings.topics.bulk_commands, giving_way=lambda: priority.giving_way)
        self.metrics = Metrics(self.health)

    async def begin(self, name: str, work: Callable[[asyncio.Event], Awaitable[None]]) -> None:
        """Do ``work`` in the background until the process ends."""
        await self._opened.enter_async_context(beside(name, work(self._stop), self._stop))

    async def listen(self) -> int:
        """Open the admin port, and return its number."""
        at = self._settings.admin
        contract = Contract(deployment(self._settings))
        console = await self._open_console()
        admin = serve_admin(at.host, at.port, self.metrics, self.health, contract, console=console, names=at.names)
        port = await self._opened.enter_async_context(admin)
        log.info("admin_listening", host=at.host, port=port)
        return port

    async def _open_console(self) -> Console:
        """Make the console page, which shows a worker that still waits for its dependencies as well."""
        settings = self._settings
        about = About(
            _name(), version("effective-worker"), settings.kafka.group_id, time.time(), tuple(changed(settings))
        )
        history = History(
            self.metrics.answer_seconds,
            lambda: sum(each.lag for each in self._behind().values()),
            wall=time.time,
            clock=time.monotonic,
        )
        await self.begin("history", history.run)
        sources = Sources(
            about,
            self.health,
            self.metrics,
            self._recent,
            history,
            Group(settings, time.monotonic),
            behind=self._behind,
            member=lambda: "" if self._watched is None else self._watched.membership.member_id,
            wall=time.time,
        )
        return Console(sources)

    def _behind(self) -> Mapping[TopicPartition, Behind]:
        return {} if self._watched is None else self._watched.backlog.behind()

    async def send_metrics(self) -> None:
        """Send the metrics by OTLP as well, if OpenTelemetry's variables say so."""
        if sends("metrics", os.environ):
            from worker.observability.otlp_metrics import send_metrics  # noqa: PLC0415 - an extra

            await self.begin("metrics export", partial(send_metrics, self.metrics.registry, os.environ, time.time))
            log.info("metrics_sent")

    async def open_database(self) -> Database:
        postgres = self._settings.postgres
        database = await Database.open(postgres.dsn.get_secret_value(), connections=postgres.connections)
        self._opened.push_async_callback(database.close)
        return database

    def retention(self, database: Database) -> Retention:
        days = self._settings.record_retention_days
        retention = Retention(database, days=days, clock=time.time, metrics=self.metrics, health=self.health)
        self.metrics.read_from(v.RETENTION_BEHIND, lambda: retention.behind_seconds)
        return retention

    async def context(self, database: Database, consumer: AIOKafkaConsumer, membership: Membership) -> LaneContext:
        """Make everything that all lanes share."""
        settings, own = self._settings, self._settings.topics
        topics = TopicWatch(self._look().ids, own.read, self.health)
        await self.begin("topic watch", topics.run)
        # A connection of its own: a lookup of senders' topics may have to wait.
        replies = Replies(own.reply_to_allowed, own=own.own, look=self._look().partitions)
        backlog = Backlog(consumer, time.time)
        self.metrics.show(backlog)
        breaker = CircuitBreaker(time.monotonic)
        self.metrics.read_from(v.CIRCUIT_BREAKER_OPEN, lambda: breaker.is_open)
        self._watched = _Watched(backlog, membership)
        return LaneContext(
            database=database,
            consumer=consumer,
            pipeline=self._pipeline(database, breaker, replies),
            breaker=breaker,
            outgoing=OutgoingTopics(own.results, own.transitions, own.dead_letters, settings.kafka.group_id, _name()),
            metrics=self.metrics,
            recent=self._recent,
            health=self.health,
            clock=time.time,
            max_batch=settings.max_batch,
            priority=self._priority,
            topics=topics,
            backlog=backlog,
            clock_refusal=ClockRefusal(time.time, time.monotonic),
            confirmed=membership.confirmed,
            replies=replies,
        )

    def _look(self) -> TopicLook:
        look = TopicLook(client_options(self._settings.kafka))
        self._opened.push_async_callback(look.close)
        return look

    def _pipeline(self, database: Database, breaker: CircuitBreaker, replies: Replies) -> Pipeline:
        settings = self._settings
        pass_codes = PassCodes()
        self._opened.callback(pass_codes.close)
        self.metrics.read_from(v.PASS_CODES_WAITING, lambda: pass_codes.waiting)
        logins = Logins(
            [secret.get_secret_value() for secret in settings.login.secrets],
            time.time,
            longest_seconds=settings.login.longest_seconds,
            audience=settings.login.audience,
        )
        policy = Policy(
            max_command_bytes=settings.max_command_bytes,
            expiry_at_append=settings.login.expiry_clock == "append",
            reveal_verification_code=settings.reveal_verification_code,
        )
        return Pipeline(
            database,
            logins,
            pass_codes,
            Attempts(attempt_keys(settings)[0], limits_of(settings), self.metrics),
            names=command_names(settings),
            clock=time.time,
            policy=policy,
            breaker=breaker,
            beat=self.health.progress,
            replies=replies,
            methods=self._methods,
        )


async def _work(
    settings: Settings, stop: asyncio.Event, cluster: str, context: LaneContext, membership: Membership
) -> int:
    """Take part in the group until ``stop`` is set, and drain."""
    consumer, health = context.consumer, context.health
    watchdog = Watchdog(consumer, context.reads, health, context.backlog)
    static_membership = StaticMembership(consumer)
    looks = {"postgres": context.database.look, "kafka": membership.look, "clock": context.clock_refusal.look}
    probe = Probe(looks, health, decisive={"clock"})
    supervisor = Supervisor(
        consumer,
        _lanes(settings, cluster, context, Commits(consumer)),
        membership,
        settings.topics.read,
        health=health,
        metrics=context.metrics,
        # The broker waits a session's time for all members to come back, and coming back takes a part of it.
        revoke_seconds=settings.kafka.session_timeout_ms / 1000 / 2,
        checks=(static_membership.check, watchdog.check),
        unfit=partial(_unfit, probe),
    )
    try:
        async with beside("probe", probe.run(stop), stop), beside("watchdog", watchdog.run(stop), stop):
            await supervisor.run(stop)
        log.info("draining", seconds=settings.drain_seconds)
        return 0
    except ClientStuck as stuck:
        log.exception("stuck", reason=str(stuck), stacks=_stacks())
        return 1
    finally:
        # Stopping the consumer calls no listener, so the lanes go first.
        await supervisor.drain(settings.drain_seconds * LANES_SHARE)
        await _stopped(consumer)
        log.info("stopped")


def _unfit(probe: Probe) -> str:
    """Return the reason why this worker can do nothing with partitions; empty if it can."""
    silent, refused = probe.silent("postgres"), probe.silent("clock")
    if silent > WITHOUT_POSTGRES_SECONDS:
        return f"postgres has not answered for {silent:.0f} s"
    if refused > CLOCK_REFUSED_SECONDS:
        return f"what the clock of this machine stamps has been refused for {refused:.0f} s"
    return ""


def _lanes(
    settings: Settings, cluster: str, context: LaneContext, commits: Commits
) -> Callable[[TopicPartition, asyncio.Event], Lane]:
    """Return the function that makes a lane from a partition and from the event that will drain it."""
    options = client_options(settings.kafka)
    timeout_ms = settings.kafka.transaction_timeout_ms

    def make(source: TopicPartition, drain: asyncio.Event) -> Lane:
        lane = LaneId(cluster, settings.kafka.group_id, source)

        def partitions() -> int:
            return len(context.consumer.partitions_for_topic(source.topic) or ())

        publisher: Publisher
        if settings.delivery == "exactly_once":
            publisher = TransactionalPublisher(lane, options, transaction_timeout_ms=timeout_ms, partitions=partitions)
        else:
            publisher = IdempotentPublisher(
                lane, options, transaction_timeout_ms=timeout_ms, partitions=partitions, commits=commits
            )
        turn = context.priority.behind if source.topic == settings.topics.bulk_commands else context.priority.first
        return Lane(LaneRun(lane, context, drain), publisher, uuid.uuid4(), turn)

    return make


class _Start:
    """The first steps: each waits for a dependency that is away, until told to stop."""

    def __init__(self, settings: Settings, health: Health, stop: asyncio.Event) -> None:
        self._settings = settings
        self._health = health
        self._stop = stop
        self._options = client_options(settings.kafka)

    async def schema(self, database: Database) -> None:
        """Check the schema. Raises ``SchemaUnfit`` if Postgres answers and lacks what this worker needs.

        Raises ``SettingsError`` if it refuses the worker's login.
        """

        role = WorkerRole(self._settings.postgres.role, self._settings.reveal_verification_code)

        async def look() -> None:
            async with database.connection() as connection:
                await require_schema(connection, role)
                if others := await other_groups(connection, self._settings):
                    log.warning("group_is_new", group=self._settings.kafka.group_id, others=others)

        try:
            await self._until_there(look, "postgres")
        except LoginRefused as refused:
            raise SettingsError(((f"{PREFIX}POSTGRES__DSN", refused.what),)) from refused

    async def topics(self) -> str | None:
        """Return the cluster's id once the broker answers; ``None`` if told to stop first. Raises ``TopicsMissing``."""

        async def look() -> str:
            admin = AIOKafkaAdminClient(**self._options)
            try:
                await admin.start()
                own, there = self._settings.topics.own, await admin.list_topics()
                if missing := sorted(set(own) - set(there)):
                    raise TopicsMissing(missing, set(there) - set(own))
                return str((await admin.describe_cluster())["cluster_id"])
            finally:
                await admin.close()

        return await self._until_there(look, "kafka")

    async def consumer(self) -> AIOKafkaConsumer | None:
        """Return a started consumer that has not subscribed yet; ``None`` if told to stop first."""

        bound_fetches(Bounds(record=self._settings.max_command_bytes + KEY_AND_HEADERS))

        async def begin() -> AIOKafkaConsumer:
            consumer = AIOKafkaConsumer(**self._options, **_consumer_options(self._settings))
            try:
                await consumer.start()
            except BaseException:
                await _stopped(consumer)
                raise
            hear_offset_errors(consumer)
            if self._settings.topics.bulk_commands is not None:
                fetch_past(consumer, BESIDE_BULK_MS / 1000)
            return consumer

        return await self._until_there(begin, "kafka")

    async def _until_there(self, step: Callable[[], Awaitable[T]], dependency: str) -> T | None:
        backoff = Backoff()
        while not self._stop.is_set():
            attempt = asyncio.ensure_future(step())
            try:
                async with asyncio.timeout(STEP_SECONDS):
                    if not await wait_unless(attempt, self._stop):
                        return None
                    done = await attempt
            except DependencyUnavailable as away:
                await self._wait_out(away, backoff)
            except KAFKA_ERRORS as error:
                await self._wait_out(DependencyUnavailable(dependency, str(error) or "no answer"), backoff)
            else:
                for each in DEPENDENCIES:
                    self._health.back(each)
                return done
            finally:
                attempt.cancel()
                await asyncio.wait({attempt}, timeout=STOP_SECONDS)
        return None

    async def _wait_out(self, missing: DependencyUnavailable, backoff: Backoff) -> None:
        away = really(missing)
        if isinstance(away, Unfit):  # no waiting mends it, and the operator who starts a worker is there to hear it
            raise away
        self._health.away(away)
        self._health.progress()
        log.warning(away.event, dependency=away.dependency, reason=away.reason)
        await backoff.wait(self._stop)


def _consumer_options(settings: Settings) -> dict[str, Any]:
    kafka = settings.kafka
    return {
        "group_id": kafka.group_id,
        "group_instance_id": kafka.group_instance_id,
        "enable_auto_commit": False,
        "isolation_level": "read_committed",
        # A lane seeks its own offset. The client's choice would answer commands that were answered before (DESIGN 6).
        "auto_offset_reset": "none",
        "partition_assignment_strategy": (RoundRobinPartitionAssignor,),
        "session_timeout_ms": kafka.session_timeout_ms,
        "heartbeat_interval_ms": min(HEARTBEAT_MS, kafka.session_timeout_ms // 3),
        "rebalance_timeout_ms": kafka.session_timeout_ms,
        # A lane that waits for Postgres is at work; the watchdog finds one that is stuck.
        "max_poll_interval_ms": 2**31 - 1,
        # Partitions that are added are read within this time.
        "metadata_max_age_ms": METADATA_MS,
        "fetch_max_wait_ms": FETCH_WAIT_MS if settings.topics.bulk_commands is None else BESIDE_BULK_MS,
        "max_partition_fetch_bytes": 512 * 1024,
        "fetch_max_bytes": 16 * 1024 * 1024,
    }


def _stacks() -> list[str]:
    """Return the position of every task: names and lines, no values."""
    stacks = []
    for task in asyncio.all_tasks():
        frames = [f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}" for frame in task.get_stack()]
        stacks.append(f"{task.get_name()}: {' > '.join(frames)}")
    return sorted(stacks)


async def _stopped(consumer: AIOKafkaConsumer) -> None:
    """Leave the group. A client that does not manage to is left behind: the process ends anyway."""
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await consumer.stop()
    except KAFKA_ERRORS as error:
        log.warning("consumer_not_stopped", reason=f"{type(error).__name__}: {error}")
