"""The cost of processes: CPU and memory as the system accounts for them (Linux, ``/proc``)."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
TICKS: Final = os.sysconf("SC_CLK_TCK")
# The fields behind the program's name, which may hold anything: utime, stime, cutime and cstime.
_TIMES: Final = slice(11, 15)


@dataclass(frozen=True, slots=True)
class Usage:
    """Usage by name: ``cpu`` in seconds, of all its processes; ``peak_memory`` in bytes, of the one that took most.

    CPU is counted between start and stop, memory since a process began. A process stands for all its children too,
    those that ended meanwhile included.
    """

    cpu: Mapping[str, float]
    peak_memory: Mapping[str, int]
    queued: Mapping[str, float] = field(default_factory=dict)
    """Seconds for which the first threads of these processes were runnable and had no core."""

    @property
    def total(self) -> float:
        """Return CPU seconds of all processes."""
        return sum(self.cpu.values())


class Meter:
    """Measures processes by the names they are given here."""

    def __init__(self, pids: Mapping[str, Sequence[int]]) -> None:
        """Start measuring at once."""
        self._pids = pids
        self._queued = self._read(queued_seconds)
        self._began = self._read(cpu_seconds)

    def stop(self) -> Usage:
        """Return the usage so far. The processes must still be there."""
        cpu = _since(self._began, self._read(cpu_seconds))
        queued = _since(self._queued, self._read(queued_seconds))
        return Usage(cpu, {name: max(map(peak_memory, pids)) for name, pids in self._pids.items()}, queued)

    def _read(self, figure: Callable[[int], float]) -> dict[str, float]:
        return {name: sum(map(figure, pids)) for name, pids in self._pids.items()}


def _since(began: Mapping[str, float], now: Mapping[str, float]) -> dict[str, float]:
    return {name: now[name] - former for name, former in began.items()}


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds of a process and all its children so far, including dead ones that it has reaped."""
    return sum(used(text) for each in _family(pid) if (text := _text(each, "stat")))


def queued_seconds(pid: int) -> float:
    """Return the seconds for which the first thread has waited for a core. Zero where the kernel does not tell."""
    words = _text(pid, "schedstat").split()
    return int(words[1]) / 1e9 if words else 0.0


def peak_memory(pid: int) -> int:
    """Return the peak memory of a process, in bytes; with children their present sum, the shared part counted once."""
    family = [status_bytes(text) for each in _family(pid) if (text := _text(each, "status"))]
    if len(family) == 1:
        return family[0]["VmHWM"]
    holding = [held for held in family if "RssAnon" in held]  # a process that has ended holds nothing
    return sum(held["RssAnon"] for held in holding) + max(held["RssShmem"] + held["RssFile"] for held in holding)


def used(stat: str) -> float:
    """Return the CPU seconds in a line of ``/proc/<pid>/stat``: the process itself, and the children it has reaped."""
    return sum(map(int, stat.rpartition(")")[2].split()[_TIMES])) / TICKS


def status_bytes(status: str) -> dict[str, int]:
    """Return the sizes in ``/proc/<pid>/status``, in bytes."""
    lines = (line.split() for line in status.splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if len(words) == 3 and words[2] == "kB"}


def _family(pid: int) -> Iterator[int]:
    yield pid
    for child in _text(pid, f"task/{pid}/children").split():
        yield from _family(int(child))


def _text(pid: int, name: str) -> str:
    """Return the text, or nothing for a process that has just ended: its parent has its usage."""
    try:
        return (PROC / str(pid) / name).read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return ""
