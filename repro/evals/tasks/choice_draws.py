"""Multiple choice by Monte Carlo likelihoods: accuracy, changed choices, bias and variance per number of draws
(docs/method.md#statistics).

    python -m repro.evals --ckpt runs/mdlm@nano-s0 --suite draws

Noise in the scores does not cancel over items: it turns right choices into wrong ones more often than wrong into right,
so Monte Carlo error lowers a high accuracy. An item is made of a held-out row: its prompt is the beginning of the row,
the right answer the next tokens, and each wrong answer a copy of the right one with one token taken from another row.
Answers are short enough that all subsets of their positions can be masked in turn, which gives the exact value of the
bound on the log-likelihood (the exact bound; repro.evals.likelihood.estimators).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from repro.core import parts, rng
from repro.core.lazy import torch
from repro.core.parts import part
from repro.core.reading import convert
from repro.data.corpus import prepared
from repro.evals.likelihood.estimators import Subsets
from repro.evals.likelihood.likelihood import Estimator, LikelihoodRequest
from repro.evals.task import Answer, Ask, Task, mean_metric
from repro.evals.work_queue import WorkQueue, spans
from repro.evals.workload import Workload
from repro.model import Model

if TYPE_CHECKING:
    from torch import Tensor

BATCH = 256
REPEAT = 1 << 56
"""Added for each repeat to the number `row` of a likelihood request, which keys its random draws; larger than every
`row`, so that repeats have independent draws."""


@part
class ChoiceDraws(Task):
    """Multiple choice by log-likelihoods, each estimated by `estimator` with each number of Monte Carlo draws in
    `draws`, `repeats` times.

    There are `items` items of `choices` answers each; the prompt is `prompt` tokens of a held-out row, the right answer
    the next `length` tokens. Metrics per number of draws d, with standard errors over items: `forwards_d`, forward
    passes per answer; `bias_d` [nats], mean difference of the estimate from the exact bound (from all masked sets);
    `variance_d` [nats squared], over repeats; `accuracy_d`; `flips_d`, the share of the choices by estimates that
    differ from the choice by the exact bound. `accuracy_exact` is the accuracy of the exact bound. ValueError for fewer
    than 2 repeats, and for numbers of choices that the answers' length does not allow.
    """

    items: int
    choices: int
    prompt: int
    length: int
    estimator: Estimator
    draws: tuple[int, ...]
    repeats: int
    generates = False

    def __post_init__(self) -> None:
        if self.repeats < 2:
            raise ValueError(f"repeats={self.repeats} is too few for a variance; give at least 2")
        if not 2 <= self.choices <= self.length + 1:
            raise ValueError(
                f"choices={self.choices}: answers of length={self.length} tokens allow 2 to {self.length + 1} choices,"
                " since each wrong answer changes a different token; change one of the two"
            )
        self._rules()

    def _rules(self) -> list[Estimator]:
        return [parts.derive(self.estimator, {"draws": count}) for count in self.draws]

    def skip(self, model: Model) -> str | None:
        if not model.recipe.process.masks:
            return "the exact bound, which masks all subsets of an answer's positions, needs absorbing noise"
        if model.recipe.process.block_length() is not None:
            return "the exact bound masks a whole answer at once, and this model reads it in blocks"
        if self.prompt + self.length > model.data.row_length():
            return (
                f"rows of {model.data.row_length()} tokens are too short for a prompt of {self.prompt} and an answer of"
                f" {self.length}"
            )
        return None

    def protocol(self) -> dict[str, Any]:
        return {
            "answers": "one token of another row",
            "output": "loglikelihood",
            "reference": "all masked sets",
            "score": self.estimator.score_is,
            "unit": "nats, summed",
        }

    def workload(self, model: Model, ask: Ask) -> Workload:
        drawn = sum(rule.max_forwards(self.length) for rule in self._rules())
        each = self.repeats * drawn + 2**self.length - 1
        return Workload.of_rows(self.items * self.choices, each, self.prompt + self.length).limited(ask.limit)

    def shared(self, model: Model, ask: Ask, work: WorkQueue) -> Answer:
        requests, right = self.questions(model, ask.at_most(self.items))
        rules = [(Subsets(longest=self.length), 1), *((rule, self.repeats) for rule in self._rules())]
        # whole batches of forwards in each part, whatever the number of forwards of an answer
        blocks = spans(len(right), BATCH // math.gcd(BATCH, self.choices))
        forwards_of = [repeats * rule.max_forwards(self.length) for rule, repeats in rules]
        dearest = sorted(range(len(rules)), key=forwards_of.__getitem__, reverse=True)
        todo = [(i, block) for i in dearest for block in blocks]

        def find(span: range) -> list[Any]:
            i, block = todo[span.start]
            rule, repeats = rules[i]
            some = requests[block.start * self.choices : block.stop * self.choices]
            return [each.tolist() for each in self._scores(model, rule, some, repeats, ask.seed)]

        def read(data: Any, span: range) -> tuple[Tensor, Tensor]:
            i, block = todo[span.start]
            return _read(data, (len(block), self.choices, rules[i][1]))

        chunks = dict(zip(todo, work.map_chunks(len(todo), 1, find, read), strict=True))
        work.join()
        every = [[chunks[i, block] for block in blocks] for i in range(len(rules))]
        (exact, _), *drawn = [[torch.cat(each) for each in zip(*some, strict=True)] for some in every]
        best = exact[..., 0].argmax(1)
        metrics = {"accuracy_exact": mean_metric((best == right).double())}
        for count, (found, forwards) in zip(self.draws, drawn, strict=True):
            error, chosen = found - exact, found.argmax(1)
            metrics |= {
                f"forwards_{count}": mean_metric(forwards),
                f"bias_{count}": mean_metric(error.mean((1, 2))),
                f"variance_{count}": mean_metric(error.var(2).mean(1)),
                f"accuracy_{count}": mean_metric((chosen == right[:, None]).double().mean(1)),
                f"flips_{count}": mean_metric((chosen != best[:, None]).double().mean(1)),
            }
        return Answer(metrics)

    def questions(self, model: Model, items: int) -> tuple[list[LikelihoodRequest], Tensor]:
        """(likelihood requests of all answers, `choices` per item in the order of the items; index of the right answer
        of each item, [items]). ValueError if the model's data has fewer than `items` held-out rows."""
        split = prepared(model.data).heldout
        rows = rng.permutation(0, rng.QUOTED, 2, len(split)).numpy()
        if items > len(rows):
            raise ValueError(
                f"task {self.name!r} needs {items} held-out rows, one per item, but the data has {len(rows)}; give a"
                " smaller --limit"
            )
        ids = split.ids[rows, : self.prompt + self.length].astype(np.int64)
        keys = rng.keys(0, rng.QUOTED, 3, torch.arange(items))
        places = rng.uniform(keys, self.length).argsort(-1).tolist()
        right = torch.arange(items) % self.choices
        requests = []
        for item in range(items):
            prompt, answer = ids[item, : self.prompt].tolist(), ids[item, self.prompt :].tolist()
            wrong = iter([_altered(answer, ids[:, self.prompt :], item, place) for place in places[item]])
            for choice in range(self.choices):
                requests.append(
                    LikelihoodRequest.of(prompt, answer if choice == right[item] else next(wrong))
                )
        return requests, right

    def _scores(
        self, model: Model, rule: Estimator, requests: list[LikelihoodRequest], repeats: int, seed: int
    ) -> tuple[Tensor, Tensor]:
        """Estimated log-likelihoods of the answers of multiple-choice items, which `requests` lists item by item,
        `choices` of each: (nats by the estimator `rule`, [items, choices, repeats], each of the `repeats` with random
        draws of its own; mean number of forward passes per answer, [items])."""
        repeated = [replace(r, row=r.row + k * REPEAT) for r in requests for k in range(repeats)]
        denoiser = rule.batched(model.denoiser, model.recipe.process, BATCH)
        found = rule.score(denoiser, repeated, seed)
        shape = (-1, self.choices, repeats)
        forwards = torch.tensor([float(f.forwards) for f in found]).double().view(shape).mean((1, 2))
        return torch.tensor([f.value for f in found], dtype=torch.float64).view(shape), forwards


def _read(data: Any, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """(log-likelihoods in nats, [items, choices, repeats]; mean number of forward passes per answer, [items]) from the
    JSON `data` of a chunk's file; ValueError unless the log-likelihoods have the shape `shape`, and there is one number
    of forward passes per item."""
    kind = tuple[list[list[list[float]]], list[float]]
    stored = convert(data, kind, "the results", "compute them again")
    scores, forwards = (torch.tensor(each, dtype=torch.float64) for each in stored)
    if (scores.shape, forwards.shape) != (shape, shape[:1]):
        raise ValueError(
            f"stored answers have scores of shape {list(scores.shape)} and forwards of shape {list(forwards.shape)},"
            f" not {list(shape)} and {list(shape[:1])}"
        )
    return scores, forwards


def _altered(answer: list[int], rows: np.ndarray, item: int, place: int) -> list[int]:
    """A wrong answer: the right one, `answer` (token ids [length]), with another token at index `place`.

    The other token is taken from `rows` [n, length], the right answers of all items: from the first row after row
    `item`, cyclically, that differs from `answer` at `place`. ValueError if no row does.
    """
    column = np.roll(rows[:, place], -item - 1)
    other = column[column != answer[place]]
    if len(other) == 0:
        raise ValueError(
            f"all held-out rows have the same token {place + 1} places after the prompt, so there is no wrong answer;"
            " give another prompt or length"
        )
    return [*answer[:place], int(other[0]), *answer[place + 1 :]]
