"""A cluster of three brokers as processes of this machine: RF 3, min ISR 2, and every node can be hurt by itself."""

import asyncio
import os
import shutil
import signal
import struct
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from confluent_kafka import KafkaException
from confluent_kafka import TopicPartition as Place
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions, NewTopic

from tests.faults.log_files import batches, cut
from tests.providers import Unavailable
from tests.providers.kafka import (
    BROKER_SETTINGS,
    HOST,
    START_SECONDS,
    VERSION,
    BrokerProgram,
    KafkaServer,
    broker_program,
    cluster_id,
    format_node,
    start_node,
    warm_up,
)
from worker.demo.servers.broker import answers
from worker.demo.servers.processes import ServerProcess, free_port

NODES: Final = 3
REPLICAS: Final = 3
MIN_IN_SYNC: Final = 2
TRANSACTIONS: Final = "__transaction_state"
HEAP: Final = "384m"
STOP_SECONDS: Final = 30.0
INTERNAL_PARTITIONS: Final = 6
EXPIRATION_SECONDS: Final = 15
"""Seconds after which a broker forgets an unused transactional id; a week by default. Longer than a transaction."""
TAIL: Final = 200
"""Last records of a transaction log that are read: while no lane works, hardly any are written."""

_SETTINGS: Final[Mapping[str, str]] = {
    **BROKER_SETTINGS,
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,WORKERS:PLAINTEXT",
    "offsets.topic.replication.factor": str(REPLICAS),
    "offsets.topic.num.partitions": str(INTERNAL_PARTITIONS),
    "transaction.state.log.replication.factor": str(REPLICAS),
    "transaction.state.log.min.isr": str(MIN_IN_SYNC),
    "transaction.state.log.num.partitions": str(INTERNAL_PARTITIONS),
    "share.coordinator.state.topic.replication.factor": str(REPLICAS),
    "share.coordinator.state.topic.min.isr": str(MIN_IN_SYNC),
    "default.replication.factor": str(REPLICAS),
    "min.insync.replicas": str(MIN_IN_SYNC),
    "transactional.id.expiration.ms": str(EXPIRATION_SECONDS * 1000),
    "transaction.remove.expired.transaction.cleanup.interval.ms": "2000",
    # The others notice within seconds that a node is gone or stands still.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "replica.lag.time.max.ms": "4000",
    "replica.socket.timeout.ms": "4000",
    "controller.quorum.election.timeout.ms": "1000",
    "controller.quorum.fetch.timeout.ms": "2000",
    "controlled.shutdown.enable": "true",
    # Leaders go home soon, or after some faults one node would lead everything.
    "leader.imbalance.check.interval.seconds": "5",
    "leader.imbalance.per.broker.percentage": "0",
    "num.network.threads": "2",
    "num.io.threads": "4",
    "log.cleaner.dedupe.buffer.size": "4194304",
}
ANSWER_SECONDS: Final = 20.0
GONE: Final = b""


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports of one node."""

    direct: int
    """Port for the other nodes and for the harness's own clients."""
    workers: int
    """Port for the workers."""
    advertised: int
    """The port that the workers are told: a proxy's, or ``workers`` itself."""
    controller: int


class Node:
    """One broker and controller.

    Its methods are safe to call twice; those that wait are coroutines of the loop's thread.
    """

    def __init__(self, number: int, directory: Path, ports: Ports) -> None:
        self.number = number
        self.ports = ports
        self._directory = directory
        self._process: ServerProcess | None = None
        self._paused = False
        self._end_known = False
        """True if the end of this process was asked for, or is recorded."""
        self._falls: list[str] = []
        self._lies = False
        """True if it fell, and was neither revived nor relaunched since."""

    @property
    def address(self) -> str:
        return f"{HOST}:{self.ports.direct}"

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.exit_code is None

    @property
    def pid(self) -> int | None:
        """Return its pid, ``None`` if it does not run."""
        return self._process.pid if self._process is not None and self.runs else None

    def fallen(self) -> list[str]:
        """Return the exit codes of its processes that neither ``stop`` nor ``kill`` ended."""
        if self._process is not None and not self._end_known and self._process.exit_code is not None:
            self._end_known = self._lies = True
            self._falls.append(f"broker {self.number} ended with {self._process.exit_code}")
        return list(self._falls)

    def log_of(self, topic: str, partition: int) -> Path:
        """Return the directory of the partition's log."""
        return self._directory / "data" / f"{topic}-{partition}"

    def format(self, program: BrokerProgram, voters: str, cluster: str) -> None:
        self._directory.mkdir(parents=True)
        ports = self.ports
        workers = f"WORKERS://{HOST}:{ports.workers}"
        settings = {
            **_SETTINGS,
            "node.id": str(self.number),
            "listeners": f"PLAINTEXT://{self.address},{workers},CONTROLLER://{HOST}:{ports.controller}",
            "advertised.listeners": f"PLAINTEXT://{self.address},WORKERS://{HOST}:{ports.advertised}",
            "controller.quorum.voters": voters,
            "log.dirs": str(self._directory / "data"),
        }
        format_node(self._directory, program, settings, cluster)

    def relaunch(self, program: BrokerProgram) -> None:
        """Start it if it ended unasked."""
        self.fallen()
        if self._lies:
            self.launch(program)

    def launch(self, program: BrokerProgram) -> None:
        """Start it, and return at once."""
        self.fallen()
        if not self.runs:
            self._end_known = self._lies = False
            self._process = start_node(f"broker {self.number}", self._directory, program, heap=HEAP)

    async def ready(self) -> None:
        if self._process is not None:
            await self._process.ready(lambda: answers(self.address), seconds=START_SECONDS)

    async def stop(self) -> None:
        """Send SIGTERM: it hands its partitions over first."""
        self._end_is_known()
        self.resume()
        if self._process is not None:
            await self._process.stop(seconds=STOP_SECONDS)

    def kill(self) -> None:
        """Send SIGKILL."""
        self._end_is_known()
        if self._process is not None:
            self._process.kill()
        self._paused = False

    def _end_is_known(self) -> None:
        self.fallen()
        self._end_known, self._lies = True, False

    def pause(self) -> None:
        """Send SIGSTOP: connections stay open, and nothing answers."""
        self._signal(signal.SIGSTOP)
        self._paused = True

    def resume(self) -> None:
        """Send SIGCONT."""
        if self._paused:
            self._signal(signal.SIGCONT)
            self._paused = False

    def _signal(self, which: signal.Signals) -> None:
        if self._process is not None and self.runs:
            os.kill(self._process.pid, which)

    def log(self) -> str:
        """Return its whole log, or nothing if there is none."""
        log = self._directory / "kafka.log"
        return log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""


class Cluster(KafkaServer):
    """Three nodes. ``bootstrap`` is for the harness's own clients, ``workers_bootstrap`` for the workers."""

    def __init__(self, advertised: Mapping[int, int] | None = None) -> None:
        """Lay out the nodes.

        ``advertised`` gives each node's (1, 2, 3) port for workers in front of its own; by default none is.
        """
        self.name = f"Apache Kafka {VERSION} (three JVM processes)"
        self.real = True
        self._directory = Path(tempfile.mkdtemp(prefix="cluster-"))
        self._program: BrokerProgram | None = None
        self.nodes = [self._node(number, advertised or {}) for number in range(1, NODES + 1)]
        self.bootstrap = ",".join(node.address for node in self.nodes)
        self.workers_bootstrap = ",".join(f"{HOST}:{node.ports.advertised}" for node in self.nodes)

    def _node(self, number: int, advertised: Mapping[int, int]) -> Node:
        direct, workers, controller = (free_port(HOST) for _ in range(3))
        ports = Ports(direct, workers, advertised.get(number, workers), controller)
        return Node(number, self._directory / f"node-{number}", ports)

    async def start(self) -> None:
        """Start the nodes that do not run, and return when all replicas are in sync. Raises ``Unavailable``."""
        is_new = self._program is None
        if self._program is None:
            self._program = await asyncio.to_thread(broker_program)
            await asyncio.to_thread(self._format, self._program)
        for node in self.nodes:  # before any wait: a single node does not answer
            node.resume()
            node.launch(self._program)
        await asyncio.gather(*(node.ready() for node in self.nodes))
        await self.healed()
        if is_new:
            await asyncio.to_thread(warm_up, self.bootstrap, replicas=REPLICAS)

    def _format(self, program: BrokerProgram) -> None:
        voters = ",".join(f"{node.number}@{HOST}:{node.ports.controller}" for node in self.nodes)
        cluster = cluster_id()
        for node in self.nodes:
            node.format(program, voters, cluster)

    async def revive(self, node: Node) -> None:
        """Let it run again after any fault, and return when it answers."""
        assert self._program is not None
        node.resume()
        node.launch(self._program)
        await node.ready()

    def fallen(self) -> list[str]:
        """Return the unasked ends of nodes."""
        return [each for node in self.nodes for each in node.fallen()]

    def relaunch(self) -> None:
        """Start again, without waiting for them, the nodes that ended unasked."""
        for node in self.nodes:
            if self._program is not None:
                node.relaunch(self._program)

    async def healed(self, seconds: float = 90.0) -> None:
        """Wait until every partition has a leader and all its replicas in sync. Raises ``Unavailable``."""
        deadline = time.monotonic() + seconds
        while faults := await asyncio.to_thread(self._wounds):
            if time.monotonic() > deadline:
                raise Unavailable(f"the cluster has not healed within {seconds:.0f} s: {'; '.join(faults[:5])}")
            await asyncio.sleep(0.2)

    def _wounds(self) -> list[str]:
        try:
            known = self._admin().list_topics(timeout=10)
        except KafkaException as error:
            return [str(error)]
        found = [] if len(known.brokers) == NODES else [f"{len(known.brokers)} brokers"]
        for topic in known.topics.values():
            found += _wounds_of(topic)
        return found

    async def lose_end(self, topic: str, partition: int, count: int) -> int:
        """Fail the power everywhere before a partition's last batches are on disk; return its new end.

        Raises ``Unavailable``.
        """
        await self.kill()
        logs = [node.log_of(topic, partition) for node in self.nodes]
        firsts = sorted({first for log in logs for first in batches(log)})
        before = firsts[-min(count, len(firsts))]
        for log in logs:
            cut(log, before)
        await self.start()
        return before

    async def stop(self) -> None:
        await asyncio.gather(*(node.stop() for node in self.nodes))

    async def kill(self) -> None:
        for node in self.nodes:
            node.kill()

    async def dispose(self) -> None:
        await self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)

    # --- leaders and coordinators -------------------------------------------------------------------------------------

    def leader(self, topic: str, partition: int) -> Node:
        """Return the node that leads the partition now."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with suppress(KafkaException, KeyError):
                leader = self._admin().list_topics(topic, timeout=10).topics[topic].partitions[partition].leader
                if leader > 0:
                    return self.nodes[leader - 1]
            time.sleep(0.1)
        raise Unavailable(f"{topic}-{partition} has no leader")

    def transaction_coordinator(self, transactional_id: str) -> Node:
        return self.leader(TRANSACTIONS, _slot(transactional_id))

    def group_coordinator(self, group: str) -> Node:
        return self.leader("__consumer_offsets", _slot(group))

    async def expired(self, transactional_ids: Iterable[str]) -> set[str]:
        """Return the ids whose last entry by a coordinator, lately, says that they are gone."""
        reader = AIOKafkaConsumer(bootstrap_servers=self.bootstrap, enable_auto_commit=False)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await reader.start()
                return {each for each in transactional_ids if await _last_written(reader, each) == GONE}
        except (KafkaError, TimeoutError):  # no coordinator answers: unknown
            return set()
        finally:
            await reader.stop()

    def forget_group(self, group: str) -> None:
        """Delete a group, as the broker does with one that was idle for long. Raises ``KafkaException``."""
        admin = self._admin()  # kept until it has answered
        admin.delete_consumer_groups([group])[group].result(timeout=ANSWER_SECONDS)

    def remove_records(self, topic: str, partition: int, before: int) -> int:
        """Remove the beginning of a partition, read or not; return its new beginning. Raises ``KafkaException``."""
        admin = self._admin()
        [asked] = admin.delete_records([Place(topic, partition, before)]).values()
        return int(asked.result(timeout=ANSWER_SECONDS).low_watermark)

    def is_gone(self, topic: str) -> bool:
        """Delete the topic. True if no broker knows of it any more. Raises ``KafkaException``."""
        admin = self._admin()
        is_known = topic in admin.list_topics(timeout=10).topics
        if is_known:
            admin.delete_topics([topic])[topic].result(timeout=ANSWER_SECONDS)
        return not is_known

    def is_there(self, topic: str, partitions: int) -> bool:
        """Make the topic. True if every broker keeps its part of it. Raises ``KafkaException``."""
        admin = self._admin()
        known = admin.list_topics(timeout=10).topics.get(topic)
        if known is None:
            admin.create_topics([NewTopic(topic, partitions, REPLICAS)])[topic].result(timeout=ANSWER_SECONDS)
            return False
        return len(known.partitions) == partitions and not _wounds_of(known)

    def add_partition(self, topic: str) -> None:
        """Add one partition."""
        admin = self._admin()
        count = len(admin.list_topics(topic, timeout=10).topics[topic].partitions)
        for added in admin.create_partitions([NewPartitions(topic, count + 1)]).values():
            added.result(timeout=START_SECONDS)

    def _admin(self) -> AdminClient:
        options: dict[str, Any] = {"bootstrap.servers": self.bootstrap, "log_level": 0}
        return AdminClient(options)


def _slot(text: str) -> int:
    """Return the partition of an internal topic that keeps it: the absolute value of Java's hash of the text."""
    hashed = 0
    for unit in text.encode("utf-16-be")[1::2] if text.isascii() else ():
        hashed = (31 * hashed + unit) & 0xFFFFFFFF
    signed = hashed - 2**32 if hashed >= 2**31 else hashed
    return abs(signed) % INTERNAL_PARTITIONS


def _wounds_of(topic: Any) -> Sequence[str]:
    return [
        f"{topic.topic}-{place.id} is led by {place.leader} with {len(place.isrs)} of {len(place.replicas)} in sync"
        for place in topic.partitions.values()
        if place.leader < 0 or len(place.isrs) < len(place.replicas)
    ]


async def _last_written(reader: AIOKafkaConsumer, transactional_id: str) -> bytes | None:
    """Return the last entry: ``GONE`` if it was deleted; ``None`` if there was none lately."""
    place = TopicPartition(TRANSACTIONS, _slot(transactional_id))
    key = struct.pack(">hh", 0, len(transactional_id)) + transactional_id.encode()
    reader.assign([place])
    start, end = (await reader.beginning_offsets([place]))[place], (await reader.end_offsets([place]))[place]
    reader.seek(place, max(start, end - TAIL))
    written = None
    while await reader.position(place) < end:
        for record in (await reader.getmany(place, timeout_ms=1000)).get(place, []):
            if record.key == key:
                written = record.value or GONE
    return written
