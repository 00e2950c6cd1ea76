"""The subjects: each a process of its own, set up by the worker's own settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.acceptance.worker_process import WorkerProcess, worker_settings
from tests.benchmarks.stage import Stage
from tests.providers.kafka import TopicNames


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """One subject. ``settings`` are those it needs beyond its place.

    A subject that keeps no chain of transitions is the tables' owner: Postgres refuses the worker's role a change that
    is in no chain.
    """

    key: str
    title: str
    command: Sequence[str]
    settings: dict[str, str] = field(default_factory=dict)
    owns: bool = False


_WORKER: Final = ("-m", "worker", "run")


def _module(name: str) -> tuple[str, str]:
    return ("-m", f"{__name__}.{name}")


EXACTLY: Final = Subject("a", "this worker, exactly once", _WORKER)
AT_LEAST: Final = Subject("a2", "this worker, at least once", _WORKER, {"WORKER_DELIVERY": "at_least_once"})
ONE: Final = Subject("b", "FastStream, one message at a time", _module("faststream_one"), owns=True)
POOL: Final = Subject("c", "FastStream, 16 tasks by hand", _module("faststream_pool"), owns=True)
POSTGRES: Final = Subject("e", "Postgres alone, our statements", _module("postgres_alone"))
KAFKA: Final = Subject("f", "Kafka alone, transactional echo", _module("kafka_alone"))


# A worker stands still while a backlog is sent or another one is measured, and its group waits for it.
_PATIENT: Final = {
    "WORKER_KAFKA__SESSION_TIMEOUT_MS": "600000",
    "WORKER_KAFKA__REQUEST_TIMEOUT_MS": "610000",
    "WORKER_KAFKA__TRANSACTION_TIMEOUT_MS": "620000",
}


def process(
    subject: Subject,
    stage: Stage,
    topics: TopicNames,
    *,
    group: str | None = None,
    variables: Mapping[str, str] | None = None,
) -> WorkerProcess:
    """Return the subject, not started yet; in a group of its own by default, with ``variables`` beyond its settings."""
    dsn = stage.owner_dsn if subject.owns else stage.dsn
    settings = worker_settings(stage.bootstrap, topics, dsn, group=group)
    return WorkerProcess(
        {**settings, **_PATIENT, **subject.settings, **(variables or {})}, stage.directory, command=subject.command
    )
