"""The speed tables to read, results/tables/speed.md and parallelism.md, from the numbers of
`repro.results.tables.speed`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from repro.results.tables.speed import WHERE

if TYPE_CHECKING:
    from pandas import DataFrame

SPEED_CAPTION = (
    "The very same decodings judged and timed; seconds of decoding alone, warm-up excluded. accuracy: share of "
    "documents answered rightly, in brackets its 95 % Wilson interval for n documents. NFE: forwards a text. "
    "committed: positions that the sampler decided; useful: tokens before the first end id or stop string; both a "
    "forward, from summed counts. Tokens a second: of batches of `batch` rows, in brackets the least and the most of "
    "any pass and network. latency: milliseconds of one text at batch 1, median and in brackets the 95th percentile "
    "over texts. clock: process (CPU seconds of one thread) or wall. Tokens a second are measurements: they hold for "
    "the engine, device and numerics class above each table."
)
CURVE_CAPTION = (
    "A row is a rule over its settings. AUP: accuracy under parallelism (d3LLM), in per cent times tokens a forward, "
    "y_max fixed a task, mean over networks. fastest: the last setting, from the reference's tokens a forward up, "
    "whose accuracy is shown to be no worse than the reference's by the margin (one-sided 95 % paired interval, "
    "crossed over networks and documents, Student's t on networks less one), and its useful tokens a forward. "
    "difference and its lower end: of the first setting that failed, else of the fastest. alone: the same on each "
    "network by itself, a sentence about that network only. Constants: evals/speed.toml. Composites over unequal "
    "cells are refused; the note says why."
)
SPEED_HEAD = (
    "recipe",
    "sampler",
    "tokens per step",
    "accuracy",
    "NFE",
    "token-forwards a text",
    "committed a forward",
)
SPEED_HEAD += ("useful a forward", "useful tokens a second", "batch", "latency, ms", "seeds")
CURVE_HEAD = (
    "recipe",
    "rule",
    "settings",
    "AUP",
    "reference",
    "fastest",
    "useful a forward",
    "difference, low",
    "alone",
    "seeds",
    "note",
)


WORDS = ("reference", "fastest", "fastest_alone")
"""Columns of `CURVE_HEAD` that are empty where a composite is refused."""


def speeds(numbers: DataFrame) -> str:
    """The table of settings to read."""
    return _sections("Speed", SPEED_CAPTION, numbers, SPEED_HEAD, _speed_line)


def curves(numbers: DataFrame) -> str:
    """The table of composites to read."""
    return _sections("Parallelism", CURVE_CAPTION, numbers, CURVE_HEAD, _curve_line)


def _sections(
    title: str,
    caption: str,
    numbers: DataFrame,
    head: Sequence[str],
    line: Callable[[Mapping[str, Any]], list[str]],
) -> str:
    from tabulate import tabulate

    parts = [f"# {title}", caption]
    for key, section in numbers.groupby(list(WHERE), sort=True):
        assert isinstance(key, tuple)
        suite, scale, engine, device, numerics = map(str, key)
        kind = json.loads(numerics)
        said = ", ".join(f"{name} {value}" for name, value in kind.items())
        parts.append(f"## {scale or 'full scale'} (suite {suite}): engine {engine} on {device} ({said})")
        lines = [line(row) for row in section.to_dict("records")]
        parts.append(tabulate(lines, headers=head, tablefmt="github", disable_numparse=True))
    if numbers.empty:
        parts.append(
            "No records yet: `python -m repro.evals --suite speed.sudoku`, then `python -m repro.results publish DIR`."
        )
    return "\n\n".join(parts) + "\n"


def _speed_line(row: Mapping[str, Any]) -> list[str]:
    several = not math.isnan(row["accuracy_sd_seeds"])
    spread = f", sd {row['accuracy_sd_seeds']:.3f}" if several else ""
    return [
        *(row["recipe"], row["preset"], row["tokens_per_step"]),
        f"{row['accuracy']:.3f}{spread} [{row['accuracy_low']:.3f}, {row['accuracy_high']:.3f}]",
        f"{row['nfe']:.3f}",
        f"{row['token_forwards']:.1f}",
        f"{row['committed_per_forward']:.3f}",
        f"{row['useful_per_forward']:.3f}",
        f"{row['useful_per_second']:.0f} [{row['useful_per_second_low']:.0f}, {row['useful_per_second_high']:.0f}]",
        str(row["batch"]),
        f"{1000 * row['latency']:.1f} ({1000 * row['latency_p95']:.1f})",
        str(row["seeds"]),
    ]


def _curve_line(row: Mapping[str, Any]) -> list[str]:
    def number(name: str, form: str) -> str:
        return "" if math.isnan(row[name]) else format(row[name], form)

    spread = f" sd {number('aup_sd_seeds', '.1f')}" if number("aup_sd_seeds", ".1f") else ""
    both = f"{number('difference', '+.3f')}, {number('low', '+.3f')}" if number("low", ".3f") else ""
    shown = [row["recipe"], row["preset"], str(row["settings"]), number("aup", ".1f") + spread]
    said = {name: row[name] if isinstance(row[name], str) else "" for name in WORDS}
    shown += [said["reference"], said["fastest"], number("tokens_per_forward", ".2f"), both]
    return [*shown, said["fastest_alone"], str(row["seeds"]), row["note"]]
