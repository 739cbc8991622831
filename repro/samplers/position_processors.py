"""Logits processors that change which positions a sampler commits, but not the tokens that it proposes there.

    low_confidence+eos_last+order_temperature:alg_temp=0.1      by name (`repro.samplers.presets`)

These work like the processors in `repro.samplers.logits_processors`, but change the confidence or the order by which a
step chooses positions.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from repro.core.parts import part
from repro.samplers.logits_processors import LogitsProcessor, resolved_ids
from repro.samplers.sampler import Claim, Preset, State


@part
class Distrusted(LogitsProcessor):
    """Makes a sampler that commits positions by confidence commit the given `ids` last; "eos" is the vocabulary's EOS
    id.

    Each position's token is chosen as without this processor. The token's confidence is its probability in a softmax
    over all other ids, or 0 if the token is one of `ids`. With EOS and EoT (LLaDA's end of a turn) as `ids` this is the
    intended effect of LLaDA's option `confidence_eos_eot_inf` (docs/method.md#llada-sampling).
    """

    ids: tuple[int, ...] | Literal["eos"]
    sets = "confidence"
    presets = (
        Preset(
            "eos_last",
            {"ids": "eos"},
            "commits EOS last: LLaDA, confidence_eos_eot_inf; add its EoT by number (docs/method.md#llada-sampling)",
            "2502.09992",
        ),
    )

    def apply(self, state: State) -> State:
        ids = resolved_ids(self.ids, state.prediction.vocabulary)
        return dataclasses.replace(state, distrusted=(*state.distrusted, *ids))


@part
class OrderTemperature(LogitsProcessor):
    """Makes a sampler draw the positions to commit, without replacement, from softmax(score / alg_temp) over the
    positions, instead of taking those with the highest scores (Dream; docs/method.md#dream-rules)."""

    alg_temp: float
    sets = "order"
    presets = (
        Preset(
            "order_temperature",
            {"alg_temp": 0.1},
            "draws the order of positions: Dream, alg_temp; the value is ours (docs/method.md#dream-rules)",
            "2508.15487",
        ),
    )

    def __post_init__(self) -> None:
        if not self.alg_temp > 0:
            raise ValueError(
                f"order_temperature: alg_temp={self.alg_temp} must be above 0; to rank positions instead of drawing"
                " them, leave order_temperature out"
            )

    def claim(self, of: Claim) -> Claim:
        return of

    def apply(self, state: State) -> State:
        return dataclasses.replace(state, order_temperature=self.alg_temp)
