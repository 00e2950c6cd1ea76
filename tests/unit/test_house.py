"""The house rules that no linter knows."""

import ast
import fnmatch
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]

# Every module speaks the vocabulary. The rest of the contract belongs to the outside, and is met where bytes enter or
# leave; a change is chained to the one before it where it is made. (pyproject.toml says which module may import which.)
VOCABULARY: Final = {"codes", "methods", "states"}
MEETS_THE_OUTSIDE: Final = {
    "worker.cli.send": {"client"},
    "worker.demo.commands": {"headers"},
    "worker.journey.decode.body": {"access_token", "command", "rules"},
    "worker.journey.decode.cloudevent": {"rules"},
    "worker.journey.decode.command": {"rules"},
    "worker.journey.decode.headers": {"headers", "rules"},
    "worker.journey.digests": {"transition"},
    "worker.journey.messages": {"headers"},
    "worker.journey.project": {"access_token"},
    "worker.journey.refusals": {"rules"},
    "worker.kafka.reader": {"headers"},
    "worker.operations.audit.chains": {"transition"},
    "worker.operations.audit.published": {"transition"},
    "worker.operations.dead_letters.renewed": {"headers"},
    "worker.operations.erasure.erase": {"access_token"},
    "worker.operations.erasure.mentions": {"headers"},
    "worker.operations.explain": {"access_token", "headers"},
    "worker.operations.imports.lines": {"access_token", "rules"},
    "worker.operations.login_source": {"command"},
    "worker.operations.reconcile.events": {"transition"},
    "worker.operations.reconcile.log_record": {"headers"},
    "worker.operations.reconcile.observed": {"headers"},
    "worker.operations.send": {"client", "headers", "rules"},
    "worker.operations.submit.answers": {"headers"},
    "worker.operations.submit.lines": {"rules"},
    "worker.operations.submit.session": {"headers"},
    "worker.settings": {"headers"},
}
CORE: Final = ("worker.values", "worker.kafka.delivery", "worker.journey.model")
PURE: Final = (*CORE, "worker.journey.attempt_limits", "worker.journey.decide")
LONGEST_FUNCTION: Final = 40
LONGER: Final = {
    "replay": "a command's parameters are its options, in full view",
    "import_": "a command's parameters are its options, in full view",
    "send": "a command's parameters are its options, in full view",
    "submit": "a command's parameters are its options, in full view",
    "set_effective": "a method that users call: its parameters and its docstring are the most of it",
    "_unauthorised": "one list of samples",
    "_channels": "one part of a document",
}
"""The functions that are longer, each with the reason."""


def modules_of(package: str, root: Path = ROOT) -> dict[str, Path]:
    """Return every module of a package by its dotted name."""
    found = {}
    for path in sorted((root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


WORKER: Final = modules_of("worker")
CONTRACT: Final = modules_of("effective_contract", ROOT / "schemas")


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports_of(path: Path) -> set[str]:
    """Return the modules that a file imports anywhere, types included."""
    known = WORKER.keys() | CONTRACT.keys()
    names: set[str] = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            source = node.module or ""
            # `from worker.journey import model` imports a module, `from worker.journey.model import Command` a name.
            names.update(f"{source}.{name.name}" if f"{source}.{name.name}" in known else source for name in node.names)
    return names


def own_files() -> Iterator[Path]:
    """Yield the files of the project: all but those that .gitignore names, and environments."""
    ignored = {".git", *(line.strip("/*") for line in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines())}
    waiting = [ROOT]
    while waiting:
        for path in sorted(waiting.pop().iterdir()):
            if path.name in ignored or path.suffix.lstrip(".") in {"egg-info", "pyc"}:
                continue
            if path.is_dir():
                if not (path / "pyvenv.cfg").exists():
                    waiting.append(path)
            elif path.is_file():
                yield path


@pytest.mark.parametrize("module", PURE)
def test_the_core_imports_what_values_are_made_of_and_itself(module: str) -> None:
    core = {*PURE, *(f"effective_contract.{word}" for word in VOCABULARY)}
    foreign = {
        name
        for name in imports_of(WORKER[module])
        if name not in core and name.split(".")[0] not in sys.stdlib_module_names | {"msgspec"}
    }
    assert not foreign


def test_schemas_are_met_only_where_bytes_enter_or_leave() -> None:
    used = {
        module: {name.split(".")[1] for name in imports_of(path) if name.startswith("effective_contract.")} - VOCABULARY
        for module, path in WORKER.items()
        if not module.startswith("worker.operations.contract.")  # the module that writes the whole contract down
    }
    assert {module: names for module, names in used.items() if names} == MEETS_THE_OUTSIDE


REACHES_IN: Final = {"worker.kafka.internals", "worker.dsn"}
"""The two modules that reach into private parts of a library: aiokafka's, and asyncpg's reading of a DSN."""


@pytest.mark.parametrize("module", [module for module in WORKER if module not in REACHES_IN])
def test_no_module_reaches_into_private_parts_of_others(module: str) -> None:
    tree = parsed(WORKER[module])
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    private = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__")
    ]
    own |= {node.attr for node in private if isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}}
    assert {node.attr for node in private} - own - {"_replace", "_asdict", "_exit"} == set()


def test_a_function_fits_on_a_screen() -> None:
    long = {
        node.name
        for path in (WORKER | CONTRACT).values()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > LONGEST_FUNCTION
    }
    assert long == LONGER.keys()


def asked_for(argument: ast.expr) -> str:
    """Return the name by which a statement is asked for, with ``*`` for each part known only at run time."""
    if isinstance(argument, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "*" for part in argument.values)
    return str(argument.value) if isinstance(argument, ast.Constant) else "*"


def test_every_statement_has_its_file_and_every_file_its_use() -> None:
    asked = {
        asked_for(node.args[0])
        for path in WORKER.values()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "statement"
    }
    sql = ROOT / "worker" / "postgres" / "sql"
    files = {str(path.relative_to(sql).with_suffix("")) for path in sql.rglob("*.sql")}
    assert "*" not in asked, "a statement is asked for by a name that no reader can look up"
    assert {name for name in asked if not fnmatch.filter(files, name)} == set()
    assert {file for file in files if not any(fnmatch.fnmatch(file, name) for name in asked)} == set()


def test_migrations_are_numbered_without_a_gap() -> None:
    names = sorted(path.name for path in (ROOT / "worker" / "postgres" / "migrations").glob("*.sql"))
    assert [name[:5] for name in names] == [f"{number:04}_" for number in range(1, len(names) + 1)]


@pytest.mark.parametrize("module", [module for module in [*WORKER, *CONTRACT] if not module.startswith("worker.cli")])
def test_only_commands_talk_to_a_terminal(module: str) -> None:
    printed = [
        node.lineno
        for node in ast.walk(parsed((WORKER | CONTRACT)[module]))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not printed


# In parts, so that this file does not contain the text it searches for.
REGISTRIES: Final = tuple(
    ".".join(host)
    for host in (
        ("pypi", "org"),
        ("python" + "hosted", "org"),
        ("npmjs", "org"),
        ("npmjs", "com"),
        ("maven", "apache", "org"),
        ("maven", "org"),
        ("crates", "io"),
        ("golang", "org"),
    )
)
PLACES: Final = re.compile(r"(?<![\w.$/~)}-])/(home|root|Users|tmp|work|mnt)/\w")


def test_no_file_names_a_registry_or_a_place_on_somebodys_machine() -> None:
    found = []
    for path in own_files():
        text = path.read_text(encoding="utf-8", errors="replace")
        found += [f"{path.relative_to(ROOT)}: {host}" for host in REGISTRIES if host in text]
        found += [f"{path.relative_to(ROOT)}: {match.group()}" for match in PLACES.finditer(text)]
    assert not found
