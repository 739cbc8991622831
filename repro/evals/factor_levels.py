"""The option `--factors`: settings to evaluate in all combinations of their values, and these values (levels).

read_factors("template,batch=1|8")     -> {"template": ("none", "chat"), "batch": (1, 8)}
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from repro.core.errors import LARGEST_COUNT, nearest

Factors = dict[str, tuple[Any, ...]]
"""Name of a factor -> its levels."""


def _one_of(*names: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in names:
            raise ValueError(f"{text!r} is no level of this factor; give {' or '.join(names)}")
        return text

    return read


def _whole(least: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise ValueError(f"{text!r} is no level of this factor; give a whole number, {least} or more")
        if int(text) > LARGEST_COUNT:
            raise ValueError(f"{text!r} is no level of this factor; give at most {LARGEST_COUNT:,}")
        return int(text)

    return read


def _rate(text: str) -> float | str:
    if text == "all":
        return text
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ValueError(
            f"{text!r} is no level of this factor; give a positive number of tokens per step, or all"
        )
    return value


@dataclass(frozen=True)
class Kind:
    """A setting that --factors can vary (a factor): its `default` values (levels, separated by |), `read`, which turns
    the text of a level into its value, and the `flag` of `python -m repro.evals` that sets it to a single value."""

    default: str
    read: Callable[[str], Any]
    flag: str


FACTORS = {
    "precision": Kind("float32|bfloat16", _one_of("float32", "bfloat16", "int8"), "--precision"),
    "template": Kind("none|chat", _one_of("none", "chat"), "--template"),
    "shots": Kind("0|4", _whole(0), "--shots"),
    "draws": Kind("8|128", _whole(1), "--estimator NAME:draws=N"),
    "batch": Kind("1|8", _whole(1), "--batch-size"),
    "steps": Kind("1|2|4", _rate, "--tokens-per-step"),
    "seed": Kind("0|1|2", _whole(0), "--seeds"),
}
"""Name -> setting that can be a factor: precision of released weights, chat template, few-shot examples, draws of the
likelihood estimator, rows of one forward, tokens decoded per step, and sampling seed."""
HELP = (
    "run lm-eval tasks with all combinations of settings and attribute the variance of the accuracy to each: names"
    " separated by ',', each with its levels or their default: "
    + ", ".join(f"{name}={kind.default}" for name, kind in FACTORS.items())
    + " (steps: tokens per step; several --samplers are a factor too; at most 300 items, or --limit)"
)


def read_factors(text: str) -> Factors:
    """The varied settings (factors) that a text such as `template,batch=1|8` names, in its order, each with its values
    (levels), here the default ones for `template`.

    Raises ValueError for an unknown factor, one that is given twice, an invalid level, and fewer than two levels.
    """
    found: Factors = {}
    for each in text.split(","):
        name, equals, levels = each.strip().partition("=")
        if name not in FACTORS:
            raise ValueError(f"no factor {name!r}; {nearest(name, FACTORS)}")
        if name in found:
            raise ValueError(f"factor {name!r} is given twice; give it once, with all levels: {name}=A|B")
        found[name] = _levels(name, levels if equals else FACTORS[name].default)
    return found


def _levels(name: str, text: str) -> tuple[Any, ...]:
    levels = []
    for each in text.split("|"):
        try:
            levels.append(FACTORS[name].read(each.strip()))
        except ValueError as error:
            raise ValueError(f"factor {name}: {error}") from None
    twice = next((level for level in levels if levels.count(level) > 1), None)
    if twice is not None:
        raise ValueError(f"factor {name}: level {twice!r} is given twice; give different levels")
    if len(levels) < 2:
        raise ValueError(
            f"factor {name} has one level, {text!r}; give several separated by '|', or {FACTORS[name].flag} for one"
        )
    return tuple(levels)


def said(factors: Factors) -> str:
    """The varied settings (factors) and their values (levels) as text, such as `template none|chat x batch 1|8`."""
    return " x ".join(f"{name} {'|'.join(map(shown, levels))}" for name, levels in factors.items())


def shown(level: Any) -> str:
    """A value (level) of a varied setting (factor) as text, as it is written in `--factors`."""
    return f"{level:g}" if isinstance(level, float) else str(level)
