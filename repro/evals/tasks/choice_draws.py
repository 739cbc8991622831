"""What few draws do to multiple choice by likelihood: accuracy, flips, bias and variance against draws
(docs/method.md#statistics).

    python -m repro.evals --ckpt runs/mdlm@nano-s0 --suite draws

A noisy score does not cancel out over items: the best of several noisy answers is more often a wrong one than the other
way round, so Monte Carlo error lowers accuracy where accuracy is high. The items are made of held-out rows: the next
tokens of a row against copies of them with one token of another row, and every answer is short enough that its bound is
known exactly (all masked sets).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from repro.core import parts, rng
from repro.core.lazy import torch
from repro.core.parts import part
from repro.data.corpus import prepared
from repro.evals.likelihood.estimators import Subsets
from repro.evals.likelihood.likelihood import Estimator, Request
from repro.evals.task import Answer, Ask, Task
from repro.evals.workload import Workload
from repro.model import Model

if TYPE_CHECKING:
    from torch import Tensor

BATCH = 256
REPEAT = 1 << 56
"""Beyond every name of a request's stream: repeats of a request draw anew."""


@part
class ChoiceDraws(Task):
    """`estimator` with each of `draws`, `repeats` times, on `items` questions of `choices` answers.

    A question is `prompt` tokens of a held-out row, its right answer the next `length` ones. Per number of draws d,
    with standard errors over items: `forwards_d` an answer; `bias_d` and `variance_d` of the score about the bound from
    all masked sets (nats; nats squared); `accuracy_d`; `flips_d`, the share of questions answered otherwise than by
    that bound, whose own accuracy is `accuracy_exact`.
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
            raise ValueError(f"repeats={self.repeats} tells no variance; the smallest is 2")
        if not 2 <= self.choices <= self.length + 1:
            raise ValueError(f"choices={self.choices} of {self.length} tokens; take 2 to {self.length + 1}")
        self._rules()

    def _rules(self) -> list[Estimator]:
        return [parts.derive(self.estimator, {"draws": count}) for count in self.draws]

    def skip(self, model: Model) -> str | None:
        if not model.recipe.process.masks:
            return "the bound from all masked sets is absorbing noise's"
        if self.prompt + self.length > model.data.row_length():
            return f"rows of {model.data.row_length()} tokens hold no {self.prompt} and {self.length}"
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
        each = self.repeats * sum(rule.most(self.length) for rule in self._rules()) + 2**self.length - 1
        return Workload.of_rows(self.items * self.choices, each, self.prompt + self.length).limited(ask.limit)

    def answer(self, model: Model, ask: Ask) -> Answer:
        requests, right = self.questions(
            model, self.items if ask.limit is None else min(self.items, ask.limit)
        )
        exact, _ = self._scores(model, Subsets(longest=self.length), requests, 1, ask.seed)
        best = exact[..., 0].argmax(1)
        metrics = {"accuracy_exact": _mean((best == right).double())}
        for count, rule in zip(self.draws, self._rules(), strict=True):
            found, forwards = self._scores(model, rule, requests, self.repeats, ask.seed)
            error, chosen = found - exact, found.argmax(1)
            metrics |= {
                f"forwards_{count}": _mean(forwards),
                f"bias_{count}": _mean(error.mean((1, 2))),
                f"variance_{count}": _mean(error.var(2).mean(1)),
                f"accuracy_{count}": _mean((chosen == right[:, None]).double().mean(1)),
                f"flips_{count}": _mean((chosen != best[:, None]).double().mean(1)),
            }
        return Answer(metrics)

    def questions(self, model: Model, items: int) -> tuple[list[Request], Tensor]:
        """`items` x `choices` requests, a question's side by side, and which answer is right [items]."""
        split = prepared(model.data).heldout
        rows = rng.permutation(0, rng.QUOTED, 2, len(split)).numpy()
        if items > len(rows):
            raise ValueError(f"task {self.name!r} wants {items} held-out rows; there are {len(rows)}")
        ids = split.ids[rows, : self.prompt + self.length].astype(np.int64)
        keys = rng.keys(0, rng.QUOTED, 3, torch.arange(items))
        places = rng.uniform(keys, self.length).argsort(-1).tolist()
        right = torch.arange(items) % self.choices
        requests = []
        for item in range(items):
            prompt, answer = ids[item, : self.prompt].tolist(), ids[item, self.prompt :].tolist()
            wrong = iter([_spoiled(answer, ids[:, self.prompt :], item, place) for place in places[item]])
            for choice in range(self.choices):
                requests.append(Request.of(prompt, answer if choice == right[item] else next(wrong)))
        return requests, right

    def _scores(
        self, model: Model, rule: Estimator, requests: list[Request], repeats: int, seed: int
    ) -> tuple[Tensor, Tensor]:
        """Scores [items, choices, repeats] and mean forwards an answer [items]."""
        again = [replace(r, row=r.row + k * REPEAT) for r in requests for k in range(repeats)]
        network = rule.network(model.denoiser, model.recipe.process, BATCH)
        found = rule.score(network, again, seed)
        shape = (-1, self.choices, repeats)
        forwards = torch.tensor([float(f.forwards) for f in found]).double().view(shape).mean((1, 2))
        return torch.tensor([f.value for f in found], dtype=torch.float64).view(shape), forwards


def _spoiled(answer: list[int], rows: np.ndarray, item: int, place: int) -> list[int]:
    """The answer with another token at `place`: that of the next row behind `item` which differs there."""
    column = np.roll(rows[:, place], -item - 1)
    other = column[column != answer[place]]
    if len(other) == 0:
        raise ValueError(f"every held-out row has the same token {place + 1} places behind the prompt")
    return [*answer[:place], int(other[0]), *answer[place + 1 :]]


def _mean(values: Tensor) -> tuple[float, float | None, int]:
    error = values.std().item() / len(values) ** 0.5 if len(values) > 1 else None
    return values.mean().item(), error, len(values)
