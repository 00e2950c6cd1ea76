"""Files of variables, as many tools call ``.env`` (CONTRACT, Settings). Nothing in them is expanded or run."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from worker.settings import ENV_FILE, VARIABLES, SettingsError

_NAMED: Final = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)")
_SINGLE: Final = re.compile(r"'([^']*)'\s*(?:#.*)?")
_DOUBLE: Final = re.compile(r'"((?:[^"\\]|\\.)*)"\s*(?:#.*)?')
_COMMENT: Final = re.compile(r"(?:^|\s+)#.*")
_UNREAD: Final = f"the file of --env-file or {ENV_FILE} cannot be read"
_ESCAPED: Final[Mapping[str, str]] = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$"}


def read_env_file(path: Path) -> dict[str, str]:
    """Read the variables of a file. Raises ``SettingsError`` with each fault, its line, and no text of the file."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SettingsError(((str(path), f"{_UNREAD}: {error.strerror}"),)) from None
    except ValueError:
        raise SettingsError(((str(path), f"{_UNREAD}: not UTF-8 text"),)) from None
    found: dict[str, str] = {}
    faults = []
    for number, line in _lines(text):
        try:
            name, value = _variable(line)
            if name in found:
                raise ValueError(f"{name} is given twice")
            found[name] = value
        except ValueError as fault:
            faults.append((f"{path}:{number}", str(fault)))
    if faults:
        raise SettingsError(tuple(faults))
    return found


def not_given(variables: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """Return those of the variables that the environment does not give, neither itself nor by ``NAME_FILE``."""
    return {name: value for name, value in variables.items() if not any(map(environ.get, _same(name)))}


def _same(name: str) -> tuple[str, ...]:
    """Return the names by which the environment may give the same."""
    if name in VARIABLES:
        return name, f"{name}_FILE"
    bare = name.removesuffix("_FILE")
    return (name, bare) if bare in VARIABLES else (name,)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            yield number, stripped


def _variable(line: str) -> tuple[str, str]:
    named = _NAMED.fullmatch(line)
    if named is None:
        raise ValueError("neither NAME=VALUE nor a comment")
    name, rest = named.groups()
    if name == ENV_FILE:
        raise ValueError(f"{ENV_FILE} is for the environment")
    value = _value(rest)
    if "\0" in value:
        raise ValueError("a NUL character")
    return name, value


def _value(text: str) -> str:
    if text.startswith("'"):
        single = _SINGLE.fullmatch(text)
        if single is None:
            raise ValueError("the quote does not end, or something stands behind it")
        return single[1]
    if text.startswith('"'):
        double = _DOUBLE.fullmatch(text)
        if double is None:
            raise ValueError("the quote does not end, or something stands behind it")
        return re.sub(r"\\(.)", _unescaped, double[1])
    return _COMMENT.sub("", text)


def _unescaped(escape: re.Match[str]) -> str:
    if escape[1] not in _ESCAPED:
        raise ValueError(
            'in double quotes a backslash is written \\\\, and only \\n, \\r, \\t, \\" and \\$ are known beside'
        )
    return _ESCAPED[escape[1]]
