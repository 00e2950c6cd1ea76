"""The calls that wait for their answers, by correlation id. Has no clock and no connection."""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

Reply = TypeVar("Reply")

_NAME_BYTES: Final = 8
_CALL_BYTES: Final = 16
"""128 bits: a call's id cannot be guessed."""


@dataclass(frozen=True, slots=True)
class Call(Generic[Reply]):
    """One attempt to have a command answered. ``reply`` is done when its reply came, and never holds an exception."""

    correlation_id: bytes
    reply: "asyncio.Future[Reply]" = field(repr=False)


@dataclass(frozen=True, slots=True)
class Counts:
    """The counts of a client since it was made."""

    waiting: int
    """Attempts that wait for their replies now."""
    made: int
    """Attempts, including repeated ones."""
    answered: int
    late: int
    """Replies to attempts of this client that had ended: after the deadline, after a cancellation, or twice."""
    foreign: int
    """Replies to other clients."""


class Calls(Generic[Reply]):
    """A table of open calls, which gives each reply to the call that it answers."""

    def __init__(self, random: Callable[[int], bytes] = secrets.token_bytes) -> None:
        """``random`` returns the given number of unguessable bytes."""
        self._random = random
        # It tells a late reply of our own from others' on the same topic, without a memory of all ended calls.
        self._name = random(_NAME_BYTES).hex().encode() + b"-"
        self._waiting: dict[bytes, Call[Reply]] = {}
        self._made = self._answered = self._late = self._foreign = 0

    @property
    def counts(self) -> Counts:
        return Counts(len(self._waiting), self._made, self._answered, self._late, self._foreign)

    def open(self) -> Call[Reply]:
        """Open a call with a unique id. It must be closed."""
        identity = self._name + self._random(_CALL_BYTES).hex().encode()
        call = Call(identity, asyncio.get_running_loop().create_future())
        self._waiting[identity] = call
        self._made += 1
        return call

    def close(self, call: Call[Reply]) -> None:
        """Close a call: from now on a reply to it is late. Safe to call twice."""
        self._waiting.pop(call.correlation_id, None)

    def waits(self, correlation_id: bytes | None) -> bool:
        """True if a call waits for the reply with this id."""
        return correlation_id in self._waiting

    def answer(self, correlation_id: bytes | None, reply: Reply) -> None:
        """Give a reply to the call that it answers; a call takes one reply."""
        call = self._waiting.pop(correlation_id, None) if correlation_id is not None else None
        if call is not None and not call.reply.done():
            self._answered += 1
            call.reply.set_result(reply)
        elif correlation_id is not None and correlation_id.startswith(self._name):
            self._late += 1
        else:
            self._foreign += 1

    def end_all(self, reply: Reply) -> None:
        """Give the same reply to every call that waits."""
        waiting, self._waiting = self._waiting, {}
        for call in waiting.values():
            if not call.reply.done():
                call.reply.set_result(reply)
