"""The topics of CONTRACT, Topics: as they should be, as they are, and how to create the missing ones.

An existing topic is never altered: its owner may have had a reason, and learns here what differs and what that costs.
"""

import asyncio
import shlex
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import TopicAlreadyExistsError, TopicAuthorizationFailedError, for_code

from worker.errors import KAFKA_ERRORS, OperatorError, in_words
from worker.kafka.client import client_options
from worker.kafka.remarks import away, remarks
from worker.settings import KafkaSettings, Settings

PARTITIONS: Final = 12
REPLICATION: Final = 3
CLIENT_PROPERTIES: Final = "client.properties"
"""The file in which the tools of Apache Kafka look for the login, in the command lines for them."""
_DAY_MS: Final = 24 * 60 * 60 * 1000
_VISIBLE_SECONDS: Final = 10.0
_UNLIMITED: Final = "-1"

_SETTINGS: Final[Mapping[str, dict[str, str]]] = {
    "commands": {"cleanup.policy": "delete", "retention.ms": str(7 * _DAY_MS)},
    "bulk_commands": {"cleanup.policy": "delete", "retention.ms": str(7 * _DAY_MS)},
    "results": {"cleanup.policy": "delete", "retention.ms": str(7 * _DAY_MS)},
    "transitions": {"cleanup.policy": "delete", "retention.ms": _UNLIMITED, "retention.bytes": _UNLIMITED},
    "dead_letters": {"cleanup.policy": "delete", "retention.ms": str(14 * _DAY_MS)},
}


class TopicsError(OperatorError):
    """The broker refused to create a topic."""


class ConfigsForbidden(OperatorError):
    """A right to read the settings of a topic is lacking."""

    def __init__(self, name: str) -> None:
        super().__init__(f"how topic {name} is set may not be seen: allow DESCRIBE_CONFIGS on it")


@dataclass(frozen=True, slots=True)
class Difference:
    """A setting of a topic that differs from CONTRACT, Topics. ``harm`` is what that costs, empty for nothing."""

    setting: str
    wanted: str
    found: str
    harm: str
    mend: str
    """The command line that corrects it, or what to do where there is none."""


@dataclass(frozen=True, slots=True)
class PlannedTopic:
    """One of the topics: as it should be, and how an existing one differs."""

    role: str
    name: str
    partitions: int
    replication: int
    settings: Mapping[str, str]
    exists: bool
    differences: tuple[Difference, ...] = ()
    create: str = ""
    """The command line that creates it; empty if it exists."""

    @property
    def harmful(self) -> tuple[Difference, ...]:
        return tuple(difference for difference in self.differences if difference.harm)


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """The topics, in the order of CONTRACT, Topics."""

    topics: tuple[PlannedTopic, ...]

    @property
    def missing(self) -> tuple[PlannedTopic, ...]:
        return tuple(topic for topic in self.topics if not topic.exists)

    @property
    def harmful(self) -> bool:
        """True if an existing topic differs in a way that costs something."""
        return any(topic.harmful for topic in self.topics)


async def plan(settings: Settings) -> TopicPlan:
    """Compare the topics with what they should be; changes nothing. Raises ``DependencyUnavailable``."""
    async with admin_client(settings) as admin:
        return await check_topics(admin, settings)


async def apply(settings: Settings) -> TopicPlan:
    """Create the topics that are missing and return the plan that was carried out.

    Existing ones stay as they are. Raises ``DependencyUnavailable`` and ``TopicsError``.
    """
    async with admin_client(settings) as admin:
        planned = await check_topics(admin, settings)
        overtaken = await _create(admin, planned.missing)
        if not overtaken:
            return planned
        # Another program created them meanwhile, perhaps with other settings: they count as existing ones.
        now = {topic.name: topic for topic in (await check_topics(admin, settings)).topics}
        return TopicPlan(tuple(now[topic.name] if topic.name in overtaken else topic for topic in planned.topics))


@dataclass(frozen=True, slots=True)
class Ground:
    """The cluster, and the number of partitions of each of its topics."""

    cluster: str
    partitions: Mapping[str, int]


async def survey(settings: Settings) -> Ground:
    """Return the cluster and its topics. Raises ``DependencyUnavailable``."""
    async with admin_client(settings) as admin:
        return await _surveyed(admin)


async def make_reply_topic(settings: Settings, name: str, partitions: int) -> Ground:
    """Create a topic for a sender's answers, kept as long as the results, unless there is one of that name.

    Raises ``DependencyUnavailable`` and ``TopicsError``.
    """
    async with admin_client(settings) as admin:
        ground = await _surveyed(admin)
        if name not in ground.partitions:
            brokers = len((await admin.describe_cluster())["brokers"])
            replication = max(1, min(REPLICATION, brokers))
            await _create(admin, [PlannedTopic("replies", name, partitions, replication, _SETTINGS["results"], False)])
            ground = await _surveyed(admin)
        return ground


async def _surveyed(admin: AIOKafkaAdminClient) -> Ground:
    cluster = await cluster_id(admin)
    topics = {topic["topic"]: len(topic["partitions"]) for topic in await admin.describe_topics()}
    return Ground(cluster, topics)


async def cluster_id(admin: AIOKafkaAdminClient) -> str:
    """Return the id by which command ids and the names of lanes know the cluster."""
    return str((await admin.describe_cluster())["cluster_id"])


async def check_topics(admin: AIOKafkaAdminClient, settings: Settings) -> TopicPlan:
    """Compare the topics, through an admin client that has been started."""
    brokers = len((await admin.describe_cluster())["brokers"])
    # All topics are asked for: asking for one by its name may create it.
    existing = {topic["topic"]: topic["partitions"] for topic in await admin.describe_topics()}
    names = {role: name for role in _SETTINGS if (name := getattr(settings.topics, role)) is not None}
    partitions = len(existing[names["commands"]]) if names["commands"] in existing else PARTITIONS
    replication = max(1, min(REPLICATION, brokers))
    in_sync = {"min.insync.replicas": "2" if replication >= REPLICATION else "1"}
    found = await topic_configs(admin, [name for name in names.values() if name in existing])
    topics = []
    for role, name in names.items():
        wanted = PlannedTopic(role, name, partitions, replication, _SETTINGS[role] | in_sync, exists=name in existing)
        tools = Tools(settings.kafka)
        if wanted.exists:
            topics.append(_compared(wanted, existing[name], found[name], tools))
        else:
            topics.append(replace(wanted, create=tools.creation(wanted)))
    return TopicPlan(tuple(topics))


async def topic_configs(admin: AIOKafkaAdminClient, names: list[str]) -> dict[str, dict[str, str]]:
    """Return the settings of existing topics that CONTRACT, Topics speaks of, by topic and name."""
    keys = {key: None for settings in _SETTINGS.values() for key in settings} | {"min.insync.replicas": None}
    if not names:
        return {}
    resources = [ConfigResource(ConfigResourceType.TOPIC, name, keys) for name in names]
    configs: dict[str, dict[str, str]] = {}
    for response in await admin.describe_configs(resources):
        for resource in response.to_object()["resources"]:
            if for_code(resource["error_code"]) is TopicAuthorizationFailedError:
                raise ConfigsForbidden(resource["resource_name"])
            if resource["error_code"]:
                raise for_code(resource["error_code"])(resource["error_message"] or resource["resource_name"])
            entries = resource["config_entries"]
            configs[resource["resource_name"]] = {entry["config_names"]: entry["config_value"] for entry in entries}
    return configs


# --- comparing --------------------------------------------------------------------------------------------------------


class Tools:
    """The command lines of Apache Kafka's own tools, to be pasted into a shell."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._to = ["--bootstrap-server", kafka.bootstrap_servers]
        if kafka.security_protocol != "PLAINTEXT":
            self._to += ["--command-config", CLIENT_PROPERTIES]

    def topics(self, *arguments: str) -> str:
        """Return a line of ``kafka-topics.sh``."""
        return shlex.join(["kafka-topics.sh", *self._to, *arguments])

    def configs(self, topic: str, setting: str) -> str:
        """Return the line that gives a topic a setting."""
        what = ("--alter", "--entity-type", "topics", "--entity-name", topic, "--add-config", setting)
        return shlex.join(["kafka-configs.sh", *self._to, *what])

    def creation(self, topic: "PlannedTopic") -> str:
        """Return the line that creates a topic as it should be."""
        size = ("--partitions", str(topic.partitions), "--replication-factor", str(topic.replication))
        settings = (part for name, value in topic.settings.items() for part in ("--config", f"{name}={value}"))
        return self.topics("--create", "--topic", topic.name, *size, *settings)


def _compared(
    wanted: PlannedTopic, partitions: list[dict[str, Any]], found: Mapping[str, str], tools: Tools
) -> PlannedTopic:
    differences = []
    if len(partitions) != wanted.partitions:
        mend = "leave it, or make the topic again: partitions cannot be taken away"
        if len(partitions) < wanted.partitions:
            mend = tools.topics("--alter", "--topic", wanted.name, "--partitions", str(wanted.partitions))
        differences.append(Difference("partitions", str(wanted.partitions), str(len(partitions)), "", mend))
    replicas = min((len(partition["replicas"]) for partition in partitions), default=wanted.replication)
    if replicas < wanted.replication:
        harm = "a lost broker takes what was acknowledged with it"
        mend = f"kafka-reassign-partitions.sh, with {wanted.replication} replicas for every partition of {wanted.name}"
        differences.append(Difference("replication factor", str(wanted.replication), str(replicas), harm, mend))
    for setting, value in wanted.settings.items():
        # A setting that the broker does not tell is its own default, which cannot be compared.
        if setting in found and found[setting] != value:
            harm = _harm(wanted, setting, found[setting], replicas)
            mend = tools.configs(wanted.name, f"{setting}={value}")
            differences.append(Difference(setting, value, found[setting], harm, mend))
    return replace(wanted, differences=tuple(differences))


def _harm(wanted: PlannedTopic, setting: str, found: str, replicas: int) -> str:
    if setting == "cleanup.policy" and "compact" in found:
        return "compaction removes records that are not read yet"
    if setting.startswith("retention.") and wanted.role == "transitions":
        return "the history of the access tokens gets lost"
    if setting == "min.insync.replicas":
        if int(found) > replicas:
            return "nothing can be written"
        if int(found) < int(wanted.settings[setting]):
            return "what was acknowledged can get lost with one broker"
    return ""


# --- making -----------------------------------------------------------------------------------------------------------


async def _create(admin: AIOKafkaAdminClient, missing: Sequence[PlannedTopic]) -> set[str]:
    """Create the topics, and return those that exist after all. Raises ``TopicsError``."""
    if not missing:
        return set()
    made = [
        NewTopic(topic.name, topic.partitions, topic.replication, topic_configs=dict(topic.settings))
        for topic in missing
    ]
    overtaken = set()
    for outcome in (await admin.create_topics(made)).to_object()["topic_errors"]:
        error = for_code(outcome["error_code"])
        if error is TopicAlreadyExistsError:
            overtaken.add(outcome["topic"])
        elif outcome["error_code"]:
            why = outcome["error_message"] or in_words(error())
            raise TopicsError(f"the broker does not make {outcome['topic']}: {why}")
    await _until_visible(admin, {topic.name for topic in missing})
    return overtaken


async def _until_visible(admin: AIOKafkaAdminClient, names: set[str]) -> None:
    """Wait until every topic is visible to clients and has leaders. Raises ``TopicsError``."""
    known: set[str] = set()
    try:
        async with asyncio.timeout(_VISIBLE_SECONDS):
            while not names <= known:
                await asyncio.sleep(0.05)
                known = {
                    topic["topic"]
                    for topic in await admin.describe_topics()
                    if topic["partitions"] and all(partition["leader"] >= 0 for partition in topic["partitions"])
                }
    except TimeoutError:
        unseen = ", ".join(sorted(names - known))
        raise TopicsError(
            f"made, but not to be seen after {_VISIBLE_SECONDS:g} seconds: {unseen}; is DESCRIBE on it allowed?"
        ) from None


# --- the client -------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def admin_client(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    """Yield a started admin client. Errors of broker and connection come out as ``DependencyUnavailable``."""
    admin = AIOKafkaAdminClient(**client_options(settings.kafka))
    with remarks() as said:
        try:
            await admin.start()
            yield admin
        except KAFKA_ERRORS as error:
            raise away(error, said) from error
        finally:
            await admin.close()
