"""Plots of accuracy against forward passes and against time: the points of the speed tables
(`repro.results.tables.speed`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from repro.results.page import decodings
from repro.results.page.series import Items, how, keep, plot, series_of
from repro.results.page.sources import Json, Sources
from repro.results.record import Record, text
from repro.results.tables.speed import ADAPTIVE_PINS, PART, speeds
from repro.results.tables.text import per_step

if TYPE_CHECKING:
    from pandas import Series


def timed_plots(sources: Sources, records: Sequence[Record], items: Items) -> Iterator[Json]:
    """Two plots, accuracy against forward passes and against seconds per text, for each suite, scale, engine, device
    and numerics class (dtype, torch, attention kernel, threads) among those of `records` that hold decoding speed.
    `sources` notes the records from which each number is computed; recorded decodings of the points are added to
    `items`."""
    frame = speeds(records)
    timed = [record for record in records if record.question.task.get("part") == PART]
    for number, (_, rows) in enumerate(
        frame.groupby(["suite", "scale", "engine", "device", "numerics"], sort=True)
    ):
        found = [(row, _records_of(row, timed)) for _, row in rows.iterrows()]
        first = found[0][0]
        what = "puzzles" if "sudoku" in first.suite else "questions"
        title = "Sudoku" if what == "puzzles" else first.suite
        y = {
            "label": f"share of {what} solved",
            "unit": "solved",
            "log": False,
            "better": "up",
            "percent": True,
        }
        x: Json = {"label": "forward passes of the network per text", "unit": "forward passes", "log": True}
        x |= {"better": "left", "base": 2}
        shared = {
            "about": f"{first.n} {what}, {first.seeds} trained networks per model, scale {first.scale or 'full'}; "
            f"engine {first.engine} on {first.device}",
            "what": what,
            "world": "sudoku" if what == "puzzles" else "",
            "frontier": True,
        }
        points = [(_series(row), _accuracy(sources, row, own, what, items)) for row, own in found]
        yield plot(f"passes{number or ''}", f"{title}: forward passes", x, y, points, **shared)
        x = {
            "label": "seconds per text, one text at a time",
            "unit": "seconds",
            "log": True,
            "better": "left",
        }
        points = [(s, {**p, "x": p["extra"][1]["number"]}) for s, p in points]
        yield plot(f"seconds{number or ''}", f"{title}: seconds", x, y, points, **shared)


def _records_of(row: Series, timed: Sequence[Record]) -> list[Record]:
    """The records among `timed` from which `row`, a row of the frame of speeds (`repro.results.tables.speed.speeds`),
    is computed: one for each network."""
    return [
        record
        for record in timed
        if record.labels.suite == row.suite
        and record.labels.marked(record.labels.checkpoint) == row.recipe
        and (record.labels.preset or "") == row.preset
        and (record.labels.tokens_per_step or "") == row.tokens_per_step
        and record.measurements.speed
        and record.measurements.speed.engine == row.engine
        and record.measurements.speed.device == row.device
        and text(record.measurements.numerics) == row.numerics
    ]


def _series(row: Series) -> Json:
    adaptive = row.tokens_per_step == ""
    rule = ADAPTIVE_PINS.sub("", row.preset) if adaptive else row.preset
    return series_of(row.recipe, rule, adaptive)


def _accuracy(sources: Sources, row: Series, own: Sequence[Record], what: str, items: Items) -> Json:
    each = how(own)
    interval = f"Wilson's 95 % interval of the mean share of digits 1, for {row.n} {what}, in"
    passes = sources.number(row.nfe, each, "answer.nfe", own)
    seconds = sources.number(row.latency, each, "measurements.speed.latency.median", own)
    rate = (
        "tokens before the end of text, divided by the median seconds of a pass: counts.useful and passes of"
    )
    speed = sources.number(row.useful_per_second, rate, "measurements.speed.throughput", own)
    name = None
    seeds = [record.question.checkpoint.seed for record in own]
    if decodings.TRAIN_SEED in seeds and decodings.is_timed_sudoku(own[0]):
        path = decodings.sudoku_path(own[0].labels)
        wanted = {"sampler": own[0].question.sampler, "plan": own[0].question.plan}
        if sources.own:  # the stored decodings may be those of another network of this recipe
            wanted["checkpoint"] = own[seeds.index(decodings.TRAIN_SEED)].question.checkpoint.digest
        name = keep(items, path, wanted)
    steps = {"": "adaptive", "all": "all tokens in one step"}
    return {
        "setting": steps.get(row.tokens_per_step, _per_step(row.tokens_per_step)),
        "preset": row.preset,
        "x": passes,
        "y": sources.number(row.accuracy, each, "answer.metrics.accuracy.value", own),
        "low": sources.number(row.accuracy_low, f"lower end of {interval}", "answer.outcomes", own),
        "high": sources.number(row.accuracy_high, f"upper end of {interval}", "answer.outcomes", own),
        "extra": [
            {"label": "forward passes per text", "number": passes},
            {"label": "seconds per text, alone", "number": seconds},
            {"label": "tokens per second, in batches", "number": speed},
        ],
        "outcomes": [
            {
                "seed": record.question.checkpoint.seed,
                "digits": record.answer.outcomes,
                "record": record.sha256,
            }
            for record in own
        ],
        "items": name,
        "recorded": seeds.index(decodings.TRAIN_SEED) if name else None,
    }


def _per_step(tokens: str) -> str:
    """Text of a label of tokens per step: `2` -> `2 tokens per step`, `0.5` -> `2 steps per token`."""
    rate = float(tokens) if tokens.replace(".", "", 1).isdigit() else 1.0
    return per_step(tokens) if rate >= 1 else f"{1 / rate:g} steps per token"
