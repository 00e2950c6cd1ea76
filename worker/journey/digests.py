"""Keyed digests (HMAC-SHA256), which stand for a sender's text where the text itself must not be kept.

Without the key, no search finds the text. With the key and the text, anyone can compute the digest.
"""

import hmac
from typing import Final

from pydantic import SecretStr

from effective_contract.transition import DIGESTED, command_name, naming_key
from worker.errors import OperatorError
from worker.settings import Settings
from worker.values import Value

_OF_ATTEMPTS: Final = b"effective-worker attempts"


class NoDigestKey(OperatorError):
    """No key for digests is set."""

    def __init__(self) -> None:
        super().__init__("what was tried is known by a keyed digest: set WORKER_DIGEST_KEYS, or WORKER_LOGIN__SECRETS")


class CommandNames(Value, frozen=True):
    """The names by which facts know their commands: no text that a sender chose is kept forever.

    See CONTRACT, Transition event.
    """

    hidden = frozenset({"keys"})

    keys: tuple[bytes, ...]
    """The first key makes names. The others have made names before."""

    def of(self, command_id: str) -> str:
        """Return the name of a command. Without a key, that is its id."""
        return command_name(self.keys[0], command_id) if self.keys else command_id

    def all_of(self, command_id: str) -> list[str]:
        """Return every name that a command may have: its id, which early facts hold, and its name by each key."""
        return list(dict.fromkeys((command_id, *(command_name(key, command_id) for key in self.keys))))


def is_digest(name: str) -> bool:
    """True if a name is the digest of a sender's own id."""
    return name.startswith(DIGESTED)


def digest(key: bytes, what: str, organisation: str, name: str) -> bytes:
    """Return the keyed digest of a code or identifier that was tried."""
    return hmac.digest(key, f"{what}\0{organisation}\0{name}".encode(), "sha256")


def command_names(settings: Settings) -> CommandNames:
    """Return the names of commands under the keys that are set."""
    return CommandNames(tuple(naming_key(secret.get_secret_value()) for secret in _secrets(settings)))


def attempt_keys(settings: Settings) -> tuple[bytes, ...]:
    """Return the keys for the digests of attempts. Attempts are counted under the first.

    Raises ``NoDigestKey`` if none is set.
    """
    secrets = _secrets(settings)
    if not secrets:
        raise NoDigestKey
    return tuple(hmac.digest(secret.get_secret_value().encode(), _OF_ATTEMPTS, "sha256") for secret in secrets)


def _secrets(settings: Settings) -> tuple[SecretStr, ...]:
    return settings.digest_keys or settings.login.secrets
