"""Likelihood estimators under classifier-free guidance: every conditional is un + (scale + 1)(cond - un), and `un` has
the prompt masked (docs/method.md#llada-likelihood; LLaDA, Nie et al. 2025, App. B.5).

    estimator("llada_mc+guided:scale=0.5")

A *guided score* ranks answers: what guidance makes of the conditionals is another law, so a bound of it is none on the
model's log p. Each input takes two forwards; an empty prompt has nothing to mask, so guidance moves nothing there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from repro.core import registry
from repro.core.lazy import torch
from repro.core.parts import part
from repro.evals.likelihood.likelihood import Estimator, Likelihood, Request
from repro.evals.likelihood.network import Heard, Network
from repro.processes.absorbing import mask_id

if TYPE_CHECKING:
    from torch import Tensor

    from repro.models.denoiser import Denoiser
    from repro.processes.process import Process


class GuidedNetwork(Network):
    """Reads each input twice, as it is and with the prompt masked, and mixes the logits."""

    cost = 2

    def __init__(self, denoiser: Denoiser, process: Process, batch: int, scale: float) -> None:
        super().__init__(denoiser, process, batch)
        self.scale = scale

    def seen(self, ids: Tensor, prompt: Tensor) -> Tensor:
        return torch.cat([ids, ids.masked_fill(prompt, mask_id(self.vocabulary))], 1)

    def heard(self, seen: Tensor, t: Tensor, asked: Tensor) -> Heard:
        from repro.samplers.processed import mixed

        told, untold = (super(GuidedNetwork, self).heard(ids, t, asked) for ids in seen.chunk(2, 1))
        return lambda some: mixed(told(some), untold(some), self.scale)


@part
class GuidedLikelihood(Estimator):
    """`rule` under guidance. ValueError for a rule without masked inputs, and for a scale that changes nothing."""

    scale: float
    rule: Estimator
    processes = frozenset({"absorbing"})
    score_is = "guided score"

    def __post_init__(self) -> None:
        name = registry.part_name(type(self.rule))
        if isinstance(self.rule, GuidedLikelihood):
            raise ValueError("guided is given twice; give one scale")
        if "absorbing" not in self.rule.processes:
            raise ValueError(f"guided masks the prompt, and estimator {name!r} is for no absorbing model")
        if self.scale == 0:
            raise ValueError("guided:scale=0 changes nothing and costs double; leave it out")

    def most(self, length: int) -> int:
        return GuidedNetwork.cost * self.rule.most(length)

    def network(self, denoiser: Denoiser, process: Process, batch: int) -> Network:
        return GuidedNetwork(denoiser, process, batch, self.scale)

    def score(self, network: Network, requests: Sequence[Request], seed: int) -> list[Likelihood]:
        assert isinstance(network, GuidedNetwork) and network.scale == self.scale
        self.check(network.process)
        return self.rule.score(network, requests, seed)
