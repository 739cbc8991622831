"""Documents on which two results of one task differ (flips): their share and list, paired difference, exact test.

    python -m repro.results flips A B [--raw DIR] [--metric NAME] [--filter NAME] [--json]

A and B are labels or hash prefixes of records, as in `repro.results.explain`, or files of items (OUT/items/*.jsonl,
written by lm-eval tasks). An *item* is the scored answer of the model to one document (one example of the task). A
record that contains outcomes (one digit per document) needs no file. Each document counts once: if lm-eval extracts
answers with several filters (gsm8k has two), one filter is compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import msgspec

from repro.core.errors import nearest
from repro.core.parts import sha256
from repro.core.reading import read_json_lines
from repro.core.stats import Interval, mean_interval, paired_difference, wilson
from repro.results.explain import label, select
from repro.results.record import Record, text
from repro.results.store import collect, items_file, read, record_files

LEVEL = 0.95

AGAIN = "run the evaluation again with a new --out folder"


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of an item (the scored answer to one document) that a comparison reads: number of the document, answer
    filter, metrics, hashes of document, prompt and task (None: unknown), and name of the task within an lm-eval group.
    """

    doc_id: int
    filter: str
    metrics: dict[str, Any]
    doc_hash: str | None
    prompt_hash: str | None
    task_hash: str | None = None
    task: str = ""


Items = dict[tuple[str, int, str], Item]
"""Items of one evaluation by (task within an lm-eval group, or ""; number of the document; filter). Each task of a
group numbers its documents from 0."""


@dataclass(frozen=True, kw_only=True)
class Flips:
    """Comparison of two results, A and B, on the same `n` documents, in one metric under one filter.

    `rate`: share of documents that differ, with its Wilson interval; `difference` of the means, B - A, with a paired
    interval; `p`: p-value of the exact McNemar test, None unless all values are 0 or 1. `gained`, `lost`: numbers of
    documents with B above and below A; `items`: the documents that differ, as (name of the task if it is one of an
    lm-eval group, else ""; number of the document; value of A; value of B).
    """

    metric: str
    filter: str
    n: int
    rate: float
    rate_interval: Interval
    difference: float
    difference_interval: Interval
    p: float | None
    gained: int
    lost: int
    items: tuple[tuple[str, int, float, float], ...]


def read_items(path: Path) -> Items:
    """Items of one evaluation, from their JSON Lines file; ValueError names an invalid or repeated line."""
    found: Items = {}
    for number, item in enumerate(read_json_lines(path, Item, AGAIN), start=1):
        place = item.task, item.doc_id, item.filter
        if place in found:
            raise ValueError(f"{path}:{number}: document {_called(*place[:2])} is listed twice; {AGAIN}")
        found[place] = item
    if not found:
        raise ValueError(f"{path} contains no item; {AGAIN}")
    return found


def items_of(folder: Path, name: str) -> Items:
    """Items of an evaluation. `name`: a file of items; or a label or the beginning of a hash, which selects one
    evaluation among the records of `folder` (its items are in a file of the folder `items` beside `raw`, or for some
    tasks in the record itself). ValueError if `name` selects no evaluation or several, or if the file is missing."""
    if Path(name).is_file():
        return read_items(Path(name))
    if name.endswith(".jsonl"):
        raise ValueError(
            f"no file {name}; give a file of OUT/items, or a hash or label of a record in {folder}"
        )
    where = {record.sha256: path for path in record_files(folder) for record in read(path)}
    found = select(collect(folder), name)
    ids = sorted({record.id for record in found})
    if len(ids) > 1:
        each = {r.id: (r.question.checkpoint.seed, r.question.seed) for r in found}
        listed = ", ".join(f"{id[:12]} (train seed {a}, sampling seed {b})" for id, (a, b) in each.items())
        raise ValueError(
            f"{name!r} selects {len(ids)} evaluations: {listed}; give one of these hashes, or a train seed in the name,"
            f" as {found[0].labels.checkpoint}-s{found[0].question.checkpoint.seed}/..."
        )
    path = items_file(where[found[0].sha256].parent, found[0])
    if not path.is_file() and found[0].answer.outcomes:
        return outcomes_of(found[0])
    if not path.is_file():
        raise ValueError(f"no items of {label(found[0])}: {path} is missing; {AGAIN}")
    return read_items(path)


def outcomes_of(record: Record) -> Items:
    """Items made from the outcomes (one digit per document) of a record. Their hashes of document and prompt are None,
    because a record does not contain them."""
    task, outcomes = record.question.task, record.answer.outcomes or ""
    known, filter = sha256(text(task)), str(task["filter"])
    return {
        ("", document, filter): Item(
            doc_id=document,
            filter=filter,
            metrics={task["metric"]: int(digit)},
            doc_hash=None,
            prompt_hash=None,
            task_hash=known,
        )
        for document, digit in enumerate(outcomes)
    }


def flips(a: Items, b: Items, metric: str | None = None, filter: str | None = None) -> Flips:
    """The documents on which evaluations `a` and `b` have different values of a metric (flips, such as one right and
    one wrong), and the difference of the means. `metric` and `filter` may be None where the evaluations have only one.
    ValueError if documents, prompts or tasks differ, or if the metric or filter is unknown or ambiguous."""
    filter = _filter(a, b, filter)
    a, b = ({place: item for place, item in each.items() if place[2] == filter} for each in (a, b))
    if a.keys() != b.keys():
        odd = sorted(a.keys() ^ b.keys())[0]
        raise ValueError(
            f"document {_called(*odd[:2])} (filter {filter}) is only in one of the two results; compare results of"
            " the same task with the same limit"
        )
    for place, item in a.items():
        for name in ("doc_hash", "prompt_hash", "task_hash"):
            ours, theirs = getattr(item, name), getattr(b[place], name)
            if ours is not None and theirs is not None and ours != theirs:
                raise ValueError(
                    f"{name} of document {_called(*place[:2])} differs; compare results of one task "
                    "with one prompt template"
                )
    metric = _metric(a, b, metric)
    pairs = [(*place[:2], _number(a[place], metric), _number(b[place], metric)) for place in sorted(a)]
    gaps = [theirs - ours for *_, ours, theirs in pairs]
    gained, lost, n = sum(gap > 0 for gap in gaps), sum(gap < 0 for gap in gaps), len(gaps)
    binary = all(value in (0.0, 1.0) for *_, ours, theirs in pairs for value in (ours, theirs))
    return Flips(
        metric=metric,
        filter=filter,
        n=n,
        rate=(gained + lost) / n,
        rate_interval=wilson((gained + lost) / n, n, LEVEL),
        difference=fmean(gaps),
        difference_interval=paired_interval(gained, lost, n) if binary else mean_interval(gaps, LEVEL),
        p=mcnemar(gained, lost) if binary else None,
        gained=gained,
        lost=lost,
        items=tuple(pair for pair in pairs if pair[2] != pair[3]),
    )


def _called(task: str, document: int) -> str:
    return f"{task} {document}".lstrip()


def _filter(a: Items, b: Items, filter: str | None) -> str:
    """Name of the answer filter (of lm-eval) under which results are compared: `filter`, or for None the only filter
    that both have. ValueError if `filter` is not in both, or for None if they share no filter or several."""
    ways = {way for *_, way in a} & {way for *_, way in b}
    if not ways:
        raise ValueError("no answer filter is in both results; compare two results of one task")
    if filter is None and len(ways) == 1:
        return next(iter(ways))
    if filter is None:
        raise ValueError(
            f"the results have several answer filters; choose one with --filter: {', '.join(sorted(ways))}"
        )
    if filter not in ways:
        raise ValueError(f"no answer filter {filter!r} in both results; {nearest(filter, ways)}")
    return filter


def _metric(a: Items, b: Items, metric: str | None) -> str:
    shared = set.intersection(*({*item.metrics} for item in (*a.values(), *b.values())))
    if metric is None and len(shared) == 1:
        return next(iter(shared))
    if not shared:
        raise ValueError("no metric is in every item of both results; compare two results of one task")
    if metric is None:
        raise ValueError(
            f"the items have several metrics; choose one with --metric: {', '.join(sorted(shared))}"
        )
    if metric not in shared:
        raise ValueError(f"no metric {metric!r} in every item of both results; {nearest(metric, shared)}")
    return metric


def _number(item: Item, metric: str) -> float:
    value = item.metrics[metric]
    if not isinstance(value, bool | int | float) or not math.isfinite(value):
        raise ValueError(
            f"metric {metric!r} of document {item.doc_id} is {value!r}, not a finite number; "
            "choose another with --metric"
        )
    return float(value)


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided p-value of the hypothesis that a document on which two results differ is as likely gained as lost
    (McNemar 1947, binomial form); `gained`, `lost`: numbers of such documents."""
    from scipy.stats import binomtest

    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def paired_interval(gained: int, lost: int, n: int) -> Interval:
    """95 % interval, within [-1, 1], of the difference of two proportions of the same `n` items, of which `gained` have
    only the second property and `lost` only the first (`repro.core.stats.paired_difference`)."""
    centre, half = paired_difference(gained, lost, n, LEVEL)
    return Interval(max(-1.0, centre - half), min(1.0, centre + half))


def say(found: Flips) -> Iterator[str]:
    """Lines of text about a comparison of two results of one task, as `python -m repro.results flips` prints them; the
    documents that differ come last."""
    low, high = found.rate_interval
    flipped = found.gained + found.lost
    share = f"{flipped} of {found.n} documents differ ({found.rate:.3f} [{low:.3f}, {high:.3f}])"
    yield f"{found.metric} ({found.filter}): {share}"
    low, high = found.difference_interval
    test = "" if found.p is None else f", exact McNemar p {found.p:.3g}"
    yield f"B - A {found.difference:+.4f} [{low:+.4f}, {high:+.4f}]: {found.gained} gained, {found.lost} lost{test}"
    for task, document, ours, theirs in found.items:
        yield f"  document {_called(task, document)}: {ours:g} -> {theirs:g}"
