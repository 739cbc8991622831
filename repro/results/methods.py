"""The paragraph of a paper that says what exactly was run, and the BibTeX of what it cites, from records alone.

    print("\\n".join(methods(collect(RAW))))

Every sentence states settings that the records hold, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from repro.core.papers import of_recipe, of_task, papers
from repro.results.record import Record, unmarked
from repro.results.shares import counts_items
from repro.results.tables.latex import escaped

HARNESS = r"""@misc{eval-harness,
  title = {The Language Model Evaluation Harness},
  author = {Gao, Leo and others},
  year = {2024},
  howpublished = {\url{https://github.com/EleutherAI/lm-evaluation-harness}},
}"""
LM_EVAL = frozenset({"lm_likelihood", "lm_generation", "harness_task"})
"""Registered names of the task classes that lm-eval runs."""
WEIGHTS = {
    "raw": "raw weights",
    "ema": "averaged weights (EMA)",
    "exact": "the exact denoiser",
    "external": "samples",
}


def methods(records: Sequence[Record]) -> Iterator[str]:
    """Lines of LaTeX: one paragraph about the evaluations of `records`, then the BibTeX entries that it cites.

    ValueError if there is no record.
    """
    if not records:
        raise ValueError("no records: there is nothing to describe; give --raw a folder that holds some")
    cited: dict[str, None] = {}
    sentences = [
        *_models(records, cited),
        *_samplers(records, cited),
        *_tasks(records, cited),
        *_numerics(records),
    ]
    yield " ".join(sentences)
    for number in cited:
        yield ""
        yield papers()[number].bibtex(number)
    if any(record.question.task.get("part") in LM_EVAL for record in records):
        yield ""
        yield HARNESS


def _cite(number: str | None, cited: dict[str, None]) -> str:
    """LaTeX citation (`\\cite`) of the paper with the arXiv number `number`; "" for None. The number is added to the
    keys of `cited`, the papers cited so far."""
    if number is None:
        return ""
    cited[number] = None
    return rf"~\cite{{{papers()[number].key}}}"


def _list(names: Sequence[str]) -> str:
    names = list(dict.fromkeys(names))
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _models(records: Sequence[Record], cited: dict[str, None]) -> Iterator[str]:
    seeds: dict[str, set[int]] = {}
    kinds: dict[str, None] = {}
    for record in records:
        name = record.labels.marked(record.labels.checkpoint)
        seeds.setdefault(name, set()).add(record.question.checkpoint.seed)
        kinds[WEIGHTS[record.question.checkpoint.weights]] = None
    named = []
    for name, each in seeds.items():
        count = f" ({len(each)} training seeds)" if len(each) > 1 else ""
        paper = of_recipe(unmarked(name).removeprefix("oracle:").partition("@")[0].partition("+")[0])
        named.append(f"\\texttt{{{escaped(name)}}}{_cite(paper, cited)}{count}")
    yield f"We evaluate {_list(named)}, with {_list(list(kinds))}."


def _samplers(records: Sequence[Record], cited: dict[str, None]) -> Iterator[str]:
    from repro.samplers.presets import PAPERS

    used: dict[str, list[str]] = {}
    plans: dict[str, None] = {}
    for record in records:
        labels, plan = record.labels, record.question.plan
        if labels.preset is None:
            continue
        base = labels.preset.partition(", ")[0]  # without blocks and cache, which `_plan` says
        rates = used.setdefault(base, [])
        if labels.tokens_per_step is not None and labels.tokens_per_step not in rates:
            rates.append(labels.tokens_per_step)
        if plan is not None and (told := _plan(plan)):
            plans[told] = None
    if not used:
        return
    named: dict[str, list[str]] = {}
    for preset, rates in used.items():
        names = [each.partition(":")[0] for each in preset.split("+")]
        citations = [_cite(PAPERS.get(name), cited) for name in names]
        at = f" at {_list(rates)} token{'s' * (rates != ['1'])} per step" if rates else " (adaptive)"
        named.setdefault(at, []).append(f"\\texttt{{{escaped(preset)}}}{''.join(dict.fromkeys(citations))}")
    told = _list([f"{_list(each)}{at}" for at, each in named.items()])
    yield f"Texts are decoded by {told}{', in ' + _list(list(plans)) if plans else ''}."


def _plan(plan: dict[str, Any]) -> str:
    """A phrase about the blocks and the KV cache of a decoding plan; "" for one block without a cache."""
    blocks = f"blocks of {plan['block_length']}" if plan.get("block_length") != plan.get("gen_length") else ""
    cache = plan.get("cache")
    held = f"a {cache['part'].replace('_', ' ')}" if isinstance(cache, dict) else ""
    return " with ".join(each for each in (blocks, held) if each)


def _tasks(records: Sequence[Record], cited: dict[str, None]) -> Iterator[str]:
    found: dict[str, tuple[set[int], bool]] = {}
    for record in records:
        counts, _ = found.setdefault(record.labels.task, (set(), record.question.task.get("part") in LM_EVAL))
        counts |= {metric.n for name, metric in record.answer.metrics.items() if counts_items(name)}
    named = []
    for task, (counts, _) in found.items():
        each = [f"$n={min(counts)}$", *([str(max(counts))] if len(counts) > 1 else [])] if counts else []
        n = f" ({' to '.join(each)})" if each else ""
        named.append(f"\\texttt{{{escaped(task)}}}{_cite(of_task(task), cited)}{n}")
    harness = (
        r"; tasks of lm-eval run in its harness~\cite{eval-harness}"
        if any(h for _, h in found.values())
        else ""
    )
    yield f"The tasks are {_list(named)}{harness}."
    yield (
        r"Intervals are 95\,\% intervals over items (Wilson's for shares of items, else 1.96 standard errors);"
        " sampling seeds are "
        + _list([str(seed) for seed in sorted({r.question.seed for r in records})])
        + "."
    )


def _numerics(records: Sequence[Record]) -> Iterator[str]:
    measured = [record.measurements for record in records]
    where = _list([f"{each.numerics.device} in {each.numerics.dtype}" for each in measured])
    names = ("dlm-repro", "torch", "transformers", "lm-eval")
    versions = []
    for name in names:
        each = sorted({m.versions[name] for m in measured if name in m.versions})
        if each:
            versions.append(f"{name} {_list(each)}")
    count = f"All {len(records)} evaluations" if len(records) > 1 else "One evaluation"
    yield escaped(f"{count} ran on {where}, with {_list(versions)}.")
