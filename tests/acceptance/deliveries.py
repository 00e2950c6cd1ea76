"""The two deliveries as parameters of a test."""

import pytest


def in_both_deliveries(slow: pytest.MarkDecorator) -> pytest.MarkDecorator:
    """Run a test as ``exactly_once``, and as ``at_least_once`` where slow tests run: it is the same story."""
    return pytest.mark.parametrize("delivery", ["exactly_once", pytest.param("at_least_once", marks=slow)])
