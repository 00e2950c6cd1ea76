"""The holdings of a worker: reported by itself on a signal, and compared with the needs of its lanes."""

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

import psutil

EVENT: Final = "holdings"
"""The name of the log line."""
# Limits of one worker at rest, after any number of faults. A client keeps up to two connections to each of three
# brokers, and a task for each. A lane has a client and seven tasks of its own; the worker has the consumer's client,
# its fetches and watches (fifteen), and its sessions in Postgres and the admin port (twelve sockets).
SOCKETS_OF_A_LANE: Final = 6
SOCKETS: Final = 24
TASKS_OF_A_LANE: Final = 13
TASKS: Final = 24


def tell() -> None:
    """Write one line to stderr. For a signal handler of the event loop's thread."""
    tasks = asyncio.all_tasks()
    at: Counter[str] = Counter(getattr(task.get_coro(), "__qualname__", "?") for task in tasks)
    line = {
        "event": EVENT,
        "lanes": sum(task.get_name().startswith("lane ") for task in tasks),
        "producers": at["Sender._sender_routine"],
        "tasks": len(tasks),
        "sockets": len(psutil.Process().net_connections("inet")),
        "most": dict(at.most_common(8)),
    }
    # By the descriptor: the interrupted code may be writing to stderr.
    os.write(sys.stderr.fileno(), (json.dumps(line) + "\n").encode())


def too_much(holdings: Mapping[str, Any]) -> Iterator[str]:
    """Yield the holdings beyond the needs of so many lanes."""
    lanes = holdings["lanes"]
    bounds = {
        # One more is a producer that was dropped and lives on.
        "producers": lanes,
        "tasks": TASKS + TASKS_OF_A_LANE * lanes,
        "sockets": SOCKETS + SOCKETS_OF_A_LANE * lanes,
    }
    for what, bound in bounds.items():
        if holdings[what] > bound:
            yield f"{holdings[what]} {what}, more than {bound} for {lanes} lanes: {holdings['most']}"
