"""Parallel decoding by confidence (Fast-dLLM, algorithm 1, arXiv 2505.22618; spec E.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro.parts import part
from repro.samplers.sampler import Abilities, Claim, Sampler, State

if TYPE_CHECKING:
    from torch import Tensor


@part
class Threshold(Sampler):
    """Commit every masked position of the block whose written token has at least this probability, and always the best.

    Adaptive: the number of forwards is an outcome.
    """

    threshold: float
    temperature: float
    abilities = Abilities(frozenset({"absorbing"}), plan="adaptive", revises=frozenset(), looks_at_draws=True)

    def claim(self) -> Claim:
        return "mode" if self.temperature == 0 else "biased"

    def step(self, state: State) -> Tensor:
        logits = state.prediction.logits(state.open)
        tokens = state.tokens(logits, self.temperature, state.open)
        logp = logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(-1)
        chosen = state.best(logp, state.open, 1)
        chosen[state.open] |= logp.exp() >= self.threshold
        return state.commit(chosen, tokens[chosen[state.open]])
