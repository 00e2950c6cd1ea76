"""The kinds of faults: each does its harm, undoes what it can, and returns when the harm is over."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Any, Final

import asyncpg
import psutil
from confluent_kafka import KafkaException

from tests.faults.administrator import cut_off, made_anew, removed_unread
from tests.faults.cluster import EXPIRATION_SECONDS, Node
from tests.faults.fleet import Slot
from tests.faults.ledger import Delivery
from tests.faults.one_worker import a_month_ahead, without_postgres
from tests.faults.points import STEPS
from tests.faults.proxy import Api, Fault, GroupApi, Kind, Proxy
from tests.faults.stage import SESSION_SECONDS, TRANSACTION_SECONDS, Stage
from tests.faults.within import within

POINT_SECONDS: Final = 30.0
UPDATE: Final = "UPDATE"
"""A statement that a connection prepares once: only then does its text pass."""
ONCE_PER_LANE: Final = frozenset({"before_the_row", "before_the_init", "after_the_init"})
"""Points that a healthy worker does not reach again."""
STRIKE_SECONDS: Final = 15.0
INSTANCE_ID: Final = "WORKER_KAFKA__GROUP_INSTANCE_ID"
FENCED: Final = 1
"""The exit code of a worker that has lost its place to a later one."""
EXPIRED_SECONDS: Final = TRANSACTION_SECONDS + EXPIRATION_SECONDS + 10.0
"""Seconds until an id expires: an open transaction is aborted first; the broker then looks every few seconds."""


class Domain(StrEnum):
    """The target of a kind. Two of one domain are never at work together."""

    WORKER = "worker"
    BROKER = "broker"
    POSTGRES = "postgres"
    NETWORK = "network"


Act = Callable[[Stage, Random], Awaitable[bool | None]]
"""Returns ``False`` if the harm could not be done: its moment did not come."""


@dataclass(frozen=True, slots=True)
class FaultKind:
    """A way to hurt the stage."""

    name: str
    domain: Domain
    act: Act
    delivery: Delivery | None = None
    """The only one in which its moment comes; ``None`` for either."""


# --- workers ----------------------------------------------------------------------------------------------------------


def _any(stage: Stage, chance: Random) -> Slot:
    return chance.choice(stage.fleet.slots)


async def _killed(stage: Stage, chance: Random) -> None:
    slot = _any(stage, chance)
    slot.worker.kill()
    await stage.fleet.ready(slot)


async def _all_killed(stage: Stage, _: Random) -> None:
    for slot in stage.fleet.slots:
        slot.worker.kill()
    await asyncio.gather(*(stage.fleet.ready(slot) for slot in stage.fleet.slots))


async def _terminated(stage: Stage, chance: Random) -> bool:
    slot = _any(stage, chance)
    worker = slot.worker
    psutil.Process(worker.pid).terminate()
    ended = await stage.fleet.ended(slot, 40) or slot.worker is not worker
    await stage.fleet.ready(slot)
    return ended


def _paused(seconds: float) -> Act:
    async def act(stage: Stage, chance: Random) -> None:
        slot = _any(stage, chance)
        worker = slot.worker
        worker.pause()
        await asyncio.sleep(seconds + chance.uniform(0, 2))
        worker.resume()

    return act


async def _blocked(stage: Stage, chance: Random) -> None:
    """Block the event loop: no heartbeat is sent, and arriving data waits in the sockets."""
    slot = _any(stage, chance)
    await stage.fleet.ready(slot)
    os.kill(slot.worker.pid, signal.SIGUSR1)
    await asyncio.sleep(SESSION_SECONDS + 3)


async def _storm(stage: Stage, chance: Random) -> None:
    """Let others join and leave, in good order or not, so that the group rebalances again and again."""
    for _ in range(3):
        guest = stage.fleet.join()
        await asyncio.sleep(chance.uniform(1.5, 4))
        with suppress(psutil.NoSuchProcess):
            psutil.Process(guest.worker.pid).send_signal(chance.choice([signal.SIGTERM, signal.SIGKILL]))
        await asyncio.sleep(chance.uniform(0.2, 1))
    for guest in stage.fleet.extra:
        if not await stage.fleet.ended(guest, 30):
            guest.worker.kill()
        stage.fleet.count_end(guest)


async def _offsets_gone(stage: Stage, _: Random) -> bool:
    """Make the group forget its offsets, as an idle one does after days, once all workers have ended in good order."""
    async with stage.fleet.ended_in_order() as all_ended:
        return all_ended and await _all_settled(stage) and await _forgotten(stage)


async def _all_settled(stage: Stage) -> bool:
    """True if Postgres knows, of every lane, that its last batch is published."""
    try:
        async with _owner(stage) as connection:
            return await connection.fetchval("SELECT bool_and(first_offset = next_offset) FROM lane") is True
    except (OSError, asyncpg.PostgresError):  # away: it could not tell
        return False


async def _forgotten(stage: Stage) -> bool:
    async def is_gone() -> bool:
        try:
            await asyncio.to_thread(stage.cluster.forget_group, stage.scene.group)
        except KafkaException:  # a member is still there, or no coordinator
            return False
        return True

    return await within(STRIKE_SECONDS, is_gone)


async def _named_twice(stage: Stage, chance: Random) -> bool:
    """Start a second worker under the name of one in the group: the earlier one ends, is started again, and so on.

    The one that joins last has the place.
    """
    slot = chance.choice([slot for slot in stage.fleet.slots if INSTANCE_ID in slot.settings])
    await stage.fleet.ready(slot)
    slot.asked, former = frozenset({FENCED}), slot.worker
    twin = stage.fleet.double(slot)
    twin.asked = slot.asked
    came = await stage.fleet.ended(twin, 2 * SESSION_SECONDS + POINT_SECONDS)
    twin.worker.kill()
    stage.fleet.count_end(twin)
    await stage.fleet.ready(slot)
    slot.asked = frozenset()
    return came and former is not slot.worker


async def _all_asleep_until_expired(stage: Stage, _: Random) -> bool:
    """Let all workers sleep until the brokers have forgotten their transactional ids."""
    if not await _known(stage, every=True):
        return False
    workers = [slot.worker for slot in stage.fleet.slots]
    for worker in workers:
        worker.pause()
    try:
        return await _known(stage, every=False)
    finally:
        for worker in workers:
            worker.resume()


async def _known(stage: Stage, *, every: bool) -> bool:
    """Wait until the brokers know every lane's transactional id, or none. True if it came to that."""
    ids = {stage.transactional_id(number) for number in range(stage.partitions)}

    async def holds() -> bool:
        expired = await stage.cluster.expired(ids)
        return not expired if every else expired == ids

    return await within(EXPIRED_SECONDS, holds)


def _at(point: str, which: str) -> Act:
    """Kill or stop a worker at a named step, in a life of its own."""
    visits = 3 if point in ONCE_PER_LANE else 25

    async def act(stage: Stage, chance: Random) -> bool:
        slot = _any(stage, chance)
        slot.wanted = False
        slot.worker.kill()
        stage.fleet.count_end(slot)
        slot.start(f"{point}:{chance.randint(1, visits)}:{which}")
        came = await (stage.fleet.ended if which == "SIGKILL" else stage.fleet.stopped)(slot, POINT_SECONDS)
        if not came:
            # It would come later, when there is no process left to wake it.
            slot.worker.kill()
        elif which == "SIGSTOP":
            await asyncio.sleep(chance.choice([SESSION_SECONDS + 2, TRANSACTION_SECONDS + 3]))
            slot.worker.resume()
        slot.wanted = True
        return came

    return act


# --- brokers ----------------------------------------------------------------------------------------------------------


def _leader(stage: Stage, chance: Random) -> Node:
    topic = chance.choice([stage.scene.topics.results, *stage.sources])
    return stage.cluster.leader(topic, chance.randrange(stage.partitions))


def _transaction_coordinator(stage: Stage, chance: Random) -> Node:
    return stage.cluster.transaction_coordinator(stage.transactional_id(chance.randrange(stage.partitions)))


def _group_coordinator(stage: Stage, _: Random) -> Node:
    return stage.cluster.group_coordinator(stage.scene.group)


_ROLES: Final[dict[str, Callable[[Stage, Random], Node]]] = {
    "leader": _leader,
    "transaction coordinator": _transaction_coordinator,
    "group coordinator": _group_coordinator,
}


def _broker(role: str, how: signal.Signals) -> Act:
    async def act(stage: Stage, chance: Random) -> None:
        node = await asyncio.to_thread(_ROLES[role], stage, chance)
        if how is signal.SIGSTOP:
            node.pause()
        elif how is signal.SIGTERM:
            await node.stop()
        else:
            node.kill()
        await asyncio.sleep(chance.uniform(0.5, 8))
        await stage.cluster.revive(node)
        await stage.cluster.healed()

    return act


async def _two_brokers_paused(stage: Stage, chance: Random) -> None:
    """Pause two brokers: one replica is in sync, and no controller can be elected."""
    nodes = chance.sample(stage.cluster.nodes, 2)
    for node in nodes:
        node.pause()
    await asyncio.sleep(chance.uniform(4, 9))
    for node in nodes:
        node.resume()
    await stage.cluster.healed()


async def _too_few_in_sync(stage: Stage, chance: Random) -> None:
    """With one broker gone, make the results' topic ask for three replicas in sync: every batch is refused.

    Settings are changed while all brokers are well: an admin client that is told of a dead one as the controller waits
    for it in vain, and a returning one may close the connection of the request.
    """
    topic = stage.scene.topics.results
    node = chance.choice(stage.cluster.nodes)
    await asyncio.to_thread(stage.scene.set_up, topic, "min.insync.replicas", "3")
    node.kill()
    await asyncio.sleep(chance.uniform(3, 8))
    await stage.cluster.revive(node)
    await stage.cluster.healed()
    await asyncio.to_thread(stage.scene.set_up, topic, "min.insync.replicas", "2")


async def _rolling_restart(stage: Stage, _: Random) -> None:
    for node in stage.cluster.nodes:
        await node.stop()
        await stage.cluster.revive(node)
        await stage.cluster.healed()


async def _partitions_raised(stage: Stage, _: Random) -> None:
    """Add one partition to every topic; for a while their counts differ, and answers go by key."""
    names = stage.scene.topics
    for topic in (*stage.sources, names.results, names.transitions, names.dead_letters):
        await asyncio.to_thread(stage.cluster.add_partition, topic)
        await asyncio.sleep(1)
    await stage.cluster.healed()


# --- Postgres ---------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _owner(stage: Stage) -> Any:
    connection = await asyncpg.connect(stage.scene.database.owner_dsn)
    try:
        yield connection
    finally:
        await connection.close()


async def _restarted_fast(stage: Stage, _: Random) -> None:
    await stage.postgres.restart("fast")


async def _restarted_immediate(stage: Stage, _: Random) -> None:
    await stage.postgres.restart("immediate")


async def _away(stage: Stage, chance: Random) -> None:
    await stage.postgres.stop("immediate")
    await asyncio.sleep(chance.uniform(3, 8))
    await stage.postgres.start()


async def _away_until_expired(stage: Stage, _: Random) -> bool:
    """Keep Postgres away so long that the brokers forget the transactional ids of the idle lanes."""
    if not await _known(stage, every=True):
        return False
    await stage.postgres.stop("immediate")
    try:
        return await _known(stage, every=False)
    finally:
        await stage.postgres.start()


async def _sessions_terminated(stage: Stage, chance: Random) -> None:
    async with _owner(stage) as connection:
        for _ in range(chance.randint(1, 8)):
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'effective-worker'"
            )
            await asyncio.sleep(chance.uniform(0, 0.3))


async def _locked(stage: Stage, chance: Random) -> None:
    """Hold rows, or a whole table, for longer than the workers will wait for a lock."""
    statement = chance.choice(
        [
            "SELECT FROM lane FOR UPDATE",
            "LOCK TABLE command_record IN SHARE MODE",
            "LOCK TABLE transition IN SHARE MODE",
            "LOCK TABLE access_token IN EXCLUSIVE MODE",
        ]
    )
    async with _owner(stage) as connection, connection.transaction():
        await connection.execute(statement)
        await asyncio.sleep(chance.uniform(2.5, 6))


async def _read_only(stage: Stage, chance: Random) -> None:
    """Act as a demoted server: its sessions stay, and every write is refused."""
    async with _owner(stage) as connection:
        await connection.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        await connection.execute("SELECT pg_reload_conf()")
        await asyncio.sleep(chance.uniform(2, 6))
        await connection.execute("ALTER SYSTEM RESET default_transaction_read_only")
        await connection.execute("SELECT pg_reload_conf()")


async def _sessions_frozen(stage: Stage, chance: Random) -> None:
    """Freeze the server's processes: connections are open, and nothing is answered."""
    async with _owner(stage) as connection:
        rows = await connection.fetch("SELECT pid FROM pg_stat_activity WHERE application_name = 'effective-worker'")
    pids = [row["pid"] for row in rows]
    for which, seconds in ((signal.SIGSTOP, chance.uniform(2, 12)), (signal.SIGCONT, 0)):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, which)
        await asyncio.sleep(seconds)


# --- the network ------------------------------------------------------------------------------------------------------


_SELDOM: Final = frozenset({Api.INIT_PRODUCER_ID, Api.OFFSET_FETCH, UPDATE})


def _through(proxies: Callable[[Stage], tuple[Proxy, ...]], make: Callable[[Random], Fault]) -> Act:
    """Arm the fault wherever its request may pass, and wait until it has struck.

    Requests made only at a lane's start, or once per connection, are provoked: by a place that loses all of them.
    """

    async def act(stage: Stage, chance: Random) -> bool:
        places, fault = proxies(stage), make(chance)
        before = [len(place.fired) for place in places]
        for place in places:
            place.arm(fault)
        if fault.at in _SELDOM:
            chance.choice(places).cut_all()

        async def struck() -> bool:
            return any(len(place.fired) > count for place, count in zip(places, before, strict=True))

        try:
            if not await within(STRIKE_SECONDS, struck):
                return False
        finally:
            for place in places:
                place.disarm()
        await asyncio.sleep(fault.seconds)
        return True

    return act


def _brokers(stage: Stage) -> tuple[Proxy, ...]:
    return stage.kafka_proxies


def _database(stage: Stage) -> tuple[Proxy, ...]:
    return stage.postgres_proxies


async def _all_cut(stage: Stage, _: Random) -> None:
    for proxy in stage.proxies:
        proxy.cut_all()
    await asyncio.sleep(1)


def _kafka_fault(kind: Kind, api: Api | GroupApi) -> Act:
    def make(chance: Random) -> Fault:
        seconds = {Kind.BLACK_HOLED: chance.uniform(2, 9), Kind.DELAYED: chance.uniform(0.3, 6)}.get(kind, 0.0)
        return Fault(kind, api, count=chance.randint(1, 2), seconds=seconds)

    return _through(_brokers, make)


# The errors with which Kafka's protocol lets the broker answer each request; some may be retried, others not.
_ERRORS: Final[dict[Api | GroupApi, tuple[int, ...]]] = {
    Api.PRODUCE: (6, 7, 10, 19, 20, 29, 45, 47, 59, 87),
    Api.FETCH: (1, 6, 74, 76),
    Api.OFFSET_FETCH: (14, 16, 88),
    Api.ADD_PARTITIONS_TO_TXN: (14, 15, 16, 29, 47, 48, 49, 51, 53, 90),
    Api.ADD_OFFSETS_TO_TXN: (14, 15, 16, 30, 47, 48, 49, 51, 53, 90),
    Api.TXN_OFFSET_COMMIT: (14, 15, 16, 22, 25, 47, 49, 53),
    Api.END_TXN: (14, 15, 16, 47, 48, 49, 51, 53, 90),
    Api.INIT_PRODUCER_ID: (14, 15, 16, 51, 53, 90),
    GroupApi.OFFSET_COMMIT: (14, 15, 16, 22, 25, 27),
}
_IN_TRANSACTIONS: Final = (Api.ADD_PARTITIONS_TO_TXN, Api.ADD_OFFSETS_TO_TXN, Api.TXN_OFFSET_COMMIT, Api.END_TXN)
_STEPS_OF: Final[dict[str, Delivery]] = {
    "with_the_offset_under_way": Delivery.EXACTLY_ONCE,
    "before_the_end": Delivery.EXACTLY_ONCE,
    "with_the_end_under_way": Delivery.EXACTLY_ONCE,
    "after_the_end": Delivery.EXACTLY_ONCE,
    "before_the_offset": Delivery.AT_LEAST_ONCE,
}


def _error(kind: Kind, api: Api | GroupApi) -> Act:
    return _through(_brokers, lambda chance: Fault(kind, api, error=chance.choice(_ERRORS[api])))


def _kinds() -> Iterator[FaultKind]:
    yield FaultKind("worker killed", Domain.WORKER, _killed)
    yield FaultKind("all workers killed", Domain.WORKER, _all_killed)
    yield FaultKind("worker terminated", Domain.WORKER, _terminated)
    yield FaultKind("worker stopped beyond its session", Domain.WORKER, _paused(SESSION_SECONDS + 1))
    yield FaultKind("worker stopped beyond its transaction", Domain.WORKER, _paused(TRANSACTION_SECONDS + 2))
    yield FaultKind("event loop blocked", Domain.WORKER, _blocked)
    yield FaultKind("rebalance storm", Domain.WORKER, _storm)
    yield FaultKind(
        "all workers stopped until their ids expire",
        Domain.WORKER,
        _all_asleep_until_expired,
        Delivery.EXACTLY_ONCE,
    )
    yield FaultKind("group offsets forgotten", Domain.WORKER, _offsets_gone)
    yield FaultKind("two of one name", Domain.WORKER, _named_twice)
    yield FaultKind("postgres away for one worker", Domain.WORKER, without_postgres)
    yield FaultKind("a clock a month ahead", Domain.WORKER, a_month_ahead)
    yield FaultKind("records removed unread", Domain.WORKER, removed_unread)
    for point in STEPS:
        name, only = point.replace("_", " "), _STEPS_OF.get(point)
        yield FaultKind(f"worker killed {name}", Domain.WORKER, _at(point, "SIGKILL"), only)
        yield FaultKind(f"worker stopped {name}", Domain.WORKER, _at(point, "SIGSTOP"), only)
    for role in _ROLES:
        for how in (signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP):
            yield FaultKind(f"broker {how.name}, {role}", Domain.BROKER, _broker(role, how))
    yield FaultKind("two brokers stopped", Domain.BROKER, _two_brokers_paused)
    yield FaultKind("too few replicas in sync", Domain.BROKER, _too_few_in_sync)
    # Answers move to another partition: the order of repeated ones is not promised.
    yield FaultKind("partitions raised", Domain.BROKER, _partitions_raised, Delivery.EXACTLY_ONCE)
    yield FaultKind("brokers restarted in turn", Domain.BROKER, _rolling_restart)
    yield FaultKind("topic made anew", Domain.BROKER, made_anew)
    yield FaultKind("log cut", Domain.BROKER, cut_off)
    yield FaultKind("postgres restarted fast", Domain.POSTGRES, _restarted_fast)
    yield FaultKind("postgres restarted immediate", Domain.POSTGRES, _restarted_immediate)
    yield FaultKind("postgres away", Domain.POSTGRES, _away)
    yield FaultKind("postgres away until ids expire", Domain.POSTGRES, _away_until_expired, Delivery.EXACTLY_ONCE)
    yield FaultKind("sessions terminated", Domain.POSTGRES, _sessions_terminated)
    yield FaultKind("locks held", Domain.POSTGRES, _locked)
    yield FaultKind("postgres read-only", Domain.POSTGRES, _read_only)
    yield FaultKind("sessions frozen", Domain.POSTGRES, _sessions_frozen)
    yield FaultKind("every connection cut", Domain.NETWORK, _all_cut)
    yield from _network_kinds()


def _network_kinds() -> Iterator[FaultKind]:
    requests: dict[Api | GroupApi, Delivery | None] = {
        **dict.fromkeys(Api),
        **dict.fromkeys(_IN_TRANSACTIONS, Delivery.EXACTLY_ONCE),
        GroupApi.OFFSET_COMMIT: Delivery.AT_LEAST_ONCE,
    }
    for api, only in requests.items():
        for kind in (Kind.DROPPED, Kind.ANSWER_LOST, Kind.BLACK_HOLED, Kind.DELAYED):
            yield FaultKind(f"{api.name} {kind}", Domain.NETWORK, _kafka_fault(kind, api), only)
        yield FaultKind(f"{api.name} {Kind.REFUSED}", Domain.NETWORK, _error(Kind.REFUSED, api), only)
    late = Kind.LATE_DUPLICATE
    for api in (Api.PRODUCE, *_IN_TRANSACTIONS):
        yield FaultKind(f"{api.name} {late}", Domain.NETWORK, _kafka_fault(late, api), Delivery.EXACTLY_ONCE)
    for kind in (Kind.DROPPED, Kind.ANSWER_LOST, Kind.BLACK_HOLED, Kind.DELAYED):
        for statement in ("COMMIT", UPDATE):
            yield FaultKind(f"{statement} {kind}", Domain.NETWORK, _postgres_fault(kind, statement))


def _postgres_fault(kind: Kind, statement: str) -> Act:
    def make(chance: Random) -> Fault:
        seconds = {Kind.BLACK_HOLED: chance.uniform(2, 12), Kind.DELAYED: chance.uniform(0.3, 6)}.get(kind, 0.0)
        return Fault(kind, statement, seconds=seconds)

    return _through(_database, make)


KINDS: Final[dict[str, FaultKind]] = {kind.name: kind for kind in _kinds()}


def kinds_of(delivery: Delivery) -> list[FaultKind]:
    """Return the kinds whose moment comes in that delivery."""
    return [kind for kind in KINDS.values() if kind.delivery in {None, delivery}]
