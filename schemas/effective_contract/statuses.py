"""The meaning of each status for a sender, and if sending again helps (CONTRACT, Result)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from effective_contract.codes import StatusCode
from effective_contract.methods import SET_EFFECTIVE, Method

NEVER: Final = "no"
NEW_LOGIN: Final = "with a new login"
LATER: Final = "yes"


@dataclass(frozen=True, slots=True)
class Meaning:
    """The cases of a status, and if the command is worth sending again."""

    when: str
    retry: str


def meanings(method: Method = SET_EFFECTIVE) -> Mapping[StatusCode, Meaning]:
    """Return the meanings of an answer of this method, in the order in which the statuses are checked."""
    words = {"right": method.right, "from_state": method.from_state, "reached": method.reached}
    return {code: Meaning(each.when.format(**words), each.retry) for code, each in _MEANINGS.items()}


_MEANINGS: Final[Mapping[StatusCode, Meaning]] = {
    StatusCode.MALFORMED_REQUEST: Meaning(
        "The value is no JSON object, a member has the wrong type, or it is too large. A dead letter is kept as well.",
        NEVER,
    ),
    StatusCode.MISSING_PARAMETER: Meaning(
        "token or access_token_identifier is not given, or pass_code with an identifier.", NEVER
    ),
    StatusCode.INVALID_PARAMETER: Meaning(
        "None or both of authentication_code and identifier, an unknown member, an unknown field name, "
        "a text too long or with U+0000, or a wrong header.",
        NEVER,
    ),
    StatusCode.INVALID_TOKEN: Meaning(
        "The login token cannot be verified or is revoked, or its organisation, unit or user is unknown or inactive.",
        NEW_LOGIN,
    ),
    StatusCode.EXPIRED_TOKEN: Meaning("The login token is past its time.", NEW_LOGIN),
    StatusCode.ACCESS_DENIED: Meaning(
        "The user lacks the right {right}, or has failed too often and must wait; the message says "
        "which, and how long.",
        NEVER,
    ),
    StatusCode.ACCESS_TOKEN_NOT_FOUND: Meaning("The caller can see no access token with this code.", NEVER),
    StatusCode.INVALID_CREDENTIALS: Meaning("The identifier is unknown, or the pass code wrong.", NEVER),
    StatusCode.DUPLICATE_REQUEST: Meaning("The command id was applied before, for a different request.", NEVER),
    StatusCode.INVALID_LIFE_CYCLE_STATE: Meaning(
        "The access token is not {from_state}; the message names its state.", NEVER
    ),
    StatusCode.OK: Meaning(
        "The access token is {reached}: by this command, or, where the header replayed is true, since it came before.",
        "not needed",
    ),
    StatusCode.INTERNAL_ERROR: Meaning(
        "This command could not be processed; nothing changed. A dead letter is kept as well.", LATER
    ),
}
