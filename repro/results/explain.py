"""The settings in which two evaluations differ, and the effect of each setting alone, estimated from other records.

    python -m repro.results explain A B [--raw DIR] [--json]

A and B are prefixes of a record's hash (id, key, cell or sha256) or labels, CHECKPOINT/TASK[/PRESET[/TOKENS_PER_STEP]],
where CHECKPOINT is a name, which may end in -sSEED, the train seed, or a run folder. Each must select the records of
one *cell*: an evaluation (a record's `question`) under all its seeds. A and B may also be two recipes (`duo@nano`) or
run folders.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from repro.core.errors import counted, nearest
from repro.core.parts import brief
from repro.core.stats import Interval, mean_interval
from repro.results.difference import difference, look, places, without
from repro.results.recipes import FILE, differing, recipe_named, recipe_of
from repro.results.record import Record, text
from repro.results.store import RAW

LEVEL = 0.95
HEX = 6  # least number of characters of a hash prefix


def select(records: Sequence[Record], name: str) -> list[Record]:
    """Records, of all seeds, of the one evaluation that `name` (a hash prefix or label, see the module) selects.
    ValueError if `name` selects no evaluation, or several (the message lists some)."""
    if len(name) >= HEX and all(letter in "0123456789abcdef" for letter in name):
        found = [r for r in records if any(hash.startswith(name) for hash in (r.id, r.key, r.cell, r.sha256))]
    else:
        named = _without_folder(name)
        found = [r for r in records if any(f"{each}/".startswith(f"{named}/") for each in _names(r))]
    if not found:
        known = {label(record) for record in records}
        close = nearest(name, known) if len(known) > 1 else f"valid: {', '.join(known) or 'none'}"
        raise ValueError(f"no record has the hash or label {name!r}; {close}")
    cells = {record.cell: label(record) for record in found}
    if len(cells) > 1:
        some = ", ".join(f"{said} ({cell[:8]})" for cell, said in list(cells.items())[:4])
        raise ValueError(
            f"{name!r} selects {len(cells)} evaluations: {some}; give a longer label, or one of these hashes"
        )
    return found


def _without_folder(name: str) -> str:
    """The label `name`, where a run folder at its beginning is replaced by the name of the folder's recipe:
    `runs/mine/law/ancestral` -> `mdlm@nano.text+3ff1bd/law/ancestral`. If the folder's name ends in -sSEED, this ending
    is kept. Other labels are returned as they are."""
    words = name.split("/")
    for count in range(len(words) - 1, 0, -1):
        folder = "/".join(words[:count])
        recipe = recipe_named(folder) if (Path(folder) / FILE).is_file() else None
        if recipe is not None:
            seed = re.search(r"-s\d+$", folder)
            return "/".join([recipe.name + (seed[0] if seed else ""), *words[count:]])
    return name


def label(record: Record) -> str:
    """Label that selects a record: CHECKPOINT/TASK/PRESET/TOKENS_PER_STEP, without the labels that are null, where
    CHECKPOINT has its marks (`Labels.marked`)."""
    return _label(record, record.labels.marked(record.labels.checkpoint))


def _label(record: Record, checkpoint: str) -> str:
    labels = record.labels
    given = (checkpoint, labels.task, labels.preset, labels.tokens_per_step)
    return "/".join(each for each in given if each is not None)


def _names(record: Record) -> tuple[str, ...]:
    """The three labels by which a user may select a record, each CHECKPOINT/TASK/PRESET/TOKENS_PER_STEP: with the marks
    of its network, if it has any, `mdlm@nano (step 39 of 900)/...`; without marks; and with the train seed,
    `mdlm@nano-s0/...`."""
    plain = record.labels.checkpoint
    seeded = f"{plain}-s{record.question.checkpoint.seed}"
    return label(record), _label(record, plain), _label(record, seeded)


# --- explain ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Effect:
    """Average difference B - A in one metric between two evaluations A and B, over pairs of records (one of each) with
    equal seeds and numerics class (device, dtype, ...).

    A and B are either the two evaluations that the user compares or, to estimate what a single setting does, other
    evaluations that differ in this setting alone; all settings that they share are then the context. `contexts`,
    `pairs`: numbers of contexts and of pairs. The pairs of a context, or of a seed, are averaged first. `interval`: 95
    % confidence interval over contexts or, within a single one, over train seeds (of one train seed over sampling
    seeds); None for a single value.
    """

    metric: str
    mean: float
    interval: Interval | None
    contexts: int
    pairs: int


@dataclass(frozen=True, kw_only=True)
class Field:
    """A setting in which two evaluations A and B differ: its dotted path `place`, its value in each (`a`, `b`), and how
    each metric changes with this setting alone, estimated from records of other evaluations (empty: there are none)."""

    place: str
    a: Any
    b: Any
    effects: tuple[Effect, ...]


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Comparison of two evaluations: their labels `a` and `b`, the `direct` differences of their metrics (B - A, paired
    by seeds), and the settings (`fields`) that differ. `recipes`: lines with the settings in which their recipes
    differ; None if both have the same recipe, or if one of the two recipes is not found."""

    a: str
    b: str
    direct: tuple[Effect, ...]
    fields: tuple[Field, ...]
    recipes: tuple[str, ...] | None = None


class _Pair(NamedTuple):
    """The `difference` of a metric between two records of equal train seed, sampling seed and numerics class."""

    train_seed: int
    seed: int
    difference: float


def explain(records: Sequence[Record], a: str, b: str, folder: Path = RAW) -> Explanation:
    """Comparison of the evaluations that the labels or hash prefixes `a` and `b` select. ValueError if one of them
    selects no evaluation or several. `folder`: folder of the records; recipes of runs are searched in it and beside it.
    """
    ours, theirs = select(records, a), select(records, b)
    rest = [record for record in records if record.cell not in (ours[0].cell, theirs[0].cell)]
    fields = tuple(
        Field(place=place, a=x, b=y, effects=_effects(rest, place, x, y))
        for place, x, y in places(ours[0].question.subject, theirs[0].question.subject)
    )
    direct = _summed([_paired(ours, theirs)])
    made = [
        recipe_of(r.question.checkpoint.recipe, r.labels.checkpoint, folder) for r in (ours[0], theirs[0])
    ]
    told = None
    if made[0] is not None and made[1] is not None and made[0] != made[1]:
        told = tuple(differing(made[0], made[1]))
    return Explanation(a=label(ours[0]), b=label(theirs[0]), direct=direct, fields=fields, recipes=told)


def _effects(records: Sequence[Record], place: str, a: Any, b: Any) -> tuple[Effect, ...]:
    """How each metric changes when the setting at the dotted path `place` changes from the value `a` to `b`: average
    differences between those of `records` that have the one and the other value, and otherwise equal settings, seeds
    and numerics class (device, dtype, ...)."""
    contexts: dict[str, tuple[list[Record], list[Record]]] = {}
    for record in records:
        subject = record.question.subject
        for side, wanted in enumerate((a, b)):
            if difference(look(subject, place), wanted) is None:
                contexts.setdefault(text(without(subject, place)), ([], []))[side].append(record)
    return _summed([_paired(ours, theirs) for ours, theirs in contexts.values() if ours and theirs])


def _paired(ours: Sequence[Record], theirs: Sequence[Record]) -> dict[str, list[_Pair]]:
    """For each metric the differences `theirs` - `ours`, one per pair of records (one of each) with equal train seed,
    sampling seed and numerics class (device, dtype, torch, attention kernel, threads)."""
    mine = {_pair(record): record.answer.metrics for record in ours}
    found: dict[str, list[_Pair]] = {}
    for record in theirs:
        train_seed, seed, _ = place = _pair(record)
        metrics = mine.get(place, {})
        for name, metric in record.answer.metrics.items():
            if name in metrics:
                apart = metric.value - metrics[name].value
                found.setdefault(name, []).append(_Pair(train_seed, seed, apart))
    return found


def _pair(record: Record) -> tuple[int, int, str]:
    question = record.question
    return question.checkpoint.seed, question.seed, text(record.measurements.numerics)


def _by_seed(pairs: Sequence[_Pair]) -> list[float]:
    """Means of the differences of each train seed or, if there is only one, of each sampling seed: answers of one
    network are no independent observations of what a setting does, and those of two machines are the same answer."""
    several = len({pair.train_seed for pair in pairs}) > 1
    by_seed: dict[int, list[float]] = {}
    for pair in pairs:
        by_seed.setdefault(pair.train_seed if several else pair.seed, []).append(pair.difference)
    return [fmean(each) for each in by_seed.values()]


def _summed(contexts: Sequence[Mapping[str, Sequence[_Pair]]]) -> tuple[Effect, ...]:
    """Average difference B - A of each metric, with its 95 % interval, from differences between paired records of two
    evaluations A and B. `contexts`: one dictionary (metric -> its pairs) for each set of settings that A and B share.
    Of several sets the means are averaged, of a single one the means of its seeds."""
    made = []
    for metric in sorted({name for context in contexts for name in context}):
        groups = [context[metric] for context in contexts if metric in context]
        seeds = [_by_seed(group) for group in groups]
        values = [fmean(each) for each in seeds] if len(groups) > 1 else seeds[0]
        interval = mean_interval(values, LEVEL) if len(values) > 1 else None
        pairs = sum(map(len, groups))
        made.append(
            Effect(metric=metric, mean=fmean(values), interval=interval, contexts=len(groups), pairs=pairs)
        )
    return tuple(made)


# --- printing -----------------------------------------------------------------------------------------------


def say(found: Explanation) -> Iterator[str]:
    """Lines of text about a comparison of two evaluations, as `python -m repro.results explain` prints them."""
    yield f"A {found.a}"
    yield f"B {found.b}"
    for effect in found.direct:
        yield f"B - A, {_shown(effect)}"
    if not found.fields:
        yield "their evaluations differ in seeds and weights only"
    for field in found.fields:
        yield f"{field.place}: {brief(field.a)} -> {brief(field.b)}"
        if field.place == "checkpoint.recipe":
            yield from _recipes(found.recipes)
        if not field.effects:
            yield "    effect unknown: no other records differ in this field alone"
        for effect in field.effects:
            yield f"    elsewhere, {_shown(effect)}"


def _recipes(lines: Sequence[str] | None) -> Iterator[str]:
    if lines is None:
        yield "    their settings are unknown: the recipe of one is neither in the registry nor in a run folder here"
    for line in lines or ():
        yield f"    {line}"


def _shown(effect: Effect) -> str:
    ends = effect.interval
    interval = "" if ends is None else f" [{ends.low:.4g}, {ends.high:.4g}]"
    counts = [counted(count, what) for count, what in ((effect.pairs, "pair"), (effect.contexts, "context"))]
    return f"{effect.metric} {effect.mean:+.4g}{interval} ({' in '.join(counts)})"
