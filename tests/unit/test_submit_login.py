"""The login token of a submission: renewed in time, and never shown."""

import json
from pathlib import Path

import pytest

from tests.support.clocks import Clock
from tests.support.logins import login_token, signed
from worker.operations.login_source import LoginFailed, from_command
from worker.operations.submit.login import CommandLogin, GivenLogin, OwnLogins, expiry


class Program:
    """A program that prints tokens of a given lifetime, or fails."""

    def __init__(self, clock: Clock, life: float) -> None:
        self.clock, self.life, self.runs, self.fails = clock, life, 0, False

    async def __call__(self) -> str:
        self.runs += 1
        if self.fails:
            raise LoginFailed("it fails")
        return login_token(exp=self.clock.now + self.life, jti=str(self.runs))


@pytest.fixture
def program(clock: Clock) -> Program:
    return Program(clock, 100.0)


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def login(program: Program, clock: Clock, warnings: list[str]) -> CommandLogin:
    return CommandLogin(program, clock=clock, warn=warnings.append)


async def test_a_token_is_kept_for_four_fifths_of_its_life(login: CommandLogin, program: Program, clock: Clock) -> None:
    first = await login.token()
    clock.now += 79.0
    assert (await login.token(), program.runs) == (first, 1)
    clock.now += 2.0
    assert await login.token() != first
    assert program.runs == 2


async def test_a_program_that_fails_is_asked_again_while_the_old_token_lives(
    login: CommandLogin, program: Program, clock: Clock, warnings: list[str]
) -> None:
    first = await login.token()
    program.fails = True
    clock.now += 81.0
    assert [await login.token() for _ in range(3)] == [first] * 3
    assert (program.runs, warnings) == (2, ["it fails"])
    clock.now += 11.0
    assert (await login.token(), program.runs) == (first, 3)
    clock.now += 11.0
    with pytest.raises(LoginFailed, match="it fails"):
        await login.token()


async def test_an_expired_token_is_replaced_at_once(login: CommandLogin, program: Program) -> None:
    first = await login.token()
    login.expired()
    assert await login.token() != first
    program.fails = True
    login.expired()
    with pytest.raises(LoginFailed):
        await login.token()


async def test_a_token_that_says_nothing_is_kept_until_the_worker_says_it_expired(clock: Clock) -> None:
    async def opaque() -> str:
        return "opaque"

    login = CommandLogin(opaque, clock=clock, warn=lambda _: None)
    assert await login.token() == "opaque"
    clock.now += 1e9
    assert await login.token() == "opaque"


async def test_a_given_token_is_used_until_it_ends(clock: Clock) -> None:
    login = GivenLogin(login_token(exp=1100), clock=clock)
    assert await login.token()
    clock.now = 1100.0
    with pytest.raises(LoginFailed, match="--token-command"):
        await login.token()


async def test_a_given_token_that_the_worker_calls_expired_is_used_no_more(clock: Clock) -> None:
    login = GivenLogin("opaque", clock=clock)
    login.expired()
    with pytest.raises(LoginFailed):
        await login.token()


async def test_without_one_every_command_keeps_its_own() -> None:
    assert await OwnLogins().token() is None


@pytest.mark.parametrize("claims", [{"exp": "soon"}, {"exp": None}, {"exp": [1]}, {}, []])
def test_what_a_token_does_not_say_readably_is_not_known(claims: object) -> None:
    assert expiry(signed(json.dumps(claims).encode())) is None


async def test_the_token_is_what_the_command_prints() -> None:
    assert await from_command("echo a-token") == "a-token"


async def test_a_command_that_fails_is_told_with_its_exit_code_and_last_words_without_a_token(tmp_path: Path) -> None:
    token = login_token()
    with pytest.raises(LoginFailed, match="ended with 7: no such user") as failed:
        await from_command(f"echo {token}; echo first >&2; echo no such user {token} >&2; exit 7")
    assert token not in str(failed.value)
    with pytest.raises(LoginFailed, match="printed no login token") as failed:
        await from_command(f"echo two {token}")
    assert token not in str(failed.value)


async def test_nothing_shows_a_token(login: CommandLogin) -> None:
    token = await login.token()
    assert token is not None
    assert token not in repr(login) + repr(GivenLogin(token))
