"""Imports go one way and in no cycle; see docs/architecture.md."""

from __future__ import annotations

import ast
from pathlib import Path

import networkx as nx
import pytest

ROOT = Path(__file__).parents[1] / "napari_cmunet"
BELOW = {
    "util": {"errors"},
    "errors": {"util"},
    "vessels": {"util", "errors"},
    "synthetic": {"util", "errors"},
    "cine": {"vessels", "util", "errors"},
    "io": {"vessels", "cine", "synthetic", "util", "errors"},
    "model": {"vessels", "cine", "synthetic", "util", "errors"},
}
BELOW["training"] = BELOW["model"] | {"model", "io"}
BELOW["pretraining"] = BELOW["training"] | {"training"}
BELOW["project"] = BELOW["pretraining"] | {"pretraining"}
BELOW["reader"] = BELOW["writer"] = BELOW["sample_data"] = BELOW["io"] | {"io"}
BELOW["gui"] = BELOW["project"] | {"project", "reader", "writer", "sample_data"}
# `bench` and `demo` open a window.
BELOW["cli"] = BELOW["gui"] | {"gui"}
BELOW["__main__"] = {"cli"}
"""The rooms that each room may import from; every room may import itself."""


def _module(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(path: Path, modules: set[str]) -> set[str]:
    """Modules of the package that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names += [] if all(n in modules for n in names) else [node.module]
        found |= {name for name in names if name in modules}
    return found - {_module(path), "napari_cmunet"}


@pytest.fixture(scope="module")
def imports() -> nx.DiGraph:
    files = {_module(path): path for path in ROOT.rglob("*.py")}
    graph = nx.DiGraph()
    graph.add_nodes_from(files)
    for module, path in files.items():
        graph.add_edges_from((module, to) for to in _imports(path, set(files)))
    return graph


@pytest.mark.slow
def test_imports_go_down(imports):
    def room(module: str) -> str:
        return module.split(".")[1] if "." in module else ""

    wrong = [
        f"{a} -> {b}"
        for a, b in imports.edges
        if room(a) and room(a) != room(b) and room(b) not in BELOW[room(a)]
    ]
    assert not wrong, "\n".join(sorted(wrong))


def test_no_import_cycle(imports):
    cycles = [c for c in nx.strongly_connected_components(imports) if len(c) > 1]
    assert not cycles, cycles


@pytest.mark.slow
def test_the_science_knows_no_window():
    for room in sorted(set(BELOW) - {"gui", "cli", "reader", "writer", "sample_data"}):
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = (
                    [alias.name for alias in node.names]
                    if isinstance(node, ast.Import)
                    else [node.module or ""]
                    if isinstance(node, ast.ImportFrom)
                    else []
                )
                for name in names:
                    assert name.split(".")[0] not in ("qtpy", "napari"), path


def test_files_are_short_enough_to_read():
    long = {
        path.name: count
        for path in ROOT.rglob("*.py")
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > 400
    }
    assert not long
