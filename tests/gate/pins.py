"""Check the pinned packages for known vulnerabilities, and notice if none can be looked up.

Without its data the tool says that there are none, or that a package does not exist: so first it must find one that has
been known for years. Exit 0: no pin has a known one. 1: some pin has. 2: that could not be looked up.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
TOOLS: Final = ROOT / "deploy" / "requirements-audit.txt"
PINNED: Final = tuple(f"requirements{of}.txt" for of in ("", "-build", "-dev", "-bench", "-docs"))
KNOWN: Final = "urllib3==1.24.1"
"""A version that leaks data to another host (CVE-2018-20060 and others), as has been known since 2018."""

Audit = Callable[[Sequence[str]], tuple[int, str, str]]
"""Runs pip-audit with these arguments: its exit code, stdout and stderr."""


def looked_through(audit: Audit, files: Sequence[Path], known: Path) -> tuple[int, list[str]]:
    """Return the exit code, and the lines that say why. ``known`` is a file that pins a known vulnerability."""
    found = _vulnerable(*audit(["--no-deps", "-r", str(known)]))
    if isinstance(found, str):
        return 2, [f"not checked: {found}"]
    if not list(found):
        return 2, [f"not checked: nothing is said to be wrong with {KNOWN}, so nothing is known here of any other"]
    lines: list[str] = []
    for file in files:
        found = _vulnerable(*audit(["--require-hashes", "-r", str(file)]))
        if isinstance(found, str):
            return 2, [f"not checked: {file.name}: {found}"]
        lines += [f"{file.name}: {line}" for line in found]
    return (1 if lines else 0), lines or [f"nothing is known of what is pinned in {len(files)} files"]


def _vulnerable(code: int, said: str, complained: str) -> Iterator[str] | str:
    """Tell the known vulnerabilities of the pins, or the reason why none can be known."""
    try:
        document = json.loads(said)
    except json.JSONDecodeError:
        last = (complained.strip().splitlines() or ["it said nothing"])[-1]
        return f"the tool ended with {code}: {last}"
    return _named(document)


def _named(document: Any) -> Iterator[str]:
    for package in document["dependencies"]:
        for each in package.get("vulns", ()):
            mended = ", ".join(each["fix_versions"]) or "nothing yet"
            yield f"{package['name']} {package['version']}: {each['id']}, mended in {mended}"


def _installed(directory: Path) -> Audit:
    """Install pip-audit in an environment of its own: its requirements are not the pins it checks."""
    subprocess.run([sys.executable, "-m", "venv", str(directory)], check=True)
    install = ["-m", "pip", "install", "--quiet", "--require-hashes", "--requirement", str(TOOLS)]
    subprocess.run([str(directory / "bin" / "python"), *install], check=True)
    options = ["--strict", "--disable-pip", "--format", "json", "--progress-spinner", "off"]

    def audit(arguments: Sequence[str]) -> tuple[int, str, str]:
        command = [str(directory / "bin" / "pip-audit"), *options, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    return audit


def main() -> int:
    with tempfile.TemporaryDirectory() as directory:
        known = Path(directory) / "known.txt"
        known.write_text(f"{KNOWN}\n", encoding="utf-8")
        try:
            audit = _installed(Path(directory) / "environment")
        except (OSError, subprocess.CalledProcessError) as error:
            sys.stdout.write(f"not checked: the tool cannot be installed: {error}\n")
            return 2
        code, lines = looked_through(audit, [ROOT / "deploy" / name for name in PINNED], known)
    sys.stdout.write("\n".join((*lines, "")))
    return code


if __name__ == "__main__":
    sys.exit(main())
