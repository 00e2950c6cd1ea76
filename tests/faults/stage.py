"""The stage of a run: the cluster, Postgres, a proxy in front of each, and the workers."""

import asyncio
import secrets
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

from tests.acceptance.clients import consumed_offsets, log_ends
from tests.acceptance.scene import Scene
from tests.acceptance.worker_process import worker_settings
from tests.faults.calm import Calm
from tests.faults.cluster import REPLICAS, Cluster
from tests.faults.fleet import Fleet, Slot
from tests.faults.ledger import Delivery
from tests.faults.load import LOGIN_SECONDS, Load
from tests.faults.past import Past
from tests.faults.proxy import KafkaProxy, PostgresProxy, Proxy
from tests.providers.kafka import HOST, TopicNames, create_topics
from tests.providers.postgres import DatabaseUnderTest, WheelPostgres, make_prepared
from worker.demo.servers.postgres import Login

# So short that a zombie takes seconds; in the order that the worker demands of them.
SESSION_SECONDS: Final = 6
REQUEST_SECONDS: Final = 8
TRANSACTION_SECONDS: Final = 10
MAX_BATCH: Final = 50
DATABASE: Final = "faults"
WATCH_SECONDS: Final = 0.5
RETENTION_DAYS: Final = 30


@dataclass(frozen=True, slots=True)
class Stage:
    """Everything that a fault may hurt."""

    scene: Scene
    cluster: Cluster
    postgres: WheelPostgres
    kafka_proxies: tuple[KafkaProxy, ...]
    postgres_proxies: tuple[PostgresProxy, ...]
    """One for each slot of the fleet; a temporary worker goes through the first."""
    fleet: Fleet
    partitions: int
    bulk: str | None = None
    """The second topic of commands, if there is one."""
    past: Past = field(default_factory=Past)
    calm: Calm = field(default_factory=Calm)
    load: Load | None = None
    """The load, once it is known."""

    @property
    def sources(self) -> tuple[str, ...]:
        """Return the topics of commands."""
        return (self.scene.topics.commands,) if self.bulk is None else (self.scene.topics.commands, self.bulk)

    def source(self, partition: int) -> str:
        """Return the topic of this partition's commands: with a bulk topic every other partition's is that one.

        So a partition's number still names one lane with work.
        """
        return self.sources[partition % len(self.sources)]

    @property
    def proxies(self) -> tuple[Proxy, ...]:
        """Return every proxy, to brokers and to Postgres."""
        return (*self.kafka_proxies, *self.postgres_proxies)

    def postgres_of(self, slot: Slot) -> PostgresProxy:
        """Return the way to Postgres of one worker alone."""
        return self.postgres_proxies[self.fleet.slots.index(slot)]

    def left(self, wanted: Mapping[str, Mapping[int, int]] | None = None) -> dict[str, int]:
        """Count the records that workers have before them, by partition: up to ``wanted``, or the end of the log."""
        bootstrap = self.scene.kafka.bootstrap
        left: dict[str, int] = {}
        for topic in self.sources:
            ends = log_ends(bootstrap, topic) if wanted is None else wanted[topic]
            consumed = consumed_offsets(bootstrap, self.scene.group, topic)
            counts = {number: end - consumed.get(number, 0) for number, end in ends.items()}
            left |= {f"{topic}-{number}": count for number, count in counts.items() if count > 0}
        return left

    def fallen(self) -> list[str]:
        """Return the servers that ended although the schedule did not end them."""
        return [*self.cluster.fallen(), *self.postgres.fallen()]

    async def watch(self) -> None:
        """Start again, until cancelled, the brokers that fell: their data is evidence."""
        while True:
            self.cluster.relaunch()
            await asyncio.sleep(WATCH_SECONDS)

    def transactional_id(self, partition: int) -> str:
        """Return the name that workers give the producer of a lane (DESIGN 2)."""
        return f"{self.scene.group}.{self.source(partition)}.{partition}"


@asynccontextmanager
async def staged(
    *, workers: int, partitions: int, delivery: Delivery, logs: Path, mutant: str | None = None, bulk: bool = False
) -> AsyncIterator[Stage]:
    """Set everything up but the start of the workers. Nothing is left behind but the logs, in ``logs``."""
    async with AsyncExitStack() as opened:
        directory = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="faults-")))
        proxies = tuple(KafkaProxy() for _ in range(REPLICAS))
        cluster = Cluster({number: proxy.port for number, proxy in enumerate(proxies, 1)})
        opened.push_async_callback(cluster.dispose)
        opened.callback(_keep_logs_of_brokers, cluster, logs)
        for node, proxy in zip(cluster.nodes, proxies, strict=True):
            proxy.target = node.ports.workers
            opened.enter_context(proxy)
        await cluster.start()
        postgres = WheelPostgres()
        opened.push_async_callback(postgres.dispose)
        opened.callback(_keep_log_of_postgres, postgres, logs)
        await postgres.start()
        login = Login("worker_login", secrets.token_urlsafe(24))
        await make_prepared(postgres, DATABASE, login)
        database = DatabaseUnderTest(postgres.dsn(DATABASE), postgres.dsn(DATABASE, login), DATABASE)
        to_postgres = tuple(PostgresProxy(urlsplit(database.worker_dsn).port or 5432) for _ in range(workers))
        for each in to_postgres:
            opened.enter_context(each)
        dsns = [_through(each, database.worker_dsn) for each in to_postgres]
        topics = await asyncio.to_thread(_topics, cluster, partitions)
        settings = worker_settings(cluster.workers_bootstrap, topics, dsns[0]) | {
            "WORKER_KAFKA__SESSION_TIMEOUT_MS": str(SESSION_SECONDS * 1000),
            "WORKER_KAFKA__REQUEST_TIMEOUT_MS": str(REQUEST_SECONDS * 1000),
            "WORKER_KAFKA__TRANSACTION_TIMEOUT_MS": str(TRANSACTION_SECONDS * 1000),
            "WORKER_MAX_BATCH": str(MAX_BATCH),
            "WORKER_DELIVERY": delivery.value,
            "WORKER_RECORD_RETENTION_DAYS": str(RETENTION_DAYS),
            "WORKER_LOGIN__LONGEST_SECONDS": str(LOGIN_SECONDS),
        }
        second = f"bulk-{topics.commands}" if bulk else None
        if second is not None:
            create = partial(create_topics, cluster.bootstrap, second, partitions=partitions, replicas=REPLICAS)
            await asyncio.to_thread(create)
            settings["WORKER_TOPICS__BULK_COMMANDS"] = second
        scene = Scene(cluster, postgres, topics, database, settings, directory)
        fleet = Fleet(settings, directory, dsns, mutant)
        opened.callback(_keep_logs_of_workers, fleet, logs)
        opened.callback(fleet.kill)
        yield Stage(scene, cluster, postgres, proxies, to_postgres, fleet, partitions, second)


def _keep_logs_of_brokers(cluster: Cluster, target: Path) -> None:
    for node in cluster.nodes:
        (target / f"broker-{node.number}.log").write_text(node.log(), encoding="utf-8")


def _keep_log_of_postgres(postgres: WheelPostgres, target: Path) -> None:
    (target / "postgres.log").write_text(postgres.log(), encoding="utf-8")


def _keep_logs_of_workers(fleet: Fleet, target: Path) -> None:
    for slot in (*fleet.slots, *fleet.extra):
        for number, life in enumerate(slot.lives, 1):
            (target / f"{slot.name.replace(' ', '-')}-life-{number}.log").write_text(life.logs(), encoding="utf-8")


def _topics(cluster: Cluster, partitions: int) -> TopicNames:
    run = uuid4().hex[:8]
    names = TopicNames(f"commands-{run}", f"results-{run}", f"transitions-{run}", f"dead-letters-{run}")
    every = (names.commands, names.results, names.transitions, names.dead_letters)
    create_topics(cluster.bootstrap, *every, partitions=partitions, replicas=REPLICAS)
    return names


def _through(proxy: PostgresProxy, dsn: str) -> str:
    parts = urlsplit(dsn)
    user = parts.netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(netloc=f"{user}@{HOST}:{proxy.port}"))
