"""A client for senders: ``await client.set_effective(...)`` returns the answer to that very command.

``BlockingCommandClient`` is the same for programs without an event loop.

Needs aiokafka, pydantic and orjson, and nothing of the worker.
"""

from effective_contract.client.answer import Answer, SetEffective
from effective_contract.client.blocking import BlockingCommandClient, BlockingLoginToken
from effective_contract.client.calls import Counts
from effective_contract.client.client import NO_RETRY, CommandClient, LoginToken, Retry
from effective_contract.client.errors import (
    BrokerAway,
    ClientClosed,
    ClientError,
    CommandError,
    CommandNotTaken,
    CommandRefused,
    CommandTimeout,
    CommandTooLarge,
    InvalidCommand,
    NoSuchTopic,
    RepliesLost,
    UnreadableReply,
)

__all__ = [
    "NO_RETRY",
    "Answer",
    "BlockingCommandClient",
    "BlockingLoginToken",
    "BrokerAway",
    "ClientClosed",
    "ClientError",
    "CommandClient",
    "CommandError",
    "CommandNotTaken",
    "CommandRefused",
    "CommandTimeout",
    "CommandTooLarge",
    "Counts",
    "InvalidCommand",
    "LoginToken",
    "NoSuchTopic",
    "RepliesLost",
    "Retry",
    "SetEffective",
    "UnreadableReply",
]
