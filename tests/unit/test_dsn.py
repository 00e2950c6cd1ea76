"""DSNs: read as libpq reads them, or refused by name, and never quoted."""

import socket
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pytest
from asyncpg import connect_utils
from hypothesis import assume, given
from hypothesis import strategies as st

from worker.dsn import DsnUnusable, read_dsn
from worker.settings import SettingsError, read_settings

PASSWORDS: Final = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=20)
WORDS: Final = st.text("abcXYZ0123456789@:/?#%[]&=+;, ", min_size=6, max_size=20)


def as_the_client_reads(dsn: str) -> Any:
    """Return the hosts, and the parameters beside them."""
    client: Any = connect_utils
    names = "host port user password passfile database ssl service servicefile direct_tls server_settings"
    unsaid = dict.fromkeys([*names.split(), "target_session_attrs", "krbsrvname", "gsslib"])
    return client._parse_connect_dsn_and_args(dsn=dsn, **unsaid)


def refusal_of(dsn: str) -> str:
    with pytest.raises(DsnUnusable) as refused:
        read_dsn(dsn)
    return str(refused.value)


@given(password=PASSWORDS)
def test_a_password_that_is_encoded_is_read_as_it_is(password: str) -> None:
    encoded = quote(password, safe="")
    in_front = read_dsn(f"postgresql://worker:{encoded}@db:5433/effective?sslmode=disable")
    behind = read_dsn(f"postgresql://db:5433/effective?user=worker&password={encoded}&sslmode=disable")
    for address in (in_front, behind):
        hosts, said = as_the_client_reads(address.dsn)
        assert (hosts, said.user, said.password, said.database) == ([("db", 5433)], "worker", password, "effective")
        assert said.server_settings is None
        assert encoded not in repr(address) or len(encoded) < 6


@given(password=WORDS)
def test_a_raw_password_is_read_as_it_is_or_refused_and_never_quoted(password: str) -> None:
    """Exclude two undetectable cases: a % followed by two digits, and a parameter that is one of libpq's."""
    try:
        address = read_dsn(f"postgresql://worker:{password}@db:5433/effective?sslmode=disable")
    except DsnUnusable as refused:
        said = str(refused)
        assert password not in said
        assert "%40" in said
    else:
        assume("%" not in password)
        hosts, read = as_the_client_reads(address.dsn)
        assert (hosts, read.user, read.password, read.database) == ([("db", 5433)], "worker", password, "effective")


@pytest.mark.parametrize("raw", ["ca@nary", "ca/nary", "ca#nary", "ca?nary", "ca%nary", "ca[nary", "1 nary", "1/nary"])
def test_what_must_be_encoded_is_named_with_the_way_out(raw: str) -> None:
    said = refusal_of(f"postgresql://worker:{raw}@db/effective")
    assert "@ must be written as %40" in said
    assert "nary" not in said


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://worker:12?canary=1@db/effective",
        "postgresql://db/effective?user=worker&password=abc&canary=1",
        "postgresql://worker:pw@db:canary/effective",
        "postgresql://worker:pw@db:99999/effective?application_name=canary",
        "postgresql://worker:pw@[canary/effective",
        "postgresql://worker:pw@db,,canary/effective",
        "postgresql://worker:pw@db/effective?canary",
        "postgresql://worker:pw@/effective?host=db&port=canary",
        "postgresql://worker:pw@db/effective?target_session_attrs=canary",
        "postgresql://worker:pw@db/effective?ssl_min_protocol_version=canary",
        "postgresql://worker:pw@db/effective?sslrootcert=/canary&sslmode=verify-ca",
        "postgresql://worker:%FFcanary@db/effective",
        "postgresql://worker:%00canary@db/effective",
        "host=db password=canary",
        "canary",
    ],
)
def test_what_cannot_be_read_is_refused_and_not_quoted(dsn: str) -> None:
    assert "canary" not in refusal_of(dsn)


@pytest.mark.parametrize(
    ("parameter", "said"),
    [
        ("sslmode=verify-all", "sslmode must be one of disable, allow, prefer, require, verify-ca, verify-full"),
        ("ssl_mode=require", "no such parameter: ssl_mode; did you mean sslmode?"),
        ("xyzzy=1", "no such parameter: xyzzy"),
        ("channel_binding=require", "channel_binding can only be disable or prefer here, or left out"),
        ("gssencmode=require", "gssencmode can only be disable or prefer here, or left out"),
        ("client_encoding=LATIN1", "client_encoding can only be UTF-8 or UTF8 or auto or utf-8 or utf8 here"),
        ("sslcompression=1", "sslcompression can only be 0 here"),
        ("load_balance_hosts=random", "load_balance_hosts can only be disable here"),
        ("require_auth=scram-sha-256", "require_auth is not supported: take it out"),
        ("hostaddr=127.0.0.1", "hostaddr is not supported: take it out"),
        ("connect_timeout=0", "connect_timeout must be a whole number of seconds from 1 to 30"),
        ("connect_timeout=soon", "connect_timeout must be a whole number of seconds from 1 to 30"),
        ("port=5433", "port is given as a parameter, and the same stands before it: give one of them"),
        ("user=another", "user is given as a parameter, and the same stands before it"),
        ("dbname=another", "dbname is given as a parameter, and the same stands before it"),
        ("keepalives_idle=-1", "keepalives_idle must be a whole number"),
    ],
)
def test_a_parameter_that_cannot_be_done_is_refused_by_name(parameter: str, said: str) -> None:
    assert refusal_of(f"postgresql://worker:canary@db/effective?{parameter}").startswith(said)


@pytest.mark.parametrize(
    "parameter",
    [
        "channel_binding=prefer",
        "gssencmode=disable",
        "sslcompression=0",
        "sslsni=1",
        "client_encoding=UTF8",
        "load_balance_hosts=disable",
        "fallback_application_name=x",
        "keepalives=1",
        "connect_timeout=3",
        "sslmode=",
    ],
)
def test_a_parameter_that_the_client_does_not_know_is_not_passed_on_to_the_server(parameter: str) -> None:
    address = read_dsn(f"postgresql://worker:w@db/effective?{parameter}&sslmode=disable")
    assert as_the_client_reads(address.dsn)[1].server_settings is None
    assert address.session == {}


def test_what_is_said_of_the_session_is_passed_on() -> None:
    address = read_dsn("postgresql://worker:w@db/effective?application_name=me&options=-c%20geqo%3Doff")
    assert address.session == {"application_name": "me", "options": "-c geqo=off"}


@pytest.mark.parametrize(
    ("dsn", "seconds"),
    [
        ("postgresql://one/e", None),
        ("postgresql://one/e?connect_timeout=3", 3.0),
        ("postgresql://one:1,two:2/e?connect_timeout=3", 6.0),
        ("postgresql:///e?host=one,two,three&connect_timeout=3", 9.0),
    ],
)
def test_the_time_to_connect_is_granted_to_every_host(dsn: str, seconds: float | None) -> None:
    assert read_dsn(dsn).connect_seconds == seconds


@pytest.mark.parametrize(
    ("parameters", "options"),
    [
        ("keepalives=1", {socket.SO_KEEPALIVE: 1}),
        ("keepalives=0&keepalives_idle=5", {}),
        ("keepalives_idle=5&keepalives_count=0", {socket.SO_KEEPALIVE: 1, socket.TCP_KEEPIDLE: 5}),
        ("keepalives_interval=2&keepalives_count=3", {1: 1, socket.TCP_KEEPINTVL: 2, socket.TCP_KEEPCNT: 3}),
        ("tcp_user_timeout=900", {socket.TCP_USER_TIMEOUT: 900}),
    ],
)
def test_keeping_alive_is_set_at_the_socket(parameters: str, options: dict[int, int]) -> None:
    found = read_dsn(f"postgresql://db/e?{parameters}").socket_options
    wanted = {socket.SO_KEEPALIVE if option == 1 else option: value for option, value in options.items()}
    assert {option: value for _, option, value in found} == wanted


@pytest.mark.parametrize("variable", ["WORKER_POSTGRES__DSN", "WORKER_POSTGRES__OWNER_DSN"])
def test_a_fault_is_reported_under_its_variable(variable: str, tmp_path: Path) -> None:
    for value in (
        "postgresql://w:can/ary@db/e",
        f"postgresql://w:canary@db/e?sslmode=verify-ca&sslrootcert={tmp_path}/x",
    ):
        with pytest.raises(SettingsError) as raised:
            read_settings({variable: value})
        ((named, what),) = raised.value.faults
        assert named == variable
        assert "canary" not in what
        assert "ary" not in what.replace("necessary", "")


@pytest.mark.parametrize(
    ("dsn", "servers"),
    [
        ("postgresql://worker:canary@db:5433/effective?sslmode=disable", "db:5433"),
        ("postgresql://worker:canary@one,two:5433/effective?sslmode=disable", "one:5432, two:5433"),
        ("postgresql://worker:canary@[::1]:5433/effective?sslmode=disable", "[::1]:5433"),
    ],
)
def test_the_servers_are_named_as_messages_name_them(dsn: str, servers: str) -> None:
    assert read_dsn(dsn).servers == servers
