"""Providers of the broker and the Postgres that the tests use."""


class Unavailable(Exception):
    """This provider cannot serve here; the text says why. The next one is asked."""


class GivenAway(Unavailable):
    """The server at an address in the environment does not answer. No other takes its place."""
