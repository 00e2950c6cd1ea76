"""Load and lock the access tokens that a batch names, and present to each command the one that it may change."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from effective_contract.codes import StatusCode
from effective_contract.methods import Method
from effective_contract.states import LifeCycleState
from worker.errors import BatchConflict
from worker.journey.model import Caller, Command, LockedToken, Presented, Refused, TokenKey, request_digest
from worker.journey.pass_codes import PassCodeCheck, hashes_of
from worker.postgres.pool import Connection
from worker.postgres.sql import statement

UNCHECKED: Final = Refused(StatusCode.INVALID_CREDENTIALS, "the pass code was not compared")
"""The mark of a command whose pass code was not compared because its caller had to be refused then. Never an answer."""


@dataclass(frozen=True, slots=True)
class Locked:
    """The access tokens of a batch: by key, and by the code or identifier that a sender names in its organisation."""

    by_key: Mapping[TokenKey, LockedToken]
    by_code: Mapping[tuple[str, str], LockedToken]
    by_identifier: Mapping[tuple[str, str], LockedToken]
    hashes: Mapping[tuple[str, str], str | None] = field(repr=False)
    """The hash of the pass code under the lock, for each identifier whose pass code was compared."""


async def load(
    connection: Connection,
    commands: Sequence[Command | Refused],
    callers: Sequence[Caller | Refused],
    checks: Sequence[PassCodeCheck | None],
) -> Locked:
    """Lock every access token that an authorised command names, for the rest of the transaction, and return them."""
    codes: dict[tuple[str, str], None] = {}
    identifiers: dict[tuple[str, str], None] = {}
    compared: dict[tuple[str, str], None] = {}
    for command, caller, check in zip(commands, callers, checks, strict=True):
        if isinstance(command, Refused) or isinstance(caller, Refused):
            continue
        if command.authentication_code is not None:
            codes[caller.organisation, command.authentication_code] = None
        elif command.identifier is not None:
            identifiers[caller.organisation, command.identifier] = None
            if check is not None:
                compared[caller.organisation, command.identifier] = None
    if not codes and not identifiers:
        return Locked({}, {}, {}, {})
    rows = await connection.fetch(
        statement("journey/load"),
        [organisation for organisation, _ in codes],
        [code for _, code in codes],
        [organisation for organisation, _ in identifiers],
        [identifier for _, identifier in identifiers],
    )
    tokens = [
        LockedToken(TokenKey(organisation, token), LifeCycleState(state), version, account, code, identifier)
        for organisation, token, state, version, account, code, identifier in rows
    ]
    # For right and wrong pass codes and unknown identifiers alike: a difference in time would tell them apart.
    hashes = await hashes_of(connection, [*compared]) if compared else []
    return Locked(
        {token.key: token for token in tokens},
        {(t.key.organisation, t.authentication_code): t for t in tokens if t.authentication_code is not None},
        {(t.key.organisation, t.identifier): t for t in tokens if t.identifier is not None},
        dict(zip(compared, hashes, strict=True)),
    )


def present(
    command: Command, caller: Caller, command_id: str, locked: Locked, check: PassCodeCheck | None, *, method: Method
) -> Presented | Refused:
    """Make the last checks before a decision: the token exists, the caller may see it, its credentials are right.

    Returns ``UNCHECKED`` if the pass code was not compared. Raises ``BatchConflict`` if it changed between the
    comparison and the lock.
    """
    if command.authentication_code is not None:
        kind, name = "code", command.authentication_code
        token = _visible(locked.by_code.get((caller.organisation, name)), caller)
        if token is None:
            return Refused(StatusCode.ACCESS_TOKEN_NOT_FOUND, "no access token of yours has this authentication_code")
    else:
        kind, name = "identifier", command.identifier or ""
        if check is None:
            return UNCHECKED
        token = _visible(locked.by_identifier.get((caller.organisation, name)), caller)
        if token is None or not check.right:
            return Refused(StatusCode.INVALID_CREDENTIALS, "identifier and pass_code do not go together")
        if check.pass_code_hash != locked.hashes.get((caller.organisation, name)):
            raise BatchConflict
    digest = request_digest(method, kind, name, command.fields)
    return Presented(method, command_id, digest, command.fields, caller, token.key)


def _visible(token: LockedToken | None, caller: Caller) -> LockedToken | None:
    """Return the token if the caller may see it: a consumer application's login sees its own account's.

    See CONTRACT, Result.
    """
    if token is None or (caller.account is not None and token.account != caller.account):
        return None
    return token
