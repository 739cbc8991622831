"""Functions for notebooks whose arguments are checked: a wrong one is a ValueError that names it.

@checked
def sample(model: Model, n: int = 1) -> list[str]: ...

sample(model, n="4")                  ValueError: sample: n='4' is no int
"""

from __future__ import annotations

import functools
import inspect
import numbers
import sys
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """`function` with checked arguments: a call raises ValueError for an argument that is not of its annotated type,
    and TypeError, as any function, for a missing or unknown one. Annotations are read at the first call from the names
    of the function's module."""
    signature, called = inspect.signature(function), getattr(function, "__name__", "")

    @functools.lru_cache
    def hints() -> dict[str, Any]:
        return typing.get_type_hints(function, vars(sys.modules[function.__module__]))

    @functools.wraps(function)
    def call(*given: P.args, **named: P.kwargs) -> R:
        for name, value in signature.bind(*given, **named).arguments.items():
            if not _fits(value, hints().get(name, Any)):
                wanted = str(signature.parameters[name].annotation)
                raise ValueError(f"{called}: {name}={value!r:.100} is no {wanted}")
        return function(*given, **named)

    return call


def _fits(value: Any, hint: Any) -> bool:
    """Whether `value` is of the type `hint`: a class, a union, a literal, or a sequence of such; true for any other
    hint."""
    origin, within = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, each) for each in within)
    if origin is typing.Literal:
        return any(type(value) is type(each) and value == each for each in within)
    if origin is Sequence:
        return isinstance(value, list | tuple | range) and all(_fits(each, within[0]) for each in value)
    if hint is float:
        return isinstance(value, numbers.Real) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, numbers.Integral) and not isinstance(value, bool)  # numpy's too
    if isinstance(hint, type):
        return isinstance(value, hint)
    return True
