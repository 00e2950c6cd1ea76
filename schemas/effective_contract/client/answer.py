"""Read a reply: the worker's answer to one command (CONTRACT, Result)."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from pydantic import BaseModel, ConfigDict, ValidationError

from effective_contract.access_token import AccessTokenData
from effective_contract.client.errors import CommandRefused, UnreadableReply
from effective_contract.codes import StatusCode
from effective_contract.headers import COMMAND_ID, DRY_RUN, REPLAYED, STATUS_CODE, TRUE


@dataclass(frozen=True, slots=True)
class SetEffective:
    """The command was applied; a ``dry_run`` would have been."""

    data: AccessTokenData = field(repr=False)
    """The requested fields, after the change. Personal data: not in the ``repr``."""
    replayed: bool
    """True if it had been applied before, under the same id. ``data`` is then as it is now."""
    command_id: str
    message: str
    """Empty, except for a replay whose access token is gone."""
    ce_id: str
    ce_source: str
    dry_run: bool = False
    """True if the worker says that nothing has changed, and ``data`` is as it would have become."""


Answer: TypeAlias = SetEffective | CommandRefused


class _Status(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, hide_input_in_errors=True)

    code: str
    description: str
    message: str


class _Result(BaseModel):
    """A result as a reader takes it: additions of later versions of the contract are ignored."""

    model_config = ConfigDict(frozen=True, strict=True, hide_input_in_errors=True)

    data: AccessTokenData
    status: _Status


def read_answer(
    value: bytes | None, headers: Iterable[tuple[str, bytes | None]], *, ce_id: str, ce_source: str
) -> Answer:
    """Read the answer to the command of that id. Raises ``UnreadableReply``."""
    told = {name: content.decode(errors="replace") for name, content in headers if content is not None}
    try:
        result = _Result.model_validate_json(value or b"", extra="ignore")
    except ValidationError:
        # Not chained: the error holds its input, which includes personal data.
        raise UnreadableReply(status_code=told.get(STATUS_CODE), ce_id=ce_id, ce_source=ce_source) from None
    command_id, is_dry_run = told.get(COMMAND_ID, ""), told.get(DRY_RUN) == TRUE
    if result.status.code == StatusCode.OK:
        replayed = told.get(REPLAYED) == TRUE
        return SetEffective(result.data, replayed, command_id, result.status.message, ce_id, ce_source, is_dry_run)
    return CommandRefused(
        code=_known(result.status.code),
        description=result.status.description,
        message=result.status.message,
        command_id=command_id,
        ce_id=ce_id,
        ce_source=ce_source,
        dry_run=is_dry_run,
    )


def _known(code: str) -> StatusCode | str:
    return StatusCode(code) if code in StatusCode.__members__ else code
