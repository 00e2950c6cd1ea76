"""The settings (CONTRACT, Settings): read once from the environment, frozen, and all their faults reported together."""

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from effective_contract.headers import LONGEST_TOPIC, is_topic
from worker.dsn import DsnUnusable, is_this_machine, read_dsn
from worker.errors import OperatorError
from worker.values import counted

PREFIX: Final = "WORKER_"
ENV_FILE: Final = "WORKER_ENV_FILE"
"""The variable that names a file of further variables; no setting, and read by the command line alone."""
_SHORTEST_SECRET: Final = 32
# Variables that Kubernetes puts into the environment of every pod beside a service called "worker".
_SERVICE_LINKS: Final = re.compile(r"WORKER_(SERVICE_HOST|SERVICE_PORT|PORT)(_.+)?")


class SettingsError(OperatorError):
    """Faults in the settings. ``faults`` names the variable of each and what is wrong, never a secret's text."""

    def __init__(self, faults: tuple[tuple[str, str], ...]) -> None:
        super().__init__("; ".join(f"{variable}: {what}" for variable, what in faults))
        self.faults = faults


# --- kinds of values --------------------------------------------------------------------------------------------------


def _listed(value: object) -> object:
    return tuple(value.split(",")) if isinstance(value, str) else value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


def _servers(text: str) -> str:
    for server in text.split(","):
        host, colon, port = server.strip().rpartition(":")
        if not (host and colon and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            raise ValueError("not a comma-separated list of host:port")
    return text


def _topic(name: str) -> str:
    if not is_topic(name):
        raise ValueError(f"not a topic name: up to {LONGEST_TOPIC} letters, digits, '.', '_' and '-'")
    return name


def _dsn(secret: SecretStr) -> SecretStr:
    try:
        read_dsn(secret.get_secret_value())
    except DsnUnusable as fault:
        raise ValueError(str(fault)) from None
    return secret


def _role(name: str) -> str:
    # Postgres makes something else of "public" and "none" even in quotes, and shortens a longer name.
    if not 1 <= len(name.encode()) <= 63 or name in {"public", "none"} or name.startswith("pg_"):
        raise ValueError("not a name for a role: 1 to 63 bytes, not public or none, and not beginning with pg_")
    return name


def _readable(path: str) -> str:
    try:
        with Path(path).open("rb"):
            return path
    except OSError as error:
        raise ValueError(f"the file cannot be read: {error.strerror}") from None


def _strong(secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    faults = []
    for number, secret in enumerate(secrets, start=1):
        text = secret.get_secret_value()
        if not text.strip():
            faults.append(f"secret {number} of {len(secrets)} is empty")
        elif text != text.strip():
            faults.append(f"secret {number} of {len(secrets)} begins or ends with white space")
        elif len(text.encode()) < _SHORTEST_SECRET:
            faults.append(f"secret {number} of {len(secrets)} is shorter than {_SHORTEST_SECRET} bytes")
    if faults:
        raise ValueError(", ".join(faults))
    return secrets


def _trimmed(texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(text.strip() for text in texts)


def _patterns(patterns: tuple[str, ...]) -> tuple[str, ...]:
    trimmed = _trimmed(patterns)
    if not all(trimmed):
        raise ValueError("one of the patterns is empty")
    if not all(re.fullmatch(r"[a-zA-Z0-9._*?\[\]!-]+", pattern) for pattern in trimmed):
        raise ValueError(
            "one of the patterns can match no topic: give names, with *, ? and [...] as a shell reads them"
        )
    return trimmed


Topic = Annotated[str, AfterValidator(_topic)]
Dsn = Annotated[SecretStr, AfterValidator(_dsn)]
ReadableFile = Annotated[str, AfterValidator(_readable)]
Milliseconds = Annotated[int, Field(ge=100, le=3_600_000)]


# --- the settings -----------------------------------------------------------------------------------------------------


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class KafkaSettings(_Section):
    """Kafka connection and authentication."""

    bootstrap_servers: Annotated[str, AfterValidator(_servers)] = "localhost:9092"
    group_id: Annotated[str, Field(min_length=1, max_length=255)] = "effective-worker"
    security_protocol: Annotated[Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"], BeforeValidator(_upper)] = (
        "PLAINTEXT"
    )
    sasl_mechanism: Annotated[Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None, BeforeValidator(_upper)] = None
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    ssl_cafile: ReadableFile | None = None
    ssl_certfile: ReadableFile | None = None
    ssl_keyfile: ReadableFile | None = None
    session_timeout_ms: Milliseconds = 10_000
    transaction_timeout_ms: Milliseconds = 20_000
    request_timeout_ms: Milliseconds = 15_000
    group_instance_id: Annotated[str, Field(min_length=1, max_length=249)] | None = None

    @property
    def exposed(self) -> str | None:
        """The harm that others on the way to another machine might do; ``None`` if that is ruled out."""
        servers = [server.strip().rpartition(":")[0] for server in self.bootstrap_servers.split(",")]
        others = sorted({host for host in servers if not is_this_machine(host)})
        if "SSL" in self.security_protocol.split("_") or not others:
            return None
        too = ", and the password" if self.sasl_mechanism == "PLAIN" else ""
        return (
            f"{self.security_protocol}: logins and pass codes of commands{too} are readable on the way to"
            f" {', '.join(others)}"
        )


class TopicSettings(_Section):
    """The topics of CONTRACT, Topics, and the topics to which a sender may redirect its answers.

    ``bulk_commands`` is an optional second topic of commands, whose lanes give way to those of the first.
    ``reply_to_allowed`` are patterns as a shell reads them: ``*`` any characters, ``?`` one, ``[ab]`` one of these.
    """

    commands: Topic = "access-token.set-effective.commands"
    bulk_commands: Topic | None = None
    results: Topic = "access-token.set-effective.results"
    transitions: Topic = "access-token.transitions"
    dead_letters: Topic = "access-token.set-effective.dead-letters"
    reply_to_allowed: Annotated[tuple[str, ...], BeforeValidator(_listed), AfterValidator(_patterns)] = ()

    @property
    def read(self) -> tuple[str, ...]:
        """The topics that commands are read from."""
        return (self.commands,) if self.bulk_commands is None else (self.commands, self.bulk_commands)

    @property
    def own(self) -> tuple[str, ...]:
        """Every topic that the worker needs."""
        return (*self.read, self.results, self.transitions, self.dead_letters)


class PostgresSettings(_Section):
    """The logins to Postgres. ``dsn`` is the worker's own; ``owner`` is the schema's, for ``migrate`` and ``import``.

    The worker's login is a member of ``role``, which is granted what a worker needs: a role belongs to the whole
    server, so each installation there has one of its own.

    ``connections`` is the most that all lanes of a worker hold together: waiting for one costs a lane more time than a
    larger number would cost the database.
    """

    dsn: Dsn = SecretStr("postgresql://localhost/effective")
    owner_dsn: Dsn | None = None
    role: Annotated[str, AfterValidator(_role)] = "effective_worker"
    connections: Annotated[int, Field(ge=1, le=1000)] = 10

    @property
    def owner(self) -> SecretStr:
        return self.owner_dsn or self.dsn


class LoginSettings(_Section):
    """The secrets that verify login tokens, the signing one first, and the other rules for a login.

    ``expiry_clock`` judges their expiry; none lives longer than ``longest_seconds``; each names ``audience``, if set.
    """

    secrets: Annotated[tuple[SecretStr, ...], BeforeValidator(_listed), AfterValidator(_strong)] = ()
    expiry_clock: Annotated[Literal["processing", "append"], BeforeValidator(_lower)] = "processing"
    longest_seconds: Annotated[float, Field(ge=1, le=31_622_400)] = 7200
    audience: Annotated[str, Field(min_length=1, max_length=255)] | None = None


class AttemptSettings(_Section):
    """The guesses in a row that may fail before the next one must wait (CONTRACT, Attempts).

    ``codes`` and ``pass_codes`` are a caller's, ``identifier`` a caller's pass codes of one identifier, ``all_callers``
    those of all callers on one identifier. No wait is longer than ``longest_wait_seconds``.
    """

    codes: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    pass_codes: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    identifier: Annotated[int, Field(ge=1, le=1_000_000)] = 10
    all_callers: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    longest_wait_seconds: Annotated[float, Field(ge=1, le=2_678_400)] = 3600


class AdminSettings(_Section):
    """The port of health and metrics; 0 takes any free one.

    It answers to ``names`` in addition to addresses and the machine's own name.
    """

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    names: Annotated[tuple[str, ...], BeforeValidator(_listed), AfterValidator(_trimmed)] = ()


class LogSettings(_Section):
    """The log. ``format`` unset: JSON lines if stderr is not a terminal, otherwise lines for people."""

    level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = "info"
    format: Annotated[Literal["json", "console"] | None, BeforeValidator(_lower)] = None


class Settings(_Section):
    """Everything that can be set; the defaults are those of CONTRACT, Settings."""

    kafka: KafkaSettings = KafkaSettings()
    topics: TopicSettings = TopicSettings()
    postgres: PostgresSettings = PostgresSettings()
    login: LoginSettings = LoginSettings()
    attempts: AttemptSettings = AttemptSettings()
    digest_keys: Annotated[tuple[SecretStr, ...], BeforeValidator(_listed), AfterValidator(_strong)] = ()
    delivery: Annotated[Literal["exactly_once", "at_least_once"], BeforeValidator(_lower)] = "exactly_once"
    max_batch: Annotated[int, Field(ge=1, le=10_000)] = 500
    max_command_bytes: Annotated[int, Field(ge=1, le=16 * 1024 * 1024)] = 65_536
    record_retention_days: Annotated[int, Field(ge=1, le=36_500)] = 30
    drain_seconds: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] = 20
    reveal_verification_code: bool = False
    require_tls: bool = False
    admin: AdminSettings = AdminSettings()
    log: LogSettings = LogSettings()

    @property
    def exposed(self) -> Mapping[str, str]:
        """The unprotected connections to other machines: the variable of each, and the harm that may come of it."""
        found = {f"{PREFIX}KAFKA__SECURITY_PROTOCOL": self.kafka.exposed}
        for name, dsn in (("DSN", self.postgres.dsn), ("OWNER_DSN", self.postgres.owner_dsn)):
            if dsn is not None:
                found[f"{PREFIX}POSTGRES__{name}"] = read_dsn(dsn.get_secret_value()).exposed
        return {variable: what for variable, what in found.items() if what is not None}


# --- reading ----------------------------------------------------------------------------------------------------------

_Path = tuple[str, ...]


def _variables() -> Iterator[tuple[str, _Path]]:
    for name, member in Settings.model_fields.items():
        section = member.annotation
        if isinstance(section, type) and issubclass(section, _Section):
            for inner in section.model_fields:
                yield f"{PREFIX}{name}__{inner}".upper(), (name, inner)
        else:
            yield f"{PREFIX}{name}".upper(), (name,)


VARIABLES: Final[Mapping[str, _Path]] = dict(_variables())
"""Every variable that is read, with the path of its value in the settings."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The settings, as far as they can be read: those that cannot have their defaults, and a fault by variable."""

    settings: Settings
    given: Mapping[str, str] = field(repr=False)
    """The text of each variable that is given, by itself or by its file."""
    faults: Mapping[str, str]


def read_settings(environ: Mapping[str, str], *, needs_login: bool = False) -> Settings:
    """Read the settings from ``environ``; an empty variable counts as not given.

    Raises ``SettingsError`` with every fault at once. ``needs_login`` demands at least one login secret.
    """
    reading = examine(environ, needs_login=needs_login)
    if reading.faults:
        raise SettingsError(tuple(reading.faults.items()))
    return reading.settings


def examine(environ: Mapping[str, str], *, needs_login: bool = False) -> Reading:
    """Read the settings as ``read_settings`` does, faults or not."""
    given, faults = _given(environ)
    settings, wrong = _validated(given)
    faults |= wrong
    for variables, what in _contradictions(settings, needs_login=needs_login):
        # An unreadable value was replaced by its default, which no rule may judge.
        if not any(variable in faults for variable in variables):
            faults[variables[0]] = what
    return Reading(settings, given, faults)


def _given(environ: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the values by variable, and the faults by variable."""
    given, faults = {}, {}
    for name in sorted(environ):
        if not name.startswith(PREFIX) or _SERVICE_LINKS.fullmatch(name) or name == ENV_FILE or not environ[name]:
            continue
        variable = name if name in VARIABLES else name.removesuffix("_FILE")
        if variable not in VARIABLES:
            faults[name] = _unknown(name)
        elif variable == name:
            given[variable] = environ[name]
        elif environ.get(variable):
            faults[name] = f"given together with {variable}; give one of them"
        else:
            try:
                given[variable] = Path(environ[name]).read_text(encoding="utf-8").rstrip("\r\n")
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
                faults[name] = f"the file cannot be read: {reason}"
    return {name: value for name, value in given.items() if value}, faults


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name.removesuffix("_FILE"), VARIABLES, n=1)
    return f"no such setting; did you mean {near[0]}?" if near else "no such setting"


def _validated(given: Mapping[str, str]) -> tuple[Settings, dict[str, str]]:
    """Return the settings, with defaults for invalid values, and the faults by variable."""
    try:
        return Settings.model_validate(_nested(given)), {}
    except ValidationError as error:
        by_path = {path: variable for variable, path in VARIABLES.items()}
        faults: dict[str, str] = {}
        for fault in error.errors(include_input=False, include_url=False):
            location = tuple(str(part) for part in fault["loc"])
            variable = by_path.get(location[:2]) or by_path[location[:1]]
            faults.setdefault(variable, _in_words(fault, field_of(VARIABLES[variable])))
        good = {variable: value for variable, value in given.items() if variable not in faults}
        return Settings.model_validate(_nested(good)), faults


def field_of(path: _Path) -> FieldInfo:
    """Return the field of the model that holds a setting."""
    *sections, name = path
    section: Any = Settings.model_fields[sections[0]].annotation if sections else Settings
    found: FieldInfo = section.model_fields[name]
    return found


def _in_words(fault: ErrorDetails, field: FieldInfo) -> str:
    """Return what is wrong with a value, for people who know nothing of the library that found it."""
    kind, given = fault["type"], fault.get("ctx", {})
    if kind == "literal_error":
        return f"not one of {str(given['expected']).replace(' or ', ', ').replace(chr(39), '')}"
    if kind == "string_too_short":
        return f"shorter than {counted(given['min_length'], 'character')}"
    if kind == "string_too_long":
        return f"longer than {counted(given['max_length'], 'character')}"
    if kind.startswith("bool_"):
        return "neither true nor false"
    if field.annotation in _NUMBERS:
        return f"not {_NUMBERS[field.annotation]} {_range(field)}"
    return fault["msg"].removeprefix("Value error, ")


_NUMBERS: Final[Mapping[Any, str]] = {int: "a whole number", float: "a number"}


def _range(field: FieldInfo) -> str:
    bounds = {
        name: getattr(each, name) for each in field.metadata for name in ("ge", "gt", "le") if hasattr(each, name)
    }
    least = f"from {bounds['ge']} to" if "ge" in bounds else f"above {bounds['gt']} and up to"
    return f"{least} {bounds['le']}"


def _nested(given: Mapping[str, str]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for variable, value in given.items():
        *sections, name = VARIABLES[variable]
        (nested.setdefault(sections[0], {}) if sections else nested)[name] = value
    return nested


def _contradictions(settings: Settings, *, needs_login: bool) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield each broken rule that spans several settings: the variables, the one to mend first, and the fault."""
    yield from _timeouts(settings.kafka)
    yield from _security(settings.kafka)
    names = ("commands", "results", "transitions", "dead_letters", "bulk_commands")
    for position, name in enumerate(names):
        for former in names[:position]:
            if getattr(settings.topics, name) == getattr(settings.topics, former):
                here, there = f"{PREFIX}TOPICS__{name.upper()}", f"{PREFIX}TOPICS__{former.upper()}"
                yield (here, there), f"the same topic as {there}"
    if settings.require_tls:
        for variable, what in settings.exposed.items():
            yield (variable,), f"{what} (WORKER_REQUIRE_TLS is true)"
    if needs_login and not settings.login.secrets:
        variable = f"{PREFIX}LOGIN__SECRETS"
        yield (variable, f"{variable}_FILE"), f"not set: give one or more secrets of at least {_SHORTEST_SECRET} bytes"


def _timeouts(kafka: KafkaSettings) -> Iterator[tuple[tuple[str, ...], str]]:
    session, transaction, request = (
        f"{PREFIX}KAFKA__{name}_TIMEOUT_MS" for name in ("SESSION", "TRANSACTION", "REQUEST")
    )
    if kafka.transaction_timeout_ms < kafka.request_timeout_ms:
        yield (transaction, request), f"less than {request} ({kafka.request_timeout_ms})"
    # A rebalance may take a session's time, and the request that waits for it must not give up before.
    if kafka.session_timeout_ms >= kafka.request_timeout_ms:
        yield (session, request), f"not less than {request} ({kafka.request_timeout_ms})"


def _security(kafka: KafkaSettings) -> Iterator[tuple[tuple[str, ...], str]]:
    protocol = f"{PREFIX}KAFKA__SECURITY_PROTOCOL"
    sasl = "SASL" in kafka.security_protocol
    for name in ("sasl_mechanism", "sasl_username", "sasl_password"):
        variable = f"{PREFIX}KAFKA__{name.upper()}"
        given = getattr(kafka, name) is not None
        if sasl and not given:
            yield (variable, f"{variable}_FILE", protocol), f"not set, and {protocol} is {kafka.security_protocol}"
        if given and not sasl:
            yield (variable, protocol), f"set, but {protocol} is {kafka.security_protocol}"
    for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
        variable = f"{PREFIX}KAFKA__{name.upper()}"
        if getattr(kafka, name) is not None and "SSL" not in kafka.security_protocol.split("_"):
            yield (variable, protocol), f"set, but {protocol} is {kafka.security_protocol}"
    if kafka.ssl_keyfile is not None and kafka.ssl_certfile is None:
        variable = f"{PREFIX}KAFKA__SSL_CERTFILE"
        yield (variable, f"{PREFIX}KAFKA__SSL_KEYFILE"), "not set, but a key file is"
