"""Markdown of results/tables/speed.md and results/tables/parallelism.md, from the frames of
`repro.results.tables.speed`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from repro.results.tables.speed import WHERE
from repro.results.tables.text import grid, page

if TYPE_CHECKING:
    from pandas import DataFrame

SPEED_CAPTION = (
    "The same decodings are scored and timed; times are of decoding alone, without warm-up. accuracy: share "
    "of documents answered correctly, in brackets its 95 % Wilson interval for n documents; sd: standard "
    "deviation over seeds. NFE: forwards per text. token-forwards: positions computed by the network, "
    "summed over forwards. committed: positions decided by the sampler; useful: tokens before the first end "
    "id or stop string; both per forward, as ratios of sums. useful tokens per second: in batches of "
    "`batch` rows, in brackets the minimum and maximum over passes and networks. latency: milliseconds for "
    "one text at batch size 1, median and in parentheses 95th percentile over texts. Times are CPU seconds "
    "of one thread or wall-clock seconds (column clock of speed.csv). They are measurements: they hold for "
    "the engine, device and numerics class above each table."
)
CURVE_CAPTION = (
    "A row is a sampler over its settings. AUP: accuracy under parallelism (d3LLM), in per cent times "
    "tokens per forward, with y_max fixed per task; mean over networks, sd: their standard deviation. "
    "fastest: settings are tested in ascending order of tokens per forward, from the reference on; this is "
    "the last one before the first failure, with its useful tokens per forward. A setting passes if its "
    "accuracy is not worse than that of the reference by more than the margin (one-sided 95 % paired "
    "interval, networks and documents as crossed random effects, Student's t with one degree of freedom "
    "fewer than networks). difference, low: difference of accuracy and the lower end of its interval, for "
    "the setting that failed, else for the fastest. alone: the fastest setting when each network is tested "
    "by itself, a statement about that network only. Constants: evals/speed.toml. No composite is computed "
    "over settings that are not comparable; the note gives the reason."
)
SPEED_HEAD = (
    "recipe",
    "sampler",
    "tokens per step",
    "accuracy",
    "NFE",
    "token-forwards per text",
    "committed per forward",
)
SPEED_HEAD += ("useful per forward", "useful tokens per second", "batch", "latency, ms", "seeds")
CURVE_HEAD = (
    "recipe",
    "rule",
    "settings",
    "AUP",
    "reference",
    "fastest",
    "useful per forward",
    "difference, low",
    "alone",
    "seeds",
    "note",
)


WORDS = ("reference", "fastest", "fastest_alone")
"""Columns of text in the frame of `curves` that are empty where a score could not be computed."""


def speeds(numbers: DataFrame) -> str:
    """Markdown of speed.md (accuracy and speed by setting), from the frame of `repro.results.tables.speed.speeds`."""
    return _sections("Speed", SPEED_CAPTION, numbers, SPEED_HEAD, _speed_line)


def curves(numbers: DataFrame) -> str:
    """Markdown of parallelism.md (two scores that combine accuracy and speed, of each sampler), from the frame of
    `repro.results.tables.speed.curves`."""
    return _sections("Parallelism", CURVE_CAPTION, numbers, CURVE_HEAD, _curve_line)


def _sections(
    title: str,
    caption: str,
    numbers: DataFrame,
    head: Sequence[str],
    line: Callable[[Mapping[str, Any]], list[str]],
) -> str:
    parts = [caption]
    for key, section in numbers.groupby(list(WHERE), sort=True):
        assert isinstance(key, tuple)
        suite, scale, engine, device, numerics = map(str, key)
        kind = json.loads(numerics)
        said = ", ".join(f"{name} {value}" for name, value in kind.items())
        parts.append(f"## {scale or 'full scale'} (suite {suite}): engine {engine} on {device} ({said})")
        parts.append(grid(head, [line(row) for row in section.to_dict("records")]))
    if numbers.empty:
        parts.append(
            "No records yet: `python -m repro.evals --suite speed.sudoku`, then `python -m repro.results publish DIR`."
        )
    return page(title, *parts)


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
