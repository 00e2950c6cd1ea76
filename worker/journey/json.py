"""JSON out, the counterpart of ``decode``."""

from typing import Any

import orjson


def encode(value: Any) -> bytes:
    """The JSON of a value, in no more memory than it needs.

    What orjson returns keeps the 4 KiB that it was written into; a batch holds a thousand of them (measured with 3.13).
    """
    return bytes(memoryview(orjson.dumps(value)))
