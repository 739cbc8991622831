"""Entropy-bounded unmasking (Ben-Hamu et al. 2025, arXiv 2505.24857; spec E.4).

Masked positions are sorted by a proxy of their error; the first k are committed together, with the largest k for which
the entropies H of their predictions satisfy sum H - max H <= gamma. That difference bounds the mutual information which
drawing them independently ignores: at most gamma nats a step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from repro import rng
from repro.lazy import torch
from repro.parts import part
from repro.samplers.sampler import Abilities, Claim, Sampler, State, claim_at

if TYPE_CHECKING:
    from torch import Tensor


@part
class EntropyBound(Sampler):
    """As many positions as `gamma` nats allow, one at least, easiest first by `proxy`; tokens are drawn there.

    Predictions are softmax(logits / temperature); at temperature 0 tokens are argmaxes and H that of temperature 1.
    """

    gamma: float
    proxy: Literal["entropy", "confidence", "margin"]
    temperature: float
    abilities = Abilities(
        frozenset({"absorbing"}), plan="adaptive", revises=frozenset(), looks_at_draws=False
    )

    def claim(self) -> Claim:
        if self.temperature > 0 and self.gamma > 0:
            return "biased"
        return claim_at(self.temperature)

    def step(self, state: State) -> Tensor:
        logits = state.prediction.logits(state.open)
        p = (logits.double() / (self.temperature or 1.0)).softmax(-1)
        entropy = -torch.special.xlogy(p, p).sum(-1)
        match self.proxy:
            case "entropy":
                ease = -entropy
            case "confidence":
                ease = p.amax(-1)
            case "margin":
                first, second = p.topk(2).values.unbind(-1)
                ease = first - second
        chosen = state.best(ease, state.open, self._affordable(state.open, ease, entropy))
        if self.temperature == 0:
            return state.commit(chosen, logits.argmax(-1)[chosen[state.open]])
        return state.commit(chosen, state.draw(p[chosen[state.open]], rng.TOKEN, chosen))

    def _affordable(self, open: Tensor, ease: Tensor, entropy: Tensor) -> Tensor:
        """How many positions fit under gamma, [B, 1]; `ease` and `entropy` [N] at `open` [B, L]."""
        full = torch.full(open.shape, -torch.inf, dtype=torch.float64, device=open.device)
        full[open] = ease
        order = full.argsort(dim=-1, descending=True, stable=True)
        cost = torch.full_like(full, torch.inf)
        cost[open] = entropy
        ordered = cost.gather(1, order)
        finite = ordered.masked_fill(ordered.isinf(), 0.0)
        ignored = finite.cumsum(-1) - finite.cummax(-1).values
        return ((ignored <= self.gamma) & ordered.isfinite()).sum(1).clamp_min(1)[:, None]
