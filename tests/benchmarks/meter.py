"""What processes cost: CPU and memory as the system accounts for them (Linux, ``/proc``)."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
TICKS: Final = os.sysconf("SC_CLK_TCK")
# Of what stands behind the program's name, which may hold anything: utime, stime, cutime and cstime.
_TIMES: Final = slice(11, 15)


@dataclass(frozen=True, slots=True)
class Usage:
    """By name: ``cpu`` in seconds, of all its processes; ``peak_memory`` in bytes, of the one that took most.

    CPU is counted between start and stop, memory since a process began. A process stands for all its children too,
    those that ended meanwhile included.
    """

    cpu: Mapping[str, float]
    peak_memory: Mapping[str, int]
    queued: Mapping[str, float] = field(default_factory=dict)
    """Seconds for which the first threads of these processes could have run and had no core."""

    @property
    def total(self) -> float:
        """CPU seconds of all processes."""
        return sum(self.cpu.values())


class Meter:
    """Measures processes by the names they are given here."""

    def __init__(self, pids: Mapping[str, Sequence[int]]) -> None:
        """Starts at once."""
        self._pids = pids
        self._queued = self._read(queued_seconds)
        self._began = self._read(cpu_seconds)

    def stop(self) -> Usage:
        """What was used so far. The processes must still be there."""
        cpu = _since(self._began, self._read(cpu_seconds))
        queued = _since(self._queued, self._read(queued_seconds))
        return Usage(cpu, {name: max(map(peak_memory, pids)) for name, pids in self._pids.items()}, queued)

    def _read(self, figure: Callable[[int], float]) -> dict[str, float]:
        return {name: sum(map(figure, pids)) for name, pids in self._pids.items()}


def _since(began: Mapping[str, float], now: Mapping[str, float]) -> dict[str, float]:
    return {name: now[name] - former for name, former in began.items()}


def cpu_seconds(pid: int) -> float:
    """What a process and all its children have used so far, dead ones included once their parent knows of them."""
    return sum(used(text) for each in _family(pid) if (text := _text(each, "stat")))


def queued_seconds(pid: int) -> float:
    """For how long the first thread of a process has waited for a core so far. Zero where the kernel does not say."""
    words = _text(pid, "schedstat").split()
    return int(words[1]) / 1e9 if words else 0.0


def peak_memory(pid: int) -> int:
    """The most that a process held, in bytes. With children, what they hold now: the shared part is counted once."""
    family = [status_bytes(text) for each in _family(pid) if (text := _text(each, "status"))]
    if len(family) == 1:
        return family[0]["VmHWM"]
    holding = [held for held in family if "RssAnon" in held]  # who has ended and is not buried yet holds nothing
    return sum(held["RssAnon"] for held in holding) + max(held["RssShmem"] + held["RssFile"] for held in holding)


def used(stat: str) -> float:
    """The CPU seconds in a line of ``/proc/<pid>/stat``: the process itself, and the children that it has buried."""
    return sum(map(int, stat.rpartition(")")[2].split()[_TIMES])) / TICKS


def status_bytes(status: str) -> dict[str, int]:
    """The sizes in ``/proc/<pid>/status``, in bytes."""
    lines = (line.split() for line in status.splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if len(words) == 3 and words[2] == "kB"}


def _family(pid: int) -> Iterator[int]:
    yield pid
    for child in _text(pid, f"task/{pid}/children").split():
        yield from _family(int(child))


def _text(pid: int, name: str) -> str:
    """Empty for a process that has just ended: its parent has what it used."""
    try:
        return (PROC / str(pid) / name).read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return ""
