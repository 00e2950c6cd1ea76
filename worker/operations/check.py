"""Check everything a worker needs: one line per thing, with the way out if it is missing.

See CONTRACT, Command line, ``check``.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Final, Literal

import asyncpg
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import for_code

from worker.errors import KAFKA_ERRORS, MORE_DESCRIPTORS, DependencyUnavailable, Unfit, WorkerError, in_words
from worker.journey.authorise import key_fingerprint
from worker.kafka.internals import oldest_versions
from worker.kafka.rights import lacking, needed
from worker.kafka.topics import ConfigsForbidden, TopicPlan, admin_client, check_topics
from worker.lanes.context import LaneId
from worker.lanes.publisher import transactional_id
from worker.observability.descriptors import partitions_within, raise_limit
from worker.operations.imports.mark import MarkForbidden, group_of, may_mark
from worker.operations.lanes import group_members, other_groups
from worker.postgres.connect import owner_connection
from worker.postgres.migrate import user_of
from worker.postgres.pool import Database
from worker.postgres.schema import WorkerRole, require_utf8, require_version, surplus_rights, what_lacks
from worker.postgres.sql import statement
from worker.settings import PREFIX, Settings
from worker.values import counted

State = Literal["ok", "warning", "failed"]

_FETCH: Final = 1
# Kafka 4.0 dropped the versions of Fetch below this one; Produce, which dropped them too, still announces them.
_FETCH_SINCE_4_0: Final = 4
_NAMED: Final = 5
"""The most surplus rights that are named; the rest are counted."""
# The broker of the extra `embedded` always has this cluster id.
_EMBEDDED_CLUSTER: Final = "MkU3OEVBNTctOEUyRi00"

_UUID_LENGTH: Final = 36
_OF_KAFKA: Final = ("broker", "rights", "topics", "descriptors", "imports", "workers")
_OF_POSTGRES: Final = ("database", "sessions", "schema", "grants", "group")


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report. A warning does not fail the whole check."""

    name: str
    state: State
    detail: str


async def check(settings: Settings, faults: Mapping[str, str] = MappingProxyType({})) -> tuple[Check, ...]:
    """Check everything, also after something is found missing. Changes nothing.

    ``faults`` are those of the settings, by variable: what depends on such a variable is not checked.
    """
    checks = [_settings(faults)]
    wrong = _wrong(faults, "KAFKA__", "TOPICS__")
    checks += await _kafka(settings) if wrong is None else _not_checked(_OF_KAFKA, wrong)
    wrong = _wrong(faults, "POSTGRES__", "REVEAL_")
    checks += await _postgres(settings) if wrong is None else _not_checked(_OF_POSTGRES, wrong)
    wrong = _wrong(faults, "LOGIN__", "DIGEST_KEYS")
    checks += [_login_keys(settings)] if wrong is None else _not_checked(("login keys",), wrong)
    wrong = _wrong(faults, "KAFKA__", "POSTGRES__")
    checks += [_transit(settings)] if wrong is None else _not_checked(("transit",), wrong)
    return tuple(checks)


def _settings(faults: Mapping[str, str]) -> Check:
    if faults:
        return Check("settings", "failed", "; ".join(f"{variable}: {what}" for variable, what in faults.items()))
    return Check("settings", "ok", "complete and free of contradictions")


def _wrong(faults: Mapping[str, str], *parts: str) -> str | None:
    """Return why nothing that depends on these parts of the settings can be checked; ``None`` if they are right."""
    named = [variable for variable in faults if variable.removeprefix(PREFIX).startswith(parts)]
    return f"{', '.join(named)} {'is' if len(named) == 1 else 'are'} wrong" if named else None


def _not_checked(names: Sequence[str], why: str) -> list[Check]:
    return [Check(name, "failed", f"not checked: {why}") for name in names]


# --- Kafka ------------------------------------------------------------------------------------------------------------


async def _kafka(settings: Settings) -> list[Check]:
    try:
        async with admin_client(settings) as admin:
            checks = [await _broker(admin, settings), await _rights(admin, settings)]
            checks += await _of_topics(admin, settings)
            checks += [await _imports(settings), await _workers(admin, settings)]
            instance_id = settings.kafka.group_instance_id
            return checks if instance_id is None else [*checks, await _instance(admin, settings, instance_id)]
    except WorkerError as error:
        failed = Check("broker", "failed", str(error))
        return [failed, *_not_checked(_OF_KAFKA[1:], "no broker answers")]


async def _rights(admin: AIOKafkaAdminClient, settings: Settings) -> Check:
    lane = LaneId("", settings.kafka.group_id, TopicPartition(settings.topics.commands, 0))
    needs = [*needed(settings, transactional_id(lane) if settings.delivery == "exactly_once" else None)]
    try:
        missing = await lacking(admin, needs, settings.kafka.request_timeout_ms / 1000)
    except WorkerError as error:
        return Check("rights", "warning", f"not checked: {error}")
    if missing:
        what = ", ".join(map(str, missing))
        return Check("rights", "failed", f"the broker refuses {what}: see deploy/ACCESS.md")
    return Check("rights", "ok", "the broker lets this login do what a worker needs, as far as it says")


async def _of_topics(admin: AIOKafkaAdminClient, settings: Settings) -> list[Check]:
    try:
        plan = await check_topics(admin, settings)
    except ConfigsForbidden as forbidden:
        return [Check(name, "warning", f"not checked: {forbidden}") for name in ("topics", "descriptors")]
    brokers = len((await admin.describe_cluster())["brokers"])
    return [_topics(plan), _descriptors(plan, brokers, settings)]


async def _broker(admin: AIOKafkaAdminClient, settings: Settings) -> Check:
    cluster: dict[str, Any] = await admin.describe_cluster()
    known = f"cluster {cluster['cluster_id']}, {counted(len(cluster['brokers']), 'broker')}"
    if cluster["cluster_id"] == _EMBEDDED_CLUSTER:
        return Check("broker", "warning", f"{known}: the embedded one, for trying out only")
    oldest = min(oldest_versions(admin, _FETCH), default=_FETCH_SINCE_4_0)
    if oldest >= _FETCH_SINCE_4_0:
        return Check("broker", "ok", f"{known}, Apache Kafka 4.0 or later")
    if settings.delivery == "exactly_once":
        return Check("broker", "failed", f"{known}: older than Apache Kafka 4.0, which exactly_once needs")
    return Check("broker", "warning", f"{known}: older than Apache Kafka 4.0")


def _topics(plan: TopicPlan) -> Check:
    missing = ", ".join(topic.name for topic in plan.missing)
    if missing:
        return Check("topics", "failed", f"missing: {missing}; create them with: effective-worker topics apply")
    differences = [
        f"{topic.name} has {difference.setting} {difference.found}, not {difference.wanted}"
        + (f" ({difference.harm})" if difference.harm else "")
        for topic in plan.topics
        for difference in (topic.harmful or topic.differences)
    ]
    if plan.harmful:
        return Check("topics", "failed", f"{'; '.join(differences)}; see: effective-worker topics plan")
    if differences:
        return Check("topics", "warning", "; ".join(differences))
    return Check("topics", "ok", f"all {len(plan.topics)}, {counted(plan.topics[0].partitions, 'partition')} each")


async def _imports(settings: Settings) -> Check:
    """Tell if imports may store their position. A warning at most: without it they still run, but see less."""
    name = "imports"
    try:
        may = await may_mark(settings)
    except WorkerError as error:
        return Check(name, "warning", f"not checked: {error}")
    if may is False:
        return Check(name, "warning", str(MarkForbidden(settings)))
    what = (
        "may keep how far they have announced" if may else "not told whether they may keep how far they have announced"
    )
    where = f"in group {group_of(settings)} (READ on {settings.topics.transitions} is not checked)"
    return Check(name, "ok", f"{what}, {where}")


async def _workers(admin: AIOKafkaAdminClient, settings: Settings) -> Check:
    """Tell how many workers have partitions. A warning at most: before the first start there are none."""
    name, group = "workers", settings.kafka.group_id
    try:
        members = await group_members(admin, group)
    except KAFKA_ERRORS as error:
        return Check(name, "warning", f"not checked: of the group {group}: {in_words(error)}")
    count = len({member.id for member in members.values()})
    if not count:
        return Check(name, "warning", f"none has a partition in group {group}: no command is answered until one runs")
    return Check(name, "ok", f"{counted(count, 'worker')} in group {group}, {counted(len(members), 'partition')}")


async def _instance(admin: AIOKafkaAdminClient, settings: Settings, instance_id: str) -> Check:
    """Tell if the instance id is in use. A warning at most: it is in use when a newer worker replaces an older one."""
    name, group = "instance id", settings.kafka.group_id
    [answer] = await admin.describe_consumer_groups([group])
    [described] = answer.to_object()["groups"]
    if described["error_code"]:
        why = in_words(for_code(described["error_code"])())
        return Check(name, "warning", f"not checked: of the group {group}: {why}")
    hosts = [
        member["client_host"].lstrip("/")
        for member in described["members"]
        if _is_instance(member["member_id"], instance_id)
    ]
    if not hosts:
        return Check(name, "ok", f"{instance_id} is free in group {group}")
    return Check(
        name,
        "warning",
        f"{instance_id} is in group {group} already, from {', '.join(hosts)}: a worker that starts now takes its place"
        f" and ends it; if both are to run, give each a WORKER_KAFKA__GROUP_INSTANCE_ID of its own",
    )


def _is_instance(member_id: str, instance_id: str) -> bool:
    """True if the member has this instance id. Its member id begins with it; the client does not read it separately."""
    return member_id[:-_UUID_LENGTH] == f"{instance_id}-"


def _descriptors(plan: TopicPlan, brokers: int, settings: Settings) -> Check:
    """Check the limit of open files. It is the limit of this process: a service may have another one than a shell."""
    limit = raise_limit()
    most = partitions_within(limit, brokers=brokers, connections=settings.postgres.connections)
    there = sum(topic.partitions for topic in plan.topics if topic.name in settings.topics.read)
    what = f"{limit} here, enough for {counted(most, 'partition')} in one worker"
    if most >= there:
        return Check("descriptors", "ok", what)
    way_out = f"there are {there}. {MORE_DESCRIPTORS}, or let more workers share them"
    return Check("descriptors", "warning" if most else "failed", f"{what}, and {way_out}")


# --- Postgres ---------------------------------------------------------------------------------------------------------


async def _postgres(settings: Settings) -> list[Check]:
    dsn = settings.postgres.dsn.get_secret_value()
    role = WorkerRole(settings.postgres.role, settings.reveal_verification_code)
    looks: tuple[Callable[[str], Awaitable[Check]], ...] = (
        _database,
        _sessions,
        _schema,
        partial(_grants, role),
        partial(_group, settings),
    )
    checks: list[Check] = []
    for name, look in zip(_OF_POSTGRES, looks, strict=True):
        try:
            checks.append(await look(dsn))
        except WorkerError as error:
            if isinstance(error, DependencyUnavailable) and not isinstance(error, Unfit):
                checks.append(Check(name, "failed", str(error)))
                return checks + _not_checked(_OF_POSTGRES[len(checks) :], f"see {name}")
            said = next((each.name for each in checks if each.detail == str(error)), None)
            checks.append(Check(name, "failed", str(error) if said is None else f"not checked: see {said}"))
    return checks


async def _database(dsn: str) -> Check:
    async with owner_connection(dsn) as connection:
        await require_utf8(connection)
        version = await connection.fetchval("SHOW server_version")
        standby = await connection.fetchval("SELECT pg_is_in_recovery()")
        read_only = await connection.fetchval("SHOW transaction_read_only") == "on"
    if standby or read_only:
        return Check("database", "failed", f"Postgres {version} is {'a standby' if standby else 'read-only'}")
    return Check("database", "ok", f"Postgres {version}, reachable and writable")


async def _sessions(dsn: str) -> Check:
    """Open a session as the worker does, and read its settings back."""
    database = await Database.open(dsn, connections=1)
    try:
        await database.look()
    finally:
        await database.close()
    return Check("sessions", "ok", "time-outs, isolation and search_path are as a worker sets them")


async def _schema(dsn: str) -> Check:
    async with owner_connection(dsn) as connection:
        await require_version(connection)
        off = [row["name"] for row in await connection.fetch(statement("schema/switched_off"))]
    if off:
        mended = "; ".join(f"ALTER TABLE {name} ENABLE TRIGGER ALL" for name in off)
        what = f"rules of {', '.join(off)} are switched off, so that history can be changed; on again with: {mended}"
        return Check("schema", "failed", f"{what}. See effective-worker audit verify")
    return Check("schema", "ok", "up to date")


async def _group(settings: Settings, dsn: str) -> Check:
    """Tell if the group is new here. A warning at most: every group was new once."""
    group = settings.kafka.group_id
    async with owner_connection(dsn) as connection:
        others = await other_groups(connection, settings)
    if not others:
        return Check("group", "ok", f"{group}; no other group has decided commands before it")
    what = f"{group} has decided nothing here, and {', '.join(others)} has"
    return Check("group", "warning", f"{what}: its workers would answer all that is in the log again; misspelt?")


async def _grants(role: WorkerRole, dsn: str) -> Check:
    try:
        return await _grants_of(role, dsn)
    except Unfit as error:
        if not isinstance(error.__cause__, asyncpg.InsufficientPrivilegeError):
            raise
        what = "not let into the database, which effective-worker migrate lets the worker's role into"
        return Check("grants", "failed", f"{what}; {role.to_let_in(user_of(dsn))}")


async def _grants_of(role: WorkerRole, dsn: str) -> Check:
    async with owner_connection(dsn) as connection:
        user = await connection.fetchval("SELECT current_user")
        try:
            lack = await what_lacks(connection, role)
            surplus = await surplus_rights(connection, user, role)
        except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError, asyncpg.UndefinedFunctionError):
            return Check("grants", "failed", "not checked: the schema is not there, or is not up to date")
    if lack is not None:
        return Check("grants", "failed", lack)
    if surplus:
        more = f" and {len(surplus) - _NAMED} more" if len(surplus) > _NAMED else ""
        what = f"{user} has what a worker does not need: {', '.join(surplus[:_NAMED])}{more}"
        return Check("grants", "warning", f"{what}; {role.to_take(surplus)}")
    return Check("grants", "ok", f"{user} may do what a worker needs, and no more")


# --- logins -----------------------------------------------------------------------------------------------------------


def _login_keys(settings: Settings) -> Check:
    count = len(settings.login.secrets)
    if not count:
        return Check("login keys", "failed", "none: set WORKER_LOGIN__SECRETS, without which no worker starts")
    digests = (
        "" if settings.digest_keys else "; digests are made with it, too: set WORKER_DIGEST_KEYS before it is replaced"
    )
    keys = ", ".join(key_fingerprint(each.get_secret_value()) for each in settings.login.secrets)
    return Check("login keys", "ok", f"{count}, the first of which signs ({keys}){digests}")


# --- on the way -------------------------------------------------------------------------------------------------------


def _transit(settings: Settings) -> Check:
    name, exposed = "transit", settings.exposed
    if not exposed:
        return Check(name, "ok", "nothing leaves this machine unprotected, as far as the settings say")
    what = "; ".join(f"{variable}: {what}" for variable, what in exposed.items())
    return Check(name, "warning", f"{what}. WORKER_REQUIRE_TLS=true makes this an error")
