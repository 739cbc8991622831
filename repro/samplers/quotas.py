"""Logits processors that set how many positions each step of a block commits."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod

import numpy as np

from repro.core.parts import part
from repro.samplers.logits_processors import LogitsProcessor, ProcessedSampler
from repro.samplers.sampler import Claim, Preset, Sampler, State


class QuotaProcessor(LogitsProcessor):
    """Base class of logits processors that set how many positions each step of a block commits.

    A step that commits 0 positions takes no forward pass.
    """

    sets = "quota"

    @abstractmethod
    def counts(self, length: int, steps: int) -> list[int]:
        """Number of positions to commit at each of the `steps` steps of a block of `length` positions."""

    def claim(self, of: Claim) -> Claim:
        return of

    def apply(self, state: State) -> State:
        length = int(state.active[0].sum())
        return dataclasses.replace(state, quota=self.counts(length, state.steps)[state.step])


@part
class DreamQuotas(QuotaProcessor):
    """Commits floor(remaining (1 - s/t)) positions at the step from time t to s, where `remaining` positions are masked
    and the times are evenly spaced from 1 to `end`; the last step commits all remaining ones (Dream;
    docs/method.md#dream-rules). ValueError for an `end` outside [0, 1]."""

    end: float
    presets = (
        Preset(
            "dream_quotas",
            {"end": 0.001},
            "commits as many positions a step as Dream, eps 1e-3 (docs/method.md#dream-rules)",
            "2508.15487",
        ),
    )

    def __post_init__(self) -> None:
        if not 0 <= self.end <= 1:
            raise ValueError(f"dream_quotas: end={self.end} is no diffusion time; give 0 to 1")

    def counts(self, length: int, steps: int) -> list[int]:
        found: list[int] = []
        for i in range(steps - 1):
            t, s = (1 - (1 - self.end) * j / steps for j in (i, i + 1))
            found.append(int((length - sum(found)) * (1 - s / t)))
        return [*found, length - sum(found)]


@part
class RoundedQuotas(QuotaProcessor):
    """Commits (remaining masked positions) / (remaining steps) positions per step, rounded, halves to the even number
    (dLLM with a linear schedule; docs/method.md#dllm-quotas).

    The share 1 / (remaining steps) is computed as 1 - (1 - alpha(s)) / (1 - alpha(t)) from alpha in float32, as in
    dLLM, because its rounding error decides between two counts that are equally near (ZHZisZZ/dllm@ca17675
    dllm/core/schedulers/alpha.py:68-84,103-104).
    """

    version = 2
    presets = (
        Preset(
            "rounded_quotas",
            {},
            "commits as many positions a step as dLLM (docs/method.md#dllm-quotas)",
            None,
        ),
    )

    def counts(self, length: int, steps: int) -> list[int]:
        times = np.arange(steps, -1, -1) / steps
        masked = 1 - (1 - times.astype(np.float32))
        found: list[int] = []
        for stay in (masked[1:] / masked[:-1]).tolist():
            found.append(round((length - sum(found)) * (1 - stay)))
        return found


def quota_processor(sampler: Sampler) -> QuotaProcessor | None:
    """The logits processor that sets how many positions each step of the sampler commits; None if it has no such
    processor."""
    processors = sampler.processors if isinstance(sampler, ProcessedSampler) else []
    return next((each for each in processors if isinstance(each, QuotaProcessor)), None)
