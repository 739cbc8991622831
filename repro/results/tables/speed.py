"""Numbers of the speed tables, from records of the task `decoding_speed` alone (their Markdown:
`repro.results.tables.speed_text`).

    speeds(records)    one row per recipe, sampler and tokens per step: accuracy, forwards, tokens per second
    curves(records)    one row per recipe and sampler: accuracy under parallelism (AUP), and the fastest setting that is
                       less accurate than the reference setting by at most a margin

A setting is one recipe with one sampler and decoding plan; composites (`repro.results.tables.parallelism`) combine
accuracy and speed over settings. Every section of a table is of one engine, device and numerics class (device, dtype,
...). Rates are ratios of sums, not means of ratios.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median, stdev
from typing import TYPE_CHECKING, Any

from repro.core.stats import wilson
from repro.results.record import Latency, Record, Speed, Throughput, text
from repro.results.store import scale_of
from repro.results.tables.parallelism import (
    Run,
    Setting,
    alike,
    aup_by_seed,
    fastest,
    fastest_alone,
    pins,
    reference_of,
    timed,
)

if TYPE_CHECKING:
    from pandas import DataFrame

PART = "decoding_speed"
LEVEL = 0.95  # of the interval of an accuracy
WHERE = ("suite", "scale", "engine", "device", "numerics")
"""Columns whose values define a section of the tables: no number is compared across sections."""
CELLS = (
    *WHERE,
    *("recipe", "preset", "tokens_per_step", "accuracy", "accuracy_se", "accuracy_sd_seeds", "accuracy_low"),
    *(
        "accuracy_high",
        "nfe",
        "token_forwards",
        "committed_per_forward",
        "useful_per_forward",
        "useful_per_second",
    ),
    *(
        "useful_per_second_low",
        "useful_per_second_high",
        "committed_per_second",
        "batch",
        "latency",
        "latency_p95",
    ),
    *("alone_per_second", "alone_per_second_low", "alone_per_second_high", "n", "seeds", "clock"),
)
CURVES = (
    *(
        *WHERE,
        "recipe",
        "preset",
        "settings",
        "aup",
        "aup_sd_seeds",
        "y_max",
        "reference",
        "margin",
        "fastest",
        "fastest_alone",
    ),
    *("tokens_per_forward", "difference", "low", "n", "seeds", "note"),
)
ADAPTIVE_PINS = re.compile(r":[\w.]+=[^,+]+(?:,[\w.]+=[^,+]+)*")


@dataclass(frozen=True, kw_only=True)
class Timed:
    """A setting (a recipe decoded with one sampler and decoding plan), the values of the columns `WHERE` that all its
    runs share (suite, scale, engine, device, numerics class), and the measured speed of each run."""

    where: tuple[str, ...]
    setting: Setting
    speeds: tuple[Speed, ...]


def cells(records: Sequence[Record]) -> list[Timed]:
    """Timed settings in the records of decoding speed, separate by engine, device, numerics class (device, dtype, ...)
    and clock, in a fixed order. A run of a setting is one network and sampling seed."""
    found: dict[tuple[str, ...], list[Record]] = {}
    for record in sorted((r for r in records if r.question.task.get("part") == PART), key=_place):
        speed, labels = timed(record), record.labels
        where = (
            *(labels.suite, scale_of(labels.recipe), speed.engine, speed.device),
            text(record.measurements.numerics),
        )
        found.setdefault((*where, speed.clock, record.cell), []).append(record)
    made = [_cell(where[: len(WHERE)], group) for where, group in found.items()]
    return sorted(
        made,
        key=lambda cell: (
            cell.where,
            cell.setting.recipe,
            rule_of(cell.setting),
            -cell.setting.total("forwards"),
        ),
    )


def _place(record: Record) -> tuple[Any, ...]:
    question = record.question
    return record.cell, question.checkpoint.seed, question.seed, record.sha256


def _cell(where: tuple[str, ...], records: Sequence[Record]) -> Timed:
    labels = records[0].labels
    runs = []
    for record in records:
        checkpoint, answer = record.question.checkpoint, record.answer
        if not answer.counts or not answer.outcomes:
            raise ValueError(
                f"record {record.id[:12]} lacks the counts of its decoding or the outcomes of its documents; remove it"
                " and evaluate its suite again"
            )
        seed = (checkpoint.seed, record.question.seed, checkpoint.digest)
        runs.append(Run(seed=seed, outcomes=answer.outcomes, counts=answer.counts))
    setting = Setting(
        recipe=labels.marked(labels.checkpoint),
        preset=labels.preset or "",
        tokens_per_step=labels.tokens_per_step or "",
        task=records[0].question.task["of"]["task"],
        alike=text(alike(records[0])),
        runs=tuple(runs),
    )
    return Timed(where=where, setting=setting, speeds=tuple(map(timed, records)))


def rule_of(setting: Setting) -> str:
    """Name of a setting's sampler, the same at every speed. It is the preset; of an adaptive sampler it is the preset
    without its parameters, because these decide the speed, as tokens per step do for other samplers."""
    return setting.preset if setting.tokens_per_step else ADAPTIVE_PINS.sub("", setting.preset)


# --- numbers ------------------------------------------------------------------------------------------------


def speeds(records: Sequence[Record]) -> DataFrame:
    """Frame of speeds and accuracies, one row per setting (recipe, sampler and decoding plan); columns `CELLS`."""
    from pandas import DataFrame

    return DataFrame([_row(cell) for cell in cells(records)], columns=list(CELLS))


def _row(cell: Timed) -> dict[str, Any]:
    setting, runs = cell.setting, cell.setting.runs
    accuracy = [run.accuracy for run in runs]
    n = len(runs[0].outcomes)
    low, high = wilson(fmean(accuracy), n, LEVEL)
    batched, alone = [each.throughput for each in cell.speeds], [each.latency for each in cell.speeds]
    every, single = _passes(batched), _passes(alone)
    forwards, rows = setting.total("forwards"), setting.total("rows")
    return {
        **dict(zip(WHERE, cell.where, strict=True)),
        "recipe": setting.recipe,
        "preset": setting.preset,
        "tokens_per_step": setting.tokens_per_step,
        "accuracy": fmean(accuracy),
        "accuracy_se": fmean(a * (1 - a) / (n - 1) for a in accuracy) ** 0.5 if n > 1 else math.nan,
        "accuracy_sd_seeds": stdev(accuracy) if len(accuracy) > 1 else math.nan,
        "accuracy_low": low,
        "accuracy_high": high,
        "nfe": forwards / rows,
        "token_forwards": setting.total("token_forwards") / rows,
        "committed_per_forward": setting.total("committed") / max(1, forwards),
        "useful_per_forward": setting.rate,
        "useful_per_second": _per_second(batched, "useful"),
        "useful_per_second_low": min(every),
        "useful_per_second_high": max(every),
        "committed_per_second": _per_second(batched, "committed"),
        "batch": batched[0].batch,
        "latency": fmean(each.median for each in alone),
        "latency_p95": fmean(each.p95 for each in alone),
        "alone_per_second": _per_second(alone, "useful"),
        "alone_per_second_low": min(single),
        "alone_per_second_high": max(single),
        "n": n,
        "seeds": len(runs),
        "clock": cell.speeds[0].clock,
    }


def _per_second(modes: Sequence[Latency | Throughput], count: str) -> float:
    """Tokens or forward passes (`count`, a field of `Counts`) per second, as a ratio of sums over runs. `modes`: the
    measured times of each run, one text at a time or in batches; the time of a run is the median over its passes."""
    return sum(getattr(mode.counts, count) for mode in modes) / sum(median(mode.passes) for mode in modes)


def _passes(modes: Sequence[Latency | Throughput]) -> list[float]:
    """Useful tokens (before the first end id or stop string) per second in every pass of every run. `modes`: the
    measured times of each run, one text at a time or in batches."""
    return [mode.counts.useful / seconds for mode in modes for seconds in mode.passes]


def curves(records: Sequence[Record]) -> DataFrame:
    """Frame of two scores that combine accuracy and speed, one row per recipe and sampler: accuracy under parallelism
    (AUP), and the fastest setting whose accuracy is not below that of one token per step by more than a margin; columns
    `CURVES`. A score that cannot be computed is empty, and the `note` gives the reason."""
    from pandas import DataFrame

    places: dict[tuple[Any, ...], list[Setting]] = {}
    for cell in cells(records):
        places.setdefault((*cell.where, cell.setting.recipe), []).append(cell.setting)
    rows = []
    for (*where, recipe), settings in places.items():
        rules: dict[str, list[Setting]] = {}
        for setting in settings:
            rules.setdefault(rule_of(setting), []).append(setting)
        for rule, members in rules.items():
            known = {**dict(zip(WHERE, where, strict=True)), "recipe": recipe, "preset": rule}
            rows.append(
                known
                | {"settings": len(members), "seeds": len(members[0].runs)}
                | _composites(members, settings)
            )
    return DataFrame(rows, columns=list(CURVES))


def _composites(members: Sequence[Setting], settings: Sequence[Setting]) -> dict[str, Any]:
    constants, found, notes = pins(), {}, []
    found["n"] = len(members[0].runs[0].outcomes)
    try:
        each = aup_by_seed(members, constants)
        found |= {"aup": fmean(each), "aup_sd_seeds": stdev(each) if len(each) > 1 else math.nan}
        found["y_max"] = constants.y_max(members[0].task)
    except ValueError as error:
        notes.append(f"no AUP: {error}")
    try:
        reference = reference_of(members[0].recipe, settings, constants)
        result = fastest(members, reference, constants)
        found |= {
            "reference": reference.name,
            "margin": constants.non_inferior.margin,
            **asdict(result.compared),
        }
        found["fastest"] = "none" if result.setting is None else result.setting.name
        each = [alone.setting for alone in fastest_alone(members, reference, constants)]
        found["fastest_alone"] = "; ".join("none" if one is None else one.name for one in each)
        found["tokens_per_forward"] = math.nan if result.setting is None else result.setting.rate
    except ValueError as error:
        notes.append(f"no fastest: {error}")
    return found | {"note": "; ".join(notes)}
