"""Checks of the arguments of functions for notebooks: each error names the wrong argument.

@checked
def sample(model: Model, prompts: Sequence[str] = (), n: int = 1) -> list[str]: ...

sample(model, n="4")                  ValueError: sample: n='4' is no int
sample(model, promt="A")              TypeError: sample: no argument 'promt'; nearest is 'prompts'
"""

from __future__ import annotations

import functools
import inspect
import numbers
import sys
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ParamSpec, TypeVar

from repro.core.errors import nearest

P = ParamSpec("P")
R = TypeVar("R")
ELSEWHERE = {
    "temperature": "sampler='random:temperature=0.7'",
    "top_p": "sampler='ancestral+top_p:p=0.9'",
    "top_k": "sampler='ancestral+top_k:k=50'",
    "max_new_tokens": "gen_length",
    "max_tokens": "gen_length",
    "num_return_sequences": "n",
    "num_samples": "n",
}
"""Argument of transformers and similar libraries -> what to write instead, in functions of this suite that can do the
same."""


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """`function` with checked arguments: a call raises ValueError for an argument that is not of its annotated type,
    and TypeError for a missing or an unknown argument (with the nearest name). Numbers of numpy become Python's.
    Annotations are resolved at the first call, among the names of the function's module."""
    signature, called = inspect.signature(function), getattr(function, "__name__", "")

    @functools.lru_cache
    def hints() -> dict[str, Any]:
        return typing.get_type_hints(function, vars(sys.modules[function.__module__]))

    @functools.wraps(function)
    def call(*given: P.args, **named: P.kwargs) -> R:
        for name in named:
            if name not in signature.parameters:
                raise TypeError(f"{called}: no argument {name!r}; {_meant(name, signature.parameters)}")
        try:
            bound = signature.bind(*given, **named)
        except TypeError as error:
            raise TypeError(f"{called}: {error}") from None
        for name, value in bound.arguments.items():
            if not _fits(value, hints().get(name, Any)):
                raise ValueError(f"{called}: {name}={value!r:.100} {_misfit(value, hints()[name])}")
            bound.arguments[name] = _plain(value)
        return function(*bound.args, **bound.kwargs)

    return call


def _plain(value: Any) -> Any:
    """`value`, with numbers of another library (such as numpy) turned into Python's own, also within a list or tuple:
    rng and records accept only Python's numbers."""
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    return type(value)(map(_plain, value)) if type(value) in (list, tuple) else value


def _meant(name: str, known: Iterable[str]) -> str:
    instead = ELSEWHERE.get(name, "")
    return f"write {instead}" if instead.partition("=")[0] in known else nearest(name, known)


def _misfit(value: Any, hint: Any) -> str:
    """End of a message about a value that is not of the type `hint`: "is unknown; nearest is 'B'" for a string where
    `hint` is a Literal, else "is no " and the names of the types in `hint`."""
    literals, others = _alternatives(hint)
    if isinstance(value, str) and literals and not others:
        return f"is unknown; {nearest(value, map(str, literals))}"
    return f"is no {' | '.join([*others, *map(repr, literals)])}"


def _alternatives(hint: Any) -> tuple[list[Any], list[str]]:
    """Values and type names in a type hint: `Literal["a", "b"] | int` gives (["a", "b"], ["int"])."""
    origin, within = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return list(within), []
    if origin in (typing.Union, types.UnionType):
        found = [_alternatives(each) for each in within]
        return [v for values, _ in found for v in values], [n for _, names in found for n in names]
    if hint is type(None):
        return [], ["None"]
    if origin is Sequence:
        values, names = _alternatives(within[0])
        return [], [f"Sequence[{' | '.join([*names, *map(repr, values)])}]"]
    return [], [getattr(hint, "__name__", str(hint))]


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
