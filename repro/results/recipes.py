"""Recipes of records: a record holds a recipe's digest, and the recipe itself is in the registry (under the name of the
checkpoint) or in the `recipe.json` of a run folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from repro.core import parts, registry
from repro.core.reading import read_json
from repro.recipes.scale import by_name
from repro.training.recipe import Recipe

FILE = "recipe.json"


def recipe_named(name: str) -> Recipe | None:
    """The recipe called `name` (`duo`, `duo@nano`, `oracle:mdlm@nano`), or that of the run folder `name`; None if it is
    neither. ValueError for an unknown scale and for a file that holds no recipe."""
    file = Path(name) / FILE
    if file.is_file():
        return _read(file)
    base = name.removeprefix("oracle:").partition("@")[0]
    return by_name(name) if base in registry.RECIPES and "/" not in name else None


def recipe_of(digest: str, name: str, folder: Path) -> Recipe | None:
    """The recipe with this `digest`: the registered one of the checkpoint `name`, or one in a `recipe.json` beside or
    below `folder`; None if neither has this digest, as for a run of another version of this suite."""
    if name.partition("+")[0].removeprefix("oracle:").partition("@")[0] in registry.RECIPES:
        found = by_name(name.partition("+")[0])
        if found.digest() == digest:
            return found
    for file in (folder.parent / FILE, *sorted(folder.rglob(FILE))):
        if file.is_file() and (found := _read(file)).digest() == digest:
            return found
    return None


def differing(first: Recipe, second: Recipe) -> Iterator[str]:
    """Lines of text with the settings in which two recipes differ, `PATH: A -> B`."""
    for path, a, b in parts.changes(first, second):
        if path != "name":
            yield f"{path}: {parts.brief(a)} -> {parts.brief(b)}"


def _read(path: Path) -> Recipe:
    return parts.read(read_json(path), Recipe)
