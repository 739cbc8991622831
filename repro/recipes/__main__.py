"""Command line of any recipe by name; without a name it lists all recipes.

python -m repro.recipes                       every recipe with what it trains
python -m repro.recipes mdlm --scale nano     the same as python -m repro.recipes.mdlm --scale nano
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from repro.core import registry
from repro.core.cli import fill, run
from repro.core.papers import of_recipe, shown
from repro.recipes.command import command
from repro.recipes.scale import full_recipe


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line of the recipe named by the first argument, or print all names; returns the exit code.

    Raises ValueError, with the most similar name, for an unknown recipe.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0].startswith("-"):
        print("\n".join(listing()))
        return 0
    return command(full_recipe(arguments[0]), arguments[1:])


def listing() -> Iterator[str]:
    """Lines of text with every recipe, what it trains (the first paragraph of its file) and the paper of its method."""
    yield "usage: python -m repro.recipes RECIPE ...      (RECIPE --help shows its options)"
    yield ""
    wide = max(map(len, registry.RECIPES))
    for name, about in sentences().items():
        yield from fill(f"  {name:<{wide}}  ", about)
    yield ""
    yield "example:"
    yield "  python -m repro.recipes mdlm --scale nano"


def sentences() -> dict[str, str]:
    """Name of a recipe -> what it trains (the first paragraph of its file) and the paper of its method."""
    found = {}
    for name, module in registry.RECIPES.items():
        text = (Path(__file__).parent / f"{module.rpartition('.')[2]}.py").read_text("utf-8")
        about = " ".join((ast.get_docstring(ast.parse(text)) or "").partition("\n\n")[0].split())
        paper = of_recipe(name)
        found[name] = about + ("" if paper is None else f" [{shown(paper)}]")
    return found


if __name__ == "__main__":
    run(main, "repro.recipes")
