"""Records as Kafka would deliver them."""

from worker.kafka.delivery import Coordinates, Delivery, Header


def delivery(value: bytes | None, headers: tuple[Header, ...] = (), *, offset: int = 7) -> Delivery:
    """A record of the commands topic with this value and these headers."""
    return Delivery(Coordinates("cluster", "commands", 0, offset, 1_700_000_000_000), b"key", value, headers, False)
