"""The AsyncAPI 3 document: channels, operations, request and reply, as the worker has them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from effective_contract import __version__
from effective_contract.codes import StatusCode
from effective_contract.headers import JSON_CONTENT
from effective_contract.methods import METHODS, SET_EFFECTIVE, Method, Methods
from effective_contract.statuses import meanings
from worker.operations.contract.deployment import Deployment
from worker.operations.contract.json_schemas import JsonSchema, described, json_schema, title_of
from worker.operations.contract.samples import SAMPLES, Record, Sample, shown

Document = dict[str, Any]

_DAY_MS: Final = 24 * 60 * 60 * 1000
STRUCTURED: Final = "application/cloudevents+json"


def asyncapi(deployment: Deployment, methods: Methods = METHODS) -> Document:
    """Return the document as an object to write as JSON. It holds no secrets: it names mechanisms, not credentials."""
    return {
        "asyncapi": "3.0.0",
        "id": "urn:effective-worker",
        "info": _info(deployment),
        "defaultContentType": JSON_CONTENT,
        "servers": dict(_servers(deployment)),
        "channels": _channels(deployment, methods),
        "operations": _operations(deployment, methods),
        "components": {
            "schemas": _schemas(methods),
            "messages": _messages(methods),
            "securitySchemes": _SECURITY,
            "correlationIds": {
                "correlationId": {
                    "description": "Opaque bytes that the sender chose, returned with the answer.",
                    "location": "$message.header#/correlation_id",
                },
                "commandId": {
                    "description": "By which an event knows its command: a rec: id, or the keyed digest of another.",
                    "location": "$message.payload#/command_id",
                },
            },
            "replyAddresses": {
                "replyTo": {
                    "description": "The topic that the command names; the results topic if it names none.",
                    "location": "$message.header#/reply_to",
                }
            },
        },
    }


def _info(deployment: Deployment) -> Document:
    return {
        "title": "effective-worker",
        "version": __version__,
        "description": (
            "Sets access tokens effective. Send a command, and exactly one result comes back; every change is a "
            "transition event as well. Read results with isolation.level=read_committed: that is where exactly one "
            f"holds. A command is at most {deployment.max_command_bytes} bytes, and its id is remembered for "
            f"{deployment.record_retention_days} days. Who asks is said by the login token in the command, not by the "
            "connection."
        ),
        "license": {"name": "Apache-2.0"},
        "tags": [{"name": "access tokens"}],
    }


# --- servers ----------------------------------------------------------------------------------------------------------

_SECURITY: Final[Mapping[str, Document]] = {
    "plain": {"type": "plain", "description": "SASL/PLAIN: user name and password, only over TLS."},
    "scramSha256": {"type": "scramSha256", "description": "SASL/SCRAM-SHA-256: user name and password."},
    "scramSha512": {"type": "scramSha512", "description": "SASL/SCRAM-SHA-512: user name and password."},
    "certificate": {"type": "X509", "description": "A client certificate, where the broker asks for one."},
}
_SCHEMES: Final = {"PLAIN": "plain", "SCRAM-SHA-256": "scramSha256", "SCRAM-SHA-512": "scramSha512"}


def _servers(deployment: Deployment) -> Iterator[tuple[str, Document]]:
    secure = deployment.security_protocol.endswith("SSL")
    schemes = []
    if deployment.security_protocol.startswith("SASL") and deployment.sasl_mechanism is not None:
        schemes.append(_ref("securitySchemes", _SCHEMES[deployment.sasl_mechanism]))
    if deployment.client_certificate:
        schemes.append(_ref("securitySchemes", "certificate"))
    for number, host in enumerate(deployment.bootstrap_servers.split(","), start=1):
        server: Document = {
            "host": host.strip(),
            "protocol": "kafka-secure" if secure else "kafka",
            "description": f"Apache Kafka 4.0 or later, {deployment.security_protocol}.",
        }
        yield f"broker{number}", server | ({"security": schemes} if schemes else {})


# --- channels and operations ------------------------------------------------------------------------------------------


def _named(method: Method, message: str) -> str:
    """Return the name of a message of this method. Those of set effective, the first method, have none of it."""
    return message if method is SET_EFFECTIVE else f"{_camel(method)}{message[0].upper()}{message[1:]}"


def _camel(method: Method) -> str:
    first, *others = method.name.split("_")
    return first + "".join(map(str.title, others))


def _commands(method: Method) -> tuple[str, str]:
    return _named(method, "command"), _named(method, "structuredCommand")


def _channels(deployment: Deployment, methods: Methods) -> Document:
    taken, kept = [name for method in methods.all for name in _commands(method)], _topic(7 * _DAY_MS)
    answers = [_named(method, "result") for method in methods.all]
    commands = {
        "commands": _channel(
            deployment.commands,
            "Commands. The sender chooses the key: an opaque, stable id of the access token, never a code or an "
            "identifier, because keys are copied on.",
            taken,
            kept,
        )
    }
    if deployment.bulk_commands is not None:
        commands["bulkCommands"] = _channel(
            deployment.bulk_commands,
            "The same commands, many of them and none in a hurry: they give way to those of the other topic.",
            taken,
            kept,
        )
    return {
        **commands,
        "results": _channel(
            deployment.results,
            "Answers to commands that name no other topic. They hold personal data.",
            answers,
            _topic(7 * _DAY_MS),
        ),
        "replies": _channel(
            None,
            "A topic of the sender's own, named by reply_to or kafka_replyTopic in the command. It must match the "
            "worker's allow-list, exist, and have the partition of kafka_replyPartition.",
            answers,
            None,
        ),
        "transitions": _channel(
            deployment.transitions,
            "Every change of an access token's life-cycle state, forever. No personal data.",
            ("transition",),
            _topic(-1),
        ),
        "deadLetters": _channel(
            deployment.dead_letters,
            "Commands that could not be read or processed, their secrets replaced by ***.",
            ("deadLetter",),
            _topic(14 * _DAY_MS),
        ),
    }


def _channel(address: str | None, description: str, messages: Sequence[str], topic: Document | None) -> Document:
    channel: Document = {
        "address": address,
        "description": description,
        "messages": {name: _ref("messages", name) for name in messages},
    }
    return channel if topic is None else channel | {"bindings": {"kafka": {"topic": address, **topic}}}


def _topic(retention_ms: int) -> Document:
    return {
        "partitions": 12,
        "topicConfiguration": {"cleanup.policy": ["delete"], "retention.ms": retention_ms},
        "bindingVersion": "0.5.0",
    }


def _operations(deployment: Deployment, methods: Methods) -> Document:
    return {
        **{name: each for method in methods.all for name, each in _receiving(deployment, method)},
        **{
            _named(method, "answer"): {
                "action": "send",
                "channel": {"$ref": "#/channels/results"},
                "summary": "Answer a command that names no other topic.",
                "messages": _of("results", _named(method, "result")),
            }
            for method in methods.all
        },
        "tellTransition": {
            "action": "send",
            "channel": {"$ref": "#/channels/transitions"},
            "summary": "Tell that an access token has changed its state.",
            "messages": _of("transitions", "transition"),
        },
        "keepDeadLetter": {
            "action": "send",
            "channel": {"$ref": "#/channels/deadLetters"},
            "summary": "Keep a command that could not be read or processed.",
            "messages": _of("deadLetters", "deadLetter"),
        },
    }


def _receiving(deployment: Deployment, method: Method) -> Iterator[tuple[str, Document]]:
    name, reached = _camel(method), method.reached
    yield name, _receive(deployment, method, "commands", f"Set an access token {reached}.")
    if deployment.bulk_commands is not None:
        yield f"{name}InBulk", _receive(deployment, method, "bulkCommands", f"Set many access tokens {reached}.")


def _receive(deployment: Deployment, method: Method, channel: str, summary: str) -> Document:
    return {
        "action": "receive",
        "channel": {"$ref": f"#/channels/{channel}"},
        "summary": summary,
        "description": "Answered exactly once, whatever the status. Sending it again under its id is safe.",
        "messages": _of(channel, *_commands(method)),
        "bindings": {"kafka": {"groupId": {"type": "string", "const": deployment.group}, "bindingVersion": "0.5.0"}},
        "reply": {
            "address": _ref("replyAddresses", "replyTo"),
            "channel": {"$ref": "#/channels/replies"},
            "messages": _of("replies", _named(method, "result")),
        },
    }


def _of(channel: str, *messages: str) -> list[Document]:
    return [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in messages]


# --- messages ---------------------------------------------------------------------------------------------------------

_OPAQUE_KEY: Final = {"type": "string", "description": "Any bytes, or none."}
_TOKEN_KEY: Final = {"type": "string", "description": "{organisation}:{access_token_id}"}


def _messages(methods: Methods) -> Document:
    return {
        **{name: message for method in methods.all for name, message in _messages_of(method)},
        "transition": {
            "title": "An access token has changed its state",
            "headers": _ref("schemas", "TransitionHeaders"),
            "payload": _ref("schemas", "TransitionEvent"),
            "correlationId": _ref("correlationIds", "commandId"),
            "contentType": JSON_CONTENT,
            "bindings": _key(_TOKEN_KEY),
            "examples": [_example(each, each.transition) for each in SAMPLES if each.transition is not None],
        },
        "deadLetter": {
            "title": "A command that could not be read or processed",
            "description": "The command's value as it came, or the same JSON object with its secrets replaced.",
            "headers": _ref("schemas", "DeadLetterHeaders"),
            "payload": {"description": "Any bytes, or none."},
            "contentType": "application/octet-stream",
            "bindings": _key({"type": "string", "description": "The command's key."}),
            "examples": [
                _example(each, each.dead_letter)
                for each in SAMPLES
                if each.dead_letter is not None and each.dead_letter.is_json
            ],
        },
    }


def _messages_of(method: Method) -> Iterator[tuple[str, Document]]:
    """Yield the messages that each method has under types of its own. The samples are of set effective."""
    samples = SAMPLES if method is SET_EFFECTIVE else ()
    yield (
        _named(method, "command"),
        {
            "title": f"Set an access token {method.reached}",
            "headers": _ref("schemas", title_of(method, "CommandHeaders")),
            "payload": _ref("schemas", "SetEffectiveCommand"),
            "correlationId": _ref("correlationIds", "correlationId"),
            "contentType": JSON_CONTENT,
            "bindings": _key(_OPAQUE_KEY),
            "examples": _command_examples(samples, structured=False),
        },
    )
    yield (
        _named(method, "structuredCommand"),
        {
            "title": "The same, as a CloudEvent in structured mode",
            "headers": _ref("schemas", title_of(method, "CommandHeaders")),
            "payload": _ref("schemas", title_of(method, "StructuredCommand")),
            "correlationId": _ref("correlationIds", "correlationId"),
            "contentType": STRUCTURED,
            "bindings": _key(_OPAQUE_KEY),
            "examples": _command_examples(samples, structured=True),
        },
    )
    yield (
        _named(method, "result"),
        {
            "title": "What became of a command",
            "headers": _ref("schemas", title_of(method, "ResultHeaders")),
            "payload": _ref("schemas", "Result"),
            "correlationId": _ref("correlationIds", "correlationId"),
            "contentType": JSON_CONTENT,
            "bindings": _key({"type": "string", "description": "The command's key."}),
            "examples": [_example(each, each.result) for each in samples],
            "x-statuses": _statuses(method),
        },
    )


def _command_examples(samples: Sequence[Sample], *, structured: bool) -> list[Document]:
    return [
        _example(sample, sample.command)
        for sample in samples
        if sample.command.is_json and sample.command.is_structured is structured and _is_right(sample)
    ]


def _is_right(sample: Sample) -> bool:
    """True if the command itself is well formed, whatever the worker says about its login and access token."""
    wrong = {StatusCode.MALFORMED_REQUEST, StatusCode.MISSING_PARAMETER, StatusCode.INVALID_PARAMETER}
    return sample.status not in wrong


def _key(schema: JsonSchema) -> Document:
    return {"kafka": {"key": schema, "bindingVersion": "0.5.0"}}


def _example(sample: Sample, record: Record) -> Document:
    document = shown(record)
    return {
        "name": sample.name,
        "summary": sample.about,
        "headers": document["headers"],
        "payload": document["value"],
    }


def _statuses(method: Method) -> list[Document]:
    return [
        {"code": code.value, "description": method.description(code), "when": meaning.when, "retry": meaning.retry}
        for code, meaning in meanings(method).items()
    ]


# --- schemas ----------------------------------------------------------------------------------------------------------


def _schemas(methods: Methods) -> Document:
    found: Document = {}
    for name in described(methods):
        schema = json_schema(name, methods)
        definitions = schema.pop("$defs", {})
        del schema["$schema"], schema["$id"]
        found |= {title: _here(part) for title, part in {**definitions, schema["title"]: schema}.items()}
    return dict(sorted(found.items()))


def _here(schema: Any) -> Any:
    """Return a schema in AsyncAPI's form: the draft of 2018, with its definitions among the components."""
    if isinstance(schema, list):
        return [_here(each) for each in schema]
    if isinstance(schema, dict):
        renamed = {"dependencies" if name == "dependentRequired" else name: each for name, each in schema.items()}
        return {name: _here(each) for name, each in renamed.items()}
    return schema.replace("#/$defs/", "#/components/schemas/") if isinstance(schema, str) else schema


def _ref(kind: str, name: str) -> Document:
    return {"$ref": f"#/components/{kind}/{name}"}
