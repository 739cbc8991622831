"""Live view of a decoding run in a terminal: text, confidence, revisions and cost.

    python -m repro.sample --ckpt DIR --prompt "..." --watch

Tokens are coloured by confidence (red, yellow, green); new ones are bold, revised ones underlined, undecided ones dim;
bars separate blocks. A line below shows the block number, forward passes, tokens per forward pass and tokens per
second. If the output is not a terminal, each step prints one line of plain text instead.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from repro.samplers.trace import Trace, symbol

if TYPE_CHECKING:
    from repro.data.corpus import Data
    from repro.samplers.plan import Plan
    from repro.samplers.trace import Step

BANDS = ((0.5, "red"), (0.9, "yellow"), (float("inf"), "green"))
"""(upper limit, colour) pairs: a token has the colour of the first limit that its confidence is below."""


class Watch:
    """Context manager that shows the steps of a decoding run in the terminal, and restores the cursor, also after an
    error.

    `delay`: seconds to wait after each step, in a terminal only.
    """

    def __init__(self, data: Data, plan: Plan, delay: float) -> None:
        self.data, self.plan, self.delay = data, plan, delay
        self.console = Console()
        self.live = Live(console=self.console, auto_refresh=False, transient=False)
        self.confidence: dict[int, float] = {}
        self.revised: set[int] = set()
        self.began = time.perf_counter()

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self.live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self.live.__exit__(kind, error, where)

    def show(self, trace: Trace, step: Step) -> None:
        """Display the generated text after this step: redrawn in a terminal, else as one printed line."""
        if not self.console.is_terminal:
            self.console.print(trace.text, highlight=False, markup=False, soft_wrap=True)
            return
        for write in step.writes:
            self.confidence[write.position] = write.confidence
            if write.revises is not None:
                self.revised.add(write.position)
        self.live.update(self.picture(trace, step), refresh=True)
        time.sleep(self.delay)
        self.began += self.delay  # the delay does not count in tokens per second

    def picture(self, trace: Trace, step: Step) -> Text:
        """The coloured text of all generated positions, and below it a line with block, forward passes and speed."""
        new, line = {write.position for write in step.writes}, Text()
        for position, token in enumerate(trace.row):
            if position and position % self.plan.block_length == 0:
                line.append("│", style="dim")
            line.append(symbol(self.data, token), style=self._style(position, position in new, trace))
        written, seconds = len(trace.decided), time.perf_counter() - self.began
        blocks = self.plan.gen_length // self.plan.block_length
        line.append(
            f"\nblock {step.block + 1} of {blocks}  {step.forwards} forwards"
            f"  {written / max(1, step.forwards):.2f} tokens per forward  {written / seconds:.1f} tokens per second"
            + (f"  {len(self.revised)} revised" if self.revised else ""),
            style="dim",
        )
        return line

    def _style(self, position: int, new: bool, trace: Trace) -> str:
        if position not in trace.decided:
            return "dim"
        colour = next(name for below, name in BANDS if self.confidence[position] < below)
        return " ".join([*["bold"] * new, *["underline"] * (position in self.revised), colour])
