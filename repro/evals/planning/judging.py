"""Work of judges, the language models that score generated text, for cost plans; no weights are loaded.

A judge reads every sample once. The held-out texts with which samples are compared are read once for all evaluations of
a task together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from repro.evals.planning.device import Device
from repro.evals.runner import Cell
from repro.evals.text_quality.judges import judge_parameters
from repro.evals.text_quality.quality import TextQualityTask
from repro.model import Model
from repro.training.cost import UTILISATION


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What one judge reads: number of `texts`, their `tokens` (counted in tokens of the evaluated model's tokenizer, as
    the judge's counts are not known before), and the estimated `hours`. `hours` and the judge's number of `parameters`
    are None if the judge is not on this machine."""

    judge: str
    parameters: int | None
    texts: int
    tokens: int
    hours: float | None

    def __str__(self) -> str:
        reads = f"judge {self.judge} reads {self.texts:,} texts, {self.tokens:,} tokens"
        if self.hours is None or self.parameters is None:
            return f"{reads}; it is not on this machine, so that its hours are unknown"
        return f"{reads}: {self.hours:.3g} hours more ({self.parameters / 1e6:.4g} M parameters)"


def readings(model: Model, cells: Sequence[Cell], machine: Device) -> Iterator[Reading]:
    """What each judge reads for the evaluations `cells` of a model, and the time that this takes on `machine`, at 2
    FLOPs per parameter of the judge and token."""
    texts: dict[str, int] = {}
    tokens: dict[str, int] = {}
    shared: set[str] = set()
    for cell in cells:
        task = cell.task
        if not isinstance(task, TextQualityTask):
            continue
        own, heldout = task.judged(cell.ask)
        count = own + (0 if task.name in shared else heldout)
        shared.add(task.name)
        length = task.gen_length(model) if task.generates else model.data.row_length()
        texts[task.judge] = texts.get(task.judge, 0) + count
        tokens[task.judge] = tokens.get(task.judge, 0) + count * length
    for judge, count in texts.items():
        parameters = judge_parameters(judge)
        hours = None
        if parameters is not None:
            hours = 2 * parameters * tokens[judge] / (machine.flops * UTILISATION) / 3600
        yield Reading(judge=judge, parameters=parameters, texts=count, tokens=tokens[judge], hours=hours)
