"""Trace of a decoding run: every token written, its position, step and confidence, and the token that it replaced.

    python -m repro.sample --ckpt DIR --prompt "..." --trace trace.json

    {"format": 1, "checkpoint", "recipe", "sampler", "plan", "seed", "prompt",
     "steps": [{"step", "block", "forwards", "writes": [{"position", "id", "text", "confidence", "revises"}]}],
     "text"}

Positions count from the first generated one, from 0. `confidence` is the network's probability of the token at the step
that wrote it; `revises` is the id that it replaced, null where no token had been written before. In `text`, positions
after a stop id hold this id: they are filled with it as the row ends, which is no write.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from repro.core import parts
from repro.processes.left_to_right import OPEN

if TYPE_CHECKING:
    from repro.data.corpus import Data
    from repro.samplers.decoded import Frame
    from repro.samplers.decoder import Decoder
    from repro.samplers.plan import Plan
    from repro.samplers.sampler import Sampler

FORMAT = 1


@dataclass(frozen=True)
class Write:
    """One token written at a generated position (counted from the first generated one).

    `id` and `text`: of the token; those of the mask where a position is masked again. `confidence`: the network's
    probability of the token at this step; `revises`: id of the token that it replaced, None if none had been written at
    this position before.
    """

    position: int
    id: int
    text: str
    confidence: float
    revises: int | None


@dataclass(frozen=True)
class Step:
    """The tokens written in one step. `step`: number of the step, counted over all blocks from 0; `block`: number of
    the block, from 0; `forwards`: forward passes since the start of the decoding run."""

    step: int
    block: int
    forwards: int
    writes: list[Write]


@dataclass
class Trace:
    """Record of the steps of a decoding run, for the first row of the batch: call `add` with each decoder and frame
    that `repro.samplers.decode.steps` yields. `data`: the network's data source, which gives the ids their texts."""

    data: Data
    steps: list[Step] = field(default_factory=list)
    row: list[int] = field(default_factory=list)
    decided: set[int] = field(default_factory=set)
    """Generated positions (from 0) that hold a token written by the sampler; initial noise does not count."""
    filled: set[int] = field(default_factory=set)
    """Generated positions after a stop id, which hold this id since the row has ended."""

    def add(self, decoder: Decoder, frame: Frame) -> Step:
        """Add the batch after a step (`frame`) to the trace, and return the tokens that the step wrote.

        The frame must come from `repro.samplers.decode.steps(..., confidence=True)`.
        """
        assert frame.confidence is not None, "a trace needs frames with confidence"
        before, self.row = self.row, frame.ids[0, decoder.start : decoder.stop].tolist()
        mask = self.data.vocabulary().mask
        writes = []
        for position in frame.changed[0, decoder.start : decoder.stop].nonzero()[:, 0].tolist():
            token = self.row[position]
            writes.append(
                Write(
                    position,
                    token,
                    symbol(self.data, token),
                    float(frame.confidence[0, decoder.start + position]),
                    before[position] if position in self.decided else None,
                )
            )
            (self.decided.discard if token == mask else self.decided.add)(position)
        self.filled |= set(frame.filled[0, decoder.start : decoder.stop].nonzero()[:, 0].tolist())
        self.decided -= self.filled
        made = Step(len(self.steps), frame.at.block, int(frame.cost.forwards[0]), writes)
        self.steps.append(made)
        return made

    @property
    def text(self) -> str:
        return "".join(symbol(self.data, token) for token in self.row)

    def json(
        self, made_by: dict[str, str], sampler: Sampler, plan: Plan, seed: int, prompt: str | None
    ) -> dict[str, Any]:
        """The trace as a JSON object, in the format that the docstring of `repro.samplers.trace` shows, with what was
        run: `made_by` (digest of the `checkpoint`, name of its `recipe`), sampler, decoding plan, seed and `prompt` (a
        text; None: there was none)."""
        return {
            "format": FORMAT,
            **made_by,
            "sampler": parts.canonical(sampler),
            "plan": parts.canonical(plan),
            "seed": seed,
            "prompt": prompt,
            "steps": [asdict(step) for step in self.steps],
            "text": self.text,
        }


def symbol(data: Data, token: int) -> str:
    """The text of a token id of `data`; a middle dot for the mask id and for OPEN, which marks positions that a
    left-to-right model has not written yet."""
    return "·" if token == OPEN or token == data.vocabulary().mask else data.decode([token])
