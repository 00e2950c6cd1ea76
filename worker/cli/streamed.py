"""Write a long result to stdout piece by piece, as it is found."""

import os
import sys

import typer


def write(text: str, *, flush: bool = False, unheard: int = 0) -> None:
    """Write a piece. If the reader has seen enough (`| head`), end with the exit code ``unheard``."""
    try:
        sys.stdout.write(text)
        if flush:
            sys.stdout.flush()
    except BrokenPipeError:
        # Otherwise Python would complain about the rest of the buffer at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(unheard) from None
