"""The two documents that the admin port serves. Their generators are imported at the first request."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.operations.contract.deployment import Deployment


@dataclass(frozen=True)
class Contract:
    """The contract of one installation."""

    deployment: "Deployment"

    @cached_property
    def asyncapi(self) -> str:
        """The AsyncAPI document."""
        from worker.operations.contract.asyncapi import asyncapi  # noqa: PLC0415 - no running worker needs generators
        from worker.operations.contract.pack import text_of  # noqa: PLC0415

        return text_of(asyncapi(self.deployment))

    @cached_property
    def page(self) -> str:
        """The same as a page for people."""
        from worker.operations.contract.asyncapi import asyncapi  # noqa: PLC0415 - as above
        from worker.operations.contract.page import page  # noqa: PLC0415

        return page(asyncapi(self.deployment))
