"""Estimated cost (price) of reproducing a published number: the evaluation in a suite whose result is comparable with
the number, its GPU hours, and the command to type or what is missing.

    price(find(read(), "duo.t5.mdlm.1024"))    about .1 H100 hours, `python -m repro.evals cells duo.t5.mdlm.1024`

A *cell* is one published number. An evaluation answers a cell if checkpoint, task and metric are the same and no
setting differs (repro.evals.published.matching). Hours are estimates of `python -m repro.evals plan` for one H100 with
weights in bfloat16; if a recipe must be trained first, they are those of its training. Where no evaluation answers a
cell, the price is that of the evaluation with the fewest different settings, or of the same evaluation of another
checkpoint of the same size (`like` in evals/published.toml), and `missing` says what prevents the reproduction.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from repro.core import parts, registry
from repro.core.errors import counted
from repro.evals.planning import plan
from repro.evals.planning.device import device
from repro.evals.planning.plan import Line
from repro.evals.published.cells import PublishedCell
from repro.evals.published.matching import called, differing
from repro.evals.request import Request
from repro.evals.runner import Cell
from repro.evals.task import Task
from repro.evals.text_quality.quality import TextQualityTask
from repro.hub.catalogue import Entry, known
from repro.model import Precision
from repro.recipes.scale import by_name
from repro.training.cost import plan as training

DEVICE = "h100"
PRECISION: Precision = "bfloat16"
"""Precision of the weights of released checkpoints in the command `cells` and in suite groups."""


def shown(hours: float) -> str:
    """The number `hours` as text, to two significant digits, without an exponent."""
    return f"{hours:.2g}" if hours < 100 else f"{float(f'{hours:.2g}'):,.0f}"


@dataclass(frozen=True, kw_only=True)
class Price:
    """Estimated cost of reproducing a published number: `hours` of one H100 (None: unknown). `run`: a name for the run,
    shared by all numbers that it reproduces; `command`: what to type, "" if no command reproduces the number;
    `missing`: why there is none; `trained`: whether the hours are those of training a recipe."""

    run: str
    hours: float | None
    command: str = ""
    missing: str = ""
    trained: bool = False

    def say(self, needs: str) -> str:
        """Sentence with the hours, and with the command or what is missing; `needs`: what a run requires, as text, from
        evals/published.toml."""
        hours = "cost unknown" if self.hours is None else f"about {shown(self.hours)} H100 hours"
        if self.trained and self.hours is not None:
            hours += f" to train {self.run}"
        if self.missing == needs:
            return f"{hours}: lacks {needs}"
        return f"{hours}: " + (f"lacks {self.missing}" if self.missing else self.command) + f" ({needs})"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """An evaluation in `suite` of the released checkpoint `ckpt`. `cell`: its task, sampler and decoding plan; `line`:
    its estimated cost; `question`: its settings as in a record."""

    ckpt: str
    suite: str
    cell: Cell
    line: Line
    question: dict[str, Any]

    @property
    def run(self) -> str:
        words = [self.cell.task.name, self.cell.preset or ""]
        words += ["" if self.line.steps is None else counted(self.line.steps, "step")]
        return f"{self.ckpt}: " + ", ".join(word for word in words if word)


def price(cell: PublishedCell) -> Price:
    """Estimated cost of reproducing the published number `cell`, with the command to type or what is missing."""
    there = _listed(cell)
    near = nearest(cell, there)
    if near is not None and not near[0]:
        return _asked(cell, near[1])
    if near is not None:
        lacking = f"an evaluation with the published settings ({'; '.join(near[0].values())})"
        return Price(run=near[1].run, hours=near[1].line.hours, missing=lacking)
    ours = [name for name in cell.of if name in registry.RECIPES]
    if ours and not there:
        hours = training(by_name(ours[0]))["gpu_hours"]
        command = f"accelerate launch -m repro.recipes.{ours[0]}"
        return Price(run=ours[0], hours=hours, command=command, trained=True)
    missing = _missing(cell, there)
    like = nearest(cell, [cell.like]) if cell.like else None
    if like is None:
        return Price(run=cell.name, hours=None, missing=missing)
    run = f"{cell.row}, priced like {like[1].run}"
    return Price(run=run, hours=like[1].line.hours, missing=missing)


def answering(cell: PublishedCell) -> Asked | None:
    """The evaluation, in a suite of one of the number's released checkpoints, whose result is comparable with the
    published number `cell`; None if no suite has such an evaluation."""
    near = nearest(cell, _listed(cell))
    return None if near is None or near[0] else near[1]


def nearest(cell: PublishedCell, names: Sequence[str]) -> tuple[dict[str, str], Asked] | None:
    """The evaluation that differs from the published number `cell` in the fewest settings, as (setting -> sentence for
    each of these differences; evaluation). It is looked for among evaluations of the number's task in the suites of the
    checkpoints `names`; None if no suite of theirs has the task."""
    found = [
        (_differing(cell, each), each)
        for name in names
        for each in questions(name)
        if cell.task in called(each.question["task"], each.cell.task.name)
    ]
    return min(found, key=lambda pair: len(pair[0]), default=None)


def _differing(cell: PublishedCell, asked: Asked) -> dict[str, str]:
    """Setting -> sentence, for the settings in which an evaluation differs from a published number; with an entry
    `metric` if the evaluation's result would not contain the number's metric."""
    found = differing(cell, asked.question, asked.cell.preset)
    if not asked.cell.task.gives(cell.metric):
        found["metric"] = f"task {asked.cell.task.name} of suite {asked.suite} does not measure {cell.metric}"
    return found


def _asked(cell: PublishedCell, asked: Asked) -> Price:
    if asked.line.hours is None:
        lacks = f"the sizes of {asked.ckpt} in evals/checkpoints.toml"
        if asked.line.items is None:
            lacks = f"the size of {asked.cell.task.name}"
        return Price(run=asked.run, hours=None, missing=lacks)
    return Price(run=asked.run, hours=asked.line.hours, command=f"python -m repro.evals cells {cell.name}")


def _missing(cell: PublishedCell, there: Sequence[str]) -> str:
    """What is missing to reproduce a published number, as text; `there`: names of those of its checkpoints that are in
    evals/checkpoints.toml."""
    if there:
        return f"an evaluation of {cell.task} in a suite of {there[0]}"
    if cell.of:
        return f"a recipe, or an entry in evals/checkpoints.toml, of {' or '.join(cell.of)}"
    return cell.needs


def _listed(cell: PublishedCell) -> list[str]:
    """Names of the checkpoints that a published number is about and that are in evals/checkpoints.toml."""
    return [name for name in cell.of if _entry(name) is not None]


@lru_cache
def _entry(name: str) -> Entry | None:
    return known(name)


@lru_cache
def questions(ckpt: str) -> tuple[Asked, ...]:
    """Every evaluation in the suites that evals/checkpoints.toml gives for the released checkpoint `ckpt`; ValueError
    if the file does not list the checkpoint."""
    entry = _entry(ckpt)
    if entry is None:
        raise ValueError(
            f"no checkpoint {ckpt!r} in evals/checkpoints.toml; give a name that this file lists"
        )
    return tuple(asked for suite in entry.suites for asked in _of_suite(entry, suite))


def _of_suite(entry: Entry, suite: str) -> Iterator[Asked]:
    found = plan.of(*plan.listed(entry), Request(suite=suite), device(DEVICE, PRECISION))
    for cell, line in zip(found.cells, found.lines, strict=True):
        question = {
            "task": parts.canonical(cell.task),
            "sampler": None if cell.ask.sampler is None else parts.canonical(cell.ask.sampler),
            "plan": None if cell.ask.plan is None else parts.canonical(cell.ask.plan),
            "limit": cell.ask.limit,
            "protocol": _protocol(cell.task),
        }
        yield Asked(ckpt=entry.name, suite=suite, cell=cell, line=line, question=question)


def _protocol(task: Task) -> dict[str, Any]:
    """Protocol of a task as in a record (field -> value), without the fields that are only known once the language
    model that scores texts (judge) is loaded."""
    return task.protocol_without_judge() if isinstance(task, TextQualityTask) else task.protocol()
