"""The changes of a contract pack that break systems written for an older one.

The direction decides. Commands may be widened: the worker must still accept everything that an older sender may send.
The worker's messages may be narrowed: everything that it may write must be known to an older reader. In both directions
the loss of a member is a break, and so is a topic, a message or an operation that is gone or renamed.

The rules of JSON Schema that can be compared are compared (types, enumerations, bounds, members, items, alternatives,
references); a change of any other rule counts as a break, because it cannot be shown to be none.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, Final

from worker.operations.contract.json_schemas import described
from worker.operations.contract.older import ASYNCAPI, SCHEMA, NotAPack

Schema = Any
"""An object of keywords, or ``True`` for anything and ``False`` for nothing."""

_UPPER: Final = ("maxLength", "maximum", "exclusiveMaximum", "maxItems", "maxProperties")
_LOWER: Final = {"minLength": 0, "minItems": 0, "minProperties": 0, "minimum": -inf, "exclusiveMinimum": -inf}
"""Lower bounds, with their values when they are not set."""
_FOLLOWED: Final = {
    "$ref",
    "type",
    "enum",
    "const",
    "anyOf",
    "oneOf",
    "required",
    "properties",
    "additionalProperties",
    "items",
    "dependentRequired",
    "dependencies",
    "x-comma-separated",
    *_UPPER,
    *_LOWER,
}
_SAYS_NOTHING: Final = {
    "$schema",
    "$id",
    "$defs",
    "$comment",
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
}
_TYPES: Final[Mapping[str, type | tuple[type, ...]]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "object": dict,
    "array": list,
    "null": type(None),
}


@dataclass(frozen=True, slots=True, order=True)
class Break:
    """A change that breaks systems written for the older pack. ``path`` leads to the member within ``file``."""

    file: str
    path: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.path or '(the whole)'}: {self.what}"


def breaks(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Break]:
    """Return every break between two packs, both as ``older.read`` returns them. Raises ``NotAPack``."""
    found, messages = set(), described()
    for name in old:
        if name not in new:
            found.add(Break(name, "", "the file is gone"))
        elif name == ASYNCAPI:
            found |= {Break(name, path, what) for path, what in _document_breaks(old[name], new[name])}
        else:
            to_worker = messages[name.removesuffix(SCHEMA)].to_worker
            compared = _Compared(old[name], new[name], to_worker=to_worker)
            found |= {Break(name, path, what) for path, what in compared.breaks(old[name], new[name], "")}
    return sorted(found)


# --- the AsyncAPI document --------------------------------------------------------------------------------------------

_Found = Iterator[tuple[str, str]]


def _document_breaks(old: Any, new: Any) -> _Found:
    for name, channel in old["channels"].items():
        path = f"channels.{name}"
        if name not in new["channels"]:
            yield path, "the channel is gone"
        else:
            yield from _changed(channel, new["channels"][name], path, "address")
            for message in channel["messages"].keys() - new["channels"][name]["messages"].keys():
                yield f"{path}.messages.{message}", "the message is gone"
    for name, operation in old["operations"].items():
        if name not in new["operations"]:
            yield f"operations.{name}", "the operation is gone"
        else:
            yield from _operation_breaks(old, new, operation, new["operations"][name], f"operations.{name}")


def _operation_breaks(old: Any, new: Any, before: Any, after: Any, path: str) -> _Found:
    yield from _changed(before, after, path, "action", "channel")
    yield from _changed(_address(old, before), _address(new, after), f"{path}.reply.address", "location")
    yield from _changed(before.get("reply", {}), after.get("reply", {}), f"{path}.reply", "channel")
    yield from _message_breaks(old, new, before, after, path, to_worker=before["action"] == "receive")
    reply = (before.get("reply", {}), after.get("reply", {}))
    yield from _message_breaks(old, new, *reply, f"{path}.reply", to_worker=before["action"] != "receive")


def _address(document: Any, operation: Any) -> Any:
    return _resolved(document, operation.get("reply", {}).get("address", {}))


def _message_breaks(old: Any, new: Any, before: Any, after: Any, path: str, *, to_worker: bool) -> _Found:
    there = {_last(each["$ref"]): each for each in after.get("messages", ())}
    known = {_last(each["$ref"]): each for each in before.get("messages", ())}
    for name in known.keys() - there.keys():
        yield f"{path}.{name}", "the message is gone"
    if not to_worker:
        for name in there.keys() - known.keys():
            yield f"{path}.{name}", "an older reader does not know this message"
    compared = _Compared(old, new, to_worker=to_worker)
    for name in known.keys() & there.keys():
        message, now = _resolved(old, known[name]), _resolved(new, there[name])
        yield from _changed(message, now, f"{path}.{name}", "contentType", "correlationId")
        for part in ("headers", "payload"):
            yield from compared.breaks(message.get(part, True), now.get(part, True), f"{path}.{name}.{part}")
        key = [each.get("bindings", {}).get("kafka", {}).get("key", True) for each in (message, now)]
        yield from compared.breaks(key[0], key[1], f"{path}.{name}.key")


def _changed(before: Any, after: Any, path: str, *names: str) -> _Found:
    for name in names:
        if before.get(name) != after.get(name):
            yield f"{path}.{name}", f"was {_text(before.get(name))}, is {_text(after.get(name))}"


def _last(reference: str) -> str:
    return reference.rsplit("/", 1)[-1]


# --- JSON Schemas -----------------------------------------------------------------------------------------------------


def _resolved(root: Any, schema: Any) -> Any:
    """Return the target of a reference, merged with the keywords beside it. Raises ``NotAPack`` if there is none."""
    while isinstance(schema, dict) and "$ref" in schema:
        target = root
        for step in schema["$ref"].removeprefix("#/").split("/"):
            target = target.get(step) if isinstance(target, dict) else None
            if target is None:
                raise NotAPack(f"the reference {schema['$ref']} leads nowhere")
        schema = {**target, **{name: value for name, value in schema.items() if name != "$ref"}}
    return schema


@dataclass(frozen=True, slots=True)
class _Side:
    """One of the two schemas compared, with the document that its references point into."""

    root: Any
    schema: Schema

    def at(self, schema: Schema) -> "_Side":
        return _Side(self.root, schema)

    @property
    def rules(self) -> dict[str, Any]:
        resolved = _resolved(self.root, self.schema)
        return {} if resolved is True else {"enum": []} if resolved is False else resolved


@dataclass(frozen=True, slots=True)
class _Compared:
    """Two documents to compare. The narrow side is the one written, the wide side the one read."""

    old: Any
    new: Any
    to_worker: bool

    def breaks(self, old: Schema, new: Schema, path: str) -> _Found:
        before, after = _Side(self.old, old), _Side(self.new, new)
        yield from self._missed(before, after, path, frozenset())
        yield from self._escapes(*((before, after) if self.to_worker else (after, before)), path, frozenset())

    # A member that is gone breaks the systems that relied on it, in either direction.

    def _missed(self, old: _Side, new: _Side, path: str, seen: frozenset[str]) -> _Found:
        place = _text(old.schema)
        if place in seen:
            return
        before, after = _members(old), _members(new)
        for name, schema in before.items():
            if name not in after:
                yield _below(path, name), "the member is gone"
            else:
                yield from self._missed(schema, after[name], _below(path, name), seen | {place})

    # Values that the narrow side allows and the wide side does not.

    def _escapes(self, narrow: _Side, wide: _Side, path: str, seen: frozenset[tuple[str, str]]) -> _Found:
        pair = (_text(narrow.schema), _text(wide.schema))
        if pair in seen:
            return
        for kind in _alternatives(narrow):
            fitting = [each for each in _alternatives(wide) if _is_type(kind.rules, each.rules.get("type"))]
            if fitting:
                yield from min(([*self._one_escapes(kind, each, path, seen | {pair})] for each in fitting), key=len)
            else:
                what = kind.rules.get("type", "any type")
                yield path, self._say(f"{what} is no longer accepted", f"an older reader does not expect {what}")

    def _one_escapes(self, narrow: _Side, wide: _Side, path: str, seen: frozenset[tuple[str, str]]) -> _Found:
        was, may = narrow.rules, wide.rules
        values, known = _values(was), _values(may)
        if values is not None:
            yield from self._value_escapes(values, known, may, path)
        elif known is not None:
            yield path, self._say("only certain values are accepted now", "other values than those known may come now")
        else:
            yield from self._bound_escapes(was, may, path)
            yield from self._other_escapes(narrow, wide, path)
            if "object" in {may.get("type"), was.get("type")}:
                yield from self._object_escapes(narrow, wide, path, seen)
            if "items" in may:
                yield from self._escapes(narrow.at(was.get("items", True)), wide.at(may["items"]), f"{path}[]", seen)

    def _value_escapes(self, values: list[Any], known: list[Any] | None, may: dict[str, Any], path: str) -> _Found:
        for value in values:
            if (known is not None and value not in known) or not _fits(value, may):
                shown = _text(value)
                yield path, self._say(f"{shown} is no longer accepted", f"an older reader does not know {shown}")

    def _bound_escapes(self, was: dict[str, Any], may: dict[str, Any], path: str) -> _Found:
        for name in _UPPER:
            if name in may and (name not in was or was[name] > may[name]):
                yield path, self._narrowed(name, was.get(name), may[name])
        for name, least in _LOWER.items():
            if name in may and was.get(name, least) < may[name]:
                yield path, self._narrowed(name, was.get(name), may[name])

    def _narrowed(self, name: str, was: Any, may: Any) -> str:
        return self._say(
            f"{name} is {_text(may)} now, and was {_text(was)}", f"{name} was {_text(may)}, and is {_text(was)} now"
        )

    def _other_escapes(self, narrow: _Side, wide: _Side, path: str) -> _Found:
        was, may = narrow.rules, wide.rules
        listed, accepted = was.get("x-comma-separated"), may.get("x-comma-separated")
        for name in sorted(may.keys() - _FOLLOWED - _SAYS_NOTHING):
            # The pattern is made from the list, and the lists can be compared.
            told = name == "pattern" and listed is not None and accepted is not None
            if may[name] != was.get(name) and not told:
                old, new = (was, may) if self.to_worker else (may, was)
                yield path, f"{name} was {_text(old.get(name))}, is {_text(new.get(name))}"
        if listed is not None and accepted is not None:
            for gone in (each for each in listed if each not in accepted):
                yield path, self._say(f"{gone} is no longer accepted", f"an older reader does not know {gone}")
        for name in ("anyOf", "oneOf"):
            # Beside members these are rules on how the members go together.
            if name in may and "properties" in may:
                allowed = [_expanded(wide, rule) for rule in may[name]]
                if name not in was or any(_expanded(narrow, rule) not in allowed for rule in was[name]):
                    yield path, f"how the members go together ({name}) has changed"

    def _object_escapes(self, narrow: _Side, wide: _Side, path: str, seen: frozenset[tuple[str, str]]) -> _Found:
        was, may = narrow.rules, wide.rules
        present = set(was.get("required", ()))
        for name in sorted(set(may.get("required", ())) - present):
            yield _below(path, name), self._say("must be given now", "may be absent now")
        for name, needed in _dependents(may).items():
            for lacking in sorted(set(needed) - present - set(_dependents(was).get(name, ()))):
                yield _below(path, name), self._say(f"needs {lacking} now", f"may stand without {lacking} now")
        members, rest = _members(wide), may.get("additionalProperties", True)
        for name, schema in _members(narrow).items():
            other = members.get(name, wide.at(rest))
            if other.schema is not False:
                yield from self._escapes(schema, other, _below(path, name), seen)
            elif not self.to_worker:  # else _missed has reported it
                yield _below(path, name), "an older reader does not know this member"
        further = was.get("additionalProperties", True)
        if further is not False and rest is False:
            yield path, self._say("other members are no longer accepted", "an older reader expects no other members")
        elif further is not False and rest is not True:
            yield from self._escapes(narrow.at(further), wide.at(rest), _below(path, "*"), seen)

    def _say(self, to_senders: str, to_readers: str) -> str:
        return to_senders if self.to_worker else to_readers


def _members(side: _Side) -> dict[str, _Side]:
    """Return the schemas below a schema: its members, those of its one alternative that is an object, and its items."""
    found: dict[str, _Side] = {}
    for kind in _alternatives(side):
        found |= {name: side.at(schema) for name, schema in kind.rules.get("properties", {}).items()}
        if "items" in kind.rules:
            found["[]"] = side.at(kind.rules["items"])
    return found


def _alternatives(side: _Side) -> list[_Side]:
    """Return the kinds of value that a schema allows, each merged with the rules that hold for all of them."""
    rules = side.rules
    if isinstance(rules.get("type"), list):
        return [each for kind in rules["type"] for each in _alternatives(side.at({**rules, "type": kind}))]
    for name in ("anyOf", "oneOf"):
        if name in rules and "properties" not in rules:
            shared = {each: value for each, value in rules.items() if each != name}
            return [
                inner for kind in rules[name] for inner in _alternatives(side.at({**shared, **side.at(kind).rules}))
            ]
    return [side.at(rules)]


def _values(rules: dict[str, Any]) -> list[Any] | None:
    """Return the only values that are allowed; ``None`` if they are not listed."""
    if "const" in rules:
        return [rules["const"]]
    if "enum" in rules:
        return list(rules["enum"])
    return [None] if rules.get("type") == "null" else None


def _is_type(rules: dict[str, Any], wanted: str | None) -> bool:
    if wanted is None:
        return True
    values = _values(rules)
    if values is not None:
        return all(_of_type(value, wanted) for value in values)
    return rules.get("type") == wanted or (rules.get("type"), wanted) == ("integer", "number")


def _of_type(value: Any, wanted: str) -> bool:
    if wanted == "boolean" or isinstance(value, bool):
        return wanted == "boolean" and isinstance(value, bool)
    return isinstance(value, _TYPES[wanted])


def _fits(value: Any, rules: dict[str, Any]) -> bool:
    """True if one value keeps the bounds of a schema."""
    if isinstance(value, str):
        long_enough = rules.get("minLength", 0) <= len(value) <= rules.get("maxLength", len(value))
        return long_enough and re.search(rules.get("pattern", ""), value) is not None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return bool(rules.get("minimum", value) <= value <= rules.get("maximum", value))
    return True


def _expanded(side: _Side, schema: Any) -> Any:
    """Return a rule without references and descriptions, to compare it as a whole."""
    if isinstance(schema, list):
        return [_expanded(side, each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    rules = {name: each for name, each in side.at(schema).rules.items() if name not in _SAYS_NOTHING}
    return {
        name: {member: _expanded(side, rule) for member, rule in each.items()}
        if name == "properties"
        else _expanded(side, each)
        for name, each in rules.items()
    }


def _dependents(rules: dict[str, Any]) -> dict[str, list[str]]:
    """Return the members that each member requires beside it, in the keywords of either draft."""
    return {**rules.get("dependentRequired", {}), **rules.get("dependencies", {})}


def _below(path: str, name: str) -> str:
    return f"{path}[]" if name == "[]" else f"{path}.{name}" if path else name


def _text(value: Any) -> str:
    return "not set" if value is None else json.dumps(value, ensure_ascii=False, sort_keys=True)
