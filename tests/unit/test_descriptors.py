"""File descriptors: the number that a worker needs, and the error that names a shortage."""

import errno
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.pace import patience
from worker.errors import OutOfDescriptors, from_postgres
from worker.observability.descriptors import partitions_within
from worker.observability.health import Health
from worker.postgres.sql import statement

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("limit", "brokers", "partitions"),
    [(1024, 1, 245), (1024, 3, 97), (1_048_576, 3, 104_853), (256, 3, 21), (50, 3, 0), (40, 1, 0)],
)
def test_a_limit_allows_so_many_partitions(limit: int, brokers: int, partitions: int) -> None:
    assert partitions_within(limit, brokers=brokers, connections=10) == partitions


@given(limit=st.integers(0, 5000), brokers=st.integers(1, 9), connections=st.integers(1, 100))
def test_more_descriptors_never_allow_less_and_more_brokers_never_more(
    limit: int, brokers: int, connections: int
) -> None:
    here = partitions_within(limit, brokers=brokers, connections=connections)
    assert partitions_within(limit + 1, brokers=brokers, connections=connections) >= here
    assert partitions_within(limit, brokers=brokers + 1, connections=connections) <= here
    assert partitions_within(limit, brokers=brokers, connections=connections + 1) <= here


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_postgres_is_not_blamed_for_too_many_open_files(number: int) -> None:
    mapped = from_postgres(OSError(number, os.strerror(number)))

    assert isinstance(mapped, OutOfDescriptors)
    assert os.strerror(number) in mapped.reason


def test_health_does_not_call_a_dependency_away_for_want_of_descriptors() -> None:
    health = Health()
    health.assigned(True)
    health.away(OutOfDescriptors(OSError(errno.EMFILE, os.strerror(errno.EMFILE))))

    is_ready, document = health.ready()

    assert not is_ready
    assert document["reason"].startswith("descriptors are used up: Too many open files")
    assert "away" not in document["reason"]


# All that can be opened is open; then the check asks for what is missing, and for a statement not prepared before.
USED_UP = """
import json, os, resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
from worker.observability.descriptors import raise_limit, really
from worker.errors import DependencyUnavailable
from worker.postgres.sql import statement
raised = raise_limit()
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
away = DependencyUnavailable("kafka", "KafkaConnectionError: unable to bootstrap")
found = [really(away).dependency]
held = []
try:
    while True:
        held.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    found.append(really(away).dependency)
print(json.dumps({"raised": raised, "found": found, "statement": statement("lanes/take")}))
"""


def test_a_process_without_descriptors_knows_its_statements_and_what_it_wants_for() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", USED_UP], cwd=ROOT, capture_output=True, check=True, timeout=patience(60)
    )
    said = json.loads(ended.stdout)

    assert said["raised"] == resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert said["found"] == ["kafka", "descriptors"]
    assert said["statement"] == statement("lanes/take")
