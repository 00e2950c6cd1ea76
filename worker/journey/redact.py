"""Redact a command for a dead letter: its secrets are replaced, everything else stays as it came.

See CONTRACT, Dead letter.
"""

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Iterator
from typing import Final

import orjson

_SECRETS: Final = frozenset((b"token", b"pass_code"))
_TEXT: Final = b"data"
_ENCODED: Final = b"data_base64"
"""The members of a CloudEvent that may hold a whole command; as text, only by a sender's mistake."""
_MASK: Final = b'"***"'
# A string (perhaps without an end), a punctuation mark, or a run of anything else.
_PIECE: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[{}\[\]:,]|[^\s"{}\[\]:,]++', re.DOTALL)
# For text whose quotes do not pair up: all that follows a secret's name and a colon or an equals sign.
_LOOSE: Final = re.compile(
    rb"""((?:token|pass_code|data_base64)[\\"']*+\s*+[:=]\s*+)(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"?|'[^']*+'?|[^,}\r\n]++)""",
    re.DOTALL,
)


def masked(value: bytes | None) -> bytes | None:
    """Return the value as a dead letter may show it (CONTRACT, Dead letter): its secrets replaced, all else as it came.

    ``token`` and ``pass_code`` are replaced at any depth, whatever their value, and everything between them stays byte
    for byte. A sender's mistake (a cut-off object, an array of commands, a command written as a string) holds the same
    secrets as a command. So a value that is no object is searched as well, loosely if it is no JSON; without secrets it
    stays as it came. ``data_base64`` of a CloudEvent, and text in its ``data``, are decoded, searched, and written
    again.
    """
    if value is None:
        return None
    text = _without_secrets(value)
    if not _is_object_or_array(value):
        text = _LOOSE.sub(rb"\1" + _MASK, text)
        if text == value and b"\0" in value[:4]:
            text = _wide_without_secrets(value)
    return text


def _is_object_or_array(value: bytes) -> bool:
    try:
        return isinstance(orjson.loads(value), dict | list)
    except orjson.JSONDecodeError:
        return False


def _without_secrets(text: bytes) -> bytes:
    kept: list[bytes] = []
    copied = 0
    previous = b""
    pieces = _PIECE.finditer(text)
    for piece in pieces:
        if piece[0] == b":":
            name = _named(previous)
            if name in _SECRETS or name == _ENCODED:
                start, end = _span_of_value(pieces, len(text))
                kept += (text[copied:start], _MASK if name in _SECRETS else _encoded_without_secrets(text[start:end]))
                copied = end
            elif name == _TEXT and (piece := next(pieces, piece))[0][:1] == b'"':
                kept += (text[copied : piece.start()], _text_without_secrets(piece[0]))
                copied = piece.end()
        previous = piece[0]
    return b"".join((*kept, text[copied:]))


def _span_of_value(pieces: Iterator[re.Match[bytes]], end: int) -> tuple[int, int]:
    """Return the start and the end of the next value. Takes its pieces; counts brackets instead of recursing."""
    start, depth = end, 0
    for piece in pieces:
        start = min(start, piece.start())
        if piece[0] in (b"{", b"["):
            depth += 1
        elif piece[0] in (b"}", b"]"):
            depth -= 1
        if depth <= 0:
            return start, piece.end()
    return start, end


def _named(piece: bytes) -> bytes:
    """Return the name in a piece before a colon, its escapes resolved."""
    if b"\\" in piece:
        try:
            return bytes(orjson.loads(piece).encode())
        except ValueError:
            return b""
    return piece.strip(b'"')


def _text_without_secrets(piece: bytes) -> bytes:
    """Mask the secrets in a piece that is a string, which may hold a command."""
    try:
        data = orjson.loads(piece).encode()
    except ValueError:
        return _MASK
    hidden = masked(data) or b""
    return piece if hidden == data else orjson.dumps(hidden.decode("utf-8", "replace"))


def _encoded_without_secrets(piece: bytes) -> bytes:
    """Mask the secrets in the value of ``data_base64``, which is JSON. One that cannot be decoded is masked whole."""
    if piece == b"null":
        return piece
    try:
        data = b64decode(orjson.loads(piece), validate=True)
    except (ValueError, TypeError):
        return _MASK
    hidden = masked(data)
    return piece if hidden == data or hidden is None else b'"' + b64encode(hidden) + b'"'


def _wide_without_secrets(value: bytes) -> bytes:
    """Mask the secrets in UTF-16 or UTF-32 text: no JSON to the worker, but a sender's mistake may hold a command."""
    text = value.decode(json.detect_encoding(value), "replace").encode("utf-8", "replace")
    hidden = _LOOSE.sub(rb"\1" + _MASK, _without_secrets(text))
    return value if hidden == text else hidden
