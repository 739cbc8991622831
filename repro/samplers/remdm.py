"""ReMDM: ancestral sampling that masks committed tokens again (Wang et al. 2025, arXiv 2503.00307;
docs/method.md#remdm).

From t to s a committed token is masked with probability sigma, and a masked position is revealed with
(alpha_s - (1 - sigma) alpha_t)/(1 - alpha_t). Whatever 0 <= sigma <= sigma_max = min(1, (1 - alpha_s)/alpha_t), that
keeps q(z_s | x); the rules differ in sigma. At s = 0 sigma_max is 0 and everything masked is revealed. The scripts of
the paper add `+nucleus:p=0.9`.

A step that masks and reveals several tokens at once ignores how they depend on each other, and with eta fixed more
steps do not make it fewer. Where sigma falls to 0 with what is masked, the last steps mend that: the distance to the
law falls as N^-1/2 (cap, rescale) or 1/N (forward-backward). The loop ends with steps that mend nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro.core import rng
from repro.core.lazy import torch
from repro.core.parts import part
from repro.processes.absorbing import mask_id
from repro.processes.process import diffusion
from repro.samplers.sampler import Capabilities, Claim, Sampler, State

if TYPE_CHECKING:
    from torch import Tensor


def _abilities(looks_at_draws: bool) -> Capabilities:
    return Capabilities(
        frozenset({"absorbing"}),
        plan="steps",
        revises=frozenset({"absorbing"}),
        looks_at_draws=looks_at_draws,
    )


def _alphas(state: State) -> tuple[Tensor, Tensor]:
    """alpha_t and alpha_s, [B]."""
    process = diffusion(state.process)
    return process.alpha(state.t), process.alpha(state.s)


def _limit(state: State) -> Tensor:
    """sigma_max [B]; at alpha_t = 0 nothing is committed and any value will do."""
    alpha_t, alpha_s = _alphas(state)
    return ((1 - alpha_s) / alpha_t.clamp_min(1e-300)).clamp_max(1.0)


def _revise(state: State, sigma: Tensor) -> Tensor:
    """Draw z_s [B, L] when a committed token of the block is masked with sigma [B, L] or [B, 1].

    A masked position is revealed with the sigma that stands there.
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
    """sigma = min(eta, sigma_max).

    At a fixed eta more steps remask more: the distance to the law falls ever slower, so no law is claimed (1,024 steps
    on 9 sentences: .0015 of total variation at eta .008).
    """

    eta: float
    capabilities = _abilities(looks_at_draws=False)

    def __post_init__(self) -> None:
        _check_share("eta", self.eta)

    def claim(self) -> Claim:
        return "biased"

    def step(self, state: State) -> Tensor:
        return _revise(state, _limit(state).clamp_max(self.eta)[:, None])


@part
class RemdmRescale(Sampler):
    """sigma = eta sigma_max."""

    eta: float
    capabilities = _abilities(looks_at_draws=False)

    def __post_init__(self) -> None:
        _check_share("eta", self.eta)

    def claim(self) -> Claim:
        return "law"

    def step(self, state: State) -> Tensor:
        return _revise(state, self.eta * _limit(state)[:, None])


@part
class RemdmConf(Sampler):
    """sigma_max shared out over the block's committed tokens by softmax(-p), p the probability when each was drawn.

    A masked position has sigma 0, so that more is masked than revealed and q(z_s | x) is not kept. Memory: p, [B, L],
    0 where masked.
    """

    capabilities = _abilities(looks_at_draws=True)

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
        kept = committed & (after == state.ids)
        memory = torch.where(kept, state.memory, 0.0)
        memory[shown] = p
        state.memory = memory
        return after


@part
class RemdmLoop(Sampler):
    """Ancestral until alpha_on is committed, then sigma = eta at that share, then ancestral to the end.

    With u the share of steps that is left: alpha rises to alpha_on at u = t_on, stands, and goes on from u = t_off.
    A step that crosses t_on or t_off ends or begins at alpha_on.
    """

    eta: float
    t_on: float
    t_off: float
    alpha_on: float
    capabilities = _abilities(looks_at_draws=False)

    def __post_init__(self) -> None:
        _check_share("eta", self.eta)
        if not (0 < self.t_off < self.t_on < 1 and 0 < self.alpha_on < 1):
            raise ValueError(
                f"remdm_loop: t_on={self.t_on}, t_off={self.t_off}, alpha_on={self.alpha_on} must be "
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
    """sigma = min((alpha_s - alpha_t)/alpha_t, sigma_max): a step back for each ahead (forward-backward)."""

    capabilities = _abilities(looks_at_draws=False)

    def claim(self) -> Claim:
        return "law"

    def step(self, state: State) -> Tensor:
        alpha_t, alpha_s = _alphas(state)
        ahead = (alpha_s - alpha_t) / alpha_t.clamp_min(1e-300)
        return _revise(state, ahead.minimum(_limit(state))[:, None])


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name}={value}: give a share of tokens from 0 to 1")
