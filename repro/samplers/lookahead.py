"""Lossless lookahead: a sampler that commits one position per step, run in fewer sequential forward passes with the
same output, token for token (docs/method.md#lookahead).

A random draw is a function of the state and of a uniform number keyed by row, step and position (`draws`). So a step of
the rule is a function F_k of the ids x_k (k steps taken) and of the prediction for them, x_(k+1) = F_k(x_k, f(x_k)). A
round starts from x_k and features h of an earlier forward, and

    drafts     y_0 = x_k,  y_(j+1) = F_(k+j)(y_j, h)              without a forward, j + 1 < states
    verifies   z_j = F_(k+j)(y_j, f(y_j))                         in one batch of `states` rows
    accepts    x_(k+j+1) = z_j  up to the first j with z_j != y_(j+1)

y_0 holds the true ids. If y_j holds the true ids, z_j holds the true next ones, and so does y_(j+1) if it equals z_j.
So every accepted z_j, including the first that differs from its draft, is what decoding one step at a time gives. A
round commits 1 to `states` tokens. For greedy rules this is the verification of Self Speculative Decoding (arXiv
2510.04147); keyed draws extend it to sampling. For a causal network the drafts are prefixes of each other, so one
forward of `states` columns takes the place of the batch (Jacobi iteration, arXiv 2305.10427).

Shapes: n rows, m states of each row, L columns, D features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro.core import parts
from repro.core.lazy import torch
from repro.core.parts import part
from repro.samplers.autoregressive import Autoregressive
from repro.samplers.logits_processors import Guided, ProcessedSampler
from repro.samplers.ordered import Entropy, LowConfidence, Margin, Random
from repro.samplers.sampler import Capabilities, Claim, Sampler, State

if TYPE_CHECKING:
    from torch import Tensor


STATES = 8
"""States per forward pass of a sampler whose name does not set `states`."""


@part
class Lookahead(Sampler):
    """Sampler with the same output as `rule` at one position per step, in fewer sequential forward passes: each pass
    takes up to `states` states of a row, its present ids and guesses of the ids after one, two, ... further steps.

    Raises ValueError for fewer than 2 states, and for a rule that may take more than one forward pass or position per
    step.
    """

    rule: Sampler
    states: int

    def __post_init__(self) -> None:
        if self.states < 2:
            raise ValueError(f"lookahead with states={self.states} guesses no later tokens; give 2 or more")
        rule = self.rule
        while isinstance(rule, ProcessedSampler):
            if isinstance(rule.shape, Guided) or rule.shape.sets == "quota":
                name = parts.part_name(type(rule.shape))
                raise ValueError(
                    f"lookahead is for one forward pass and one committed position per step, which {name} changes;"
                    f" leave {name} out"
                )
            rule = rule.rule
        if not isinstance(rule, Autoregressive | Entropy | LowConfidence | Margin | Random):
            raise ValueError(
                "lookahead is for samplers that commit one position per step (random, low_confidence, margin, entropy,"
                f" autoregressive), not for {parts.part_name(type(rule))}; leave lookahead out"
            )

    @property
    def capabilities(self) -> Capabilities:
        rule = self.rule.capabilities
        return Capabilities(rule.processes, "adaptive", frozenset(), rule.looks_at_draws, looks_ahead=True)

    def claim(self) -> Claim:
        return self.rule.claim()

    def step(self, state: State) -> Tensor:
        """The ids [n, L] after a round (drafts and their verification, see the module's docstring); `state.memory` then
        holds the features [n, L, D] from which the next round makes its drafts."""
        n, length = len(state.ids), int(state.active[0].sum())
        left = state.process.open(state.ids, state.active, state.prediction.vocabulary).sum(1)
        taken = length - left
        drafts = self._drafts(state, taken, min(self.states, int(left.max())))
        m = len(drafts)
        ahead = torch.arange(m, device=left.device).repeat_interleave(n)
        found = state.later(torch.cat(drafts), taken.repeat(m) + ahead)
        after = self.rule.step(found).view(m, n, -1)
        right = [(after[j] == drafts[j + 1]).all(1) for j in range(m - 1)]
        chosen = torch.stack(right).long().cumprod(0).sum(0) if right else torch.zeros_like(left)
        chosen = torch.minimum(chosen, (left - 1).clamp_min(0))  # drafts that are complete pass no forward
        features = found.prediction.draft_features(chosen)
        if state.memory is not None:
            features = torch.where((left > 0)[:, None, None].to(features.device), features, state.memory)
        state.memory = features
        return after[chosen, torch.arange(n, device=left.device)]

    def _drafts(self, state: State, taken: Tensor, count: int) -> list[Tensor]:
        """The present ids [n, L], then guesses of the ids after one, two, ... further steps, [n, L] each: `count`
        tensors together, or the present ids alone if there are no features to guess from (first round). `taken` [n]:
        number of steps of the block already taken."""
        drafts = [state.ids]
        if state.memory is None:
            return drafts
        guess = state.prediction.draft(state.memory)
        for ahead in range(count - 1):
            drafts.append(self.rule.step(state.later(drafts[-1], taken + ahead, guess)))
        return drafts
