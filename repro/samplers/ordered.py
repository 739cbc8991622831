"""Rules that commit a fixed quota of masked positions a step, best first (docs/method.md#llada-sampling,
docs/method.md#dream-rules).

At temperature 0 a committed token is the argmax; above, a draw of softmax(logits / temperature). The score of a
position never uses the temperature (LLaDA scores by the un-noised softmax).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro.core.lazy import torch
from repro.core.parts import part
from repro.samplers.sampler import Capabilities, Claim, Sampler, Setting, State, claim_at

if TYPE_CHECKING:
    from torch import Tensor


def _abilities(looks_at_draws: bool, *settings: Setting) -> Capabilities:
    return Capabilities(
        frozenset({"absorbing"}),
        plan="quota",
        revises=frozenset(),
        looks_at_draws=looks_at_draws,
        follows=frozenset({"quota", *settings}),
    )


@part
class LowConfidence(Sampler):
    """The positions whose written token is most probable; the others are remasked (LLaDA, Alg. 5; MaskGIT)."""

    temperature: float
    capabilities = _abilities(True, "order", "confidence")

    def claim(self) -> Claim:
        return "mode" if self.temperature == 0 else "biased"

    def step(self, state: State) -> Tensor:
        logits = state.prediction.logits(state.undecided)
        tokens = state.tokens(logits, self.temperature, state.undecided)
        score = state.confidence(logits, tokens).double().exp()
        chosen = state.best(score, state.undecided, state.quota)
        return state.commit(chosen, tokens[chosen[state.undecided]])


@part
class Margin(Sampler):
    """The positions with the largest gap between the two highest probabilities (Dream's `topk_margin`)."""

    temperature: float
    capabilities = _abilities(False, "order")

    def claim(self) -> Claim:
        return claim_at(self.temperature)

    def step(self, state: State) -> Tensor:
        logits = state.prediction.logits(state.undecided)
        first, second = logits.double().softmax(-1).topk(2).values.unbind(-1)
        return _commit(state, first - second, logits, self.temperature)


@part
class Entropy(Sampler):
    """The positions with the lowest predictive entropy (Dream's `entropy`)."""

    temperature: float
    capabilities = _abilities(False, "order")

    def claim(self) -> Claim:
        return claim_at(self.temperature)

    def step(self, state: State) -> Tensor:
        logits = state.prediction.logits(state.undecided)
        p = logits.double().softmax(-1)
        return _commit(state, torch.special.xlogy(p, p).sum(-1), logits, self.temperature)


def _commit(state: State, score: Tensor, logits: Tensor, temperature: float) -> Tensor:
    """Commit the quota's best-scoring open positions; tokens are drawn only there."""
    chosen = state.best(score, state.undecided, state.quota)
    return state.commit(chosen, state.tokens(logits[chosen[state.undecided]], temperature, chosen))


@part
class Random(Sampler):
    """Positions in uniformly random order (LLaDA's `random`); one at a time with an exact denoiser it is exact.

    Positions are drawn one after the other without replacement, and logits are computed only where a token is written.
    """

    temperature: float
    capabilities = _abilities(False)

    def claim(self) -> Claim:
        return claim_at(self.temperature)

    def step(self, state: State) -> Tensor:
        left = state.undecided.clone()
        if state.quota >= int(left.sum(1).max()):
            left[:] = False
        else:
            for index in range(state.quota):
                column = state.draw_position(left, index)
                left.scatter_(1, column[:, None], False)
        chosen = state.undecided & ~left
        logits = state.prediction.logits(chosen)
        return state.commit(chosen, state.tokens(logits, self.temperature, chosen))
