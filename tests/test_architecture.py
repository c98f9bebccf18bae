"""The direction of imports, and the size of functions and files."""

from __future__ import annotations

import ast
import importlib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAX_FUNCTION_LINES = 60
MAX_FILE_LINES = 400

# Top to bottom. A part imports only from lines below its own; parts on one line do not know each other.
LAYERS = (
    ("__main__",),
    ("cli",),
    ("app", "cases", "importing", "probing"),
    ("server", "admin", "edge"),
    ("connection",),
    ("account",),
    ("status", "once", "keeping", "form"),
    ("request",),
    ("reload",),
    ("changes",),
    ("generation",),
    ("pipeline", "explain"),
    ("life",),
    ("goingon",),
    ("cached", "unreported"),
    ("draining",),
    ("admission",),
    ("long_streams",),
    ("dispatch",),
    ("recorder", "quote", "checks"),
    ("slices",),
    ("routing",),
    ("cache",),
    ("kept",),
    ("compress",),
    ("charging",),
    ("backends",),
    ("adapters",),
    ("waiting", "guesses"),
    ("tenants", "limits"),
    ("fair",),
    ("parse",),
    ("failing",),
    ("dialects", "endpoints"),
    ("tokens",),
    ("config",),
    ("metrics",),
    ("deadline", "chores"),
    ("clock",),
    ("sse",),
    ("bounded", "call", "errors", "hours", "sound", "multipart"),
    ("demo",),
)
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}
PEERS_ALLOWED = {("server", "admin"), ("server", "edge")}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted((ROOT / "gateway").rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}


def imports(name: str) -> set[str]:
    """The gateway's modules that a module names in its imports; `from package import module` is the module."""
    package = name if FILES[name].name == "__init__.py" else name.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found |= {f"{base}.{alias.name}" if f"{base}.{alias.name}" in FILES else base for alias in node.names}
    return {module for module in found if module.split(".")[0] == "gateway"}


def part(module: str) -> str | None:
    """The part of the gateway a module belongs to; None is the package itself (its version), open to all."""
    return module.split(".")[1] if "." in module else None


def may_import(importer: str | None, imported: str | None) -> bool:
    if imported is None or importer == imported:
        return True
    if importer is None:
        return False
    if not {importer, imported} <= LEVEL.keys():
        return True  # another test asks for its place
    return LEVEL[importer] < LEVEL[imported] or (importer, imported) in PEERS_ALLOWED


def functions(tree: ast.Module) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


@pytest.mark.parametrize("name", FILES)
def test_a_module_imports(name: str) -> None:
    importlib.import_module(name)


def test_imports_have_no_cycle() -> None:
    # With this, a module that imports also imports alone: nothing depends on who came first.
    TopologicalSorter({name: imports(name) - {name, "gateway"} for name in FILES}).prepare()


def test_every_module_has_a_place() -> None:
    assert {part(name) for name in FILES} - {None} <= LEVEL.keys(), "add it to LAYERS"


@pytest.mark.parametrize("name", FILES)
def test_imports_point_downwards(name: str) -> None:
    assert [imported for imported in sorted(imports(name)) if not may_import(part(name), part(imported))] == []


@pytest.mark.parametrize("name", FILES)
def test_imports_stand_at_the_top(name: str) -> None:
    inner = [node for function in functions(TREES[name]) for node in ast.walk(function)]
    assert [node.lineno for node in inner if isinstance(node, ast.Import | ast.ImportFrom)] == []


@pytest.mark.parametrize("name", FILES)
def test_no_global_statement(name: str) -> None:
    assert [node.lineno for node in ast.walk(TREES[name]) if isinstance(node, ast.Global)] == []


@pytest.mark.parametrize("name", FILES)
def test_functions_and_files_are_short(name: str) -> None:
    lengths = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions(TREES[name])}
    assert {function: lines for function, lines in lengths.items() if lines > MAX_FUNCTION_LINES} == {}
    assert len(FILES[name].read_text(encoding="utf-8").splitlines()) <= MAX_FILE_LINES
