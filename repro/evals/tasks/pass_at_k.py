"""pass@k and flips (items that change between right and wrong) from several draws of each item of a task
(docs/method.md#pass-at-k)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from repro.core.lazy import torch
from repro.core.parts import part
from repro.core.stats import draws_differ, pass_at_k
from repro.evals.task import Answer, Ask, Task, mean_metric
from repro.evals.tasks.speed import outcomes
from repro.evals.work_queue import WorkQueue
from repro.evals.workload import Workload
from repro.model import Model


@part
class PassAtK(Task):
    """Evaluates the lm-eval task `of` with `draws` seeds of the sampler, and takes from each draw lm-eval's metric
    `metric` (0 or 1 for each item) that was computed after the task's answer filter `filter`.

    Metrics: `pass_k` for each k of `ks`, the probability that one of k draws is right (arXiv 2107.03374 eq. 1); and
    `flips`, the probability that one of two draws is right and the other wrong. The field `curve` of the result holds
    the number of right draws of each item (`correct`), from which `repro.results.tables.pass_at_k` compares two
    samplers. ValueError for fewer than 2 draws and for a k that is not from 1 to `draws`.
    """

    of: Task
    metric: str
    filter: str
    draws: int
    ks: tuple[int, ...]
    generates = True

    def __post_init__(self) -> None:
        if self.draws < 2 or not all(1 <= k <= self.draws for k in self.ks):
            raise ValueError(
                f"task {self.name!r}: ks={list(self.ks)}, draws={self.draws}; give 2 draws or more, and each k from 1"
                " to the number of draws"
            )

    def protocol(self) -> dict[str, Any]:
        return self.of.protocol() | {"seeds": "sampling seed * draws + 0, 1, ..."}

    def overridden(self, ask: Ask) -> dict[str, list[Any]]:
        return self.of.overridden(ask)

    def resolved(self) -> Task:
        return replace(self, of=self.of.resolved())

    def skip(self, model: Model) -> str | None:
        return self.of.skip(model)

    def gen_length(self, model: Model) -> int:
        return self.of.gen_length(model)

    def workload(self, model: Model, ask: Ask) -> Workload | None:
        once = self.of.workload(model, ask)
        return once if once is None or once.items is None else replace(once, items=once.items * self.draws)

    def shared(self, model: Model, ask: Ask, work: WorkQueue) -> Answer:
        seeds = [ask.seed * self.draws + i for i in range(self.draws)]
        found = work.each(seeds, lambda seed: self.of.shared(model, replace(ask, seed=seed), work))
        right = torch.tensor([outcomes(each.items or [], self.metric, self.filter) for each in found])
        return answer(right.sum(0).long().tolist(), self.draws, self.ks, found)


def answer(correct: list[int], draws: int, ks: tuple[int, ...], found: list[Answer]) -> Answer:
    """The result of the task: `pass_k` for each k of `ks`, `flips`, and the costs of the draws averaged. `correct`:
    number of right draws of each item, out of `draws`; `found`: the result of each draw."""
    metrics = {
        f"pass_{k}": mean_metric(torch.tensor([pass_at_k(draws, c, k) for c in correct], dtype=torch.float64))
        for k in ks
    }
    flips = torch.tensor([draws_differ(draws, c) for c in correct], dtype=torch.float64)
    forwards = [each.nfe for each in found if each.nfe is not None]
    per_forward = [each.tokens_per_nfe for each in found if each.tokens_per_nfe is not None]
    return Answer(
        metrics=metrics | {"flips": mean_metric(flips)},
        nfe=sum(forwards) / len(forwards) if forwards else None,
        tokens_per_nfe=len(per_forward) / sum(1 / each for each in per_forward) if per_forward else None,
        curve={"correct": [float(c) for c in correct]},
    )
