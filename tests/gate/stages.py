"""The stages of both levels, from cheap to expensive: the promise of each, and the command that shows it."""

import ast
import hashlib
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.gate.pythons import VERSIONS
from tests.gate.verdicts import Reading
from tests.model.check import in_turn

ROOT: Final = Path(__file__).resolve().parents[2]
MUTANTS_AT_ONCE: Final = 3
SEEDS: Final = 1000
MUTANTS_TESTS: Final = "tests/faults/test_mutants.py"
NETWORK_TESTS: Final = "tests/faults/test_network.py"
REAL: Final = {"REQUIRE_REAL_KAFKA": "1"}
ALONE: Final = ("-m", "slow", "-n", "0")
"""The options for slow tests, whose steps are timed: one after another, while other tests run in parallel."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage. ``promise``: what it shows when it is kept. ``by_hand``: the command that repeats it."""

    name: str
    promise: str
    command: tuple[str, ...]
    by_hand: str
    reading: Reading = Reading.TOOL
    env: Mapping[str, str] = field(default_factory=dict)
    gives: Mapping[str, str] = field(default_factory=dict)
    """The environment of all later stages, once it is kept."""
    note: str = ""
    pytest: bool = False
    aloud: bool = False
    """True if its output is passed on, terminal or not."""
    logs_option: str | None = None
    """The option by which the command takes a directory for logs of its own."""


def environment() -> Path:
    """Return the environment that the commands run in, as the Makefile names it."""
    return Path(os.environ.get("VENV") or ".venv")


def _make(target: str, *arguments: str) -> tuple[tuple[str, ...], str]:
    """Return the command of a target, and the form in which a person types it."""
    given = [f"ARGS={shlex.join(arguments)}"] if arguments else []
    return ("make", "--no-print-directory", target, *given), _typed(target, arguments)


def _module(target: str, *command: str) -> tuple[tuple[str, ...], str]:
    """Return the same without make, which exits 2 whatever the command's code.

    Its arguments begin after the module or script.
    """
    arguments = command[2:] if command[0] == "-m" else command[1:]
    return (str(environment() / "bin" / "python"), *command), _typed(target, arguments)


def _typed(target: str, arguments: Sequence[str]) -> str:
    return f'make {target} ARGS="{shlex.join(arguments)}"' if arguments else f"make {target}"


def lint() -> Stage:
    # A line for each finding: the reason takes as many as fit.
    concise = {"RUFF_OUTPUT_FORMAT": "concise"}
    return Stage("lint", "the rules and the format of the house are kept", *_make("lint"), env=concise)


def types() -> Stage:
    return Stage("types", "mypy finds nothing, as strict as it can be", *_make("types"))


def model(*arguments: str) -> Stage:
    return Stage(
        "model",
        "every interleaving of the protocol keeps P1 to P6, and breaks them once a rule is undone",
        *_module("model", "tests/model/check.py", *arguments),
        reading=Reading.HARNESS,
    )


def outside_tools() -> Stage:
    """Demand the tools that tests skip without, where they can be had: there, nothing is skipped."""
    command = ("npm", "view", "ajv", "version")
    return Stage(
        "outside-tools",
        "tools from outside, which no one here wrote, can be had for reading the contract pack",
        command,
        shlex.join(command),
        reading=Reading.OPTIONAL,
        gives={"REQUIRE_OUTSIDE_TOOLS": "1"},
    )


def pins() -> Stage:
    return Stage(
        "pins",
        "no vulnerability is known of what is pinned",
        *_module("pins", "-m", "tests.gate.pins"),
        reading=Reading.HARNESS,
    )


def python(version: str) -> Stage:
    return Stage(
        f"python-{version}",
        f"the tests without a broker pass under Python {version}",
        *_module("pythons", "-m", "tests.gate.pythons", version),
        reading=Reading.HARNESS,
        pytest=True,
    )


def faults(name: str, seconds: int, seed: int) -> Stage:
    command = ("-m", "tests.faults", "--seconds", str(seconds), "--seed", str(seed), "--rate", "300")
    return Stage(
        name,
        f"every command is answered exactly once under {seconds} s of faults",
        *_module("faults", *command),
        reading=Reading.HARNESS,
        note=f"seed {seed}",
        logs_option="--logs",
    )


def pytests(name: str, promise: str, *arguments: str, note: str = "") -> Stage:
    command, by_hand = _make("test", *arguments)
    return Stage(name, promise, command, by_hand, env=REAL, note=note, pytest=True, aloud=name == "test")


def mutants(root: Path = ROOT) -> list[str]:
    """Return the mutants of ``tests/faults/mutants.py``, read and not imported: this needs nothing installed."""
    tree = ast.parse((root / "tests" / "faults" / "mutants.py").read_text(encoding="utf-8"))
    return [
        node.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "MutantSpec"
        if isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str)
    ]


def seed_of(commit: str) -> int:
    """Return a seed for the faults that another commit does not share, from 1 to ``SEEDS``."""
    return 1 + int(hashlib.sha256(commit.encode()).hexdigest(), 16) % SEEDS


def some_mutants(commit: str) -> Stage:
    """Return three mutants, each with its rule and without."""
    chosen = in_turn(mutants(), commit, MUTANTS_AT_ONCE)
    return pytests(
        "mutants",
        "the worker with one rule undone is caught, and as it is comes through the same",
        *ALONE,
        MUTANTS_TESTS,
        "-k",
        " or ".join(f"[{name}]" for name in chosen),
        note=", ".join(chosen),
    )


def ci(commit: str) -> list[Stage]:
    """Return the stages of every change. Those too expensive for that take turns, by the commit's hash."""
    return [
        lint(),
        types(),
        outside_tools(),
        model("--quick", "--turn", commit),
        some_mutants(commit),
        faults("faults", 90, seed_of(commit)),
        pytests("test", "the worker does what schemas/CONTRACT.md and worker/DESIGN.md say, on real Apache Kafka"),
    ]


def verify() -> list[Stage]:
    """Return all stages."""
    return [
        lint(),
        types(),
        outside_tools(),
        pins(),
        *map(python, VERSIONS),
        Stage("docs", "the documents are a site, and every link in it leads somewhere", *_make("docs")),
        model("--deep"),
        pytests("test", "the worker does what schemas/CONTRACT.md and worker/DESIGN.md say, on real Apache Kafka"),
        pytests(
            "slow",
            "the same, where a test takes long",
            *ALONE,
            "--deselect",
            MUTANTS_TESTS,
            "--deselect",
            NETWORK_TESTS,
        ),
        pytests(
            "mutants",
            "the worker with any one rule undone is caught, and as it is comes through the same",
            *ALONE,
            MUTANTS_TESTS,
        ),
        pytests(
            "network",
            "whatever happens to a single request, every command is answered exactly once",
            *ALONE,
            NETWORK_TESTS,
        ),
        *(faults(f"faults-{seed}", 480, seed) for seed in (1, 2, 3)),
        Stage("bench", "everything that is measured is answered rightly", *_make("bench", "--quick")),
    ]
