"""Shared helpers of the tests: builders, doubles, clocks, waiting and the pace."""
