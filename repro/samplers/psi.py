"""Psi samplers: each step is a mixture of the reverse step and of a clean draw that is noised again (Duo, chapter 2;
docs/method.md#uniform-samplers).

    q(s) = kappa q(s | t, prediction) + (1 - kappa) [ alpha_s q(0 | t, prediction) + (1 - alpha_s) prior ]

is the distribution of each position's token at time s, given the noisy tokens at time t > s; alpha is the probability
that a token is intact, the prior the distribution of pure noise. For any kappa in [0, 1] a step takes q(t | x0) to q(s
| x0), under absorbing and uniform noise. Under absorbing noise it is ReMDM (arXiv 2503.00307), whose probability of
masking a committed token is here sigma = (1 - kappa)(1 - alpha_s). This sigma is at most 1 - alpha_s, while ReMDM
allows up to (1 - alpha_s)/alpha_t; a schedule of sigma beyond the limit gets kappa = 0, as in Duo's code.

kappa = 1 is ancestral sampling; smaller values revise more. With an exact denoiser and S steps the error of ancestral
sampling falls as 1/S, that of a smaller kappa as S^-1/2 at best (several positions change at once at every noise
level), and steps at constant time leave an error that does not vanish. So only kappa = 1 claims to draw from the
model's distribution.

The steps of a block form three segments (high, middle, low): of n = steps + 1 times (as Duo counts), the first
round(high_frac n), the next round(middle_frac n), and the rest. A kappa that follows a ReMDM schedule is 1 at the last
step of the high and of the middle segment, as in Duo's code; the last time of the low segment starts no step.

Shapes: B rows of the batch.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from repro.core import rng
from repro.core.lazy import torch
from repro.core.parts import Part, part
from repro.processes.process import diffusion
from repro.samplers.sampler import Capabilities, Claim, Sampler, State

if TYPE_CHECKING:
    from torch import Tensor


class Kappa(Part):
    """Base class of schedules of kappa in [0, 1], the weight of the reverse step in the psi sampler's mixture; the
    other part, with weight 1 - kappa, is a clean draw that is noised again. Subclasses give the method `kappa`."""

    @abstractmethod
    def kappa(self, alpha_t: Tensor, alpha_s: Tensor, last: bool) -> Tensor:
        """Weight kappa of the reverse step in the psi sampler's mixture for the step from time t to s, [B] float64 in
        [0, 1] for B rows: 1 gives the reverse step alone, 0 a clean draw that is noised again.

        `alpha_t`, `alpha_s` [B] float64: probability that a token is intact before and after the step; `last`: whether
        the step is the last one of the first or of the second of the three segments of a block's steps (`Psi`).
        """


@part
class PurePosterior(Kappa):
    """Weight kappa = 1 of the reverse step in the psi sampler's mixture at every step, which is ancestral sampling."""

    def kappa(self, alpha_t: Tensor, alpha_s: Tensor, last: bool) -> Tensor:
        return torch.ones_like(alpha_s)


@part
class PurePC(Kappa):
    """Weight kappa = 0 of the reverse step in the psi sampler's mixture at every step: each position is drawn clean and
    then noised again."""

    def kappa(self, alpha_t: Tensor, alpha_s: Tensor, last: bool) -> Tensor:
        return torch.zeros_like(alpha_s)


@part
class ConstantKappa(Kappa):
    """Weight kappa = `value` of the reverse step in the psi sampler's mixture at every step; ValueError outside [0,
    1]."""

    value: float

    def __post_init__(self) -> None:
        if not 0 <= self.value <= 1:
            raise ValueError(
                f"constant_kappa: value={self.value} is no weight of the reverse step; give 0 to 1"
            )

    def kappa(self, alpha_t: Tensor, alpha_s: Tensor, last: bool) -> Tensor:
        return torch.full_like(alpha_s, self.value)


@part
class MaxCapped(Kappa):
    """Weight kappa = 1 - sigma/(1 - alpha_s) of the reverse step in the psi sampler's mixture, with ReMDM's cap
    schedule for the probability of masking a committed token, sigma = min(eta, (1 - alpha_s)/alpha_t). alpha_t,
    alpha_s: probability that a token is intact before and after the step."""

    eta: float

    def kappa(self, alpha_t: Tensor, alpha_s: Tensor, last: bool) -> Tensor:
        return _of(_capped(self.eta, alpha_t, alpha_s), alpha_s, last)


@part
class MaxRescaled(Kappa):
    """Weight kappa = 1 - sigma/(1 - alpha_s) of the reverse step in the psi sampler's mixture, with Duo's rescale
    schedule for the probability of masking a committed token, sigma = eta min(eta, (1 - alpha_s)/alpha_t), or eta at
    alpha_t = 0. alpha_t, alpha_s: probability that a token is intact before and after the step.

    ReMDM's rescale schedule has min(1, ...) in place of min(eta, ...), so with the same eta Duo's sigma is at most as
    large, and at least eta times as large.
    """

    eta: float

    def kappa(self, alpha_t: Tensor, alpha_s: Tensor, last: bool) -> Tensor:
        capped = torch.where(alpha_t > 0, _capped(self.eta, alpha_t, alpha_s), 1.0)
        return _of(self.eta * capped, alpha_s, last)


@part
class ConstantSigma(Kappa):
    """Weight kappa = 1 - sigma/(1 - alpha_s) of the reverse step in the psi sampler's mixture, with a constant
    probability sigma = eta of masking a committed token, as in ReMDM's loop; alpha_s: probability that a token is
    intact after the step."""

    eta: float

    def kappa(self, alpha_t: Tensor, alpha_s: Tensor, last: bool) -> Tensor:
        return _of(torch.full_like(alpha_s, self.eta), alpha_s, last)


def _capped(eta: float, alpha_t: Tensor, alpha_s: Tensor) -> Tensor:
    """Probability of masking a committed token in ReMDM's cap schedule, min(eta, (1 - alpha_s)/alpha_t) for each row,
    [B]; eta where alpha_t = 0. Products are compared, not quotients, so that alpha_t = 0 needs no special case."""
    return torch.where(alpha_t * eta > 1 - alpha_s, (1 - alpha_s) / alpha_t, eta)


def _of(sigma: Tensor, alpha_s: Tensor, last: bool) -> Tensor:
    """Weight kappa = 1 - sigma/(1 - alpha_s) of the reverse step for each row, clamped to [0, 1], [B], from the
    probability sigma [B] of masking a committed token in ReMDM and from `alpha_s` [B]; 1 if `last` (the step is the
    last of the first or of the second of the three segments of a block's steps, see `Psi`).

    At alpha_s = 1 the value of kappa does not matter.
    """
    if last:
        return torch.ones_like(alpha_s)
    return torch.where(alpha_s < 1, 1 - sigma / (1 - alpha_s), 1.0).clamp(0, 1)


@part
class Psi(Sampler):
    """The psi sampler: each step draws every position from a mixture of the reverse step, with weight kappa, and of a
    clean draw that is noised again, with weight 1 - kappa (Duo, chapter 2; docs/method.md#uniform-samplers).

    `high`, `middle`, `low`: schedules of kappa in the first, second and last segment of a block's steps; `high_frac`,
    `middle_frac`: fractions of the block's steps + 1 times in the first and in the second segment (the others are in
    the last). ValueError for negative fractions, and for fractions of more than 1 together.
    """

    high: Kappa
    middle: Kappa
    low: Kappa
    high_frac: float
    middle_frac: float
    capabilities = Capabilities(
        frozenset({"absorbing", "uniform"}),
        plan="steps",
        revises=frozenset({"absorbing", "uniform"}),
        looks_at_draws=False,
    )

    def __post_init__(self) -> None:
        if min(self.high_frac, self.middle_frac) < 0 or self.high_frac + self.middle_frac > 1:
            raise ValueError(
                f"psi: high_frac={self.high_frac} and middle_frac={self.middle_frac} are no fractions of the times;"
                " give 0 or more each, and at most 1 together"
            )

    def claim(self) -> Claim:
        kinds = (self.high, self.middle, self.low)
        return "law" if all(isinstance(kind, PurePosterior) for kind in kinds) else "biased"

    def kappa(self, step: int, steps: int, alpha_t: Tensor, alpha_s: Tensor) -> Tensor:
        """Weight kappa of the reverse step in the psi sampler's mixture at step number `step` (from 0) of the block's
        `steps` steps, [B] float64 for B rows: 1 gives the reverse step alone, 0 a clean draw that is noised again. With
        n = steps + 1, `high` gives it in the first round(high_frac n) steps, `middle` in the next round(middle_frac n),
        then `low`.

        `alpha_t`, `alpha_s` [B] float64: probability that a token is intact before and after the step.
        """
        high, middle = (round(share * (steps + 1)) for share in (self.high_frac, self.middle_frac))
        for kind, end in ((self.high, high), (self.middle, high + middle)):
            if step < end:
                return kind.kappa(alpha_t, alpha_s, step == end - 1)
        return self.low.kappa(alpha_t, alpha_s, False)

    def step(self, state: State) -> Tensor:
        process, prediction = diffusion(state.process), state.prediction
        alpha_t, alpha_s = process.alpha(state.t), process.alpha(state.s)
        rows = state.active.nonzero()[:, 0]
        kappa = self.kappa(state.step, state.steps, alpha_t, alpha_s)[rows, None]
        reverse = process.posterior(state.ids, prediction, state.t, state.s, state.active)
        clean = process.posterior(state.ids, prediction, state.t, torch.zeros_like(state.t), state.active)
        intact, noise = alpha_s[rows, None], process.prior(prediction.vocabulary).to(clean.device)
        law = kappa * reverse + (1 - kappa) * (intact * clean + (1 - intact) * noise)
        return state.commit(state.active, state.draw(law, rng.TOKEN, state.active))
