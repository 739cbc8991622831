"""Draw the rooms (subpackages and top-level modules) of the package and the imports between them: docs/rooms.svg, the
picture of docs/architecture.md.

    python -m scripts.rooms [--check]

A pure function of the code: rooms from top to bottom as import-linter's contract in pyproject.toml orders them, each
with the first sentence of its docstring, and an arrow for every pair of rooms of which one imports the other
(function-level imports included, imports for types alone and imports of `core` left out).
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from repro.core.cli import Parser, run
from repro.core.files import ROOT, write_text

OUT = ROOT / "docs" / "rooms.svg"
TOP, ROW, LEFT, BOX, HEIGHT = 16, 46, 230, 640, 34
HEAD = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"
 aria-label="Rooms of the package and their imports">
<defs><marker id="tip" viewBox="0 0 6 6" refX="5" refY="3" markerWidth="6" markerHeight="6" orient="auto"
 markerUnits="userSpaceOnUse"><path d="M0 0 L6 3 L0 6 z" fill="#777"/></marker></defs>
<style>.room{{fill:#eef3f8;stroke:#5b7a99}}.name{{font:600 14px sans-serif;fill:#1d2b3a}}
.sign{{font-family:sans-serif;fill:#51606e;text-anchor:end}}
.arrow{{fill:none;stroke:#8a97a3;stroke-width:1.1;marker-end:url(#tip)}}</style>
<rect width="100%" height="100%" fill="white"/>"""


def layers() -> list[list[str]]:
    """Rooms by layer, the highest first, as the first contract of import-linter names them."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    return [
        [name.strip().removeprefix("repro.") for name in layer.replace("|", ":").split(":")]
        for layer in contracts[0]["layers"]
    ]


def files(room: str) -> list[Path]:
    """The modules of a room."""
    folder = ROOT / "repro" / room
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


def imports(path: Path) -> Iterator[str]:
    """Rooms that a module imports, TYPE_CHECKING blocks apart."""
    tree = ast.parse(path.read_text("utf-8"))
    typing = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and id(node) not in typing and node.module:
            root, _, rest = node.module.partition(".")
            if root == "repro":
                yield from [rest.partition(".")[0]] if rest else [alias.name for alias in node.names]


def arrows() -> list[tuple[str, str]]:
    """(importing room, imported room) of every pair; `core`, which every room imports, is left out."""
    rooms = [room for layer in layers() for room in layer]
    found = {(room, other) for room in rooms for path in files(room) for other in imports(path)}
    return sorted((a, b) for a, b in found if b in rooms and a != b and b != "core")


def sign(room: str) -> str:
    """The first sentence of a room's docstring."""
    path = ROOT / "repro" / room
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return " ".join(text.partition("\n\n")[0].split()).partition(". ")[0].rstrip(".")


def svg() -> str:
    """The picture as text."""
    row_of, boxes = {}, []
    for row, layer in enumerate(layers()):
        row_of |= dict.fromkeys(layer, row)
        y = TOP + row * ROW
        said = sign(layer[0]) if len(layer) == 1 else "commands"
        size = 12 if len(said) * 6.2 < BOX - 130 else 12 * (BOX - 130) / (len(said) * 6.2)
        boxes += [
            f'<rect x="{LEFT}" y="{y}" width="{BOX}" height="{HEIGHT}" rx="5" class="room"/>',
            f'<text x="{LEFT + 10}" y="{y + 22}" class="name">{escape(", ".join(layer))}</text>',
            f'<text x="{LEFT + BOX - 10}" y="{y + 22}" class="sign" style="font-size:{size:.1f}px">'
            f"{escape(said)}</text>",
        ]
    curves = []
    for here, there in arrows():
        start, end = (TOP + row_of[room] * ROW + HEIGHT / 2 for room in (here, there))
        start, end = start + 5, end - 5
        bend = LEFT - min(LEFT - 20.0, 14 + 0.45 * (end - start))
        curves.append(
            f'<path class="arrow" d="M{LEFT} {start:.0f} C{bend:.0f} {start:.0f} {bend:.0f} {end:.0f} '
            f'{LEFT - 3} {end:.0f}"><title>{here} imports {there}</title></path>'
        )
    height = 2 * TOP + ROW * len(layers()) - (ROW - HEIGHT)
    return "\n".join([HEAD.format(width=LEFT + BOX + 20, height=height), *curves, *boxes, "</svg>", ""])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns 1 if `--check` finds a stale picture, else 0."""
    parser = Parser(
        "python -m scripts.rooms",
        "Draw the rooms of the package and the imports between them.",
        ["python -m scripts.rooms --check"],
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; say whether the picture is current"
    )
    if parser.parse_args(argv).check:
        current = OUT.is_file() and OUT.read_text("utf-8") == svg()
        if not current:
            print(f"{OUT} is stale; python -m scripts.rooms writes it anew")
        return 0 if current else 1
    write_text(OUT, svg())
    print(f"wrote {OUT}")
    return 0


if __name__ == "__main__":
    run(main, "scripts.rooms")
