"""The clock of unit tests, and what is logged in them."""

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
    """Everything that structlog is told, in order."""
    before = structlog.get_config()
    capture = LogCapture()
    structlog.configure(processors=[capture])
    yield capture
    structlog.configure(**before)
