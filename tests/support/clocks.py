"""Clocks that move only when a test moves them."""


class Clock:
    """A clock in seconds, wherever a function that tells the time is asked for."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let so much time go by at once, as a sleep that nobody waits for."""
        self.now += seconds
