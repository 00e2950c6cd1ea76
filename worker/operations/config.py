"""The settings as an operator asks for them: each with its variable, value, origin and default, and no secret."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, get_args

from pydantic import SecretStr

from worker.dsn import masked_dsn
from worker.observability.logs import masked_text
from worker.settings import VARIABLES, Reading, Settings, examine, field_of

MASKED: Final = "***"
_DSNS: Final = {("postgres", "dsn"), ("postgres", "owner_dsn")}


@dataclass(frozen=True, slots=True)
class Origin:
    """The place that a value comes from: ``default``, ``environment``, or the ``env_file`` of this name.

    ``file`` is the file that holds the value alone, if ``NAME_FILE`` names one.
    """

    kind: str
    env_file: str | None = None
    file: str | None = None

    def __str__(self) -> str:
        where = f"file {self.env_file}" if self.env_file else self.kind
        return f"{where}, in {self.file}" if self.file else where


@dataclass(frozen=True, slots=True)
class Shown:
    """A setting. ``value`` is the text that was given if a ``fault`` lies in it; of a secret both are masked."""

    variable: str
    value: Any
    origin: Origin
    default: Any
    secret: bool
    fault: str | None


def shown_settings(
    environ: Mapping[str, str], env_file: str | None = None, from_file: Mapping[str, str] | None = None
) -> tuple[list[Shown], Mapping[str, str]]:
    """Return every setting, and every fault by variable, those in variables that are no settings among them.

    ``from_file`` are the variables of ``environ`` that came from ``env_file``.
    """
    reading, from_file = examine(environ), from_file or {}
    return list(_all(reading, environ, env_file, from_file)), reading.faults


def _all(
    reading: Reading, environ: Mapping[str, str], env_file: str | None, from_file: Mapping[str, str]
) -> Iterator[Shown]:
    defaults = Settings()
    for variable, path in VARIABLES.items():
        named = f"{variable}_FILE"
        name = variable if environ.get(variable) else named
        fault = reading.faults.get(variable) or reading.faults.get(named)
        secret = _is_secret(path)
        if variable in reading.given and variable in reading.faults:
            value: Any = MASKED if secret else masked_text(reading.given[variable])
        else:
            value = _open(reading.settings, path)
        origin = Origin("default")
        if environ.get(name):
            file = environ[name] if name == named else None
            origin = Origin("env_file", env_file, file) if name in from_file else Origin("environment", None, file)
        yield Shown(variable, value, origin, _open(defaults, path), secret, fault)


def changed(settings: Settings) -> list[tuple[str, Any]]:
    """Return every setting with another value than its default, and the value; of a secret, ``MASKED``."""
    defaults = Settings()
    each = ((variable, _open(settings, path), _open(defaults, path)) for variable, path in VARIABLES.items())
    return [(variable, value) for variable, value, default in each if value != default]


def _is_secret(path: tuple[str, ...]) -> bool:
    return _mentions_secret(field_of(path).annotation)


def _mentions_secret(annotation: Any) -> bool:
    return annotation is SecretStr or any(map(_mentions_secret, get_args(annotation)))


def _open(settings: Any, path: tuple[str, ...]) -> Any:
    """Return a value without what is secret of it: of a DSN that is the password."""
    for name in path:
        settings = getattr(settings, name)
    value: Any = settings
    if isinstance(value, tuple):
        return [MASKED if isinstance(each, SecretStr) else each for each in value]
    if not isinstance(value, SecretStr):
        return value
    return masked_dsn(value.get_secret_value()) if path in _DSNS else MASKED
