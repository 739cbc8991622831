"""Adaptive parallel decoding by confidence or entropy: the number of forward passes depends on the text (Fast-dLLM,
arXiv 2505.22618, algorithm 1, docs/method.md#fast-dllm; entropy bound, docs/method.md#entropy-bound).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from repro.core import rng
from repro.core.lazy import torch
from repro.core.parts import part
from repro.samplers.sampler import Capabilities, Claim, Preset, Sampler, State, claim_at, most_probable

if TYPE_CHECKING:
    from torch import Tensor

_BY_CONFIDENCE = Capabilities(
    frozenset({"absorbing"}),
    plan="adaptive",
    revises=frozenset(),
    looks_at_draws=True,
    follows=frozenset({"confidence"}),
)


@part
class Threshold(Sampler):
    """Sampler that commits, at each step, every masked position whose token has at least the probability `threshold`,
    and always the most confident position of each row. Tokens are argmaxes at `temperature` 0, else draws from
    softmax(logits / temperature)."""

    threshold: float
    temperature: float
    capabilities = _BY_CONFIDENCE
    presets = (
        Preset(
            "threshold_0.9",
            {"threshold": 0.9, "temperature": 0.0},
            "commits all positions above a confidence: Fast-dLLM, GSM8K scripts (docs/method.md#fast-dllm)",
            "2505.22618",
        ),
    )

    def claim(self) -> Claim:
        return "mode" if self.temperature == 0 else "biased"

    def step(self, state: State) -> Tensor:
        logits = state.prediction.logits(state.undecided)
        tokens = state.tokens(logits, self.temperature, state.undecided)
        logp = state.confidence(logits, tokens)
        chosen = state.best(logp, state.undecided, 1)
        chosen[state.undecided] |= logp.exp() >= self.threshold
        return state.commit(chosen, tokens[chosen[state.undecided]])


@part
class Factor(Sampler):
    """Sampler that commits, at each step, the r most confident masked positions for the largest r that satisfies
    (r + 1)(1 - c_r) <= factor, and always one; c_r is the token's probability at the r-th most confident position.

    With factor 1, the argmaxes together are the argmax of every joint distribution with these marginals (Fast-dLLM,
    theorem 1).
    """

    factor: float
    temperature: float
    capabilities = _BY_CONFIDENCE
    presets = (
        Preset(
            "factor_1",
            {"factor": 1.0, "temperature": 0.0},
            "commits as many as theorem 1 of Fast-dLLM allows; it holds up to factor 1 (docs/method.md#fast-dllm)",
            "2505.22618",
        ),
    )

    def claim(self) -> Claim:
        return "mode" if self.temperature == 0 else "biased"

    def step(self, state: State) -> Tensor:
        logits = state.prediction.logits(state.undecided)
        tokens = state.tokens(logits, self.temperature, state.undecided)
        logp = state.confidence(logits, tokens)
        doubt = torch.full(state.undecided.shape, torch.inf, dtype=torch.float64, device=logp.device)
        doubt[state.undecided] = -torch.expm1(logp)
        # doubt and r + 1 both rise with the rank, so the ranks that pass are the first ones
        ordered = doubt.sort(dim=-1, stable=True).values
        passing = torch.arange(2, doubt.shape[1] + 2, device=doubt.device) * ordered <= self.factor
        chosen = state.best(logp, state.undecided, passing.sum(1).clamp_min(1)[:, None])
        return state.commit(chosen, tokens[chosen[state.undecided]])


@part
class EntropyBound(Sampler):
    """Sampler that commits, at each step, as many masked positions as satisfy sum H - max H <= gamma (in nats), and
    always one (arXiv 2505.24857; docs/method.md#entropy-bound). Sum and maximum are over the committed positions.

    Positions are taken in the order of `proxy`: lowest entropy ("entropy"), highest probability ("confidence"), or
    largest gap between the two highest probabilities ("margin"). H is a position's entropy of softmax(logits /
    temperature), from which its token is drawn. At temperature 0 tokens are argmaxes, and H is that at temperature 1.
    """

    gamma: float
    proxy: Literal["entropy", "confidence", "margin"]
    temperature: float
    capabilities = Capabilities(
        frozenset({"absorbing"}), plan="adaptive", revises=frozenset(), looks_at_draws=False
    )
    presets = (
        Preset(
            "entropy_bound_0.1",
            {"gamma": 0.1, "proxy": "entropy", "temperature": 1.0},
            "commits within a joint entropy: nkalyanv99/UNI-D2@3f24657 (docs/method.md#entropy-bound)",
            "2505.24857",
        ),
    )

    def claim(self) -> Claim:
        if self.temperature > 0 and self.gamma > 0:
            return "biased"
        return claim_at(self.temperature)

    def step(self, state: State) -> Tensor:
        logits = state.prediction.logits(state.undecided)
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
        chosen = state.best(ease, state.undecided, self._affordable(state.undecided, ease, entropy))
        if self.temperature == 0:
            return state.commit(chosen, most_probable(logits[chosen[state.undecided]]))
        return state.commit(chosen, state.draw(p[chosen[state.undecided]], rng.TOKEN, chosen))

    def _affordable(self, undecided: Tensor, ease: Tensor, entropy: Tensor) -> Tensor:
        """Number of positions per row within the entropy budget gamma, [B, 1]; at least 1.

        `ease` (higher is committed first) and `entropy` (nats) are [N], at the N True entries of `undecided` [B, L].
        """
        full = torch.full(undecided.shape, -torch.inf, dtype=torch.float64, device=undecided.device)
        full[undecided] = ease
        order = full.argsort(dim=-1, descending=True, stable=True)
        cost = torch.full_like(full, torch.inf)
        cost[undecided] = entropy
        ordered = cost.gather(1, order)
        finite = ordered.masked_fill(ordered.isinf(), 0.0)
        ignored = finite.cumsum(-1) - finite.cummax(-1).values
        return ((ignored <= self.gamma) & ordered.isfinite()).sum(1).clamp_min(1)[:, None]
