"""Where the tests get their broker and their Postgres from."""


class Unavailable(Exception):
    """This provider cannot serve here; the text says why. The next one is asked."""


class GivenAway(Unavailable):
    """The server that an address in the environment names does not answer. No other takes its place."""
