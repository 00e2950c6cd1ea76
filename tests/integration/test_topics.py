"""The topics: made as CONTRACT, Topics has them, compared where they exist, never altered."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from uuid import uuid4

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.cimpl import NewTopic

from tests.providers.kafka import KafkaServer, TopicNames, delete_topics
from tests.support.pace import patience
from tests.support.settings import settings_for
from tests.support.waiting import wait_until
from worker.errors import DependencyUnavailable
from worker.kafka import topics as kafka_topics

DAY_MS = 24 * 60 * 60 * 1000


@pytest.fixture
async def absent(kafka: KafkaServer) -> AsyncIterator[TopicNames]:
    """Yield names of topics that do not exist yet; they are removed at the end."""
    await kafka.start()
    run = uuid4().hex[:12]
    names = TopicNames(f"c-{run}", f"r-{run}", f"t-{run}", f"d-{run}")
    yield names
    every = (names.commands, names.results, names.transitions, names.dead_letters)
    await asyncio.to_thread(delete_topics, kafka.bootstrap, *every)


def described(kafka: KafkaServer, name: str) -> tuple[int, dict[str, str]]:
    """Return partitions and settings of a topic, through another client."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    resource = ConfigResource(ConfigResource.Type.TOPIC, name)
    (answer,) = admin.describe_configs([resource]).values()
    configs = {setting: entry.value for setting, entry in answer.result(timeout=patience(60)).items()}
    return len(admin.list_topics(name, timeout=patience(60)).topics[name].partitions), configs


def make(kafka: KafkaServer, name: str, partitions: int, **config: str) -> None:
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    settings = {setting.replace("_", "."): value for setting, value in config.items()}
    (made,) = admin.create_topics([NewTopic(name, partitions, 1, config=settings)]).values()
    made.result(timeout=patience(60))
    # The controller answers before the broker tells others of it.
    wait_until(
        lambda: list(admin.list_topics(timeout=patience(60)).topics),
        lambda names: name in names,
        what=f"{name} appeared",
        pause=0.02,
    )


async def test_applying_makes_the_topics_as_the_contract_has_them(kafka: KafkaServer, absent: TopicNames) -> None:
    settings = settings_for(kafka.bootstrap, absent)
    assert len((await kafka_topics.plan(settings)).missing) == 4
    await kafka_topics.apply(settings)
    retention = {
        absent.commands: 7 * DAY_MS,
        absent.results: 7 * DAY_MS,
        absent.transitions: -1,
        absent.dead_letters: 14 * DAY_MS,
    }
    for name, wanted in retention.items():
        partitions, configs = described(kafka, name)
        assert partitions == 12
        assert (configs["retention.ms"], configs["cleanup.policy"]) == (str(wanted), "delete")
    planned = await kafka_topics.plan(settings)
    assert [(topic.exists, topic.differences) for topic in planned.topics] == [(True, ())] * 4


async def test_planning_makes_nothing(kafka: KafkaServer, absent: TopicNames) -> None:
    settings = settings_for(kafka.bootstrap, absent)
    await kafka_topics.plan(settings)
    assert len((await kafka_topics.plan(settings)).missing) == 4


async def test_the_other_topics_follow_the_commands_topic(kafka: KafkaServer, absent: TopicNames) -> None:
    await asyncio.to_thread(make, kafka, absent.commands, 3, retention_ms=str(7 * DAY_MS))
    await kafka_topics.apply(settings_for(kafka.bootstrap, absent))
    assert described(kafka, absent.transitions)[0] == 3


async def test_a_bulk_topic_is_one_more_and_like_the_commands_topic(kafka: KafkaServer, absent: TopicNames) -> None:
    await asyncio.to_thread(make, kafka, absent.commands, 3, retention_ms=str(7 * DAY_MS))
    plain = settings_for(kafka.bootstrap, absent)
    bulk = f"bulk-{absent.commands}"
    settings = plain.model_copy(update={"topics": plain.topics.model_copy(update={"bulk_commands": bulk})})
    try:
        assert bulk in {topic.name for topic in (await kafka_topics.apply(settings)).missing}
        partitions, configs = described(kafka, bulk)
        assert (partitions, configs["retention.ms"], configs["cleanup.policy"]) == (3, str(7 * DAY_MS), "delete")
        roles = [topic.role for topic in (await kafka_topics.plan(settings)).topics]
        assert roles == ["commands", "bulk_commands", "results", "transitions", "dead_letters"]
    finally:
        await asyncio.to_thread(delete_topics, kafka.bootstrap, bulk)


async def test_several_at_once_do_not_disturb_each_other(kafka: KafkaServer, absent: TopicNames) -> None:
    settings = settings_for(kafka.bootstrap, absent)
    await asyncio.gather(*(kafka_topics.apply(settings) for _ in range(3)))
    assert (await kafka_topics.plan(settings)).missing == ()


async def test_a_topic_that_is_wrong_is_reported_with_its_harm_and_not_altered(
    kafka: KafkaServer, absent: TopicNames
) -> None:
    await asyncio.to_thread(make, kafka, absent.transitions, 5, retention_ms="60000", cleanup_policy="compact")
    settings = settings_for(kafka.bootstrap, absent)
    planned = await kafka_topics.apply(settings)
    assert planned.harmful
    transitions = next(topic for topic in planned.topics if topic.role == "transitions")
    found = {difference.setting: difference for difference in transitions.differences}
    assert found["partitions"].harm == ""
    assert "history" in found["retention.ms"].harm
    assert "compaction" in found["cleanup.policy"].harm
    assert found["retention.ms"].mend.endswith(f"--entity-name {absent.transitions} --add-config retention.ms=-1")
    partitions, configs = described(kafka, absent.transitions)
    assert (partitions, configs["retention.ms"], configs["cleanup.policy"]) == (5, "60000", "compact")


async def test_a_shorter_retention_of_results_is_the_operators_choice(kafka: KafkaServer, absent: TopicNames) -> None:
    await asyncio.to_thread(make, kafka, absent.results, 12, retention_ms=str(DAY_MS))
    planned = await kafka_topics.apply(settings_for(kafka.bootstrap, absent))
    assert not planned.harmful
    assert [difference.setting for topic in planned.topics for difference in topic.differences] == ["retention.ms"]


async def test_a_broker_that_is_away_is_a_dependency_that_is_away_and_says_why(absent: TopicNames) -> None:
    with pytest.raises(DependencyUnavailable, match=r"127\.0\.0\.1:1"):
        await kafka_topics.plan(settings_for("127.0.0.1:1", absent))


async def test_the_client_is_heard_again_after_several_were_at_work(kafka: KafkaServer, absent: TopicNames) -> None:
    settings = settings_for(kafka.bootstrap, absent)
    async with AsyncExitStack() as second, kafka_topics.admin_client(settings):
        await second.enter_async_context(kafka_topics.admin_client(settings))
    assert logging.getLogger("aiokafka").propagate
