"""Run the tests that need no broker under another version of Python, in an environment of its own.

Exit 0: they pass. 1: one fails. 2: that version, or a package for it, cannot be had here.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
VERSIONS: Final = ("3.11", "3.12", "3.13", "3.14")
"""The versions that the project is for; a test compares them with what pyproject.toml says."""
TESTS: Final = ("tests/unit", "tests/contract", "--ignore", "tests/contract/outside", "-m", "not slow", "-n", "2")
_FIT: Final = "import sys, ensurepip, venv; print(*sys.version_info[:2], sep='.')"


def candidates(version: str, home: Path) -> Iterator[str]:
    """Yield the programs that may be this version: by its name, and those that version managers keep."""
    yield f"python{version}"
    kept = (home / ".pyenv" / "versions", home / ".local" / "share" / "uv" / "python")
    for directory in kept:
        yield from map(str, sorted(directory.glob(f"*{version}.*/bin/python3")))


def found(programs: Iterator[str], version: str) -> str | None:
    """Return the first program that really is this version: a version manager's shim may stand for none."""
    for program in programs:
        try:
            done = subprocess.run([program, "-c", _FIT], capture_output=True, text=True, check=False)
        except OSError:
            continue
        if done.returncode == 0 and done.stdout.strip() == version:
            return program
    return None


def installed(python: str, directory: Path) -> Path:
    """Make an environment with the pinned packages and both distributions, and return its Python."""
    subprocess.run([python, "-m", "venv", str(directory)], check=True)
    inside = directory / "bin" / "python"
    pip = [str(inside), "-m", "pip", "install", "--quiet"]
    pins = ROOT / "deploy" / "requirements-dev.txt"
    subprocess.run([*pip, "--require-hashes", "--requirement", str(pins)], check=True)
    editable = ("--no-deps", "--no-build-isolation", "--editable", "schemas", "--editable", ".")
    subprocess.run([*pip, *editable], check=True, cwd=ROOT)
    return inside


def main(arguments: Sequence[str]) -> int:
    [version] = arguments
    if version == ".".join(map(str, sys.version_info[:2])):
        sys.stdout.write(f"Python {version} is the one that all other tests run under\n")
        return 0
    python = found(candidates(version, Path.home()), version)
    if python is None:
        sys.stdout.write(f"not checked: there is no Python {version} with venv and ensurepip here\n")
        return 2
    with tempfile.TemporaryDirectory() as directory:
        try:
            inside = installed(python, Path(directory) / "environment")
        except (OSError, subprocess.CalledProcessError) as error:
            sys.stdout.write(f"not checked: the packages cannot be installed for Python {version}: {error}\n")
            return 2
        command = [str(inside), "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS]
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, "VIRTUAL_ENV": ""}, check=False)
    return 0 if done.returncode == 0 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
