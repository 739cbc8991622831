"""ReMDM: ancestral sampling that masks committed tokens again (arXiv 2503.00307; docs/method.md#remdm).

In a step from time t to s < t a committed (unmasked) token is masked with probability sigma, and a masked position is
revealed with probability (alpha_s - (1 - sigma) alpha_t)/(1 - alpha_t), alpha being the probability that a token is
intact. For any 0 <= sigma <= sigma_max = min(1, (1 - alpha_s)/alpha_t) this preserves q(z_s | x), the distribution of
the noisy tokens z_s given the clean ones x; the samplers here differ in sigma. At s = 0 sigma_max is 0, and all masked
positions are revealed. The paper's scripts add `+nucleus:p=0.9`.

A step that masks and reveals several tokens at once ignores the dependence between them, and at fixed eta more steps do
not reduce the number of tokens per step. If sigma falls to 0 together with the masked share, the last steps correct
this, and the distance to the model's distribution falls with the number of steps S as S^-1/2 (cap, rescale) or 1/S
(forward-backward). `RemdmLoop` has no such correcting steps at its end.

Shapes: B rows of the batch, L columns (left padding, prompt, generated tokens).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro.core import rng
from repro.core.lazy import torch
from repro.core.parts import part
from repro.processes.absorbing import mask_id
from repro.processes.process import diffusion
from repro.samplers.sampler import Capabilities, Claim, Preset, Sampler, State

if TYPE_CHECKING:
    from torch import Tensor


def _capabilities(looks_at_draws: bool) -> Capabilities:
    return Capabilities(
        frozenset({"absorbing"}),
        plan="steps",
        revises=frozenset({"absorbing"}),
        looks_at_draws=looks_at_draws,
    )


def _alphas(state: State) -> tuple[Tensor, Tensor]:
    """alpha_t and alpha_s, the probabilities that a token is intact before and after the step, [B] each for B rows."""
    process = diffusion(state.process)
    return process.alpha(state.t), process.alpha(state.s)


def _limit(state: State) -> Tensor:
    """sigma_max = min(1, (1 - alpha_s)/alpha_t), the highest probability of masking a committed token again, [B].

    At alpha_t = 0 no token is committed, so the value of sigma_max there does not matter.
    """
    alpha_t, alpha_s = _alphas(state)
    return ((1 - alpha_s) / alpha_t.clamp_min(1e-300)).clamp_max(1.0)


def _revise(state: State, sigma: Tensor) -> Tensor:
    """The ids [B, L] after one step from time t to s: a committed token is masked with probability `sigma`, [B, L] or
    [B, 1], and a masked position is revealed with probability (alpha_s - (1 - sigma) alpha_t)/(1 - alpha_t).
    """
    alpha_t, alpha_s = (alpha[:, None] for alpha in _alphas(state))
    reveal = (alpha_s - (1 - sigma) * alpha_t) / (1 - alpha_t)
    change = torch.where(state.undecided, reveal, sigma.expand_as(reveal))[state.active]
    coin = torch.zeros_like(state.active)
    coin[state.active] = state.draw(torch.stack([1 - change, change], -1), rng.REVEAL, state.active).bool()
    shown, hidden = coin & state.undecided, coin & ~state.undecided
    ids = state.commit(shown, state.draw(state.prediction.probs(shown), rng.TOKEN, shown))
    return ids.masked_fill(hidden, mask_id(state.prediction.vocabulary))


@part
class RemdmCap(Sampler):
    """ReMDM with the cap schedule: a step masks each committed token with probability sigma = min(eta, sigma_max).

    Here sigma_max = min(1, (1 - alpha_s)/alpha_t). At fixed eta more steps remask more, so the distance to the model's
    distribution falls ever more slowly, and the sampler does not claim to draw from it (total variation .0015 after
    1,024 steps on 9 sentences at eta .008).
    """

    eta: float
    capabilities = _capabilities(looks_at_draws=False)
    presets = (
        Preset(
            "remdm_cap",
            {"eta": 0.008},
            "masks tokens again at a capped rate: ReMDM, eta .008, +nucleus:p=0.9 (docs/method.md#remdm)",
            "2503.00307",
        ),
    )

    def __post_init__(self) -> None:
        _check_share("eta", self.eta)

    def claim(self) -> Claim:
        return "biased"

    def step(self, state: State) -> Tensor:
        return _revise(state, _limit(state).clamp_max(self.eta)[:, None])


@part
class RemdmRescale(Sampler):
    """ReMDM with the rescale schedule: a step masks each committed token with probability sigma = eta sigma_max, where
    sigma_max = min(1, (1 - alpha_s)/alpha_t)."""

    eta: float
    capabilities = _capabilities(looks_at_draws=False)
    presets = (
        Preset(
            "remdm_rescale",
            {"eta": 0.015},
            "masks tokens again at a rescaled rate: ReMDM, eta .015, +nucleus:p=0.9 (docs/method.md#remdm)",
            "2503.00307",
        ),
    )

    def __post_init__(self) -> None:
        _check_share("eta", self.eta)

    def claim(self) -> Claim:
        return "law"

    def step(self, state: State) -> Tensor:
        return _revise(state, self.eta * _limit(state)[:, None])


@part
class RemdmConf(Sampler):
    """ReMDM by confidence: a step masks each committed token with probability sigma = sigma_max softmax(-p), where p is
    the token's probability when it was drawn and the softmax runs over the block's committed tokens.

    sigma_max = min(1, (1 - alpha_s)/alpha_t). Masked positions have sigma 0, so fewer are revealed than would make up
    for the tokens masked again, and q(z_s | x) is not preserved. Memory between steps: p [B, L] for B rows and L
    columns, 0 where masked.
    """

    capabilities = _capabilities(looks_at_draws=True)
    presets = (
        Preset(
            "remdm_conf",
            {},
            "masks unconfident tokens again: ReMDM by confidence, +nucleus:p=0.9 (docs/method.md#remdm)",
            "2503.00307",
        ),
    )

    def claim(self) -> Claim:
        return "biased"

    def start(self, ids: Tensor) -> Tensor | None:
        return torch.zeros(ids.shape, dtype=torch.float64, device=ids.device)

    def step(self, state: State) -> Tensor:
        assert state.memory is not None
        committed = state.active & ~state.undecided
        share = torch.where(committed, -state.memory, -torch.inf).softmax(-1).nan_to_num(0.0)
        after = _revise(state, share * _limit(state)[:, None])
        shown = state.undecided & (after != state.ids)
        p = state.prediction.probs(shown).gather(1, after[shown][:, None])[:, 0]
        unchanged = committed & (after == state.ids)
        memory = torch.where(unchanged, state.memory, 0.0)
        memory[shown] = p
        state.memory = memory
        return after


@part
class RemdmLoop(Sampler):
    """ReMDM's loop: ancestral steps until alpha = alpha_on, then steps at constant alpha that mask each committed token
    with probability sigma = eta, then ancestral steps to the end.

    alpha is the probability that a token is intact. With u the fraction of steps still to take, alpha rises to alpha_on
    at u = t_on, is constant until u = t_off, and then rises to 1. A step across u = t_on ends at alpha_on, and a step
    across u = t_off begins at alpha_on. ValueError for settings outside their ranges.
    """

    eta: float
    t_on: float
    t_off: float
    alpha_on: float
    capabilities = _capabilities(looks_at_draws=False)
    presets = (
        Preset(
            "remdm_loop",
            {"eta": 0.02, "t_on": 0.55, "t_off": 0.05, "alpha_on": 0.9},
            "masks tokens again in a loop at alpha .9: ReMDM, +nucleus:p=0.9 (docs/method.md#remdm)",
            "2503.00307",
        ),
    )

    def __post_init__(self) -> None:
        _check_share("eta", self.eta)
        if not (0 < self.t_off < self.t_on < 1 and 0 < self.alpha_on < 1):
            raise ValueError(
                f"remdm_loop: t_on={self.t_on}, t_off={self.t_off}, alpha_on={self.alpha_on} must satisfy "
                "0 < t_off < t_on < 1 and 0 < alpha_on < 1"
            )

    def claim(self) -> Claim:
        return "law" if self.eta == 0 else "biased"

    def time(self, step: int, steps: int) -> float:
        done = step / steps
        left = 1 - done
        if left > self.t_on:
            return 1 - done * self.alpha_on / (1 - self.t_on)
        return (1 - self.alpha_on) * min(1.0, left / self.t_off)

    def step(self, state: State) -> Tensor:
        sigma = ((state.t == state.s).double() * self.eta).minimum(_limit(state))
        return _revise(state, sigma[:, None])


@part
class ForwardBackward(Sampler):
    """ReMDM's forward-backward sampler: a step masks each committed token with probability
    sigma = min((alpha_s - alpha_t)/alpha_t, sigma_max), where sigma_max = min(1, (1 - alpha_s)/alpha_t)."""

    capabilities = _capabilities(looks_at_draws=False)
    presets = (
        Preset(
            "forward_backward",
            {},
            "corrects by forward noise and reverse steps: ReMDM's scripts, +nucleus:p=0.9 (docs/method.md#remdm)",
            "2503.00307",
        ),
    )

    def claim(self) -> Claim:
        return "law"

    def step(self, state: State) -> Tensor:
        alpha_t, alpha_s = _alphas(state)
        ahead = (alpha_s - alpha_t) / alpha_t.clamp_min(1e-300)
        return _revise(state, ahead.minimum(_limit(state))[:, None])


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(
            f"ReMDM sampler: {name}={value} is out of range; give a fraction from 0 to 1, which sets how many committed"
            " tokens are masked again"
        )
