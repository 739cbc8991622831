"""Steps of a decoding run as values for notebooks: ids, text and confidence of every generated position, and HTML.

for step in stream(model, "The"):      # repro.stream
    print(step.number, step.text)

The HTML is static (no widget, no script): a notebook shows a step as one line of text, and a `Stream` as all its steps
below each other. Colours are those of `--watch`: red, yellow and green by confidence; new tokens are bold, revised ones
underlined, undecided positions grey.
"""

from __future__ import annotations

import html
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from repro.core.errors import counted
from repro.samplers.trace import Trace, symbol

if TYPE_CHECKING:
    from repro.data.corpus import Data
    from repro.samplers.decoded import Frame
    from repro.samplers.decoder import Decoder

COLOURS = ((0.5, "#b3261e"), (0.9, "#8a6100"), (float("inf"), "#1b6e3c"))
"""(upper limit, colour) pairs: a token has the colour of the first limit that its confidence is below. Each is readable
on white and, as the background is set, in dark notebooks."""
UNDECIDED = "#8c8c8c"
LINE = "font-family:monospace;white-space:pre-wrap;background:#fff;color:#222;padding:1px 6px"
BOX = "max-height:24em;overflow:auto;border:1px solid #ccc"


@dataclass(frozen=True)
class StreamStep:
    """The generated positions (from 0) after one step of a decoding run.

    `number`: number of the step, counted over all blocks from 0; `block`: number of the block, from 0; `forwards`:
    forward passes so far; `ids`: token ids, mask ids and initial noise included; `pieces`: text of each position ("·":
    undecided); `confidence`: the network's probability of each token at the step that wrote it, None where none is
    written (positions after a stop id are filled with it, which is no write); `new`: positions written in this step;
    `revised`: positions that were written more than once so far.
    """

    number: int
    block: int
    forwards: int
    ids: list[int]
    pieces: list[str] = field(repr=False)
    confidence: list[float | None] = field(repr=False)
    new: list[int]
    revised: list[int]

    @property
    def text(self) -> str:
        """The text of all generated positions after the step."""
        return "".join(self.pieces)

    def _repr_html_(self) -> str:
        """One line of HTML that shows the step in a notebook, which calls this method."""
        spans = []
        for position, piece in enumerate(self.pieces):
            confidence = self.confidence[position]
            style = f"color:{UNDECIDED}"
            title = (
                "undecided"
                if piece == "·"
                else f"position {position}, id {self.ids[position]}, after the end"
            )
            if confidence is not None:
                style = f"color:{next(colour for below, colour in COLOURS if confidence < below)}"
                style += ";font-weight:bold" * (position in self.new)
                style += ";text-decoration:underline" * (position in self.revised)
                title = f"position {position}, id {self.ids[position]}, confidence {confidence:.3f}"
            spans.append(f'<span style="{style}" title="{title}">{html.escape(piece)}</span>')
        told = f"step {self.number + 1}, {self.forwards} forwards"
        return f'<div style="{LINE}"><small>{told}</small>  {"".join(spans)}</div>'


class Stream(Iterable[StreamStep]):
    """The steps of one decoding run, each computed when it is first read. Steps read so far are kept in `steps`, so a
    second loop begins with the first step again."""

    def __init__(self, data: Data, frames: Iterator[tuple[Decoder, Frame]]) -> None:
        self.data, self.steps, self._frames = data, list[StreamStep](), frames
        self._trace = Trace(data)
        self._confidence: dict[int, float] = {}
        self._revised: set[int] = set()

    def __iter__(self) -> Iterator[StreamStep]:
        for number in itertools.count():
            if number == len(self.steps) and next(self, None) is None:
                return
            yield self.steps[number]

    def __repr__(self) -> str:
        return f"Stream of a decode, {counted(len(self.steps), 'step')} read; a loop over it, or .text, reads the rest"

    def __next__(self) -> StreamStep:
        decoder, frame = next(self._frames)
        step = self._trace.add(decoder, frame)
        for write in step.writes:
            self._confidence[write.position] = write.confidence
            if write.revises is not None:
                self._revised.add(write.position)
        decided, filled = self._trace.decided, self._trace.filled
        made = StreamStep(
            number=step.step,
            block=step.block,
            forwards=step.forwards,
            ids=list(self._trace.row),
            pieces=[
                symbol(self.data, token) if position in decided or position in filled else "·"
                for position, token in enumerate(self._trace.row)
            ],
            confidence=[
                self._confidence[position] if position in decided else None
                for position in range(len(self._trace.row))
            ],
            new=[write.position for write in step.writes if write.position in decided],
            revised=sorted(self._revised & decided),
        )
        self.steps.append(made)
        return made

    @property
    def text(self) -> str:
        """The text after the last step; computes all steps that have not been read yet."""
        for _ in self:
            pass
        return self.steps[-1].text

    def _repr_html_(self) -> str:
        """HTML of all steps below each other, for notebooks, which call this method; computes all steps that have not
        been read yet."""
        for _ in self:
            pass
        return f'<div style="{BOX}">{"".join(step._repr_html_() for step in self.steps)}</div>'
