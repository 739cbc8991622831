"""Entropy-bound renoising (DiffusionGemma; the bound is that of arXiv 2505.24857), for uniform noise in blocks.

Each step draws tokens at the positions whose predicted distribution has the lowest entropy H, as many as satisfy

    sum of their H - largest of their H <= bound        (nats; always at least one position)

and fills all other positions with fresh noise. The temperature falls linearly from `hot` at the first step towards
`cold`, the value for the step after the last. A row stops when its most probable tokens equal those of the previous
`stable` steps and the mean entropy of the block is below `confident`. When a row stops, and after the last step, the
block is set to the most probable tokens. So the planned number of steps is an upper limit.

A self-conditioning network also reads a signal computed from its logits at the previous step, divided by the
temperature of that step.

Memory between steps, per row: whether it has stopped, the most probable tokens of the last `stable` steps, and the
self-conditioning signal.

Shapes: B rows of the batch, n rows still running, L columns, W positions of a block, V vocabulary size, S numbers per
position of the signal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro.core import rng
from repro.core.lazy import torch
from repro.core.parts import COLDEST, part
from repro.processes.process import diffusion
from repro.samplers.sampler import Capabilities, Claim, Preset, Sampler, State, most_probable

if TYPE_CHECKING:
    from torch import Tensor


def within_bound(entropy: Tensor, bound: float) -> Tensor:
    """Whether each position's token is accepted, [n, W] bool, from the entropies [n, W] (nats) of n rows with W
    positions.

    In each row the positions of lowest entropy are accepted: the most for which the sum of their entropies, without the
    largest of these, is at most `bound`; always at least one.
    """
    ordered, order = entropy.sort(dim=-1, stable=True)
    accepted = ordered.cumsum(-1) - ordered <= bound
    return torch.zeros_like(accepted).scatter(1, order, accepted)


@part
class Renoise(Sampler):
    """Sampler of DiffusionGemma: each step draws tokens at the positions with the lowest entropies and replaces all
    others by noise; a row stops early once its predictions are stable and confident (see `repro.samplers.renoise`).

    `bound`: limit, in nats, of the sum of the entropies at the drawn positions, without the largest. `hot`, `cold`:
    temperatures of the logits at the first step and after the last, linear in between. `stable`: number of previous
    steps whose most probable tokens must equal the current ones for a row to stop. `confident`: mean entropy of the
    block, in nats, below which a row may stop. ValueError for `hot` below 1e-300, `cold` or `bound` below 0.
    """

    bound: float
    hot: float
    cold: float
    stable: int
    confident: float
    capabilities = Capabilities(
        frozenset({"uniform"}), plan="steps", revises=frozenset({"uniform"}), looks_at_draws=False
    )
    presets = (
        Preset(
            "renoise",
            {"bound": 0.1, "hot": 0.8, "cold": 0.4, "stable": 1, "confident": 0.005},
            "draws positions that stay uncertain anew: DiffusionGemma in transformers 5.23, at most 48 steps a block",
            None,
        ),
    )

    def __post_init__(self) -> None:
        if self.hot < COLDEST or self.cold < 0 or self.bound < 0:
            raise ValueError(
                f"renoise: hot={self.hot}, cold={self.cold}, bound={self.bound}: the first temperature, hot, must be"
                f" {COLDEST:g} or more, and cold and bound 0 or more"
            )

    def claim(self) -> Claim:
        return "biased"

    def step(self, state: State) -> Tensor:
        active, prediction = state.active, state.prediction
        width = int(active[0].sum())
        stopped, history, signal = self._recall(state, width)
        if stopped.all():
            return state.ids
        running = active & ~stopped[:, None]
        if signal is not None and signal.shape[-1]:
            shown = signal.new_zeros(*active.shape, signal.shape[-1])
            shown[active] = signal.flatten(0, 1)
            prediction.condition(shown)
        share = (state.steps - state.step) / state.steps
        scaled = prediction.logits(running) / (self.cold + (self.hot - self.cold) * share)
        p = scaled.double().softmax(-1)
        entropy = -torch.special.xlogy(p, p).sum(-1).view(-1, width)
        rows = (~stopped).nonzero()[:, 0]
        likely = most_probable(scaled).view(-1, width)
        same = (history[rows] == likely[:, None]).flatten(1).all(1)
        now = same & (entropy.mean(1) < self.confident)
        ids = state.commit(running, likely.flatten())
        goes_on = torch.zeros_like(stopped)
        goes_on[rows] = ~now
        if state.step + 1 < state.steps and goes_on.any():
            self._renoise(
                state, ids, running & goes_on[:, None], entropy[~now], p.view(len(rows), width, -1)[~now]
            )
        history = history.index_copy(0, rows, torch.cat([history[rows], likely[:, None]], 1)[:, 1:])
        self._remember(state, ~goes_on, history, rows, prediction.signal(scaled))
        return ids

    def _renoise(self, state: State, ids: Tensor, where: Tensor, entropy: Tensor, p: Tensor) -> None:
        """Write into ids [B, L] in place, at `where` [B, L] bool: tokens drawn from p [n, W, V] at the positions that
        `within_bound` accepts from the entropies [n, W], and noise at the others."""
        accepted = within_bound(entropy, self.bound)
        written, noisy = where.clone(), where.clone()
        written[where], noisy[where] = accepted.flatten(), ~accepted.flatten()
        ids[written] = state.draw(p[accepted], rng.TOKEN, written)
        prior = diffusion(state.process).prior(state.prediction.vocabulary).to(p.device)
        ids[noisy] = state.draw(prior.expand(int(noisy.sum()), -1), rng.PRIOR, noisy)

    def _recall(self, state: State, width: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """The memory, unpacked for a block of `width` W: whether each row has stopped, [B] bool; most probable ids of
        the last `stable` steps, [B, stable, W]; self-conditioning signal (S numbers per position), [B, W, S].

        When a block begins: no row has stopped, the ids are -1 and the signal is None.
        """
        count = len(state.ids)
        if state.step == 0 or state.memory is None:
            never = torch.full((count, self.stable, width), -1, device=state.ids.device)
            return torch.zeros(count, dtype=torch.bool, device=state.ids.device), never, None
        size = 1 + self.stable * width
        stopped, history, signal = state.memory.split([1, size - 1, state.memory.shape[1] - size], dim=1)
        return (
            stopped[:, 0] > 0,
            history.long().view(count, self.stable, width),
            signal.view(count, width, -1),
        )

    def _remember(
        self, state: State, stopped: Tensor, history: Tensor, rows: Tensor, signal: Tensor | None
    ) -> None:
        """Pack into `state.memory`: whether each row has stopped, [B]; the most probable ids of the last `stable` steps
        at the W columns of the block, [B, stable, W]; and the self-conditioning signal of the n running rows, whose
        indices are `rows` [n], row after row: [n W, S], with S its width, or None."""
        count, width = history.shape[0], history.shape[2]
        signals = history.new_zeros(count, width, 0 if signal is None else signal.shape[1]).double()
        if signal is not None:
            signals[rows] = signal.double().view(len(rows), width, -1)
        state.memory = torch.cat(
            [stopped[:, None].double(), history.flatten(1).double(), signals.flatten(1)], dim=1
        )
