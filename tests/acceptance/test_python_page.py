"""The programs of docs/python.md: the script against a real worker, the service with the test kit that it shows."""

import re
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path
from typing import Final

import pytest

from tests.acceptance.scene import Scene
from tests.support.logins import login_token
from tests.support.waiting import run_to_end

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
PROGRAMS: Final = dict(re.findall(r"^<!-- program: (\S+) -->\n```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE))


def written(directory: Path, name: str, program: str | None = None) -> Path:
    path = directory / name
    path.write_text(PROGRAMS[name] if program is None else program, encoding="utf-8")
    return path


def test_every_program_of_the_page_is_run() -> None:
    assert PROGRAMS.keys() == {"activate.py", "shop.py", "test_shop.py"}
    assert PAGE.count("```python") == len(PROGRAMS)


@pytest.mark.real_kafka
def test_the_script_sets_a_file_of_cards_effective_and_can_be_run_again(scene: Scene) -> None:
    topics = f'commands="{scene.topics.commands}", results="{scene.topics.results}"'
    here = PROGRAMS["activate.py"].replace('"kafka:9092"', f'"{scene.kafka.bootstrap}", {topics}')
    assert here != PROGRAMS["activate.py"]
    script = written(scene.directory, "activate.py", here)
    cards = scene.directory / "cards.txt"
    codes = scene.new_tokens(20)
    cards.write_text("\n".join([*codes, "none-such"]), encoding="utf-8")
    with scene.worker():
        for _ in range(2):
            done = run_to_end([sys.executable, script, cards, login_token()])
            assert done.returncode == 1, done.stderr
            *good, last = done.stdout.splitlines()
            assert good == [f"{code} {code}" for code in codes]
            assert last == "none-such ACCESS_TOKEN_NOT_FOUND: no access token of yours has this authentication_code"
            assert done.stderr == ""
    assert len(scene.transitions()) == len(codes)


def test_the_service_passes_the_tests_that_the_page_shows(tmp_path: Path) -> None:
    for name in ("shop.py", "test_shop.py"):
        written(tmp_path, name)
    done = run_to_end([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"], cwd=tmp_path)
    assert "3 passed" in done.stdout, done.stdout + done.stderr


def test_a_strict_type_checker_knows_the_types_of_what_senders_install(tmp_path: Path) -> None:
    python = installed(tmp_path)
    for name in ("activate.py", "shop.py", "test_shop.py"):
        written(tmp_path, name)
    wrong = written(
        tmp_path,
        "wrong.py",
        "from effective_contract.client import BlockingCommandClient, CommandClient\n"
        'with BlockingCommandClient(CommandClient("kafka:9092")) as client:\n'
        "    client.set_effective(token=7)\n"
        '    client.submit(token="a", code="1")\n'
        '    answer: int = client.set_effective(token="a")\n',
    )
    strict: list[str | Path] = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--no-incremental",
        "--python-executable",
        python,
    ]

    right = run_to_end([*strict, "activate.py", "shop.py", "test_shop.py"], cwd=tmp_path)
    told = run_to_end([*strict, wrong.name], cwd=tmp_path)

    assert "Success: no issues found in 3 source files" in right.stdout, right.stdout + right.stderr
    faults = [line for line in told.stdout.splitlines() if line.startswith("wrong.py:")]
    assert sorted({int(line.split(":")[1]) for line in faults}) == [3, 4, 5], told.stdout


def installed(directory: Path) -> Path:
    """Return the Python of an environment with the contract's wheel in it, and the dependencies of this one."""
    made = run_to_end(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", directory], cwd=ROOT / "schemas"
    )
    assert made.returncode == 0, made.stderr
    environment = directory / "environment"
    venv.create(environment, symlinks=True)
    [packages] = environment.glob("lib/python*/site-packages")
    [wheel] = directory.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    return environment / "bin" / "python"
