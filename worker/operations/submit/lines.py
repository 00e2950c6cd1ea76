"""Read a file of commands, NDJSON or CSV, record by record (CONTRACT, Command line).

A record is identified by the number of its first physical line and by the position of its bytes, so that it can be read
again without holding the file in memory.
"""

import csv
import hashlib
import io
import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Final, NamedTuple

import orjson

from effective_contract.codes import StatusCode
from effective_contract.rules.faults import quoted
from worker.errors import OperatorError
from worker.journey.decode.command import read_command
from worker.journey.model import Refused

LONGEST_LINE: Final = 1024 * 1024
"""Bytes of a line, and of a CSV record over several lines: the bound on memory for any file."""
SHOWN_CHARACTERS: Final = 1000
"""Characters of a line that is no command, in the refusals file."""
NAMES: Final = ("authentication_code", "identifier", "pass_code")
COLUMNS: Final = (*NAMES, "fields_set", "request_unique_identifier")
REMARKS: Final = ("line", "code", "message")
"""The columns of a refusals file beside those of a command."""
_BOM: Final = b"\xef\xbb\xbf"
_CHUNK: Final = 1024 * 1024


class UnusableFile(OperatorError):
    """The file cannot be submitted at all, or not with these options: wrong usage."""


class Record(NamedTuple):
    """A command as it is in the file. ``fault`` is set if it cannot even be read."""

    line: int
    start: int
    raw: bytes
    fault: Refused | None = None


class Ready(NamedTuple):
    """A command that the worker would take: the value to send, and the access token's name, to choose a partition."""

    value: bytes
    name: bytes


class Fingerprint(NamedTuple):
    """The identity of a file."""

    digest: str
    size: int
    lines: int


def fingerprint(file: BinaryIO) -> Iterator[Fingerprint]:
    """Read the whole file once, and yield the progress after every chunk; the last value is the file's fingerprint."""
    digest, size, lines, last = hashlib.sha256(), 0, 0, b"\n"
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
        size, lines, last = size + len(chunk), lines + chunk.count(b"\n"), chunk[-1:]
        yield Fingerprint("", size, lines)
    yield Fingerprint(digest.hexdigest(), size, lines + (last != b"\n"))


class Source(ABC):
    """A file of commands. Its ``repr`` shows none of its contents."""

    form: str
    header_lines: ClassVar[int] = 0

    def __init__(self, path: Path, *, max_bytes: int) -> None:
        """``max_bytes`` is the largest command that the worker takes. Raises ``UnusableFile``."""
        self.path = path
        self._max_bytes = max_bytes
        self._file = opened(path)

    def records(self) -> Iterator[Record]:
        """Return every record in order, without blank lines. One iteration at a time."""
        self._file.seek(0)
        return self._records(_lines(self._file))

    def read(self, start: int, length: int) -> bytes:
        """Return the bytes of a record that was read before."""
        return os.pread(self._file.fileno(), length, start)

    def fingerprint(self) -> Iterator[Fingerprint]:
        self._file.seek(0)
        return fingerprint(self._file)

    def close(self) -> None:
        self._file.close()

    def command(self, raw: bytes, token: str | None) -> Ready | Refused:
        """Return the command to send for a record, with ``token`` as its login if given; or the worker's refusal."""
        try:
            value = self._value(raw, token)
        except ValueError:
            # Neither too deep a nesting nor a lone surrogate can be written as JSON.
            return Refused(StatusCode.MALFORMED_REQUEST, "the command is not JSON in UTF-8")
        if isinstance(value, Refused):
            return value
        command = read_command(value, max_bytes=self._max_bytes)
        if isinstance(command, Refused):
            return command
        return Ready(value, (command.authentication_code or command.identifier or "").encode())

    @abstractmethod
    def _records(self, lines: Iterator[Record]) -> Iterator[Record]: ...

    @abstractmethod
    def _value(self, raw: bytes, token: str | None) -> bytes | Refused: ...


class Ndjson(Source):
    """A file with one command per line, or with the lines of a refusals file."""

    form = "ndjson"

    def _records(self, lines: Iterator[Record]) -> Iterator[Record]:
        return (record for record in lines if record.fault is not None or not record.raw.isspace())

    def _value(self, raw: bytes, token: str | None) -> bytes | Refused:
        body, whole = _inner(raw)
        if isinstance(body, bytes) or (whole and token is None):
            return body if isinstance(body, bytes) else raw.strip()
        return orjson.dumps(body if token is None else body | {"token": token})

    def refusal(self, record: Record, refused: Refused) -> bytes:
        """Return the line of the refusals file: the command without its login token, or the text of no command."""
        said: dict[str, Any] = {"line": record.line, "status": {"code": refused.code, "message": refused.message}}
        body, _ = _inner(record.raw)
        if isinstance(body, bytes):
            said["text"] = _text(body)[:SHOWN_CHARACTERS]
        else:
            said["command"] = {name: body[name] for name in body if name != "token"}
        try:
            return orjson.dumps(said) + b"\n"
        except orjson.JSONEncodeError:  # nested too deeply
            return self.refusal(Record(record.line, record.start, b""), refused)


class Csv(Source):
    """A file with a header, and a command per record. Needs a separate login token. Reads refusals files, too."""

    form = "csv"
    header_lines = 1

    def __init__(self, path: Path, *, max_bytes: int) -> None:
        super().__init__(path, max_bytes=max_bytes)
        first = next(self._whole(_lines(self._file)), None)
        try:
            self.columns = [] if first is None else self._columns(first)
        except UnusableFile:
            self.close()
            raise

    def _columns(self, header: Record) -> list[str]:
        names = [] if header.fault is not None else [name.strip() for name in _row(header.raw) or []]
        if not names:
            raise UnusableFile(f"{self.path}: line {header.line} is no header of a CSV file in UTF-8")
        for place, name in enumerate(names):
            if name not in COLUMNS and name not in REMARKS:
                raise UnusableFile(f'{self.path}: the unknown column "{quoted(name)}"; there are {", ".join(COLUMNS)}')
            if name in names[:place]:
                raise UnusableFile(f"{self.path}: the column {name} is there twice")
        if not {"authentication_code", "identifier"} & {*names}:
            raise UnusableFile(f"{self.path}: neither the column authentication_code nor identifier is there")
        return names

    def _records(self, lines: Iterator[Record]) -> Iterator[Record]:
        records = self._whole(lines)
        next(records, None)
        return records

    def _whole(self, lines: Iterator[Record]) -> Iterator[Record]:
        """Join the lines of each record. A line whose quotes do not pair up is refused; reading goes on after it."""
        waiting: deque[Record] = deque()
        while True:
            first = waiting.popleft() if waiting else next(lines, None)
            if first is None:
                return
            if first.fault is None and b'"' in first.raw:
                taken = [first]
                if _ends(taken, waiting, lines):
                    yield Record(first.line, first.start, b"".join(each.raw for each in taken))
                else:
                    waiting.extendleft(reversed(taken[1:]))
                    yield first._replace(fault=Refused(StatusCode.MALFORMED_REQUEST, "the quotes do not pair up"))
            elif first.fault is not None or not first.raw.isspace():
                yield first

    def _value(self, raw: bytes, token: str | None) -> bytes | Refused:
        row = _row(raw)
        if row is None:
            return Refused(StatusCode.MALFORMED_REQUEST, "the record is not CSV in UTF-8")
        if len(row) != len(self.columns):
            what = f"the record has {len(row)} fields, and the header {len(self.columns)}"
            return Refused(StatusCode.MALFORMED_REQUEST, what)
        given = {name: text for name, text in zip(self.columns, row, strict=True) if text and name not in REMARKS}
        body: dict[str, Any] = {"token": token}
        body["access_token_identifier"] = {name: given.pop(name) for name in NAMES if name in given}
        return orjson.dumps(body | given)

    def heading(self) -> list[str]:
        """Return the header of the refusals file."""
        return [*(name for name in self.columns if name not in REMARKS), *REMARKS]

    def refusal(self, record: Record, refused: Refused) -> list[str]:
        """Return the record of the refusals file, under its header; surplus fields come last."""
        row = _row(record.raw) or [_text(record.raw).strip()[:SHOWN_CHARACTERS]]
        given = dict(zip(self.columns, row, strict=False))
        kept = [given.get(name, "") for name in self.columns if name not in REMARKS]
        return [*kept, str(record.line), refused.code, refused.message, *row[len(self.columns) :]]


def source_of(path: Path, *, as_csv: bool, max_bytes: int) -> Ndjson | Csv:
    """Open the file, as CSV by its name or if told so. Raises ``UnusableFile``."""
    kind = Csv if as_csv or path.suffix.lower() == ".csv" else Ndjson
    return kind(path, max_bytes=max_bytes)


def opened(path: Path) -> BinaryIO:
    """Open the file, which must be readable twice. Raises ``UnusableFile``."""
    if str(path) == "-":
        raise UnusableFile("standard input cannot be read twice: give a file")
    try:
        if not path.is_file():
            raise UnusableFile(f"{path} is no file" if path.exists() else f"{path} cannot be read: no such file")
        return path.open("rb", buffering=_CHUNK // 4)
    except OSError as error:
        raise UnusableFile(f"{path} cannot be read: {error.strerror}") from error


def _inner(raw: bytes) -> tuple[dict[str, Any] | bytes, bool]:
    """Return the command in a line, or its text if there is none; and True if that is the line itself.

    A line of a refusals file has either inside.
    """
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return raw.strip(), True
    if type(body) is not dict:
        return raw.strip(), True
    command, text = body.get("command"), body.get("text")
    if body.keys() <= {"line", "status", "command", "text"} and (type(command) is dict) != (type(text) is str):
        return (command, False) if isinstance(command, dict) else (_inner(str(text).encode())[0], False)
    return body, True


def _lines(file: BinaryIO) -> Iterator[Record]:
    """Yield the physical lines. Only the beginning of a line that is too long is kept."""
    line, start = 0, 0
    while raw := file.readline(LONGEST_LINE + 1):
        line, length = line + 1, len(raw)
        if length > LONGEST_LINE and raw[-1:] != b"\n":
            while more := file.readline(LONGEST_LINE):
                length += len(more)
                if more[-1:] == b"\n":
                    break
            fault = Refused(StatusCode.MALFORMED_REQUEST, f"the line is longer than {LONGEST_LINE} bytes")
            yield Record(line, start, raw[:SHOWN_CHARACTERS], fault)
        elif line == 1 and raw.startswith(_BOM):
            yield Record(line, start + len(_BOM), raw[len(_BOM) :])
        else:
            yield Record(line, start, raw)
        start += length


def _ends(taken: list[Record], waiting: deque[Record], lines: Iterator[Record]) -> bool:
    """Add lines to the first of a record until its quotes are closed. Returns False if they never are."""

    def texts() -> Iterator[str]:
        yield _text(taken[0].raw)
        size = len(taken[0].raw)
        while size < LONGEST_LINE:
            following = waiting.popleft() if waiting else next(lines, None)
            if following is None:
                return
            taken.append(following)
            size += len(following.raw)
            if following.fault is not None:
                return
            yield _text(following.raw)

    try:
        return next(csv.reader(texts(), strict=True), None) is not None
    except csv.Error:
        return False


def _row(raw: bytes) -> list[str] | None:
    try:
        return next(csv.reader(io.StringIO(raw.decode(), newline=""), strict=True), None)
    except (UnicodeDecodeError, csv.Error):
        return None


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")
