"""The contract as this installation has it: its topics, its limits, its way of being let in (CONTRACT 10)."""

from dataclasses import dataclass
from functools import cached_property

from schemas.asyncapi import Deployment, asyncapi
from schemas.pack import text_of
from schemas.page import page
from worker.settings import Settings


def deployment(settings: Settings) -> Deployment:
    """What the contract needs to know of the settings. No secret is among it."""
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


@dataclass(frozen=True)
class Contract:
    """The two documents that the admin port serves, made when the first one asks."""

    deployment: Deployment

    @cached_property
    def asyncapi(self) -> str:
        return text_of(asyncapi(self.deployment))

    @cached_property
    def page(self) -> str:
        return page(asyncapi(self.deployment))
