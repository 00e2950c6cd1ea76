"""The AsyncAPI document as one HTML page: no script, no font, nothing loaded from elsewhere."""

import json
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from importlib.resources import files
from typing import Any, Final

Document = Mapping[str, Any]

_BOUNDS: Final = {
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minimum": "from {}",
    "maximum": "to {}",
}
_LONGEST_PATTERN: Final = 80
"""Characters. A longer pattern is not shown."""


def page(document: Document) -> str:
    """Return the whole page of an AsyncAPI 3 document that ``contract.asyncapi`` made."""
    style = files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    title = escape(document["info"]["title"])
    return "".join(
        (
            '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n',
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
            f"<title>{title}: the contract</title>\n<style>\n{style}</style>\n",
            f'<div class="frame">\n{_contents(document)}<main>\n',
            *_introduction(document),
            *_statuses(document),
            *_channels(document),
            *_messages(document),
            *_definitions(document),
            "</main>\n</div>\n</html>\n",
        )
    )


# --- the parts of the page --------------------------------------------------------------------------------------------


def _contents(document: Document) -> str:
    components = document["components"]
    groups = {
        "Channels": [("channel", name) for name in document["channels"]],
        "Messages": [("message", name) for name in components["messages"]],
        "Objects": [("object", name) for name in _listed(document)],
    }
    parts = ['<nav>\n<a href="#top">The contract</a>\n<a href="#statuses">Statuses</a>\n']
    for group, links in groups.items():
        parts.append(f"<b>{group}</b>\n")
        parts += [f'<a href="#{kind}-{escape(name)}">{escape(name)}</a>\n' for kind, name in links]
    return "".join((*parts, "</nav>\n"))


def _introduction(document: Document) -> Iterator[str]:
    info = document["info"]
    yield f'<h1 id="top">{escape(info["title"])} <small>{escape(info["version"])}</small></h1>\n'
    yield f"<p>{escape(info['description'])}</p>\n"
    yield '<p><a href="asyncapi.json">asyncapi.json</a> says the same to programs.</p>\n'
    rows = (
        (_code(server["host"]), escape(server["protocol"]), escape(server["description"]), _security(document, server))
        for server in document["servers"].values()
    )
    yield _table(("broker", "protocol", "", "to be let in"), rows)


def _security(document: Document, server: Document) -> str:
    schemes = (_at(document, scheme) for scheme in server.get("security", ()))
    return "<br>".join(escape(scheme["description"]) for scheme in schemes) or '<span class="soft">nothing</span>'


def _statuses(document: Document) -> Iterator[str]:
    yield '<h2 id="statuses">Statuses</h2>\n<p>In the order in which they are checked.</p>\n'
    for message in document["components"]["messages"].values():
        if "x-statuses" in message:
            yield _table(
                ("code", "when", "send again?"),
                ((_code(each["code"]), escape(each["when"]), escape(each["retry"])) for each in message["x-statuses"]),
            )


def _channels(document: Document) -> Iterator[str]:
    yield "<h2>Channels</h2>\n"
    for name, channel in document["channels"].items():
        address = channel["address"]
        shown = _code(address) if address is not None else '<span class="soft">a topic of the sender\'s own</span>'
        yield f'<h3 id="channel-{escape(name)}">{escape(name)}</h3>\n<p class="address">{shown}</p>\n'
        yield f"<p>{escape(channel['description'])}</p>\n"
        links = ", ".join(_link("message", each) for each in channel["messages"])
        yield f'<p class="soft">Messages: {links}.{_operations(document, name)}{_kept(channel)}</p>\n'


def _operations(document: Document, channel: str) -> str:
    words = {"receive": "The worker reads", "send": "The worker writes"}
    found = (each for each in document["operations"].values() if each["channel"]["$ref"] == f"#/channels/{channel}")
    return "".join(f" {words[each['action']]}: {escape(each['summary'])}" for each in found)


def _kept(channel: Document) -> str:
    settings = channel.get("bindings", {}).get("kafka", {}).get("topicConfiguration")
    if settings is None:
        return ""
    days = settings["retention.ms"] // (24 * 60 * 60 * 1000)
    return " Kept forever." if settings["retention.ms"] < 0 else f" Kept for {days} days."


def _messages(document: Document) -> Iterator[str]:
    yield "<h2>Messages</h2>\n"
    for name, message in document["components"]["messages"].items():
        yield f'<h3 id="message-{escape(name)}">{escape(message["title"])}</h3>\n'
        yield f'<p class="soft">{_code(name)}, {_code(message["contentType"])}</p>\n'
        if "description" in message:
            yield f"<p>{escape(message['description'])}</p>\n"
        key = message["bindings"]["kafka"]["key"]["description"]
        yield f"<h4>Key</h4>\n<p>{escape(key)}</p>\n<h4>Headers</h4>\n"
        yield _members(document, _at(document, message["headers"]))
        yield "<h4>Value</h4>\n"
        yield _members(document, _at(document, message["payload"]))
        yield "<h4>Examples</h4>\n"
        yield from map(_example, message["examples"])


def _example(example: Document) -> str:
    headers = "\n".join(f"{name}: {value}" for name, value in example["headers"].items())
    value = json.dumps(example["payload"], indent=2, ensure_ascii=False)
    return (
        f"<details><summary>{escape(example['name'])}: {escape(example['summary'])}</summary>\n"
        f"<pre>{escape(headers)}</pre>\n<pre>{escape(value)}</pre></details>\n"
    )


def _listed(document: Document) -> list[str]:
    """Return the objects that are not a message's headers or value: those have their tables above."""
    above = _of_messages(document)
    schemas = document["components"]["schemas"]
    return [name for name, schema in schemas.items() if "properties" in schema and name not in above]


def _of_messages(document: Document) -> dict[str, str]:
    """Return the message that each schema is the headers or the value of."""
    return {
        message[part]["$ref"].rsplit("/", 1)[-1]: name
        for name, message in document["components"]["messages"].items()
        for part in ("headers", "payload")
        if "$ref" in message[part]
    }


def _definitions(document: Document) -> Iterator[str]:
    yield "<h2>Objects</h2>\n"
    for name in _listed(document):
        schema = document["components"]["schemas"][name]
        yield f'<h3 id="object-{escape(name)}">{escape(name)}</h3>\n<p>{escape(schema.get("description", ""))}</p>\n'
        yield _members(document, schema)


# --- members ----------------------------------------------------------------------------------------------------------


def _members(document: Document, schema: Document) -> str:
    if "properties" not in schema:
        return f"<p>{escape(schema.get('description', ''))}</p>\n"
    required = set(schema.get("required", ()))
    rows = (
        (
            _code(name) + (' <span class="must">always</span>' if name in required else ""),
            _kind(document, rule),
            escape(rule.get("description", "")),
        )
        for name, rule in schema["properties"].items()
    )
    return _table(("member", "is", ""), rows)


def _kind(document: Document, rule: Document) -> str:
    """Return the values that a member may have, in a few words."""
    if "$ref" in rule:
        name = rule["$ref"].rsplit("/", 1)[-1]
        target = _at(document, rule)
        if "properties" not in target:
            return _kind(document, target)
        message = _of_messages(document).get(name)
        return _link("object", name) if message is None else _link("message", message)
    if "anyOf" in rule:
        return " or ".join(_kind(document, each) for each in rule["anyOf"])
    if "const" in rule:
        return _code(rule["const"])
    if "enum" in rule:
        return " or ".join(map(_code, rule["enum"]))
    if rule.get("format") == "binary":
        return escape(_bytes(rule))
    words = [
        str(rule.get("type", "anything")),
        *(text.format(rule[name]) for name, text in _BOUNDS.items() if name in rule),
    ]
    pattern = rule.get("pattern", "")
    shown = f" {_code(pattern)}" if pattern and len(pattern) <= _LONGEST_PATTERN else ""
    return escape(", ".join(words)) + shown


def _bytes(rule: Document) -> str:
    least, most = rule.get("minLength", 0), rule.get("maxLength")
    return f"{most} bytes" if least == most else f"at most {most} bytes"


def _at(document: Document, part: Document) -> Document:
    """Return the part itself, or the target of its reference."""
    found: Any = part
    while "$ref" in found:
        steps = found["$ref"].removeprefix("#/").split("/")
        found = document
        for step in steps:
            found = found[step]
    return found  # type: ignore[no-any-return]


# --- pieces -----------------------------------------------------------------------------------------------------------


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table. Heads are text, cells are markup."""
    top = "".join(f"<th>{escape(head)}</th>" for head in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>\n" for row in rows)
    return f'<div class="wide"><table>\n<tr>{top}</tr>\n{body}</table></div>\n'


def _code(text: object) -> str:
    return f"<code>{escape(str(text))}</code>"


def _link(kind: str, name: str) -> str:
    return f'<a href="#{kind}-{escape(name)}">{escape(name)}</a>'
