"""The check of a worker's prerequisites, one line each."""

import pytest
from aiokafka import AIOKafkaConsumer

from tests.providers.kafka import KafkaServer, TopicNames
from tests.providers.postgres import DatabaseUnderTest
from tests.support.logins import SECRET
from tests.support.settings import settings_for
from worker.observability.descriptors import partitions_within
from worker.operations.check import Check, check
from worker.postgres.connect import owner_connection
from worker.settings import LoginSettings, PostgresSettings, Settings
from worker.values import counted


@pytest.fixture
def settings(kafka: KafkaServer, topics: TopicNames, database: DatabaseUnderTest) -> Settings:
    return settings_for(kafka.bootstrap, topics).model_copy(
        update={
            "postgres": PostgresSettings.model_validate({"dsn": database.worker_dsn}),
            "login": LoginSettings.model_validate({"secrets": SECRET}),
        }
    )


async def checked(settings: Settings) -> dict[str, Check]:
    return {each.name: each for each in await check(settings)}


async def test_a_worker_that_could_start_has_nothing_that_fails(settings: Settings) -> None:
    lines = await checked(settings)
    assert list(lines) == [
        "settings",
        "broker",
        "rights",
        "topics",
        "descriptors",
        "imports",
        "workers",
        "database",
        "sessions",
        "schema",
        "grants",
        "group",
        "login keys",
        "transit",
    ]
    assert {name for name, line in lines.items() if line.state == "failed"} - {"topics"} == set()
    assert lines["grants"].state == "ok"


async def test_a_group_that_has_decided_nothing_where_another_has_is_a_warning(
    settings: Settings, database: DatabaseUnderTest
) -> None:
    assert (await checked(settings))["group"].state == "ok"
    async with owner_connection(database.owner_dsn) as owner:
        await owner.execute(
            "INSERT INTO lane"
            " (cluster, consumer_group, topic, partition, owner, owned_since, first_offset, next_offset)"
            " VALUES ('c', 'the usual one', $1, 0, gen_random_uuid(), now(), 0, 1)",
            settings.topics.commands,
        )
    group = (await checked(settings))["group"]
    assert group.state == "warning"
    assert f"{settings.kafka.group_id} has decided nothing here, and the usual one has" in group.detail


async def test_rules_that_are_switched_off_are_named_with_the_way_back(
    settings: Settings, database: DatabaseUnderTest
) -> None:
    async with owner_connection(database.owner_dsn) as owner:
        await owner.execute("ALTER TABLE transition DISABLE TRIGGER USER")
        schema = (await checked(settings))["schema"]
        assert (schema.state, "rules of transition are switched off" in schema.detail) == ("failed", True)
        await owner.execute(schema.detail.partition("on again with: ")[2].partition(". See")[0])
    assert (await checked(settings))["schema"].state == "ok"


@pytest.mark.real_kafka
async def test_apache_kafka_4_is_recognised(settings: Settings) -> None:
    broker = (await checked(settings))["broker"]
    assert broker.state == "ok"
    assert "Apache Kafka 4.0 or later" in broker.detail


async def test_no_worker_in_the_group_is_a_warning(settings: Settings) -> None:
    workers = (await checked(settings))["workers"]
    assert workers.state == "warning"
    assert f"none has a partition in group {settings.kafka.group_id}" in workers.detail


@pytest.mark.real_kafka
async def test_an_instance_id_that_a_member_has_is_a_warning(settings: Settings) -> None:
    kafka = settings.kafka.model_copy(
        update={"group_id": f"of {settings.topics.commands}", "group_instance_id": "pod-0"}
    )
    as_pod_0 = settings.model_copy(update={"kafka": kafka})
    assert (await checked(as_pod_0))["instance id"].state == "ok"

    consumer = AIOKafkaConsumer(
        settings.topics.commands,
        bootstrap_servers=kafka.bootstrap_servers,
        group_id=kafka.group_id,
        group_instance_id="pod-0",
    )
    async with consumer:  # starts, and has joined when that is done
        line = (await checked(as_pod_0))["instance id"]
        other = settings.model_copy(update={"kafka": kafka.model_copy(update={"group_instance_id": "pod"})})
        assert (await checked(other))["instance id"].state == "ok"
    assert (line.state, "pod-0 is in group" in line.detail) == ("warning", True)
    assert "WORKER_KAFKA__GROUP_INSTANCE_ID" in line.detail


@pytest.mark.real_kafka
async def test_imports_may_keep_how_far_they_have_announced_where_nobody_forbids_it(settings: Settings) -> None:
    line = (await checked(settings))["imports"]
    assert (line.state, line.detail) == (
        "ok",
        f"may keep how far they have announced, in group {settings.kafka.group_id}.import"
        f" (READ on {settings.topics.transitions} is not checked)",
    )


async def test_missing_topics_are_named(settings: Settings) -> None:
    elsewhere = settings.topics.model_copy(update={"results": "no-such-topic"})
    line = (await checked(settings.model_copy(update={"topics": elsewhere})))["topics"]
    assert (line.state, "missing: no-such-topic" in line.detail) == ("failed", True)


@pytest.mark.parametrize(("limit", "state"), [(1024, "ok"), (48, "warning"), (40, "failed")])
async def test_a_limit_of_open_files_is_told_in_partitions(
    settings: Settings, limit: int, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.operations.check.raise_limit", lambda: limit)
    line = (await checked(settings))["descriptors"]
    enough = partitions_within(limit, brokers=1, connections=settings.postgres.connections)
    assert line.state == state
    assert line.detail.startswith(f"{limit} here, enough for {counted(enough, 'partition')} in one worker")
    assert ("ulimit" in line.detail) == (state != "ok")


async def test_a_database_of_a_newer_release_fails(settings: Settings, database: DatabaseUnderTest) -> None:
    async with owner_connection(database.owner_dsn) as connection:
        await connection.execute("INSERT INTO _pogo_migration VALUES ('hash', '9999_to_come', now(), 'public')")
    line = (await checked(settings))["schema"]
    assert line.state == "failed"
    assert "this worker is older than the schema" in line.detail


async def test_a_pending_migration_fails(settings: Settings, database: DatabaseUnderTest) -> None:
    async with owner_connection(database.owner_dsn) as connection:
        await connection.execute("DELETE FROM _pogo_migration WHERE migration_id LIKE '0001%'")
    line = (await checked(settings))["schema"]
    assert (line.state, line.detail.split(";")[0]) == (
        "failed",
        "the schema is older than this worker, pending: 0001_the_journey. Apply them with: effective-worker migrate",
    )


async def test_a_right_that_is_lacking_is_named(settings: Settings, database: DatabaseUnderTest) -> None:
    async with owner_connection(database.owner_dsn) as connection:
        await connection.execute("REVOKE INSERT ON transition FROM effective_worker")
        await connection.execute("REVOKE UPDATE (version) ON access_token FROM effective_worker")
        await connection.execute("REVOKE EXECUTE ON FUNCTION pass_code_hashes FROM effective_worker")
    line = (await checked(settings))["grants"]
    assert line.state == "failed"
    assert (
        "INSERT on transition, UPDATE on access_token.version, EXECUTE on pass_code_hashes(text[],text[])."
        " Grant them with: effective-worker migrate"
    ) in line.detail


async def test_where_verification_codes_are_revealed_and_may_not_be_read_the_grant_is_named(
    settings: Settings, database: DatabaseUnderTest
) -> None:
    revealing = settings.model_copy(update={"reveal_verification_code": True})
    line = (await checked(revealing))["grants"]
    grant = 'GRANT SELECT (verification_code) ON access_token TO "effective_worker";'
    assert (line.state, line.detail.endswith(f"WORKER_REVEAL_VERIFICATION_CODE=true as here; it says: {grant}")) == (
        "failed",
        True,
    )

    async with owner_connection(database.owner_dsn) as connection:
        await connection.execute(grant)

    assert (await checked(revealing))["grants"].state == "ok"
    line = (await checked(settings))["grants"]
    revoke = 'REVOKE SELECT (verification_code) ON access_token FROM "effective_worker";'
    assert (line.state, line.detail.endswith(f"WORKER_REVEAL_VERIFICATION_CODE is not true: {revoke}")) == (
        "warning",
        True,
    )


async def test_working_as_the_owner_is_a_warning(settings: Settings, database: DatabaseUnderTest) -> None:
    as_owner = PostgresSettings.model_validate({"dsn": database.owner_dsn})
    line = (await checked(settings.model_copy(update={"postgres": as_owner})))["grants"]
    assert line.state == "warning"


async def test_a_database_without_tables_fails_without_an_exception(
    settings: Settings, database: DatabaseUnderTest
) -> None:
    async with owner_connection(database.owner_dsn) as connection:
        await connection.execute("DROP TABLE lane, command_record")
    assert (await checked(settings))["grants"].state == "failed"


async def test_what_is_away_fails_and_hides_nothing_else(settings: Settings) -> None:
    nowhere = settings.kafka.model_copy(update={"bootstrap_servers": "127.0.0.1:1"})
    no_keys = LoginSettings()
    lines = await checked(settings.model_copy(update={"kafka": nowhere, "login": no_keys}))
    assert {name for name, line in lines.items() if line.state == "failed"} == {
        "broker",
        "rights",
        "topics",
        "descriptors",
        "imports",
        "workers",
        "login keys",
    }


async def test_what_is_readable_on_its_way_to_another_machine_is_a_warning(settings: Settings) -> None:
    assert (await checked(settings))["transit"].state == "ok"
    elsewhere = settings.kafka.model_copy(update={"bootstrap_servers": "kafka.invalid:9092"})
    transit = (await checked(settings.model_copy(update={"kafka": elsewhere})))["transit"]
    assert (transit.state, "WORKER_KAFKA__SECURITY_PROTOCOL: PLAINTEXT" in transit.detail) == ("warning", True)
    assert "WORKER_REQUIRE_TLS=true" in transit.detail


async def test_a_password_is_never_shown(settings: Settings) -> None:
    wrong = PostgresSettings.model_validate({"dsn": "postgresql://worker:canary@127.0.0.1:1/x"})
    lines = await checked(settings.model_copy(update={"postgres": wrong}))
    assert lines["database"].state == "failed"
    assert "canary" not in str(lines)


async def test_rights_too_many_are_named_the_gravest_first_and_the_rest_counted(
    settings: Settings, database: DatabaseUnderTest
) -> None:
    user = (await checked(settings))["grants"].detail.partition(" may do what a worker needs, and no more")[0]
    async with owner_connection(database.owner_dsn) as connection:
        await connection.execute("GRANT DELETE, TRUNCATE ON contact, organisation, unit TO effective_worker")
        await connection.execute(f"GRANT TEMPORARY ON DATABASE {database.name} TO PUBLIC")

    line = (await checked(settings))["grants"]

    assert (line.state, line.detail) == (
        "warning",
        f"{user} has what a worker does not need: TEMPORARY on the database, DELETE on contact, DELETE on organisation,"
        " DELETE on unit, TRUNCATE on contact and 2 more; take it away, with effective-worker migrate if it is of"
        " PUBLIC, or give WORKER_POSTGRES__DSN another role",
    )
