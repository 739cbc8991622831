"""What noise is left after the last step, removed in one more forward (Duo's `noise_removal`; spec C, D.6).

A rule steps over times from 1 to a small `end` instead of 0; then the network sees the ids once more, at time `end`,
and every position that is still open takes a token of that prediction: N steps cost N + 1 forwards (for absorbing
noise a row without a mask left costs none). Our own `ancestral` steps to 0 and needs no removal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro import rng
from repro.lazy import torch
from repro.parts import Part, part
from repro.processes.process import Diffusion
from repro.processes.uniform import Uniform, conditional
from repro.samplers.sampler import Abilities, Claim, Sampler, State
from repro.samplers.times import Times

if TYPE_CHECKING:
    from torch import Tensor

    from repro.backbones.prediction import Prediction


class Removal(Part):
    """Kind: how a token is taken from the last prediction."""

    def claim(self, rule: Claim) -> Claim:
        """What the outputs follow when what `rule` leaves does."""
        raise AssertionError("abstract")

    def tokens(self, state: State, ids: Tensor, prediction: Prediction, where: Tensor) -> Tensor:
        """Tokens [N] at `where` [B, L] for ids [B, L] at time `state.s`."""
        raise AssertionError("abstract")


@part
class DrawnRemoval(Removal):
    """A draw of the reverse step to time 0 (Duo's default, `ancestral`)."""

    def claim(self, rule: Claim) -> Claim:
        return rule

    def tokens(self, state: State, ids: Tensor, prediction: Prediction, where: Tensor) -> Tensor:
        assert isinstance(state.process, Diffusion)
        law = state.process.posterior(ids, prediction, state.s, torch.zeros_like(state.s), where)
        return state.draw(law, rng.REMOVAL, where)


@part
class GreedyRemoval(Removal):
    """The argmax of what the network says of x0: Duo's greedy tail; MDLM's last step, on what is still masked.

    Under uniform noise that is the leave-one-out conditional, for either meaning of the output: a position's own
    token has no say, so every position is written anew.
    """

    def claim(self, rule: Claim) -> Claim:
        return "mode" if rule == "mode" else "biased"

    def tokens(self, state: State, ids: Tensor, prediction: Prediction, where: Tensor) -> Tensor:
        probs = prediction.probs(where)
        if isinstance(state.process, Uniform):
            alpha = state.process.alpha(state.s)[where.nonzero()[:, 0]]
            probs = conditional(probs[:, : prediction.vocabulary.size], ids[where], alpha, prediction.meaning)
        return probs.argmax(-1)


@part
class Tail(Sampler):
    """`rule` over `times`, which end above 0, and then `removal`; the rule's own times do not count."""

    rule: Sampler
    times: Times
    removal: Removal

    @property
    def abilities(self) -> Abilities:
        return self.rule.abilities

    def claim(self) -> Claim:
        return self.removal.claim(self.rule.claim())

    def time(self, step: int, steps: int) -> float:
        return self.times.time(step, steps)

    def start(self, ids: Tensor) -> Tensor | None:
        return self.rule.start(ids)

    def step(self, state: State) -> Tensor:
        ids = self.rule.step(state)
        if state.step + 1 < state.steps:
            return ids
        prediction = state.forward(ids, state.s)
        where = state.process.open(ids, state.active, prediction.vocabulary)
        after = ids.clone()
        after[where] = self.removal.tokens(state, ids, prediction, where)
        return after
