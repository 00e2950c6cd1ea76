"""A broker and a Postgres out of wheels, for trying out and for quick tests: never for production.

Needs the extra ``embedded``. The broker speaks Kafka's protocol and is no Apache Kafka; the Postgres is a real one.
"""

from worker.demo.servers.processes import EmbeddedFailed, EmbeddedUnavailable
from worker.demo.servers.stack import Stack, embedded_stack, require_installed

__all__ = ["EmbeddedFailed", "EmbeddedUnavailable", "Stack", "embedded_stack", "require_installed"]
