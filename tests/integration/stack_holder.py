"""A program that holds an embedded stack until it is interrupted, and describes it as JSON."""

import asyncio
import json
import sys
from pathlib import Path

import psutil

from worker.demo.servers import embedded_stack


async def lease(directory: Path | None) -> None:
    """Print one line, then wait forever."""
    async with embedded_stack(directory) as stack:
        servers = [child.pid for child in psutil.Process().children()]
        processes = [child.pid for child in psutil.Process().children(recursive=True)]
        held = {"directory": str(stack.directory), "servers": servers, "processes": processes}
        sys.stdout.write(json.dumps(held) + "\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(lease(Path(sys.argv[1]) if len(sys.argv) > 1 else None))
