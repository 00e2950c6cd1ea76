"""The life-cycle states of an access token (CONTRACT, Access token)."""

from enum import StrEnum


class LifeCycleState(StrEnum):
    """Only a ``NOT_EFFECTIVE`` access token may become ``EFFECTIVE``."""

    NOT_EFFECTIVE = "NOT_EFFECTIVE"
    EFFECTIVE = "EFFECTIVE"
    PENDING_VERIFICATION = "PENDING_VERIFICATION"
