"""Differences between two values of plain JSON (dictionaries, lists, numbers, strings), as the evaluations (`question`)
or results (`answer`) of two records. A *path* names a nested value by its keys, joined with dots: `plan.tokens`; a
number is an index into a list.

difference(first, second)           the first path at which they differ, as a sentence; None: equal up to rounding
places(first, second)               every path at which they differ, with both values
look(question, "plan.tokens")       the value at a path
without(question, "plan.tokens")    a copy without the value at a path
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from repro.core.parts import to_json

RELATIVE = 1e-5
ABSOLUTE = 1e-6  # for differences of two numbers near 1 (gap, excess), whose relative error is larger


def difference(first: Any, second: Any, path: str = "") -> str | None:
    """Sentence `PATH is A and B` about the first path at which two JSON values differ; None if they are equal. Floats
    are equal within a relative tolerance of 1e-5 (RELATIVE) or an absolute one of 1e-6 (ABSOLUTE). `path`: path of
    `first` and `second` themselves if they are nested in other data, put before PATH."""
    if isinstance(first, dict) and isinstance(second, dict):
        for name in sorted(first.keys() | second.keys()):
            where = _join(path, name)
            if name not in first or name not in second:
                return f"{where} is given in only one of the two"
            found = difference(first[name], second[name], where)
            if found is not None:
                return found
        return None
    if isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        each = (
            difference(a, b, _join(path, str(i))) for i, (a, b) in enumerate(zip(first, second, strict=True))
        )
        return next((found for found in each if found is not None), None)
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (first, second))
    if numbers and float in (type(first), type(second)):
        same = math.isclose(first, second, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    else:
        same = first == second
    return None if same else f"{path} is {to_json(first)} and {to_json(second)}"


def places(first: Any, second: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """Every difference between two JSON values, as triples (path, value in `first`, value in `second`), None where a
    value is missing. Lists are compared as a whole, and so are two components with different names (dictionaries, whose
    field `part` is the name). `path`: path of `first` and `second` themselves if they are nested in other data, put
    before each path."""
    both = isinstance(first, Mapping) and isinstance(second, Mapping)
    if not both or first.get("part") != second.get("part"):
        return [] if difference(first, second) is None else [(path, first, second)]
    found = []
    for name in sorted(first.keys() | second.keys()):
        found += places(first.get(name), second.get(name), _join(path, name))
    return found


def look(data: Any, place: str) -> Any:
    """Value at the dotted path `place` of JSON data; None if there is none."""
    for name in place.split("."):
        if isinstance(data, Mapping) and name in data:
            data = data[name]
        elif isinstance(data, list) and name.isdigit() and int(name) < len(data):
            data = data[int(name)]
        else:
            return None
    return data


def without(data: Any, *places: str) -> Any:
    """Copy of JSON data without the values at the dotted paths `places`; paths that it does not have are ignored."""
    if not places:
        return data
    inner: dict[str, list[str]] = {}
    for place in places:
        name, _, rest = place.partition(".")
        inner.setdefault(name, []).append(rest)
    if isinstance(data, Mapping):
        left = {name: value for name, value in data.items() if "" not in inner.get(name, ())}
        return {name: without(value, *inner.get(name, ())) for name, value in left.items()}
    if isinstance(data, list):
        return [without(value, *inner.get(str(i), ())) for i, value in enumerate(data)]
    return data


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
