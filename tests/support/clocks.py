"""Clocks that move only when a test moves them."""


class Clock:
    """A clock in seconds, usable wherever a function that tells the time is expected."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let so much time pass at once, in place of a real sleep."""
        self.now += seconds
