"""Detection of a Docker engine on this machine."""

import os
import socket
from urllib.parse import urlsplit

from tests.providers import Unavailable


def require_engine() -> None:
    """Raise ``Unavailable`` unless an engine answers whose published ports are on 127.0.0.1.

    The request is hand-written: the engine's own client leaves its socket open if there is no answer.
    """
    address = urlsplit(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock"))
    if address.scheme != "unix":
        raise Unavailable("the Docker engine is not reached through a socket of this machine")
    try:
        with socket.socket(socket.AF_UNIX) as engine:
            engine.settimeout(5)
            engine.connect(address.path)
            engine.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            answer = engine.recv(64)
    except OSError:
        raise Unavailable("no Docker engine answers") from None
    if b" 200 " not in answer:
        raise Unavailable("the Docker engine is not well")
