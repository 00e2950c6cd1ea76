"""The facts of an installation that its contract names: addresses, topics, limits (CONTRACT, Admin port)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from worker.settings import Settings

Protocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]


@dataclass(frozen=True, slots=True)
class Deployment:
    """The addresses, names and limits of one installation. The defaults are CONTRACT, Settings's."""

    bootstrap_servers: str = "localhost:9092"
    security_protocol: Protocol = "PLAINTEXT"
    sasl_mechanism: str | None = None
    client_certificate: bool = False
    group: str = "effective-worker"
    commands: str = "access-token.set-effective.commands"
    bulk_commands: str | None = None
    results: str = "access-token.set-effective.results"
    transitions: str = "access-token.transitions"
    dead_letters: str = "access-token.set-effective.dead-letters"
    max_command_bytes: int = 65_536
    record_retention_days: int = 30


DEFAULT_TOPICS: Final[Mapping[str, Any]] = {
    name: getattr(Deployment(), name)
    for name in ("commands", "bulk_commands", "results", "transitions", "dead_letters")
}
"""The topics of a released pack."""


def deployment(settings: Settings) -> Deployment:
    """Return the part of the settings that the contract names. No secret is among it."""
    kafka, topics = settings.kafka, settings.topics
    return Deployment(
        bootstrap_servers=kafka.bootstrap_servers,
        security_protocol=kafka.security_protocol,
        sasl_mechanism=kafka.sasl_mechanism,
        client_certificate=kafka.ssl_certfile is not None,
        group=kafka.group_id,
        commands=topics.commands,
        bulk_commands=topics.bulk_commands,
        results=topics.results,
        transitions=topics.transitions,
        dead_letters=topics.dead_letters,
        max_command_bytes=settings.max_command_bytes,
        record_retention_days=settings.record_retention_days,
    )
