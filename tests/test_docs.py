"""docs/architecture.md stays true: the definitions and rooms that it names exist, and its links resolve."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from repro.core.files import ROOT
from scripts.rooms import layers

TEXT = (ROOT / "docs" / "architecture.md").read_text("utf-8")


def definitions(path: Path) -> set[str]:
    """Names that a module defines at its top level, and `Class.member` of its classes."""
    found = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        found |= {target.id for target in targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {
                f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)
            }
    return found


def test_definitions_of_the_walks_exist():
    named = re.findall(r"`([\w/]+\.py):([\w.]+)`", TEXT)
    assert len(named) > 50
    assert not [f"{file}:{name}" for file, name in named if name not in definitions(ROOT / "repro" / file)]


def test_every_room_is_described():
    rooms = {room for layer in layers() for room in layer}
    rooms |= {f"evals/{path.parent.name}" for path in (ROOT / "repro" / "evals").glob("*/__init__.py")}
    described = set(re.findall(r"`([\w/]+)(?:\.py)?`", TEXT))
    assert not rooms - described


def test_links_resolve():
    anchors = {
        name: set(re.findall(r'<a id="([^"]+)"></a>', text))
        for name, text in {"": TEXT, "method.md": (ROOT / "docs" / "method.md").read_text("utf-8")}.items()
    }
    for file, _, anchor in (link.partition("#") for link in re.findall(r"\]\(([^)]+)\)", TEXT)):
        assert (ROOT / "docs" / file).exists(), file
        assert not anchor or anchor in anchors[file], f"{file}#{anchor}"
