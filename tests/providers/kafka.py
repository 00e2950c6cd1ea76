"""Kafka for the tests, from the first provider that can serve: a given address, a container, a JVM process, a wheel."""

import asyncio
import fcntl
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from abc import ABC, abstractmethod
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from testcontainers.core.container import DockerContainer

from tests.providers import GivenAway, Unavailable
from tests.providers.docker_engine import require_engine
from tests.support.pace import in_milliseconds, patience
from tests.support.waiting import Ceiling, run_to_end, wait_until
from worker.demo.servers.broker import Broker, answers
from worker.demo.servers.processes import EmbeddedFailed, EmbeddedUnavailable, ServerProcess, free_port, until

VERSION: Final = "4.1.1"
LOG4J_VERSION: Final = "2.24.3"
SPRING_VERSION: Final = "4.0.0"
PARTITIONS: Final = 4
START_SECONDS: Final = 120.0
HEAP: Final = "512m"
"""The most heap that the JVM of a single broker takes."""
HOST: Final = "127.0.0.1"

# One node; small internal topics, and no waiting for members that might still come, so that a test starts at once.
BROKER_SETTINGS: Final[Mapping[str, str]] = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "inter.broker.listener.name": "PLAINTEXT",
    "controller.listener.names": "CONTROLLER",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "default.replication.factor": "1",
    "min.insync.replicas": "1",
    "auto.create.topics.enable": "false",
    "group.initial.rebalance.delay.ms": "0",
    # A killed broker may not come back before its session has ended.
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "400",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
}


@dataclass(frozen=True, slots=True)
class TopicNames:
    """The worker's four topics, of the test's own."""

    commands: str
    results: str
    transitions: str
    dead_letters: str


class KafkaServer(ABC):
    """A broker that keeps its address, its topics and its data when it is stopped and started again."""

    name: str
    """The name of this broker, for people."""
    real: bool
    """True if it is Apache Kafka."""
    bootstrap: str

    @abstractmethod
    async def start(self) -> None:
        """Start it, unless it runs already. Raises ``Unavailable`` if this provider cannot serve here."""

    @abstractmethod
    async def stop(self) -> None:
        """Shut it down cleanly. Safe to call twice."""

    @abstractmethod
    async def kill(self) -> None:
        """Send SIGKILL. Safe to call twice."""

    async def dispose(self) -> None:
        """Leave nothing behind."""
        await self.kill()


class GivenKafka(KafkaServer):
    """A broker that belongs to others: it is used, and never stopped."""

    def __init__(self) -> None:
        self.bootstrap = os.environ.get("TEST_KAFKA_BOOTSTRAP", "")
        self.name = f"the one given at {self.bootstrap}"
        self.real = True

    async def start(self) -> None:
        if not self.bootstrap:
            raise Unavailable("TEST_KAFKA_BOOTSTRAP gives no address")
        if not await asyncio.to_thread(_lists_topics, self.bootstrap):
            raise GivenAway(f"no broker answers at {self.bootstrap} (TEST_KAFKA_BOOTSTRAP)")

    async def stop(self) -> None:
        raise AssertionError("a broker given by its address is not stopped")

    async def kill(self) -> None:
        raise AssertionError("a broker given by its address is not stopped")

    async def dispose(self) -> None:
        """Leave it as it is."""


class ContainerKafka(KafkaServer):
    """Apache Kafka in a container, on a fixed port: the advertised listener must be known before it starts."""

    def __init__(self) -> None:
        self.name = f"Apache Kafka {VERSION} (container)"
        self.real = True
        self._port = free_port(HOST)
        self.bootstrap = f"{HOST}:{self._port}"
        self._container: Any = None

    async def start(self) -> None:
        if self._container is None:
            require_engine()
            await asyncio.to_thread(self._create)
        else:
            await asyncio.to_thread(self._container.get_wrapped_container().start)
        await _until_ready(self.bootstrap)

    def _create(self) -> None:
        settings = {
            **BROKER_SETTINGS,
            # A broker that gets no CPU must not be taken for dead.
            "broker.session.timeout.ms": in_milliseconds(2),
            "listeners": "PLAINTEXT://:19092,CONTROLLER://:9093,HOST://:9092",
            "advertised.listeners": f"PLAINTEXT://localhost:19092,HOST://{self.bootstrap}",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,HOST:PLAINTEXT",
            "controller.quorum.voters": "1@localhost:9093",
        }
        container = DockerContainer(f"apache/kafka:{VERSION}")
        for name, value in settings.items():
            container.with_env(f"KAFKA_{name.replace('.', '_').upper()}", value)
        # On this machine only; the library's own method publishes on every interface.
        published: dict[str, Any] = {"9092/tcp": (HOST, self._port)}
        container.ports.update(published)
        self._container = container
        try:
            container.start()
        except Exception as error:
            raise Unavailable(f"the container does not start: {_first_line(error)}") from error

    async def stop(self) -> None:
        await asyncio.to_thread(self._container.get_wrapped_container().stop)

    async def kill(self) -> None:
        with suppress(Exception):  # the engine complains if it does not run
            await asyncio.to_thread(self._container.get_wrapped_container().kill)

    async def dispose(self) -> None:
        if self._container is not None:
            await asyncio.to_thread(self._container.stop)


class JvmKafka(KafkaServer):
    """Apache Kafka as a process of this machine, its jars fetched once with Maven."""

    # Optimised compilation costs a broker that lives minutes more than it ever saves.
    java_options: Sequence[str] = ("-XX:TieredStopAtLevel=1",)

    def __init__(self) -> None:
        self.name = f"Apache Kafka {VERSION} (JVM process)"
        self.real = True
        self._port = free_port(HOST)
        self.bootstrap = f"{HOST}:{self._port}"
        self._directory: Path | None = None
        self._process: ServerProcess | None = None

    async def start(self) -> None:
        if self._process is not None and self._process.exit_code is None:
            return
        program = await asyncio.to_thread(broker_program)
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="kafka-"))
            await asyncio.to_thread(
                format_node, self._directory, program, self._settings(self._directory), cluster_id()
            )
        self._process = start_node("Apache Kafka", self._directory, program, heap=HEAP, options=self.java_options)
        await self._process.ready(lambda: answers(self.bootstrap), seconds=patience(START_SECONDS))
        await _until_ready(self.bootstrap)

    def _settings(self, directory: Path) -> dict[str, str]:
        controller = f"{HOST}:{free_port(HOST)}"
        return {
            **BROKER_SETTINGS,
            # A broker that gets no CPU must not be taken for dead.
            "broker.session.timeout.ms": in_milliseconds(2),
            "listeners": f"PLAINTEXT://{self.bootstrap},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap}",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            "controller.quorum.voters": f"1@{controller}",
            "log.dirs": str(directory / "data"),
        }

    async def stop(self) -> None:
        if self._process is not None:
            await self._process.stop(seconds=patience(30))

    async def kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    async def dispose(self) -> None:
        await self.kill()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)


class WheelKafka(KafkaServer):
    """The embedded broker: it speaks Kafka's protocol and is no Apache Kafka."""

    def __init__(self) -> None:
        self.name = "the embedded broker (noida-db), not Apache Kafka"
        self.real = False
        self._directory = Path(tempfile.mkdtemp(prefix="broker-"))
        self._broker = Broker(self._directory / "data", log=self._directory / "broker.log")
        self.bootstrap = self._broker.bootstrap_servers

    async def start(self) -> None:
        try:
            await self._broker.start()
        except EmbeddedUnavailable as error:
            raise Unavailable(str(error)) from error

    async def stop(self) -> None:
        await self._broker.stop()

    async def kill(self) -> None:
        self._broker.kill()

    async def dispose(self) -> None:
        await self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)


OWN_PROVIDERS: Final[tuple[type[KafkaServer], ...]] = (ContainerKafka, JvmKafka, WheelKafka)
PROVIDERS: Final[tuple[type[KafkaServer], ...]] = (GivenKafka, *OWN_PROVIDERS)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The broker that runs, and the reasons why those before it do not."""

    server: KafkaServer
    passed_over: tuple[str, ...]


def likely() -> str:
    """Return the broker that ``choose`` will try first, as far as can be told without starting anything."""
    if os.environ.get("TEST_KAFKA_BOOTSTRAP"):
        return GivenKafka().name
    with suppress(Unavailable):
        require_engine()
        return f"Apache Kafka {VERSION} (container)"
    if shutil.which("java") and (_kept_jars().is_dir() or shutil.which("mvn")):
        return f"Apache Kafka {VERSION} (JVM process)"
    return "the embedded broker (noida-db), not Apache Kafka"


async def choose(providers: Sequence[type[KafkaServer]] = PROVIDERS, *, real_only: bool) -> Chosen:
    """Start the first broker that can serve. Raises ``Unavailable``, with every reason, if none can."""
    reasons: list[str] = []
    for provider in providers:
        if real_only and provider is WheelKafka:
            continue
        server = provider()
        try:
            await server.start()
            await asyncio.to_thread(warm_up, server.bootstrap)
        except GivenAway:
            raise
        except (Unavailable, EmbeddedFailed) as error:
            await server.dispose()
            reasons.append(str(error))
            continue
        return Chosen(server, tuple(reasons))
    raise Unavailable("; ".join(reasons))


# --- a node of Apache Kafka as a process ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BrokerProgram:
    """The program that runs a broker or a client: the java program, and the directory with the jars."""

    java: str
    jars: Path


def broker_program() -> BrokerProgram:
    """Find both, the jars fetched if need be. Raises ``Unavailable``."""
    return BrokerProgram(java_program(), _jars(_kept_jars(), _JARS))


def spring_program() -> BrokerProgram:
    """Find the same with the jars of Spring's Kafka client, which bring no broker. Raises ``Unavailable``."""
    jars = (("org.springframework.kafka", "spring-kafka", SPRING_VERSION),)
    return BrokerProgram(java_program(), _jars(_kept_jars().parent / f"spring-kafka-{SPRING_VERSION}", jars))


def java_program() -> str:
    """Find java, 17 or later. Raises ``Unavailable``."""
    java = shutil.which("java")
    if java is None:
        raise Unavailable("java is not installed")
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', said)
    if version is None or int(version[1]) < 17:
        raise Unavailable(f"java 17 or later is needed: {_first_line(said)}")
    return java


def packaged(project: Path) -> None:
    """Build a Maven project into its ``target``. Raises ``Unavailable`` where Maven cannot have what it needs."""
    maven = shutil.which("mvn")
    if maven is None:
        raise Unavailable("Maven (mvn) is not installed")
    options = ["-q", "-B", "-Dstyle.color=never", *_own_repository(_kept_jars().parent)]
    done = run_to_end([maven, *options, "package"], cwd=project, seconds=600, merged=True)
    if done.returncode:
        missing = [line for line in done.stdout.splitlines() if _NOT_TO_BE_HAD.search(line)]
        assert missing, done.stdout
        raise Unavailable(f"mvn failed: {missing[0][:300]}")


def format_node(directory: Path, program: BrokerProgram, settings: Mapping[str, str], cluster: str) -> None:
    """Write a node's files into ``directory`` and make its storage. Raises ``Unavailable``."""
    properties = directory / "server.properties"
    properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()), encoding="utf-8")
    (directory / "log4j2.properties").write_text(_LOG4J, encoding="utf-8")
    tool = [program.java, "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", f"{program.jars}/*"]
    _run([*tool, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(properties)])


def start_node(
    name: str, directory: Path, program: BrokerProgram, *, heap: str, options: Sequence[str] = ()
) -> ServerProcess:
    """Start the node of ``directory`` and return at once. The calling thread must outlive it."""
    logging = f"-Dlog4j2.configurationFile=file:{directory / 'log4j2.properties'}"
    command = [program.java, "-Xms256m", f"-Xmx{heap}", "-XX:+UseSerialGC", *options, logging]
    command += ["-cp", f"{program.jars}/*", "kafka.Kafka", str(directory / "server.properties")]
    return ServerProcess.start(name, command, log=directory / "kafka.log", environment=os.environ)


# --- topics ----------------------------------------------------------------------------------------------------------


def create_topics(
    bootstrap: str,
    *names: str,
    partitions: int = PARTITIONS,
    replicas: int = 1,
    settings: Mapping[str, str] | None = None,
) -> None:
    """Create the topics, and return when every partition of theirs has a leader."""
    admin = AdminClient({"bootstrap.servers": bootstrap, **_QUIET})
    config = dict(settings or {})
    topics = [NewTopic(name, partitions, replicas, config=config) for name in names]
    for created in admin.create_topics(topics).values():
        created.result(timeout=patience(START_SECONDS))
    wait_until(
        lambda: [name for name in names if not _is_led(admin, name, partitions)],
        lambda without: not without,
        what="every new topic had its leaders",
        seconds=START_SECONDS,
        pause=0.02,
    )


def delete_topics(bootstrap: str, *names: str) -> None:
    """Ask for their removal. A broker that a test left unwell keeps them."""
    admin = AdminClient({"bootstrap.servers": bootstrap, **_QUIET})
    for deleted in admin.delete_topics(list(names), operation_timeout=5, request_timeout=5).values():
        with suppress(KafkaException):
            deleted.result(timeout=patience(30))


def _is_led(admin: AdminClient, name: str, partitions: int) -> bool:
    known = admin.list_topics(timeout=patience(30)).topics.get(name)
    return known is not None and [p.leader >= 0 for p in known.partitions.values()] == [True] * partitions


# --- helpers ---------------------------------------------------------------------------------------------------------

# The client would write to stderr that a broker which a test stopped is away.
_QUIET: Final[Mapping[str, Any]] = {"log_level": 0}

_LOG4J: Final = """\
status=error
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=[%d] %p %m (%c)%n
rootLogger.level=warn
rootLogger.appenderRef.console.ref=console
"""

_POM: Final = """\
<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>tests</groupId>
  <artifactId>kafka</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
{dependencies}
  </dependencies>
</project>
"""

_NOT_TO_BE_HAD: Final = re.compile(r"Could not (transfer|find|resolve)|could not be resolved|Non-resolvable")
"""Maven's words for an artifact that it cannot fetch."""

# Kafka's own launcher sets no logging configuration, without which it cannot start.
_JARS: Final = (
    ("org.apache.kafka", "kafka_2.13", VERSION),
    *(("org.apache.logging.log4j", f"log4j-{part}", LOG4J_VERSION) for part in ("api", "core", "slf4j-impl")),
)


def _jars(kept: Path, wanted: Sequence[tuple[str, str, str]]) -> Path:
    """Return the directory with these jars and theirs, kept between runs and filled by Maven if it is missing."""
    if kept.is_dir():
        return kept
    maven = shutil.which("mvn")
    if maven is None:
        raise Unavailable("Apache Kafka's jars are not cached, and Maven (mvn), which fetches them, is not installed")
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with (kept.parent / "lock").open("w") as lock:
            # Another process of the session may want them at the same time.
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not kept.is_dir():
                _fetch(maven, kept, wanted)
    except OSError as error:
        raise Unavailable(f"the jars of Apache Kafka cannot be kept in {kept.parent}: {error.strerror}") from error
    return kept


def _fetch(maven: str, kept: Path, wanted: Sequence[tuple[str, str, str]]) -> None:
    with tempfile.TemporaryDirectory(dir=kept.parent) as fetching:
        pom = Path(fetching) / "pom.xml"
        pom.write_text(_POM.format(dependencies="\n".join(map(_dependency, wanted))), encoding="utf-8")
        jars = Path(fetching) / "jars"
        goal = "dependency:copy-dependencies"
        _run(
            [
                maven,
                "-q",
                "-B",
                "-Dstyle.color=never",
                "-f",
                str(pom),
                goal,
                "-DincludeScope=runtime",
                f"-DoutputDirectory={jars}",
                *_own_repository(kept.parent),
            ]
        )
        jars.rename(kept)


def _own_repository(cache: Path) -> list[str]:
    """Return Maven's repository: in the account's home, whatever HOME says; without one, in our cache."""
    home = Path(pwd.getpwuid(os.getuid()).pw_dir)
    return [] if os.access(home, os.W_OK) else [f"-Dmaven.repo.local={cache / 'maven'}"]


def _kept_jars() -> Path:
    usual = Path(__file__).parents[2] / ".cache"
    caches = Path(os.environ.get("XDG_CACHE_HOME") or usual)
    return caches / "effective-worker" / f"kafka-{VERSION}-log4j-{LOG4J_VERSION}"


def _dependency(coordinates: tuple[str, str, str]) -> str:
    members = zip(("groupId", "artifactId", "version"), coordinates, strict=True)
    return "    <dependency>" + "".join(f"<{name}>{value}</{name}>" for name, value in members) + "</dependency>"


def cluster_id() -> str:
    """Return a new cluster id, as Kafka writes it."""
    raw = uuid4().bytes
    # It must not begin with a dash, which the tool would take for an option.
    return urlsafe_b64encode(bytes([raw[0] & 0x7F]) + raw[1:]).rstrip(b"=").decode()


def _run(command: Sequence[str], *, seconds: float = 300.0) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=patience(seconds))
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{Path(command[0]).name} did not end within {patience(seconds):.0f} s") from None
    if done.returncode:
        raise Unavailable(f"{Path(command[0]).name} failed: {_first_line(done.stdout + done.stderr)}")
    return done.stdout


def _first_line(text: object) -> str:
    return next((line.strip() for line in str(text).splitlines() if line.strip()), "without a word")


async def _until_ready(bootstrap: str) -> None:
    """Wait until a returning broker leads its partitions: it answers before that, and turns clients away."""
    try:
        await until(lambda: answers(bootstrap), patience(START_SECONDS))
        await until(lambda: asyncio.to_thread(_leads_all, bootstrap), patience(START_SECONDS))
    except TimeoutError:
        raise Unavailable(f"no broker works at {bootstrap}") from None


def _leads_all(bootstrap: str) -> bool:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "providers", **_QUIET})
    try:
        for topic in consumer.list_topics(timeout=patience(30)).topics.values():
            for number in topic.partitions:
                consumer.get_watermark_offsets(TopicPartition(topic.topic, number), timeout=patience(30))
    except KafkaException:
        return False
    finally:
        consumer.close()
    return True


def _lists_topics(bootstrap: str) -> bool:
    try:
        AdminClient({"bootstrap.servers": bootstrap, **_QUIET}).list_topics(timeout=patience(30))
    except KafkaException:
        return False
    return True


def warm_up(bootstrap: str, *, replicas: int = 1) -> None:
    """Run one transaction of one message and one offset, so that no test has to wait for the internal topics."""
    topic = f"warm-up-{uuid4().hex}"
    create_topics(bootstrap, topic, partitions=1, replicas=replicas)
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": topic, **_QUIET})
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": topic, **_QUIET})
    try:
        consumer.subscribe([topic])
        ceiling = Ceiling(START_SECONDS)
        while not consumer.assignment():
            consumer.poll(0.1)
            if not ceiling.left:
                raise Unavailable(f"the broker at {bootstrap} lets no consumer join a group")
        producer.init_transactions(patience(START_SECONDS))
        producer.begin_transaction()
        producer.produce(topic, b"warm")
        group = consumer.consumer_group_metadata()
        producer.send_offsets_to_transaction([TopicPartition(topic, 0, 0)], group, patience(START_SECONDS))
        producer.commit_transaction(patience(START_SECONDS))
    except KafkaException as error:
        raise Unavailable(f"the broker at {bootstrap} cannot do a transaction: {error}") from error
    finally:
        consumer.close()
    delete_topics(bootstrap, topic)
