"""Entropy-bound renoising (DiffusionGemma; the bound is that of arXiv 2505.24857), for uniform noise in blocks.

Each step draws tokens at the positions of lowest entropy H, as many as satisfy

    sum of their H - the largest of them <= bound        (nats; always at least one position)

and fills all other positions with fresh noise. The temperature falls linearly from `hot` at the first step towards
`cold`, the value for the step after the last. A row stops when its most probable tokens equal those of the previous
`stable` steps and the mean entropy of the block is below `confident`. When a row stops, and after the last step, the
block is set to the most probable tokens. So the planned number of steps is an upper limit.

A self-conditioning network receives its own previous logits, divided by that step's temperature.

Memory of a row: whether it has stopped, the most probable tokens of the last `stable` steps, the self-conditioning
signal.

Shapes: B rows, n rows still running, L columns, W positions of a block, V ids, S numbers of the signal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro.core import rng
from repro.core.lazy import torch
from repro.core.parts import part
from repro.processes.process import diffusion
from repro.samplers.sampler import Capabilities, Claim, Sampler, State

if TYPE_CHECKING:
    from torch import Tensor


def within_bound(entropy: Tensor, bound: float) -> Tensor:
    """The lowest of entropies [n, W] whose sum without the largest is at most `bound`: [n, W] bool."""
    ordered, order = entropy.sort(dim=-1, stable=True)
    accepted = ordered.cumsum(-1) - ordered <= bound
    return torch.zeros_like(accepted).scatter(1, order, accepted)


@part
class Renoise(Sampler):
    """Accepts positions within the entropy bound, renoises the rest, and stops when stable and confident."""

    bound: float
    hot: float
    cold: float
    stable: int
    confident: float
    capabilities = Capabilities(
        frozenset({"uniform"}), plan="steps", revises=frozenset({"uniform"}), looks_at_draws=False
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
        likely = scaled.argmax(-1).view(-1, width)
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
        """Write into ids at `where` [B, L]: draws of p [n, W, V] where the bound accepts, noise elsewhere."""
        accepted = within_bound(entropy, self.bound)
        written, noisy = where.clone(), where.clone()
        written[where], noisy[where] = accepted.flatten(), ~accepted.flatten()
        ids[written] = state.draw(p[accepted], rng.TOKEN, written)
        prior = diffusion(state.process).prior(state.prediction.vocabulary).to(p.device)
        ids[noisy] = state.draw(prior.expand(int(noisy.sum()), -1), rng.PRIOR, noisy)

    def _recall(self, state: State, width: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Stopped [B], history [B, stable, W] of ids, signal [B, W, S] or None; all are empty when a block begins."""
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
        """Store stopped [B], history [B, stable, W], and the signal [n W, S] of the running rows [n]."""
        count, width = history.shape[0], history.shape[2]
        signals = history.new_zeros(count, width, 0 if signal is None else signal.shape[1]).double()
        if signal is not None:
            signals[rows] = signal.double().view(len(rows), width, -1)
        state.memory = torch.cat(
            [stopped[:, None].double(), history.flatten(1).double(), signals.flatten(1)], dim=1
        )
