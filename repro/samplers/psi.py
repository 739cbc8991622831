"""Psi samplers: a reverse step mixed with a fresh clean draw that is noised again (Duo, chapter 2;
docs/method.md#uniform-samplers).

    q(s) = kappa q(s | t, prediction) + (1 - kappa) [ alpha_s q(0 | t, prediction) + (1 - alpha_s) prior ]

position by position. Whatever kappa in [0, 1], a step takes q(t | x0) to q(s | x0), for absorbing and uniform noise.
For absorbing noise it is ReMDM (Wang et al. 2025) with sigma = (1 - kappa)(1 - alpha_s), hence at most 1 - alpha_s
where ReMDM's own may reach (1 - alpha_s)/alpha_t; a schedule that asks for more gets kappa = 0, as in Duo's code.

kappa = 1 is ancestral sampling, smaller ones revise more. With an exact denoiser the ancestral error falls as 1/N, that
of a smaller kappa as N^-1/2 at best (positions move together at every noise level), and a held time leaves a floor:
only kappa = 1 claims the law.

The steps of a block fall into three segments by number: of n = steps + 1 (the times, not the steps, as Duo counts),
the first round(high_frac n), the next round(middle_frac n), the rest. Kappas that follow a ReMDM schedule are 1 on the
last step of the high and of the middle segment, as in Duo's code; the last of the low one is no step.
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
    """Kind: the weight of the reverse step."""

    @abstractmethod
    def kappa(self, alpha_t: Tensor, alpha_s: Tensor, last: bool) -> Tensor:
        """alpha at t and s, [B] float64, and whether this is a segment's last step -> kappa in [0, 1], [B]."""


@part
class PurePosterior(Kappa):
    """1: ancestral sampling."""

    def kappa(self, alpha_t: Tensor, alpha_s: Tensor, last: bool) -> Tensor:
        return torch.ones_like(alpha_s)


@part
class PurePC(Kappa):
    """0: every position is drawn clean and noised again."""

    def kappa(self, alpha_t: Tensor, alpha_s: Tensor, last: bool) -> Tensor:
        return torch.zeros_like(alpha_s)


@part
class ConstantKappa(Kappa):
    """The same at every step."""

    value: float

    def kappa(self, alpha_t: Tensor, alpha_s: Tensor, last: bool) -> Tensor:
        return torch.full_like(alpha_s, self.value)


@part
class MaxCapped(Kappa):
    """ReMDM's cap: sigma = min(eta, (1 - alpha_s)/alpha_t)."""

    eta: float

    def kappa(self, alpha_t: Tensor, alpha_s: Tensor, last: bool) -> Tensor:
        return _of(_capped(self.eta, alpha_t, alpha_s), alpha_s, last)


@part
class MaxRescaled(Kappa):
    """Duo's rescale: sigma = eta min(eta, (1 - alpha_s)/alpha_t), and eta at alpha_t = 0.

    ReMDM's own caps at 1 where this caps at eta, so with one eta this sigma is smaller by up to a factor of eta.
    """

    eta: float

    def kappa(self, alpha_t: Tensor, alpha_s: Tensor, last: bool) -> Tensor:
        capped = torch.where(alpha_t > 0, _capped(self.eta, alpha_t, alpha_s), 1.0)
        return _of(self.eta * capped, alpha_s, last)


@part
class ConstantSigma(Kappa):
    """ReMDM's loop: sigma = eta."""

    eta: float

    def kappa(self, alpha_t: Tensor, alpha_s: Tensor, last: bool) -> Tensor:
        return _of(torch.full_like(alpha_s, self.eta), alpha_s, last)


def _capped(eta: float, alpha_t: Tensor, alpha_s: Tensor) -> Tensor:
    # a product instead of the quotient: alpha_t = 0 sets no cap
    return torch.where(alpha_t * eta > 1 - alpha_s, (1 - alpha_s) / alpha_t, eta)


def _of(sigma: Tensor, alpha_s: Tensor, last: bool) -> Tensor:
    """kappa = 1 - sigma/(1 - alpha_s), within [0, 1]; at alpha_s = 1 nothing depends on it."""
    if last:
        return torch.ones_like(alpha_s)
    return torch.where(alpha_s < 1, 1 - sigma / (1 - alpha_s), 1.0).clamp(0, 1)


@part
class Psi(Sampler):
    """The mixture with one kind of kappa a segment; `high_frac` and `middle_frac` are shares of the block's times."""

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

    def claim(self) -> Claim:
        kinds = (self.high, self.middle, self.low)
        return "law" if all(isinstance(kind, PurePosterior) for kind in kinds) else "biased"

    def kappa(self, step: int, steps: int, alpha_t: Tensor, alpha_s: Tensor) -> Tensor:
        """kappa of a step, [B]."""
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
        kept, noise = alpha_s[rows, None], process.prior(prediction.vocabulary).to(clean.device)
        law = kappa * reverse + (1 - kappa) * (kept * clean + (1 - kept) * noise)
        return state.commit(state.active, state.draw(law, rng.TOKEN, state.active))
