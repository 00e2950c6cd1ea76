"""The contract pack, read by independent tools: AsyncAPI's own parser, and Ajv, which is not written in Python."""

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from effective_contract.codes import StatusCode
from tests.support.pace import patience
from worker.operations.contract.deployment import Deployment
from worker.operations.contract.pack import pack, write
from worker.operations.contract.samples import SAMPLES

OUTSIDE: Final = Path(__file__).parent / "outside"
INSTALLED: Final = Path(__file__).parents[2] / ".cache" / "outside"
FILES: Final = ("package.json", "package-lock.json", "validate.mjs")
SECONDS: Final = 600
NEWER_VERSION: Final = "asyncapi-latest-version"
"""The remark that there is a newer version than AsyncAPI 3.0, which the contract promises."""

Validate = Callable[[Path], dict[str, Any]]


def outside_tools_are_demanded() -> bool:
    """True in CI, which skips nothing for want of npm."""
    return os.environ.get("REQUIRE_OUTSIDE_TOOLS", "") not in {"", "0"}


def installed() -> Path:
    """Return the tools, at the lock file's versions. Raises ``OSError`` or ``SubprocessError`` without them."""
    lock = (OUTSIDE / "package-lock.json").read_bytes()
    place = INSTALLED / hashlib.sha256(lock).hexdigest()[:16]
    whole = place / "installed"
    place.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copyfile(OUTSIDE / name, place / name)
    if not whole.exists():
        subprocess.run(
            ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=place,
            check=True,
            capture_output=True,
            timeout=patience(SECONDS),
        )
        whole.touch()
    return place


@pytest.fixture(scope="module")
def validate() -> Validate:
    """Return the tools' verdict on a pack."""
    try:
        place = installed()
    except (OSError, subprocess.SubprocessError) as error:
        if outside_tools_are_demanded():
            raise
        pytest.skip(f"the outside tools cannot be had: {error}")

    def run(directory: Path) -> dict[str, Any]:
        done = subprocess.run(
            ["node", "validate.mjs", str(directory)],
            cwd=place,
            check=True,
            capture_output=True,
            timeout=patience(SECONDS),
        )
        said: dict[str, Any] = json.loads(done.stdout)
        return said

    return run


@pytest.fixture
def written(tmp_path: Path) -> Path:
    write(tmp_path, pack(Deployment(security_protocol="SASL_SSL", sasl_mechanism="PLAIN", client_certificate=True)))
    return tmp_path


def test_the_parser_of_asyncapi_has_nothing_to_complain_of(validate: Validate, written: Path) -> None:
    said = validate(written)
    assert [each for each in said["complaints"] if each["code"] != NEWER_VERSION] == []
    deployment = Deployment()
    assert {each["id"]: (each["topics"], each["messages"], each["reply"]) for each in said["operations"]} == {
        "setEffective": (
            [deployment.commands],
            ["command", "structuredCommand"],
            "$message.header#/reply_to",
        ),
        "answer": ([deployment.results], ["result"], None),
        "tellTransition": ([deployment.transitions], ["transition"], None),
        "keepDeadLetter": ([deployment.dead_letters], ["deadLetter"], None),
    }


def test_ajv_finds_every_sample_as_its_schema_says(validate: Validate, written: Path) -> None:
    said = {each["name"]: each["valid"] for each in validate(written)["samples"]}
    wrong = {StatusCode.MISSING_PARAMETER, StatusCode.INVALID_PARAMETER}
    assert list(said) == [sample.name for sample in SAMPLES]
    assert {(name, part) for name, parts in said.items() for part, right in parts.items() if not right} == {
        (sample.name, "command") for sample in SAMPLES if sample.status in wrong
    }
    assert sum(map(len, said.values())) > 4 * len(SAMPLES) - 5


def test_a_document_that_is_wrong_is_complained_of(validate: Validate, written: Path) -> None:
    path = written / "asyncapi.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    del document["operations"]["answer"]["action"]
    document["components"]["messages"]["command"]["examples"][0]["payload"]["token"] = 7
    path.write_text(json.dumps(document), encoding="utf-8")
    said = validate(written)
    codes = {each["code"] for each in said["complaints"]} - {NEWER_VERSION}
    assert codes
    paths = " ".join(each["path"] for each in said["complaints"])
    assert "operations.answer" in paths
