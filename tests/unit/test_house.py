"""The rules of the house that no linter knows."""

import ast
import fnmatch
import re
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]

# The order in which a command meets the modules, after what they all stand on and before what stands around them.
# A later one may import an earlier one, never the reverse. A package counts as one.
ORDER: Final = (
    *("model", "guard", "decide", "errors", "descriptors", "dsn", "sql", "database", "schema"),
    *("settings", "digests", "inflate", "fetched", "topic_ids", "connection", "kafka"),
    *("observe", "backlog", "patience", "losses", "background", "probe", "pulse", "topic_watch"),
    *("tracing", "fuse", "stamps", "courtesy", "contract"),
    *("decode", "replies", "recall", "authorise", "attempts", "credentials", "load", "apply", "record", "encode"),
    *("project", "result", "publish"),
    *("pipeline", "lane", "retention", "watchdog", "supervisor", "admin", "service"),
    *("migrate", "topics", "rights", "mark", "announce", "import_lines", "import_rows", "importing", "check"),
    *("browse", "lanes", "pages", "history", "explain", "guesses", "matching", "rehearsals", "reconcile", "audit"),
    *("mentions", "erasure", "login_source", "dead_letters", "submit"),
    *("embedded", "demo", "deadline", "cli", "__main__"),
)
# Every module speaks the vocabulary. What else stands in schemas/ is the outside's, and met where bytes enter or leave;
# a change is chained to the one before it where it is made.
VOCABULARY: Final = {"codes", "states"}
MEETS_THE_OUTSIDE: Final = {
    "digests": {"transition"},
    "decode": {"command", "headers", "access_token"},
    "project": {"access_token"},
    "result": {"access_token", "headers", "result", "transition"},
    "contract": {"asyncapi", "pack", "page"},
    "import_lines": {"access_token"},
    "demo": {"headers"},
    "cli": {"compatibility", "older", "pack"},
    "browse": {"headers"},
    "explain": {"access_token", "headers"},
    "reconcile": {"headers", "transition"},
    "audit": {"transition"},
    "mentions": {"headers"},
    "erasure": {"access_token"},
    "login_source": {"command"},
    "dead_letters": {"headers"},
    "submit": {"command", "headers"},
}
PURE: Final = ("model", "guard", "decide")
LONGEST_FUNCTION: Final = 60


def modules_of(package: str) -> dict[str, Path]:
    """Every module of a package by its dotted name."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


WORKER: Final = modules_of("worker")
SCHEMAS: Final = modules_of("schemas")


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports_of(path: Path) -> set[str]:
    """The modules that a file imports, wherever in it that happens, types included."""
    known = WORKER.keys() | SCHEMAS.keys()
    names: set[str] = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            source = node.module or ""
            # `from worker import model` imports a module, `from worker.model import Command` a name of one.
            names.update(f"{source}.{name.name}" if f"{source}.{name.name}" in known else source for name in node.names)
    return names


def part(module: str) -> str:
    """What a module of ``worker`` counts as in the order: its first name below the package."""
    return module.split(".")[1]


def own_files() -> Iterator[Path]:
    """What belongs to the project: everything but what .gitignore names, and environments."""
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


def test_every_module_has_its_place_in_the_order() -> None:
    assert {part(module) for module in WORKER if "." in module} == set(ORDER)


@pytest.mark.parametrize("module", [module for module in WORKER if "." in module])
def test_imports_run_one_way(module: str) -> None:
    mine = ORDER.index(part(module))
    against = {
        name
        for name in imports_of(WORKER[module])
        if name.startswith("worker.") and part(name) != part(module) and ORDER.index(part(name)) > mine
    }
    assert not against, f"{module} imports what comes after it"


@pytest.mark.parametrize("package", [WORKER, SCHEMAS], ids=["worker", "schemas"])
def test_no_imports_run_in_a_circle(package: dict[str, Path]) -> None:
    graph = {module: imports_of(path) & package.keys() for module, path in package.items()}
    assert list(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("name", PURE)
def test_the_core_imports_what_values_are_made_of_and_itself(name: str) -> None:
    core = {f"worker.{other}" for other in PURE} | {f"schemas.{word}" for word in VOCABULARY}
    foreign = {
        module
        for module in imports_of(WORKER[f"worker.{name}"])
        if module not in core and module.split(".")[0] not in sys.stdlib_module_names | {"msgspec"}
    }
    assert not foreign


@pytest.mark.parametrize("module", SCHEMAS)
def test_schemas_never_import_the_worker(module: str) -> None:
    assert not {name for name in imports_of(SCHEMAS[module]) if name.split(".")[0] == "worker"}


@pytest.mark.parametrize("module", [module for module in WORKER if "." in module])
def test_schemas_are_met_only_where_bytes_enter_or_leave(module: str) -> None:
    used = {name.split(".")[1] for name in imports_of(WORKER[module]) if name.startswith("schemas.")}
    assert used <= VOCABULARY | MEETS_THE_OUTSIDE.get(part(module), set())


@pytest.mark.parametrize("module", [*WORKER, *SCHEMAS])
def test_a_function_fits_on_a_screen(module: str) -> None:
    long = {
        node.name: node.end_lineno - node.lineno + 1
        for node in ast.walk(parsed((WORKER | SCHEMAS)[module]))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > LONGEST_FUNCTION
    }
    assert not long


def asked_for(argument: ast.expr) -> str:
    """The name that a statement is asked for by, with a ``*`` for each part that is only known when it runs."""
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
    files = {path.stem for path in (ROOT / "worker" / "sql").glob("*.sql")}
    assert "*" not in asked, "a statement is asked for by a name that no reader can look up"
    assert {name for name in asked if not fnmatch.filter(files, name)} == set()
    assert {file for file in files if not any(fnmatch.fnmatch(file, name) for name in asked)} == set()


def test_migrations_are_numbered_without_a_gap() -> None:
    names = sorted(path.name for path in (ROOT / "worker" / "migrations").glob("*.sql"))
    assert [name[:5] for name in names] == [f"{number:04}_" for number in range(1, len(names) + 1)]


@pytest.mark.parametrize("module", [module for module in [*WORKER, *SCHEMAS] if not module.startswith("worker.cli")])
def test_only_commands_talk_to_a_terminal(module: str) -> None:
    printed = [
        node.lineno
        for node in ast.walk(parsed((WORKER | SCHEMAS)[module]))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not printed


# In parts, so that this file does not hold what it looks for.
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
