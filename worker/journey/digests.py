"""Keyed digests (HMAC-SHA256), which stand for what a sender wrote where that itself is not to be kept.

Nobody without the key finds out by trying what one stands for; whoever has the key and the text finds the digest.
"""

import hmac
from typing import Final

from pydantic import SecretStr

from effective_contract.transition import DIGESTED, command_name, naming_key
from worker.errors import WorkerError
from worker.settings import Settings
from worker.values import Value

_OF_ATTEMPTS: Final = b"effective-worker attempts"


class NoDigestKey(WorkerError):
    """Nothing says under which key digests were made."""

    def __init__(self) -> None:
        super().__init__("what was tried is known by a keyed digest: set WORKER_DIGEST_KEYS, or WORKER_LOGIN__SECRETS")


class CommandNames(Value, frozen=True):
    """The names by which facts know their commands (CONTRACT 6): nothing that a sender chose is kept for ever."""

    hidden = frozenset({"keys"})

    keys: tuple[bytes, ...]
    """The first one makes names; those after it have made some before."""

    def of(self, command_id: str) -> str:
        """The name of a command. Without a key, an id stands for itself."""
        return command_name(self.keys[0], command_id) if self.keys else command_id

    def all_of(self, command_id: str) -> list[str]:
        """Every name that a command may have: itself, as which facts once knew it, and by each of the keys."""
        return list(dict.fromkeys((command_id, *(command_name(key, command_id) for key in self.keys))))


def is_digest(name: str) -> bool:
    """Tell whether a name is the digest of a sender's own id."""
    return name.startswith(DIGESTED)


def digest(key: bytes, what: str, organisation: str, name: str) -> bytes:
    """The keyed digest of a code or an identifier that was tried."""
    return hmac.digest(key, f"{what}\0{organisation}\0{name}".encode(), "sha256")


def command_names(settings: Settings) -> CommandNames:
    """The names of commands under the keys that are set."""
    return CommandNames(tuple(naming_key(secret.get_secret_value()) for secret in _secrets(settings)))


def attempt_keys(settings: Settings) -> tuple[bytes, ...]:
    """The keys of the digests of what was tried, first the one that attempts are counted under.

    Raises ``NoDigestKey`` if none is set.
    """
    secrets = _secrets(settings)
    if not secrets:
        raise NoDigestKey
    return tuple(hmac.digest(secret.get_secret_value().encode(), _OF_ATTEMPTS, "sha256") for secret in secrets)


def _secrets(settings: Settings) -> tuple[SecretStr, ...]:
    return settings.digest_keys or settings.login.secrets
