"""The DSN of Postgres, by the rules of libpq. Parameters that the client would overlook are applied here, or refused.

No error text quotes a part of a DSN that may belong to a password.
"""

import difflib
import re
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Final, Literal
from urllib.parse import SplitResult, quote, unquote, urlsplit, urlunsplit

from asyncpg import connect_utils

from worker.errors import OperatorError

LONGEST_CONNECT_SECONDS: Final = 30

_LIKE: Final = "not a DSN like postgresql://user:password@host:5432/database"
_ENCODE: Final = (
    "cannot be read: in a user name or password @ must be written as %40, / as %2F, ? as %3F, # as %23, % as %25, [ as"
    " %5B, ] as %5D, and white space as %20"
)
_SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")

# The parameters that the client reads by itself.
_READ: Final = frozenset(
    (
        "service",
        "host",
        "port",
        "dbname",
        "database",
        "user",
        "password",
        "passfile",
        "target_session_attrs",
        "sslmode",
        "sslcert",
        "sslkey",
        "sslrootcert",
        "sslcrl",
        "sslpassword",
        "sslnegotiation",
        "ssl_min_protocol_version",
        "ssl_max_protocol_version",
        "krbsrvname",
        "gsslib",
    )
)
_SESSION: Final = frozenset({"application_name", "options"})
# The parameters whose listed values ask only for what is done anyway, so that they can be left out.
_AS_IT_IS: Final[Mapping[str, frozenset[str]]] = {
    "channel_binding": frozenset({"disable", "prefer"}),
    "client_encoding": frozenset({"UTF8", "utf8", "UTF-8", "utf-8", "auto"}),
    "gssdelegation": frozenset({"0"}),
    "gssencmode": frozenset({"disable", "prefer"}),
    "load_balance_hosts": frozenset({"disable"}),
    "max_protocol_version": frozenset({"3.0", "3.2", "latest"}),
    "min_protocol_version": frozenset({"3.0"}),
    "replication": frozenset({"false", "off", "no", "0"}),
    "sslcertmode": frozenset({"allow"}),
    "sslcompression": frozenset({"0"}),
    "sslsni": frozenset({"1"}),
}
_SOCKET: Final[Mapping[str, tuple[int, int | None]]] = {
    "keepalives": (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
    "keepalives_idle": (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPIDLE", None)),
    "keepalives_interval": (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPINTVL", None)),
    "keepalives_count": (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPCNT", None)),
    "tcp_user_timeout": (socket.IPPROTO_TCP, getattr(socket, "TCP_USER_TIMEOUT", None)),
}
# The rest of libpq's parameters. Some of them protect the connection, so none may be ignored.
_UNABLE: Final = frozenset(
    (
        "hostaddr",
        "require_auth",
        "requirepeer",
        "requiressl",
        "servicefile",
        "sslcrldir",
        "sslkeylogfile",
        "oauth_client_id",
        "oauth_client_secret",
        "oauth_issuer",
        "oauth_scope",
        "scram_client_key",
        "scram_server_key",
    )
)
# The parameters that hold no secret, in spite of anybody's habits.
_OPEN: Final = frozenset(
    (
        *("host", "port", "dbname", "database", "user", "target_session_attrs", "sslmode", "sslcert", "sslkey"),
        *("sslrootcert", "application_name", "connect_timeout", *_SOCKET),
    )
)
_KNOWN: Final = (
    *_READ,
    *_SESSION,
    *_AS_IT_IS,
    *_SOCKET,
    *_UNABLE,
    "connect_timeout",
    "fallback_application_name",
)


class DsnUnusable(OperatorError):
    """A DSN that cannot be read, or that asks for something impossible; the text says what, and quotes no secret."""


@dataclass(frozen=True, slots=True)
class Address:
    """A DSN for the client: the part that it understands, and the settings that it would not."""

    dsn: str = field(repr=False)
    session: dict[str, str]
    """The session parameters that the server must set."""
    connect_seconds: float | None
    """The most seconds that connecting may take, over all hosts; ``None`` if the DSN leaves that open."""
    socket_options: tuple[tuple[int, int, int], ...]
    servers: str
    """Host and port of each server, or its socket, as they stand in messages."""
    exposed: str | None
    """The harm that others on the way to another machine might do; ``None`` if that is ruled out."""

    def set_socket(self, connection: Any) -> None:
        """Set up a new connection's socket as the DSN has it; one of this machine needs no keep-alive."""
        opened = connection._transport.get_extra_info("socket")
        if opened is not None and opened.family != socket.AF_UNIX:
            for option in self.socket_options:
                opened.setsockopt(*option)


def read_dsn(text: str) -> Address:
    """Read a DSN. Raises ``DsnUnusable``."""
    parts = _split(text)
    given = _parameters(parts.query)
    for name in sorted(_said_in_front(parts) & given.keys()):
        # libpq takes the parameter, the client the part in front.
        raise DsnUnusable(f"{name} is given as a parameter, and the same stands before it: give one of them")
    for name, value in given.items():
        _judge(name, value)
    kept = "&".join(f"{name}={quote(value, safe='')}" for name, value in given.items() if name in _READ)
    dsn = urlunsplit((parts.scheme, parts.netloc, parts.path, kept, ""))
    addresses, sslmode, tls = _read_by_the_client(dsn)
    hosts = (given.get("host") or parts.netloc.rpartition("@")[2]).count(",") + 1
    timeout = given.get("connect_timeout")
    return Address(
        dsn,
        {name: given[name] for name in sorted(_SESSION & given.keys())},
        None if timeout is None else float(timeout) * hosts,  # libpq grants it to each of them
        _socket_options(given),
        ", ".join(map(_place, addresses)),
        _exposed(addresses, sslmode, tls),
    )


def masked_dsn(text: str) -> str:
    """Return a DSN that can be read, without its password and whatever else may be secret."""
    parts = _split(text)
    login, at, hosts = parts.netloc.rpartition("@")
    user, colon, _ = login.partition(":")
    shown = "&".join(
        f"{name}={quote(value, safe='') if name in _OPEN else '***'}"
        for name, value in _parameters(parts.query).items()
    )
    return f"{parts.scheme}://{user}{':***' if colon else ''}{at}{hosts}{parts.path}{'?' if shown else ''}{shown}"


def _place(address: str | tuple[str, int]) -> str:
    if isinstance(address, str):
        return address
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_this_machine(host: str) -> bool:
    """True for a name or an address of the loopback."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _exposed(
    addresses: Sequence[str | tuple[str, int]], sslmode: int, tls: ssl.SSLContext | Literal[False]
) -> str | None:
    others = sorted(
        {address[0] for address in addresses if not isinstance(address, str) and not is_this_machine(address[0])}
    )
    if not others:
        return None
    where = ", ".join(others)
    if not tls or sslmode < _SSL_MODES.index("require"):
        return f"without sslmode=verify-full, all that goes to and from {where} may be readable on the way"
    if tls.verify_mode is not ssl.CERT_REQUIRED:
        return f"without sslmode=verify-full, nothing verifies that {where} is what answers"
    return None


def _split(text: str) -> SplitResult:
    if not text.startswith(("postgresql://", "postgres://")):
        raise DsnUnusable(_LIKE)
    try:
        parts = urlsplit(text)
        for part in (parts.netloc, parts.path, parts.query):
            unquote(part, errors="strict")
    except ValueError:
        raise DsnUnusable(_ENCODE) from None
    # A raw character in a password ends the part that it is in, and then the @ comes later than it should.
    if re.search(r"[\x00-\x20\x7f#]|%00|%(?![0-9A-Fa-f]{2})", text) or parts.netloc.count("@") > 1 or "@" in parts.path:
        raise DsnUnusable(_ENCODE)
    hosts = parts.netloc.rpartition("@")[2]
    if hosts and not all(map(_is_host, hosts.split(","))):
        raise DsnUnusable(f"no host:port, or list of them, can be found in it; it {_ENCODE}")
    return parts


def _said_in_front(parts: SplitResult) -> frozenset[str]:
    """Return the parameters that would repeat what the DSN already says."""
    login, _, hosts = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    said = {"host": hosts, "port": hosts, "user": user, "password": password}
    said |= dict.fromkeys(("dbname", "database"), parts.path.strip("/"))
    return frozenset(name for name, value in said.items() if value)


def _is_host(text: str) -> bool:
    host = re.fullmatch(r"(\[[0-9A-Fa-f:.%]+\]|[^\[\]:]+)(?::([0-9]{0,5}))?", text)
    return host is not None and (not host[2] or 0 < int(host[2]) < 65536)


def _parameters(query: str) -> dict[str, str]:
    """Return the parameters by name; of one given twice the last counts, and an empty one is left out."""
    given = {}
    for pair in query.split("&") if query else ():
        name, equals, value = pair.partition("=")
        if not equals:
            raise DsnUnusable(f"a parameter has no value; it {_ENCODE}")
        given[unquote(name)] = unquote(value)
    unknown = [name for name in given if name not in _KNOWN]
    if unknown:
        # It may be the rest of a password.
        if "@" in query or "password" in given:
            raise DsnUnusable(f"a parameter is none of libpq's; it {_ENCODE}")
        near = difflib.get_close_matches(unknown[0], _KNOWN, n=1)
        raise DsnUnusable(f"no such parameter: {unknown[0]}" + (f"; did you mean {near[0]}?" if near else ""))
    return {name: value for name, value in given.items() if value}


def _judge(name: str, value: str) -> None:
    if name == "sslmode" and value not in _SSL_MODES:
        raise DsnUnusable(f"sslmode must be one of {', '.join(_SSL_MODES)}")
    if name in _UNABLE:
        raise DsnUnusable(f"{name} is not supported: take it out")
    if name in _AS_IT_IS and value not in _AS_IT_IS[name]:
        raise DsnUnusable(f"{name} can only be {' or '.join(sorted(_AS_IT_IS[name]))} here, or left out")
    is_number = re.fullmatch(r"[0-9]{1,9}", value) is not None
    if name == "connect_timeout" and not (is_number and 0 < int(value) <= LONGEST_CONNECT_SECONDS):
        raise DsnUnusable(f"{name} must be a whole number of seconds from 1 to {LONGEST_CONNECT_SECONDS}")
    if name in _SOCKET and not is_number:
        raise DsnUnusable(f"{name} must be a whole number")
    if name in _SOCKET and _SOCKET[name][1] is None:
        raise DsnUnusable(f"{name} is not supported on this system: take it out")


def _socket_options(given: Mapping[str, str]) -> tuple[tuple[int, int, int], ...]:
    """Return the socket options. A 0 leaves a number to the system; any keep-alive parameter turns keep-alive on."""
    said = {name: int(value) for name, value in given.items() if name in _SOCKET}
    if any(name.startswith("keepalives_") for name in said):
        said.setdefault("keepalives", 1)
    if not said.get("keepalives"):
        said = {name: value for name, value in said.items() if not name.startswith("keepalives")}
    return tuple(
        (level, option, value)
        for name, value in sorted(said.items())
        for level, option in (_SOCKET[name],)
        if value and option is not None
    )


def _read_by_the_client(dsn: str) -> tuple[Sequence[str | tuple[str, int]], int, ssl.SSLContext | Literal[False]]:
    """Let the client judge its own part, files included, before it is first told to connect.

    Returns the addresses that it would connect to (sockets of this machine are text), the position of its ``sslmode``
    among all of them, and the way it would secure the connection.
    """
    unsaid = dict.fromkeys(
        ("host", "port", "user", "password", "passfile", "database", "ssl", "service", "servicefile", "direct_tls")
    )
    more = dict.fromkeys(("server_settings", "target_session_attrs", "krbsrvname", "gsslib"))
    client: Any = connect_utils
    try:
        addresses, parameters = client._parse_connect_dsn_and_args(dsn=dsn, **unsaid, **more)
    except OSError as error:
        what = error.strerror or type(error).__name__
        raise DsnUnusable(
            f"the files of sslrootcert, sslcert, sslkey or sslcrl cannot be used ({what}), or no user is named"
        ) from None
    except (ValueError, LookupError):
        # The text may quote anything.
        raise DsnUnusable(
            "what it says of ports, TLS or target_session_attrs cannot be used, it names no user, or a PG... variable"
            " of the environment says something wrong"
        ) from None
    return addresses, int(parameters.sslmode), parameters.ssl or False
