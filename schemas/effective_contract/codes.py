"""The status codes of CONTRACT, Statuses, in the order in which they are checked."""

from enum import StrEnum


class StatusCode(StrEnum):
    """The status of an answer. :attr:`description` is the fixed sentence that goes with it; ``OK`` has none."""

    MALFORMED_REQUEST = "MALFORMED_REQUEST"
    MISSING_PARAMETER = "MISSING_PARAMETER"
    INVALID_PARAMETER = "INVALID_PARAMETER"
    INVALID_TOKEN = "INVALID_TOKEN"
    EXPIRED_TOKEN = "EXPIRED_TOKEN"
    ACCESS_DENIED = "ACCESS_DENIED"
    ACCESS_TOKEN_NOT_FOUND = "ACCESS_TOKEN_NOT_FOUND"
    INVALID_CREDENTIALS = "INVALID_CREDENTIALS"
    DUPLICATE_REQUEST = "DUPLICATE_REQUEST"
    INVALID_LIFE_CYCLE_STATE = "INVALID_LIFE_CYCLE_STATE"
    OK = "OK"
    INTERNAL_ERROR = "INTERNAL_ERROR"

    # Enum's own hash is written in Python, and the code of every answer is hashed.
    __hash__ = str.__hash__

    @property
    def description(self) -> str:
        return _DESCRIPTIONS[self]


_DESCRIPTIONS = {
    StatusCode.MALFORMED_REQUEST: "The command is not a well-formed JSON object of the expected types.",
    StatusCode.MISSING_PARAMETER: "A mandatory parameter is missing.",
    StatusCode.INVALID_PARAMETER: "A parameter is not valid.",
    StatusCode.INVALID_TOKEN: "The login token is not valid.",
    StatusCode.EXPIRED_TOKEN: "The login token has expired.",
    StatusCode.ACCESS_DENIED: "The user is not allowed to set access tokens as effective.",
    StatusCode.ACCESS_TOKEN_NOT_FOUND: "The access token was not found.",
    StatusCode.INVALID_CREDENTIALS: "The identifier or the pass code is not valid.",
    StatusCode.DUPLICATE_REQUEST: "The command id was already used for a different request.",
    StatusCode.INVALID_LIFE_CYCLE_STATE: "Only a not effective access token can be set as effective.",
    StatusCode.OK: "",
    StatusCode.INTERNAL_ERROR: "The command could not be processed.",
}
