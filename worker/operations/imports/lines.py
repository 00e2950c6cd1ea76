"""The lines of a fixture (CONTRACT, Command line, ``import``), and the faults of a line that is not one."""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Protocol, Union, get_args, get_origin, get_type_hints

import msgspec
import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from effective_contract.access_token import AccessToken, TokenDate, Unit, User
from effective_contract.rules.faults import quoted
from effective_contract.states import LifeCycleState
from worker.journey.pass_codes import unfit
from worker.values import Value

# A longer name could not be sent in a command or a login token.
Name = Annotated[str, Field(min_length=1, max_length=255)]


class _Line(BaseModel):
    """The base of all lines. Strict, and no error repeats a line's values: one may be a secret."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)


class OrganisationLine(_Line):
    kind: Literal["organisation"]
    id: Name
    name: str
    active: bool = True


class UnitLine(Unit):
    kind: Literal["unit"]
    organisation: Name
    id: Name
    active: bool = True


class UserLine(User):
    kind: Literal["user"]
    organisation: Name
    id: Name
    username: Name
    unit: Name | None
    active: bool = True
    rights: list[Name] = Field(default=[])


class RevokedLoginLine(_Line):
    kind: Literal["revoked_login"]
    organisation: Name
    jti: Name


class _AccessTokenLine(AccessToken):
    kind: Literal["access_token"]
    organisation: Name
    id: Name
    number: Name
    authentication_code: Name | None
    identifier: Name | None
    pass_code: Name | None = Field(repr=False)
    pass_code_hash: str | None = Field(repr=False)


_KINDS: Final[Mapping[str, type[BaseModel]]] = {
    "organisation": OrganisationLine,
    "unit": UnitLine,
    "user": UserLine,
    "revoked_login": RevokedLoginLine,
    "access_token": _AccessTokenLine,
}


class Bad(Exception):
    """A fault of a line, described without the line's values."""


def parsed(raw: bytes) -> "Line":
    """Parse a line. Raises ``Bad``."""
    line = _right_token(raw) or _judged(raw)
    if isinstance(line, AccessTokenLine):
        _check_pass_code(line)
    return line


def may_be_organisation(raw: bytes) -> bool:
    """Return False if a line is certainly no organisation, to spare most lines their parsing."""
    return _ORGANISATION.search(raw) is not None


_ORGANISATION: Final = re.compile(rb'"organisation"\s*[,}]|\\u00[67]')


# --- the slow parser, which reports the fault -------------------------------------------------------------------------


def _judged(raw: bytes) -> "Line":
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise Bad(f"not JSON: {error.msg}") from None
    kind = value.get("kind") if isinstance(value, dict) else None
    if not isinstance(kind, str) or kind not in _KINDS:
        raise Bad(f"not a JSON object whose kind is one of {', '.join(_KINDS)}")
    if b"\\u0000" in raw and any("\0" in text for text in _texts_of(value)):
        raise Bad("U+0000 in a string")
    try:
        line: Any = _KINDS[kind].model_validate(_completed(_KINDS[kind], value))
    except ValidationError as error:
        raise Bad(_what(error)) from None
    if isinstance(line, _AccessTokenLine):
        line = msgspec.convert(line.model_dump(mode="json"), AccessTokenLine, dec_hook=_moment)
    return line  # type: ignore[no-any-return]


def _completed(model: type[BaseModel], value: object) -> object:
    """Return ``value`` with the members that a line may leave out: ``null``, or an object of nulls if not nullable.

    A user or a unit may be given by its id alone.
    """
    if isinstance(value, str) and model in {User, Unit}:
        value = {"id": value}
    if not isinstance(value, dict):
        return value
    whole = dict(value)
    for name, inner, optional in _members(model):
        if optional:
            whole.setdefault(name, None)
        elif inner is not None:
            whole.setdefault(name, {})
        if inner is not None:
            whole[name] = _completed(inner, whole[name])
    return whole


@cache
def _members(model: type[BaseModel]) -> tuple[tuple[str, type[BaseModel] | None, bool], ...]:
    """Return the members that may be ``null`` or are objects: name, model, and True if it may be ``null``."""
    members = []
    for name, member in model.model_fields.items():
        kinds = get_args(member.annotation) or (member.annotation,)
        inner = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
        optional = NoneType in kinds
        if member.is_required() and (optional or inner is not None):
            members.append((name, inner, optional))
    return tuple(members)


def _what(error: ValidationError) -> str:
    faults = error.errors(include_input=False, include_url=False)
    texts = [f"{_member(fault['loc'])}: {_REASONS.get(fault['type']) or fault['msg']}" for fault in faults[:3]]
    return "; ".join(texts) + (f"; and {len(faults) - 3} more" if len(faults) > 3 else "")


_REASONS: Final = {
    "extra_forbidden": "unknown member",
    "missing": "missing",
    "string_pattern_mismatch": "not a date YYYY-MM-DDThh:mm:ss",
    "value_error": "no such date",
}


def _member(location: tuple[int | str, ...]) -> str:
    # A mistyped line may have anything as a name.
    return quoted(".".join(str(part) for part in location))


# --- the fast parser, for access tokens -------------------------------------------------------------------------------


class Moment(datetime):
    """A date of a line (CONTRACT, Access token). It has its own class, because msgspec would accept more dates."""


def _moment(_: type, text: object) -> Moment:
    moment = Moment.fromisoformat(text) if isinstance(text, str) else None
    # ISO 8601 has many ways to write a date, and only one is accepted.
    if moment is None or moment.isoformat() != text:
        raise ValueError("not a date YYYY-MM-DDThh:mm:ss")
    return moment


@cache
def _struct(model: type[BaseModel]) -> type[msgspec.Struct]:
    """Return a struct that msgspec reads in one pass, for the completed lines that ``model`` accepts.

    The slow parser judges every line that the struct rejects, so it may accept less than the model, and never more.
    """
    hints = get_type_hints(model, include_extras=True)
    fields: list[Any] = []
    for name, field in model.model_fields.items():
        if name == "kind":
            continue
        kind = _fast(hints[name])
        if NoneType in get_args(kind):
            fields.append((name, kind, None))
        elif isinstance(kind, type) and issubclass(kind, msgspec.Struct) and not _demands(kind):
            fields.append((name, kind, msgspec.field(default_factory=kind)))
        else:
            assert field.is_required(), f"no default is known for {name}"
            fields.append((name, kind))
    tagged = "kind" in hints
    hidden = {"hidden": frozenset(name for name, field in model.model_fields.items() if not field.repr)}
    return msgspec.defstruct(
        model.__name__,
        fields,
        tag_field="kind" if tagged else None,
        tag="access_token" if tagged else None,
        bases=(Value,),
        namespace=hidden,
        frozen=True,
        gc=False,
        kw_only=True,
        forbid_unknown_fields=True,
    )


def _demands(kind: type[msgspec.Struct]) -> bool:
    return any(field.required for field in msgspec.structs.fields(kind))


def _fast(hint: Any) -> Any:
    """Return the type that msgspec reads for a model's member."""
    if hint == TokenDate:
        return Moment
    if get_origin(hint) in {Union, UnionType}:
        return Union[tuple(_fast(each) for each in get_args(hint))]  # noqa: UP007 - made when it runs
    if get_origin(hint) is Annotated:
        inner, *told = get_args(hint)
        limits = [limit for each in told if isinstance(each, FieldInfo) for limit in each.metadata]
        named = {name: getattr(limit, name) for limit in limits for name in _LIMITS if hasattr(limit, name)}
        return Annotated[inner, msgspec.Meta(**named)] if named else inner
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return _struct(hint) | str if hint in {User, Unit} else _struct(hint)
    return hint


_LIMITS: Final = ("min_length", "max_length", "ge", "le")

AccessTokenLine: Final[Any] = _struct(_AccessTokenLine)
_read_token: Final = msgspec.json.Decoder(AccessTokenLine, dec_hook=_moment).decode


def _right_token(raw: bytes) -> "AccessTokenRead | None":
    """Parse a valid access token, in a tenth of the slow parser's time; ``None`` for any other line."""
    # An escape may stand for characters that no text here may hold: U+0000, or half of a surrogate pair.
    if b"\\u0000" in raw or b"\\ud" in raw or b"\\uD" in raw:
        return None
    try:
        line: AccessTokenRead = _read_token(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return line


class AccessTokenRead(Protocol):
    """The members of an access token that the import uses by name; the others are passed on as they are."""

    organisation: str
    id: str
    pass_code: str | None
    pass_code_hash: str | None
    life_cycle_state: LifeCycleState
    verified_by_user: Any
    classification: Any
    accounts_receivable: Any
    rewards_participant: Any
    log_information: Any


Line = OrganisationLine | UnitLine | UserLine | RevokedLoginLine | AccessTokenRead


def _check_pass_code(line: AccessTokenRead) -> None:
    if line.pass_code_hash is None:
        return
    if line.pass_code is not None:
        raise Bad("pass_code and pass_code_hash: one of them, not both")
    fault = unfit(line.pass_code_hash)
    if fault is not None:
        raise Bad(f"pass_code_hash: {fault}")


def _texts_of(value: object) -> Iterator[str]:
    """Yield every string in a JSON value, at any depth; names of members are not included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts_of(inner)
