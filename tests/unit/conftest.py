"""Fixtures of the unit tests: the clock, and the captured log."""

from collections.abc import Iterator

import pytest
import structlog
from structlog.testing import LogCapture

from tests.support.clocks import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def logged() -> Iterator[LogCapture]:
    """Yield the log entries of the test, in order."""
    before = structlog.get_config()
    capture = LogCapture()
    structlog.configure(processors=[capture])
    yield capture
    structlog.configure(**before)
