"""Fixtures for pytest: ``pytest_plugins = ["effective_contract.testing.fixtures"]`` in a ``conftest.py``."""

import pytest

from effective_contract.testing.worker import InMemoryWorker


@pytest.fixture
def in_memory_worker() -> InMemoryWorker:
    """Return a worker without any access token: ``in_memory_worker.add("99021047380")`` makes one."""
    return InMemoryWorker()
