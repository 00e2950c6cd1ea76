"""The two documents that the admin port serves. Their generators are imported at the first request."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from worker.operations.contract.deployment import Deployment


@dataclass(frozen=True)
class Contract:
    """The contract of one installation."""

    deployment: Deployment

    @cached_property
    def asyncapi(self) -> str:
        """The AsyncAPI document."""
        from worker.operations.contract.pack import text_of  # noqa: PLC0415 - no running worker needs generators

        return text_of(self._document)

    @cached_property
    def page(self) -> str:
        """The same as a page for people."""
        from worker.operations.contract.page import page  # noqa: PLC0415 - as above

        return page(self._document)

    @cached_property
    def _document(self) -> dict[str, Any]:
        from worker.operations.contract.asyncapi import asyncapi  # noqa: PLC0415 - as above

        return asyncapi(self.deployment)
