"""Send the demo's commands to a running worker, and show each beside its answer.

Takes the worker's own settings from the environment. Exit 0 if every answer is the documented one. A second run sends
the same ids: the golden command is then answered again, without a second change.
"""

import asyncio
import json
import os
import sys
import time

from worker.demo.commands import Attempt, attempts, shown
from worker.demo.exchange import Reply, ask
from worker.demo.report import Report
from worker.errors import WorkerError
from worker.settings import read_settings


def show(attempt: Attempt, reply: Reply) -> None:
    print(f"\n--- {attempt.name}")
    print("command", shown(attempt.body, indent=2))
    print("answer ", json.dumps(reply.value, indent=2, ensure_ascii=False))
    print(f"expected {attempt.expected}, got {reply.code}{' (replayed)' if reply.replayed else ''}")


def main() -> int:
    settings = read_settings(os.environ, needs_login=True)
    began = time.time()
    made = attempts(settings.login.secrets[0].get_secret_value(), int(began))
    replies = asyncio.run(ask(settings, made))
    for attempt, reply in zip(made, replies, strict=True):
        show(attempt, reply)
    good = Report(made, replies, time.time() - began).as_documented
    print("\nevery answer is as documented" if good else "\nan answer is not the documented one")
    return 0 if good else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except WorkerError as error:
        sys.exit(f"try_it: {error}")
