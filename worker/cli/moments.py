"""Moments as options of commands: a duration ago, a day, or an RFC 3339 time."""

import re
import time
from datetime import UTC, datetime

import typer

from worker.cli.terminal import seconds_of


def now() -> datetime:
    """Return the present time, by this machine's clock."""
    return datetime.fromtimestamp(time.time(), UTC)


def moment_of(text: str, option: str) -> datetime:
    """Return the moment that an option names; anything else is a wrong usage of it."""
    ago = seconds_of(text)
    if ago:
        return datetime.fromtimestamp(max(0.0, time.time() - ago), UTC)
    try:
        moment = datetime.fromisoformat(text)
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):  # a day begins at midnight, in UTC as all times here
            moment = moment.replace(tzinfo=UTC)
        if moment.tzinfo is not None:
            return max(moment.astimezone(UTC), datetime.fromtimestamp(0, UTC))
    except (ValueError, OverflowError):
        pass
    what = "neither a duration like 2h or 1d12h, nor a day like 2026-03-04 nor a time like 2026-03-04T05:06:07Z"
    raise typer.BadParameter(what, param_hint=option)
