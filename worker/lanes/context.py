"""The values that the parts of a lane share: its id, and everything that all lanes of a worker have in common."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition

from worker.journey.messages import OutgoingTopics
from worker.journey.model import lane_name
from worker.journey.reply_topics import Replies
from worker.kafka.backlog import Backlog
from worker.kafka.clock import ClockRefusal
from worker.kafka.topic_watch import TopicWatch
from worker.lanes.priority import Priority
from worker.observability.health import Health
from worker.observability.metrics import Metrics
from worker.observability.recent import Recent
from worker.pipeline import Pipeline
from worker.postgres.pool import Database
from worker.resilience.circuit_breaker import CircuitBreaker

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LaneId:
    """The cluster, group and partition of a lane: the key of its row in Postgres."""

    cluster: str
    group: str
    source: TopicPartition

    @property
    def name(self) -> str:
        """The lane's name in transition events (CONTRACT, Transition event)."""
        return lane_name(self.cluster, self.group, *self.source)


@dataclass(frozen=True, slots=True)
class LaneContext:
    """Everything that all lanes of a worker share."""

    database: Database
    consumer: AIOKafkaConsumer
    pipeline: Pipeline
    breaker: CircuitBreaker
    outgoing: OutgoingTopics
    metrics: Metrics
    recent: Recent
    health: Health
    clock: Callable[[], float]
    """Seconds since the epoch."""
    max_batch: int
    priority: Priority
    topics: TopicWatch
    backlog: Backlog
    clock_refusal: ClockRefusal
    confirmed: Callable[[], Awaitable[None]]
    """Return once the group has confirmed, within a session, that the worker is a member; see ``Membership``."""
    replies: Replies = field(default_factory=Replies)
    reads: dict[TopicPartition, "asyncio.Future[Any]"] = field(default_factory=dict)
    """The read under way on each partition, until it ends: it may outlive its lane (:mod:`worker.lanes.partition`)."""


class LaneRun:
    """One run of one lane, from its start until it is drained or lost."""

    def __init__(self, lane: LaneId, context: LaneContext, drain: asyncio.Event) -> None:
        """``drain``, once set, ends the run: it cuts every wait short."""
        self.lane: Final = lane
        self.context: Final = context
        self.drain: Final = drain
        self.log: Final = log.bind(topic=lane.source.topic, partition=lane.source.partition)
