"""The package for senders and readers: commands, results, transition events and headers. Never imports the worker."""

__version__ = "0.1.0"
"""The version of both distributions and of the contract pack: the one place that has it."""
