"""Command line for any recipe by name: `python -m repro.recipes mdlm --scale nano`; without a name it lists them."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from repro.core import registry
from repro.core.cli import run
from repro.recipes.command import command


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line of the recipe named by the first argument, or print all names; returns the exit code.

    Raises ValueError, with the most similar name, for an unknown recipe.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0].startswith("-"):
        print("\n".join(registry.RECIPES))
        return 0
    return command(registry.recipe(arguments[0]), arguments[1:])


if __name__ == "__main__":
    run(main, "repro.recipes")
