"""File descriptors: how many a worker may have, how many it needs, and the case that it has used them up."""

import errno
import os
import resource
from typing import Final

from worker.errors import MORE_DESCRIPTORS, DependencyUnavailable, OperatorError, OutOfDescriptors

OF_ITS_OWN: Final = 31
"""The descriptors of a worker without lanes and pool: the log, the event loop, the admin port and its clients, a file
being read, and the topic watch."""
REPLACED: Final = 2
"""The producers that a lane may have open at once.

A replaced producer keeps its sockets while the new one opens its own, possibly in all lanes at the same time.
"""


class TooFewDescriptors(OperatorError):
    """The limit is too low for any work."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} open files are too few for a worker with one partition. {MORE_DESCRIPTORS}")


def raise_limit() -> int:
    """Raise the limit of this process as far as it may by itself. Returns the limit then in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):  # a system may have a bound of its own below a limit that it calls infinite
            return soft
    return hard


def require_enough(limit: int, *, connections: int) -> None:
    """Raise ``TooFewDescriptors`` if a worker could not even work on one partition."""
    if not partitions_within(limit, brokers=1, connections=connections):
        raise TooFewDescriptors(limit)


def partitions_within(limit: int, *, brokers: int, connections: int) -> int:
    """Return the number of partitions a worker can work on with ``limit``, also while it replaces all its producers.

    ``connections`` is the size of its pool. Its consumer has a socket for each broker and one for the coordinator, and
    one more serves the lookup of reply topics. A lane's producer has one for each broker and one for each of two
    coordinators, of its transactions and of the group, but never more than two to one broker.
    """
    free = limit - OF_ITS_OWN - connections - (brokers + 2)
    return max(0, free // (REPLACED * min(brokers + 2, 2 * brokers)))


def really(away: DependencyUnavailable) -> DependencyUnavailable:
    """Return what is really missing: neither the Kafka client nor a name lookup tells a lack of descriptors."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        if error.errno in {errno.EMFILE, errno.ENFILE}:
            return OutOfDescriptors(error)
    return away
