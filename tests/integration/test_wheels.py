"""Both distributions, built and installed as their users install them: into empty environments, from wheels."""

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path
from typing import Final

import pytest

from effective_contract import __version__

ROOT: Final = Path(__file__).parents[2]
MOST_PACKAGES: Final = 15
"""The most packages in a sender's environment, the contract included."""
SECONDS: Final = 300


def run(*command: str | Path, cwd: Path) -> str:
    """Run a program to its end and return its output, which is in the error if it fails."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the wheels by the names of their distributions, built from the pins without an isolated environment."""
    directory = tmp_path_factory.mktemp("wheels")
    build = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
    run(*build, "--wheel-dir", directory, ROOT / "schemas", ROOT, cwd=directory)
    return {path.name.split("-")[0].replace("_", "-"): path for path in directory.glob("*.whl")}


def pins(directory: Path) -> Path:
    """Return the versions that the project pins, as constraints: a wheel of ours has no hash there."""
    pinned = (ROOT / "deploy" / "requirements.txt").read_text(encoding="utf-8")
    path = directory / "constraints.txt"
    path.write_text("\n".join(re.findall(r"^[\w.-]+==\S+", pinned, re.MULTILINE)), encoding="utf-8")
    return path


def installed(directory: Path, *wheels: Path) -> Path:
    """Install wheels into an environment of their own in ``directory``, and return its Python."""
    run(sys.executable, "-m", "venv", directory / "venv", cwd=directory)
    python = directory / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--constraint", pins(directory), *wheels, cwd=directory)
    return python


def test_a_sender_installs_the_contract_alone(wheels: dict[str, Path], tmp_path: Path) -> None:
    python = installed(tmp_path, wheels["effective-contract"])

    packages = run(python, "-m", "pip", "list", "--format", "freeze", cwd=tmp_path).split()
    names = {package.split("==")[0].lower() for package in packages} - {"pip", "setuptools"}
    assert {"effective-contract", "aiokafka", "pydantic", "orjson"} <= names
    assert len(names) <= MOST_PACKAGES, sorted(names)
    # An application with a package `schemas` of its own is not in the way, and is not shadowed.
    (tmp_path / "schemas.py").write_text("OURS = True\n", encoding="utf-8")
    program = "import schemas, effective_contract.client, effective_contract.replay; print(schemas.OURS)"
    assert run(python, "-c", program, cwd=tmp_path) == "True\n"


@pytest.mark.parametrize("project", ["schemas", "."])
def test_a_wheel_from_the_source_distribution_is_the_same(
    project: str, wheels: dict[str, Path], tmp_path: Path
) -> None:
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", tmp_path, cwd=ROOT / project)
    [source] = tmp_path.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path, filter="data")
    unpacked = tmp_path / source.name.removesuffix(".tar.gz")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path, cwd=unpacked)
    [wheel] = tmp_path.glob("*.whl")

    of_checkout = next(path for path in wheels.values() if path.name == wheel.name)
    assert contents(wheel) == contents(of_checkout)
    assert "py.typed" in {Path(name).name for name in contents(wheel)}


def contents(wheel: Path) -> dict[str, int]:
    """Return the checksum of each file of a wheel; its own list of them is left out."""
    with zipfile.ZipFile(wheel) as archive:
        return {each.filename: each.CRC for each in archive.infolist() if not each.filename.endswith("RECORD")}


def test_what_is_installed_says_who_made_it_for_whom(wheels: dict[str, Path]) -> None:
    for wheel in wheels.values():
        with zipfile.ZipFile(wheel) as archive:
            [name] = [each for each in archive.namelist() if each.endswith(".dist-info/METADATA")]
            told = message_from_bytes(archive.read(name))
        assert told["Version"] == __version__
        assert told["License-Expression"] == "Apache-2.0"
        assert all(told[each] for each in ("Summary", "Author", "Keywords", "Requires-Python"))
        assert "Typing :: Typed" in told.get_all("Classifier", [])
        assert str(told.get_payload()).startswith("# effective-")


@pytest.mark.slow(
    why="twenty-five packages are installed",
    instead="tests/integration/test_wheels.py::test_a_sender_installs_the_contract_alone",
)
def test_the_workers_wheel_has_all_that_it_needs(wheels: dict[str, Path], tmp_path: Path) -> None:
    python = installed(tmp_path, wheels["effective-contract"], wheels["effective-worker"])

    command = python.parent / "effective-worker"
    assert run(command, "--version", cwd=tmp_path).strip()
    said = run(command, "contract", "--check", "0.1.0", cwd=tmp_path)
    assert said == "breaks nothing that was written for 0.1.0\n"
    files = run(python, "-m", "pip", "show", "--files", "effective-worker", cwd=tmp_path)
    assert "contract/released/0.1.0/asyncapi.json" in files
    assert "samples" not in files.replace("contract/samples.py", "").replace("contract/__pycache__/samples", "")
