"""The reference script's Duo loss with a clean prompt: only the answer is corrupted and scored
(docs/method.md#script-departures row 10).

The reference script (tom-pollak/dllm@43ea9ff) corrupts every position, so its network never sees a clean prompt in
training, although prompts are clean in generation. Here candidates (positions that the script corrupts and scores) up
to and including the first separator stay clean. The answer has the same noise as in the script, and the same weight,
because the mean over a group of rows still divides by the number of all tokens, the prompt's included: only the
prompt's terms are dropped. The closing separator is scored, so that the length of an answer is learned. To train with
this loss:

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
    """Which positions belong to answers, [B, L] bool: the candidates after the first separator of their row; none in a
    row without a separator.

    B rows, L positions. The separator is the vocabulary's `eos`; ValueError for a vocabulary without one.
    """
    separator = batch.vocabulary.eos
    if separator is None:
        raise ValueError(
            "objective clean_prompt: this data has no separator (eos) after its prompts; use objective sym_kl"
        )
    after = (batch.ids == separator).cumsum(1).roll(1, 1) > 0
    after[:, 0] = False
    return batch.candidates & after


@part
class CleanPrompt(Objective):
    """The objective `loss` on answers alone (what follows the first separator of a row, the vocabulary's `eos`);
    prompts are neither corrupted nor scored. Calling it raises ValueError for a vocabulary without `eos`."""

    loss: SymKL

    meaning = "x0_mean"
    processes = frozenset({"uniform"})
    score = "improper score"

    def trained(self, vocab_size: int) -> tuple[float, float]:
        return self.loss.trained(vocab_size)

    def __call__(self, denoiser: Denoiser, process: Process, batch: Batch) -> Loss:
        return self.loss(denoiser, process, dataclasses.replace(batch, candidates=answers(batch)))
