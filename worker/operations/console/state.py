"""The state of a worker as one document, for the page."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import TopicPartition

from effective_contract.codes import StatusCode
from worker.kafka.backlog import Behind
from worker.observability.health import Health, LaneHealth
from worker.observability.metrics import Metrics
from worker.observability.recent import Recent, Refusal
from worker.operations.console.group import Group, Known
from worker.operations.console.history import SAMPLE_SECONDS, History
from worker.values import utc_text

ALWAYS_SHOWN: Final = ("kafka", "postgres")
"""The dependencies that are shown while they are here, too."""
_NOWHERE: Final = Behind(0, 0.0, 0)


@dataclass(frozen=True, slots=True)
class About:
    """The facts of a worker that do not change. ``settings`` are those that differ from their defaults, masked."""

    name: str
    version: str
    group: str
    started: float
    """Seconds since the epoch."""
    settings: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Sources:
    """Everything that the document is made from."""

    about: About
    health: Health
    metrics: Metrics
    recent: Recent
    history: History
    group: Group
    behind: Callable[[], Mapping[TopicPartition, Behind]]
    member: Callable[[], str]
    """The id under which the group knows this worker; empty while it does not."""
    wall: Callable[[], float]
    """Seconds since the epoch."""


async def document(sources: Sources) -> dict[str, Any]:
    """Return the state of now, for orjson, which writes dataclasses ten times as fast as ``asdict`` reads them."""
    health, behind = sources.health, sources.behind()
    reasons = health.reasons()
    return {
        "now": utc_text(sources.wall()),
        "worker": _about(sources),
        "ready": not reasons,
        "reasons": [*reasons, *health.aside()],
        "totals": _totals(behind),
        "history": {"seconds": SAMPLE_SECONDS, "samples": sources.history.samples()},
        "lanes": [
            _lane(health, source, lane, behind.get(source, _NOWHERE)) for source, lane in sorted(health.lanes().items())
        ],
        "answers": _answers(sources.metrics),
        "recent": [_refusal(each) for each in sources.recent.newest_first()],
        "dependencies": _dependencies(health),
        "workers": _workers(await sources.group.known(), sources.member()),
        "settings": [{"variable": variable, "value": value} for variable, value in sources.about.settings],
    }


def _about(sources: Sources) -> dict[str, Any]:
    about = sources.about
    return {
        "name": about.name,
        "version": about.version,
        "group": about.group,
        "member": sources.member(),
        "started": utc_text(about.started),
    }


def _totals(behind: Mapping[TopicPartition, Behind]) -> dict[str, float]:
    return {
        "lag": sum(each.lag for each in behind.values()),
        "in_hand": sum(each.in_hand for each in behind.values()),
        "oldest_seconds": max((each.age for each in behind.values()), default=0.0),
    }


def _lane(health: Health, source: TopicPartition, lane: LaneHealth, behind: Behind) -> dict[str, Any]:
    name = health.name(source)
    losses = health.losses_of(source)
    return {
        "name": name,
        "state": lane.state,
        "since": health.moment(lane.since),
        "reason": lane.reason,
        "losses": list(losses),
        "lag": behind.lag,
        "in_hand": behind.in_hand,
        "hidden": behind.hidden,
        "oldest_seconds": behind.age,
        "way_out": _way_out(name, lane, bool(losses)),
    }


def _way_out(name: str, lane: LaneHealth, has_lost: bool) -> str:
    """Return the command that tells more or mends, as an operator types it; empty if none is needed."""
    if lane.state == "blocked":
        return f"effective-worker lanes show {name}"
    if lane.state == "paused":
        return "effective-worker dead-letters list"
    if has_lost:
        return f"effective-worker lanes acknowledge {name} --yes"
    return "effective-worker check" if lane.state == "waiting" else ""


def _answers(metrics: Metrics) -> list[dict[str, Any]]:
    """Return the answers since the start: of ``OK`` always, of every other status if there are any."""
    counted: Counter[str] = metrics.answers()
    codes = [code.value for code in StatusCode]
    return [{"code": code, "count": counted[code]} for code in codes if counted[code] or code == StatusCode.OK.value]


def _refusal(refusal: Refusal) -> dict[str, Any]:
    place = f"{refusal.topic}/{refusal.partition}/{refusal.offset}"
    return {
        "at": utc_text(refusal.at),
        "place": place,
        "command_id": refusal.command_id,
        "code": refusal.code,
        "dead_letter": refusal.is_dead_letter,
        "way_out": f"effective-worker explain {place}",
    }


def _dependencies(health: Health) -> list[dict[str, Any]]:
    away = health.dependencies_away()
    return [
        {
            "name": name,
            "state": "here" if missing is None else missing.state.removeprefix("is "),
            "reason": "" if missing is None else missing.reason,
            "since": None if missing is None else health.moment(missing.since),
        }
        for name in sorted({*ALWAYS_SHOWN, *away})
        for missing in [away.get(name)]
    ]


def _workers(known: Known, own: str) -> dict[str, Any]:
    hosts = {member.id: member.host for member in known.members.values()}
    partitions = Counter(member.id for member in known.members.values())
    return {
        "fault": known.fault,
        "members": [
            {"member": member, "host": hosts[member], "partitions": partitions[member], "this": member == own}
            for member in sorted(hosts)
        ],
    }
