"""Parallel decoding by confidence (Fast-dLLM, algorithm 1, arXiv 2505.22618; spec E.5).

Adaptive: the number of forwards is an outcome. c_(r) is the probability of the written token at the r-th most
confident position.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro.lazy import torch
from repro.parts import part
from repro.samplers.sampler import Abilities, Claim, Sampler, State

if TYPE_CHECKING:
    from torch import Tensor


_ABILITIES = Abilities(
    frozenset({"absorbing"}),
    plan="adaptive",
    revises=frozenset(),
    looks_at_draws=True,
    honours=frozenset({"confidence"}),
)


@part
class Threshold(Sampler):
    """Commit every masked position whose token has at least this probability, and always the best."""

    threshold: float
    temperature: float
    abilities = _ABILITIES

    def claim(self) -> Claim:
        return "mode" if self.temperature == 0 else "biased"

    def step(self, state: State) -> Tensor:
        logits = state.prediction.logits(state.open)
        tokens = state.tokens(logits, self.temperature, state.open)
        logp = state.confidence(logits, tokens)
        chosen = state.best(logp, state.open, 1)
        chosen[state.open] |= logp.exp() >= self.threshold
        return state.commit(chosen, tokens[chosen[state.open]])


@part
class Factor(Sampler):
    """Commit the most confident positions as long as (r + 1)(1 - c_(r)) <= factor, and always the best.

    With factor 1 their argmaxes together are the argmax of every joint law that has these marginals (Fast-dLLM,
    theorem 1).
    """

    factor: float
    temperature: float
    abilities = _ABILITIES

    def claim(self) -> Claim:
        return "mode" if self.temperature == 0 else "biased"

    def step(self, state: State) -> Tensor:
        logits = state.prediction.logits(state.open)
        tokens = state.tokens(logits, self.temperature, state.open)
        logp = state.confidence(logits, tokens)
        doubt = torch.full(state.open.shape, torch.inf, dtype=torch.float64, device=logp.device)
        doubt[state.open] = -torch.expm1(logp.double())
        # doubt rises with the rank and so does r + 1: what passes are the first ranks
        rank = doubt.sort(dim=-1, stable=True).values
        passing = torch.arange(2, doubt.shape[1] + 2, device=doubt.device) * rank <= self.factor
        chosen = state.best(logp, state.open, passing.sum(1).clamp_min(1)[:, None])
        return state.commit(chosen, tokens[chosen[state.open]])
