"""Corrector sweeps for uniform noise: positions are redrawn given all others (arXiv 2605.22765;
docs/method.md#uniform-samplers).

At time s the distribution of the noisy token z_l at position l given all others is

    p_s(z_l | z without l) = sum_x p(x_l = x | z without l) q(z_l | x) = alpha_s loo_l + (1 - alpha_s)/K,

where alpha_s is the probability that a token is intact, K the number of tokens that noise draws from, and loo the
leave-one-out conditional: the network's output, or computed from it. Drawing a position from this distribution is a
Gibbs step, which preserves the marginal at time s if the position is chosen independently of the tokens and no other
position changes with it. So a sweep with `count` = 1 and `Anywhere` is exact; sweeps that change several positions at
once, or positions chosen by `Doubtful`, are not.

There is no sweep after the last step: at s = 0 no noise may be left, and a network that estimates E[x | z] then only
repeats z, from which no leave-one-out conditional follows. So S steps take S + (S - 1) x `sweeps` forward passes.

Shapes: B rows of the batch, L columns, N positions (True entries of a [B, L] mask), V vocabulary size.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from repro.core import rng
from repro.core.lazy import torch
from repro.core.parts import Part, part
from repro.processes.uniform import Uniform, conditional
from repro.samplers.sampler import Capabilities, Claim, Sampler, State

if TYPE_CHECKING:
    from torch import Tensor

    from repro.models.prediction import Prediction


def gibbs(process: Uniform, ids: Tensor, prediction: Prediction, s: Tensor, where: Tensor) -> Tensor:
    """Distribution of each noisy token given all others, p_s(z_l | z without l), [N, V] float64.

    For ids [B, L] at time s [B] under the noise `process`, at the N True entries of `where` [B, L] bool; `prediction`:
    the network's prediction for these ids.
    """
    vocabulary = prediction.vocabulary
    alpha = process.alpha(s)[where.nonzero()[:, 0]]
    loo = conditional(prediction.probs(where)[:, : vocabulary.size], ids[where], alpha, prediction.meaning)
    noisy = alpha[:, None] * loo + (1 - alpha)[:, None] / vocabulary.size
    return torch.nn.functional.pad(noisy, (0, vocabulary.total - vocabulary.size))


class Choice(Part):
    """Base class of the ways in which a corrector sweep chooses the positions that it redraws."""

    claim: ClassVar[Claim]
    """"law" if the choice is independent of the tokens, so that redrawing one position is exact; else "biased"."""

    @abstractmethod
    def log_weights(
        self, process: Uniform, ids: Tensor, prediction: Prediction, s: Tensor, among: Tensor
    ) -> Tensor:
        """Log of the unnormalised probability of choosing each position, [B, L] float64; -inf outside `among` [B, L]
        bool.

        `prediction`: the network's prediction for the current ids [B, L] at time s [B] under the noise `process`.
        """


@part
class Anywhere(Choice):
    """Chooses the positions to redraw among all positions of the block with equal probability."""

    claim = "law"

    def log_weights(
        self, process: Uniform, ids: Tensor, prediction: Prediction, s: Tensor, among: Tensor
    ) -> Tensor:
        return among.double().log()


@part
class Doubtful(Choice):
    """Chooses positions with probability proportional to exp(-margin / temperature), where the margin is the
    log-probability of the position's token minus that of the most probable other token.

    The choice depends on the tokens, so a sweep does not preserve the marginal. ValueError for a temperature of 0.
    """

    temperature: float
    claim = "biased"

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(
                f"doubtful: temperature={self.temperature} chooses no position; give a number above 0"
            )

    def log_weights(
        self, process: Uniform, ids: Tensor, prediction: Prediction, s: Tensor, among: Tensor
    ) -> Tensor:
        logp = gibbs(process, ids, prediction, s, among)[:, : prediction.vocabulary.size].log()
        here = ids[among][:, None]
        margin = logp.gather(1, here)[:, 0] - logp.scatter(1, here, -torch.inf).amax(-1)
        score = torch.full(ids.shape, -torch.inf, dtype=torch.float64, device=ids.device)
        score[among] = -margin / self.temperature
        return score


@part
class Corrected(Sampler):
    """Sampler that adds corrector sweeps to the sampler `rule`.

    After each step of `rule` but the last come `sweeps` sweeps. A sweep takes one forward pass and redraws `count`
    positions of the current block, chosen by `choice`.
    """

    rule: Sampler
    choice: Choice
    sweeps: int
    count: int

    @property
    def capabilities(self) -> Capabilities:
        rule = self.rule.capabilities
        return Capabilities(frozenset({"uniform"}), rule.plan, frozenset({"uniform"}), rule.looks_at_draws)

    def claim(self) -> Claim:
        exact = self.choice.claim == "law" and self.count == 1
        return self.rule.claim() if exact or self.rule.claim() != "law" else "biased"

    def time(self, step: int, steps: int) -> float:
        return self.rule.time(step, steps)

    def start(self, ids: Tensor) -> Tensor | None:
        return self.rule.start(ids)

    def step(self, state: State) -> Tensor:
        process, ids = state.process, self.rule.step(state)
        assert isinstance(process, Uniform)
        for sweep in range(self.sweeps if state.step + 1 < state.steps else 0):
            prediction = state.forward(ids, state.s)
            where = self._chosen(state, ids, prediction, sweep)
            law = gibbs(process, ids, prediction, state.s, where)
            ids = ids.clone()
            ids[where] = state.draw(law, rng.CORRECTION, where, sweep)
        return ids

    def _chosen(self, state: State, ids: Tensor, prediction: Prediction, sweep: int) -> Tensor:
        """The positions that the sweep number `sweep` (from 0) redraws, [B, L] bool: `count` per row in the current
        block, drawn without replacement. `prediction`: the network's prediction for `ids` [B, L]."""
        assert isinstance(state.process, Uniform)
        left = self.choice.log_weights(state.process, ids, prediction, state.s, state.active)
        # the choice is one draw per row, keyed by the first position of the block
        anchor = state.active & (state.active.cumsum(1) == 1)
        chosen = torch.zeros_like(state.active)
        for index in range(min(self.count, int(state.active[0].sum()))):
            # relative to the largest that is left, without which all others may underflow to 0
            weights = (left - left.amax(1, keepdim=True)).exp()
            column = state.draw(weights, rng.POSITION, anchor, sweep * self.count + index)
            chosen = chosen.scatter(1, column[:, None], True)
            left = left.masked_fill(chosen, -torch.inf)
        return chosen
