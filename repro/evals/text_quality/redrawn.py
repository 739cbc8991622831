"""Samples that repeat themselves are drawn again, as BD3-LM's sampler has it: what its Gen-PPL was measured on.

After each block that ends beyond the first `window` ids, the unigram entropy of the last `window` ids is looked at; a
sample where it ever falls below `least` nats is thrown away and drawn anew with draws of its own. A judge likes
repetition, so Gen-PPL with and without this rule are numbers of two protocols. Source:
docs/method.md#block-diffusion; bd3 diffusion.py.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from repro.core.lazy import torch
from repro.core.parts import part
from repro.evals.decoding import decoded
from repro.evals.task import Answer, Ask, samples_digest
from repro.evals.text_quality.quality import Judged
from repro.evals.text_quality.samples import Ids, entropy, mean
from repro.evals.work_queue import Work
from repro.evals.workload import Workload
from repro.model import Model


@part
class RedrawnGeneration(Judged):
    """`open_generation` with samples drawn again while any block's end has `window` ids of an entropy below `least`
    nats, `tries` draws at most; the last one stands, and `still_low` is the share of samples that needed more."""

    length: int
    window: int
    least: float
    tries: int
    generates = True

    def __post_init__(self) -> None:
        if not 1 <= self.window < self.length:
            raise ValueError(
                f"window={self.window} is no part of {self.length} ids; give 1 to {self.length - 1}"
            )
        if self.tries < 1:
            raise ValueError(f"tries={self.tries} draws nothing; give 1 or more")

    def protocol(self) -> dict[str, Any]:
        return super().protocol() | {"draws": "float64"} | self._redraw()

    def told(self) -> dict[str, Any]:
        return super().told() | self._redraw()

    def _redraw(self) -> dict[str, str]:
        return {"redraw": f"entropy of the last {self.window} tokens below {self.least:g}"}

    def gives(self, metric: str) -> bool:
        return super().gives(metric) or metric in ("redrawn", "still_low")

    def gen_length(self, model: Model) -> int:
        return self.length

    def workload(self, model: Model, ask: Ask) -> Workload:
        found = super().workload(model, ask)
        return replace(found, assumed=(*found.assumed, "no sample is drawn again"))

    def low(self, ids: Ids, block: int) -> bool:
        """Whether a sample is thrown away: entropy below `least` at the end of a block beyond the first window."""
        ends = [end for end in range(block, len(ids) + 1, block) if end > self.window]
        return any(entropy(ids[end - self.window : end]) < self.least for end in ends)

    def shared(self, model: Model, ask: Ask, work: Work) -> Answer:
        assert ask.sampler is not None and ask.plan is not None
        count, block = self.count(ask), ask.plan.block_length
        rows: list[list[int]] = [[] for _ in range(count)]
        draws, forwards, left = [0] * count, 0, list(range(count))
        for attempt in range(self.tries):
            names = [i + attempt * count for i in left]
            prompts: list[list[int]] = [[] for _ in left]
            found = decoded(
                work,
                model,
                ask.sampler,
                ask.plan,
                prompts,
                seed=ask.seed,
                names=names,
                batch=work.batch,
            )
            forwards += int(found.cost.forwards.sum())
            for i, row in zip(left, found.ids.tolist(), strict=True):
                rows[i], draws[i] = row, draws[i] + 1
            left = [i for i in left if self.low(rows[i], block)]
            if not left:
                break
        metrics, items = self.statistics(model, rows, work)
        work.join()
        again = {
            "redrawn": mean([n - 1 for n in draws]),
            "still_low": mean([float(i in left) for i in range(count)]),
        }
        return Answer(
            metrics=metrics | again,
            nfe=forwards / count,
            tokens_per_nfe=count * self.length / max(1, forwards),
            tokens=count * self.length,
            samples=samples_digest(torch.tensor(rows)),
            items=items,
        )
