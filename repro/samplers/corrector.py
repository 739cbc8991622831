"""Corrector sweeps for uniform noise: positions are redrawn given all others (arXiv 2605.22765;
docs/method.md#uniform-samplers).

At time s the law of one noisy token given the others is

    p_s(z_l | z without l) = sum_x p(x_l = x | z without l) q(z_l | x) = alpha_s loo_l + (1 - alpha_s)/K,

where loo is the leave-one-out conditional: the network's output, or computed from it. Drawing a position from it is a
Gibbs step, which preserves the marginal at time s if the position is chosen independently of the tokens and no other
position changes with it. So a sweep with `count` = 1 and `Anywhere` is exact; several positions at once, or `Doubtful`
ones, are not.

There is no correction after the last step: at s = 0 the posterior mean holds no information about the other tokens, and
no noise may be left. So N steps cost N + (N - 1) sweeps forwards.

Shapes: B rows, L columns, N positions, V ids, K tokens that noise draws from.
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
    """p_s(z_l | z without l) at `where` [B, L] for ids [B, L] at time s [B]: [N, V] float64."""
    vocabulary = prediction.vocabulary
    alpha = process.alpha(s)[where.nonzero()[:, 0]]
    loo = conditional(prediction.probs(where)[:, : vocabulary.size], ids[where], alpha, prediction.meaning)
    noisy = alpha[:, None] * loo + (1 - alpha)[:, None] / vocabulary.size
    return torch.nn.functional.pad(noisy, (0, vocabulary.total - vocabulary.size))


class Choice(Part):
    """Kind: how a sweep chooses the positions that it redraws. `claim`: "law" if independent of the tokens."""

    claim: ClassVar[Claim]

    @abstractmethod
    def weights(
        self, process: Uniform, ids: Tensor, prediction: Prediction, s: Tensor, among: Tensor
    ) -> Tensor:
        """Unnormalised probability of each position of `among` [B, L]: [B, L] float64, 0 elsewhere."""


@part
class Anywhere(Choice):
    """All positions with equal probability."""

    claim = "law"

    def weights(
        self, process: Uniform, ids: Tensor, prediction: Prediction, s: Tensor, among: Tensor
    ) -> Tensor:
        return among.double()


@part
class Doubtful(Choice):
    """Positions with probability proportional to exp(-margin / temperature), where the margin is the token's
    log-probability minus that of the best other token. It depends on the tokens and so does not preserve the marginal.
    """

    temperature: float
    claim = "biased"

    def weights(
        self, process: Uniform, ids: Tensor, prediction: Prediction, s: Tensor, among: Tensor
    ) -> Tensor:
        logp = gibbs(process, ids, prediction, s, among)[:, : prediction.vocabulary.size].log()
        here = ids[among][:, None]
        margin = logp.gather(1, here)[:, 0] - logp.scatter(1, here, -torch.inf).amax(-1)
        score = torch.full(ids.shape, -torch.inf, dtype=torch.float64, device=ids.device)
        score[among] = -margin / self.temperature
        return (score - score.amax(1, keepdim=True)).exp()


@part
class Corrected(Sampler):
    """`rule`, and after each of its steps but the last `sweeps` forwards that redraw `count` positions of the block."""

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
        """`count` active positions per row, drawn without replacement: [B, L] bool."""
        assert isinstance(state.process, Uniform)
        left = self.choice.weights(state.process, ids, prediction, state.s, state.active)
        # the choice is one draw per row, keyed by the first position of the block
        anchor = state.active & (state.active.cumsum(1) == 1)
        chosen = torch.zeros_like(state.active)
        for index in range(min(self.count, int(state.active[0].sum()))):
            column = state.draw(left, rng.POSITION, anchor, sweep * self.count + index)
            chosen = chosen.scatter(1, column[:, None], True)
            left = left.masked_fill(chosen, 0.0)
        return chosen
