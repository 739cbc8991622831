"""Samplers that commit a fixed number of masked positions per step, those with the best scores first
(docs/method.md#llada-sampling, docs/method.md#dream-rules).

To commit a position is to write its token for good. The token is the argmax at temperature 0, else a draw from
softmax(logits / temperature). Scores do not use the temperature (LLaDA scores by the softmax without noise).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro.core.lazy import torch
from repro.core.parts import part
from repro.samplers.sampler import (
    Capabilities,
    Claim,
    Preset,
    Sampler,
    Setting,
    State,
    claim_at,
    most_probable,
)

if TYPE_CHECKING:
    from torch import Tensor


def _capabilities(looks_at_draws: bool, *settings: Setting) -> Capabilities:
    return Capabilities(
        frozenset({"absorbing"}),
        plan="quota",
        revises=frozenset(),
        looks_at_draws=looks_at_draws,
        follows=frozenset({"quota", *settings}),
    )


def margin(logits: Tensor) -> Tensor:
    """Gap between the probabilities of the two most probable tokens, [N] float64, from logits [N, V]."""
    first, second = logits.double().softmax(-1).topk(2).values.unbind(-1)
    return first - second


def negative_entropy(logits: Tensor) -> Tensor:
    """Minus the entropy of softmax(logits) in nats, [N] float64, from logits [N, V]."""
    p = logits.double().softmax(-1)
    return torch.special.xlogy(p, p).sum(-1)


@part
class LowConfidence(Sampler):
    """Sampler that chooses a token for every masked position, commits those with the highest probability and leaves the
    others masked (LLaDA, arXiv 2502.09992, algorithm 5; MaskGIT)."""

    temperature: float
    capabilities = _capabilities(True, "order", "confidence")
    presets = (
        Preset(
            "low_confidence",
            {"temperature": 0.0},
            "commits the most confident positions: LLaDA, generate.py, T = 0 (docs/method.md#llada-sampling)",
            "2502.09992",
        ),
    )

    def claim(self) -> Claim:
        return "mode" if self.temperature == 0 else "biased"

    def step(self, state: State) -> Tensor:
        logits = state.prediction.logits(state.undecided)
        if self.temperature == 0:
            chosen = state.surest(logits, state.undecided, state.quota)
            return state.commit(chosen, most_probable(logits[chosen[state.undecided]]))
        tokens = state.tokens(logits, self.temperature, state.undecided)
        score = state.confidence(logits, tokens).exp()
        chosen = state.best(score, state.undecided, state.quota)
        return state.commit(chosen, tokens[chosen[state.undecided]])


@part
class Margin(Sampler):
    """Sampler that commits the masked positions with the largest gap between the probabilities of their two most
    probable tokens (Dream's `topk_margin`)."""

    temperature: float
    capabilities = _capabilities(False, "order")
    presets = (
        Preset(
            "margin",
            {"temperature": 0.0},
            "commits by the gap between the two best tokens: Dream, alg topk_margin (docs/method.md#dream-rules)",
            "2508.15487",
        ),
    )

    def claim(self) -> Claim:
        return claim_at(self.temperature)

    def step(self, state: State) -> Tensor:
        logits = state.prediction.logits(state.undecided)
        return _commit(state, margin(logits), logits, self.temperature)


@part
class Entropy(Sampler):
    """Sampler that commits the masked positions whose predicted token distribution has the lowest entropy (Dream's
    `entropy`)."""

    temperature: float
    capabilities = _capabilities(False, "order")
    presets = (
        Preset(
            "entropy",
            {"temperature": 0.0},
            "commits by negative entropy: Dream and Open-dLLM, alg entropy (docs/method.md#dream-rules)",
            "2508.15487",
        ),
    )

    def claim(self) -> Claim:
        return claim_at(self.temperature)

    def step(self, state: State) -> Tensor:
        logits = state.prediction.logits(state.undecided)
        return _commit(state, negative_entropy(logits), logits, self.temperature)


def _commit(state: State, score: Tensor, logits: Tensor, temperature: float) -> Tensor:
    """The ids [B, L] after committing the `state.quota` undecided positions of each row with the highest scores.

    `score` [N] and `logits` [N, V]: of the N undecided positions of B rows with L columns; at the committed ones tokens
    are drawn from softmax(logits / temperature), or are the argmax at `temperature` 0.
    """
    chosen = state.best(score, state.undecided, state.quota)
    return state.commit(chosen, state.tokens(logits[chosen[state.undecided]], temperature, chosen))


@part
class Random(Sampler):
    """Sampler that commits masked positions in uniformly random order (LLaDA's `random`).

    With one position per step, temperature 1 and an exact denoiser it draws exactly from the model's distribution.
    Logits are computed only where a token is written.
    """

    temperature: float
    capabilities = _capabilities(False)
    presets = (
        Preset(
            "random",
            {"temperature": 0.0},
            "commits random positions: LLaDA, generate.py, remasking='random' (docs/method.md#llada-sampling)",
            "2502.09992",
        ),
    )

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
