"""Likelihood estimators under classifier-free guidance: logits are un + (scale + 1)(cond - un), where `cond` are the
logits given the prompt and `un` those with the prompt masked (docs/method.md#llada-likelihood; LLaDA, arXiv 2502.09992,
App. B.5).

    estimator("llada_mc+guided:scale=0.5")

A *guided score* ranks the choices of a multiple-choice item. Guidance changes the model's conditional distributions, so
a bound computed from them is not a bound on the model's log p. Each input takes two forward passes; with an empty
prompt guidance changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from repro.core import parts
from repro.core.lazy import torch
from repro.core.parts import part
from repro.evals.likelihood.batched import BatchedDenoiser
from repro.evals.likelihood.likelihood import Estimator, Likelihood, LikelihoodRequest
from repro.processes.absorbing import mask_id

if TYPE_CHECKING:
    from torch import Tensor

    from repro.models.denoiser import Denoiser
    from repro.processes.process import Process


class GuidedDenoiser(BatchedDenoiser):
    """A denoiser with classifier-free guidance: forwards each input twice, as it is (logits `cond`) and with the prompt
    masked (logits `un`), and returns the logits un + (`scale` + 1)(cond - un)."""

    cost = 2

    def __init__(self, denoiser: Denoiser, process: Process, batch: int, scale: float) -> None:
        super().__init__(denoiser, process, batch)
        self.scale = scale

    def full_inputs(self, ids: Tensor, prompt: Tensor) -> Tensor:
        return torch.cat([ids, ids.masked_fill(prompt, mask_id(self.vocabulary))], 1)

    def forward(self, full: Tensor, t: Tensor, needed: Tensor) -> Callable[[slice], Tensor]:
        from repro.samplers.processed import guided_logits

        conditional, unconditional = (
            super(GuidedDenoiser, self).forward(ids, t, needed) for ids in full.chunk(2, 1)
        )
        return lambda part: guided_logits(conditional(part), unconditional(part), self.scale)


@part
class GuidedLikelihood(Estimator):
    """The likelihood estimator `rule` under classifier-free guidance: from the logits un + (`scale` + 1)(cond - un),
    where `cond` are the logits given the prompt and `un` those with the prompt masked.

    ValueError for a `rule` that is not for absorbing models or is guided already, and for a `scale` of 0.
    """

    scale: float
    rule: Estimator
    processes = frozenset({"absorbing"})
    score_is = "guided score"

    def __post_init__(self) -> None:
        name = parts.part_name(type(self.rule))
        if isinstance(self.rule, GuidedLikelihood):
            raise ValueError("estimator: '+guided' is given twice; give it once, with one scale")
        if "absorbing" not in self.rule.processes:
            raise ValueError(
                f"estimator {name!r} is for models without a mask token, but '+guided' masks the prompt; leave"
                " '+guided' out"
            )
        if self.scale == 0:
            raise ValueError("'+guided:scale=0' changes nothing and costs double; leave it out")

    def max_forwards(self, length: int) -> int:
        return GuidedDenoiser.cost * self.rule.max_forwards(length)

    def batched(self, denoiser: Denoiser, process: Process, batch: int) -> GuidedDenoiser:
        return GuidedDenoiser(denoiser, process, batch, self.scale)

    def inputs(self, length: int) -> int:
        return self.rule.inputs(length)

    def score_group(
        self, denoiser: BatchedDenoiser, requests: list[LikelihoodRequest], seed: int
    ) -> list[Likelihood]:
        assert isinstance(denoiser, GuidedDenoiser) and denoiser.scale == self.scale
        return self.rule.score_group(denoiser, requests, seed)
