"""Keyed digests stand for a sender's text, and reveal nothing of it without the key."""

import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effective_contract.transition import command_name, naming_key
from worker.journey.digests import CommandNames, NoDigestKey, attempt_keys, command_names, is_digest
from worker.settings import read_settings

OLD, NEW, LOGIN = (letter * 32 for letter in "onl")


@given(st.text(min_size=1))
def test_a_senders_own_id_is_not_in_its_name(text: str) -> None:
    name = CommandNames((b"key",)).of(f"ce:ORG1:{text}")

    assert is_digest(name)
    assert len(name) == len("hmac:") + 64
    assert name != CommandNames((b"other",)).of(f"ce:ORG1:{text}")


@given(st.binary(max_size=200), st.text())
def test_a_name_is_the_hmac_that_the_contract_says(key: bytes, text: str) -> None:
    due = hmac.digest(key, f"ce:{text}".encode(), "sha256").hex()

    assert command_name(key, f"ce:{text}") == f"hmac:{due}"


@pytest.mark.parametrize("name", ["rec:cluster/commands/0/7@1", f"hmac:{'0' * 64}"])
def test_what_no_sender_chose_stands_for_itself(name: str) -> None:
    names = CommandNames((b"key",))

    assert (names.of(name), names.all_of(name)) == (name, [name])


def test_without_a_key_an_id_stands_for_itself() -> None:
    assert CommandNames(()).of("ce:ORG1:a:b") == "ce:ORG1:a:b"


def test_the_first_key_makes_names_and_the_others_have_made_some() -> None:
    names = command_names(read_settings({"WORKER_DIGEST_KEYS": f"{NEW},{OLD}", "WORKER_LOGIN__SECRETS": LOGIN}))
    by_old, by_new = (command_name(naming_key(key), "req:ORG1:7") for key in (OLD, NEW))

    assert names.of("req:ORG1:7") == by_new
    assert names.all_of("req:ORG1:7") == ["req:ORG1:7", by_new, by_old]


def test_the_secrets_of_logins_are_the_keys_where_no_others_are_set() -> None:
    names = command_names(read_settings({"WORKER_LOGIN__SECRETS": LOGIN}))

    assert names.of("req:ORG1:7") == command_name(naming_key(LOGIN), "req:ORG1:7")


def test_each_purpose_has_keys_of_its_own() -> None:
    settings = read_settings({"WORKER_DIGEST_KEYS": NEW})

    assert not set(attempt_keys(settings)) & set(command_names(settings).keys)
    assert NEW not in repr(settings)
    assert "key" not in repr(command_names(settings)).casefold()


def test_attempts_need_a_key() -> None:
    with pytest.raises(NoDigestKey, match="set WORKER_DIGEST_KEYS, or WORKER_LOGIN__SECRETS"):
        attempt_keys(read_settings({}))
