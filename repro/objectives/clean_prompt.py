"""Duo on the seed document's terms with a clean prompt: only what follows it is noised and scored
(docs/method.md#script-departures row 10).

The seed's script noises every position, so its network never sees the clean prompt that it is given when it answers.
Here candidates up to and with the first separator stay clean. What follows has the same noise and, in the mean over a
group, the same weight as in the script, for the group still counts the prompt's tokens: the variant drops the prompt's
terms and moves no other. The closing separator is scored, so that the length of an answer is learned.

python -m repro.recipes.duo --set 'objective={"part": "clean_prompt", "loss": {"part": "sym_kl",
    "noise": {"part": "window", "low": 0.03, "high": 0.15}, "floor": 1e-8, "view_scale": {"part": "kappa"},
    "temperature": {"part": "linear_to_zero", "start": 1e-3, "steps": 500000, "floor": 1e-8},
    "tokens": {"part": "sparse_tokens", "mass": 0.9999}, "group": {"part": "row_group", "rows": 32}}}'
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from repro.core.parts import part
from repro.objectives.objective import Batch, Loss, Objective
from repro.objectives.sym_kl import SymKL

if TYPE_CHECKING:
    from torch import Tensor

    from repro.models.denoiser import Denoiser
    from repro.processes.process import Process


def answers(batch: Batch) -> Tensor:
    """Candidates behind the first separator of their row, [B, L] bool; none in a row without one.

    The separator is the vocabulary's `eos`; ValueError where the data has none.
    """
    separator = batch.vocabulary.eos
    if separator is None:
        raise ValueError("clean_prompt: this data has no separator (eos) behind its prompts; use sym_kl")
    behind = (batch.ids == separator).cumsum(1).roll(1, 1) > 0
    behind[:, 0] = False
    return batch.candidates & behind


@part
class CleanPrompt(Objective):
    """`loss` on the answers alone, prompts clean."""

    loss: SymKL

    meaning = "x0_mean"
    processes = frozenset({"uniform"})
    score = "improper score"

    def __call__(self, denoiser: Denoiser, process: Process, batch: Batch) -> Loss:
        return self.loss(denoiser, process, dataclasses.replace(batch, candidates=answers(batch)))
