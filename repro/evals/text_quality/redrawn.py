"""Generation task that discards samples of low entropy and generates them again, as BD3-LM does before it measures
generative perplexity (docs/method.md#peer-defect-11).

At the end of each block of a sample that ends beyond the first `window` ids, the unigram entropy of the `window` ids
before this end is computed; if any of these entropies is below `least` nats, the sample is discarded and generated
again with new random draws. Repetition lowers generative perplexity, so values with and without this rule belong to two
protocols. Source: `kuleshov-group/bd3lms@1c3e8f4 diffusion.py:636`; docs/method.md#block-diffusion.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from repro.core.lazy import torch
from repro.core.parts import part
from repro.evals.decoding import decoded
from repro.evals.task import Answer, Ask, samples_digest
from repro.evals.text_quality.quality import TextQualityTask
from repro.evals.text_quality.samples import Ids, entropy, mean
from repro.evals.work_queue import WorkQueue
from repro.evals.workload import Workload
from repro.model import Model


@part
class RedrawnGeneration(TextQualityTask):
    """Generative perplexity under a judge (a causal language model), entropy and distinct n-grams of `samples` samples
    of `length` ids that are generated without a prompt, and again where their entropy is low. A sample is generated
    again as long as the `window` ids before the end of any of its blocks have an entropy below `least` nats, up to
    `tries` draws in all.

    The last draw is scored. Metric `redrawn`: mean number of draws after the first; `still_low`: fraction of samples
    whose last draw has low entropy. ValueError unless 1 <= window < length and tries >= 1.
    """

    length: int
    window: int
    least: float
    tries: int
    generates = True
    needs_draws = True

    def __post_init__(self) -> None:
        if not 1 <= self.window < self.length:
            raise ValueError(
                f"window={self.window} is not within a sample's {self.length} ids; give 1 to {self.length - 1}"
            )
        if self.tries < 1:
            raise ValueError(f"tries={self.tries} generates nothing; give 1 or more")

    def protocol(self) -> dict[str, Any]:
        return super().protocol() | {"draws": "float64"} | self._redraw_protocol()

    def protocol_without_judge(self) -> dict[str, Any]:
        return super().protocol_without_judge() | self._redraw_protocol()

    def _redraw_protocol(self) -> dict[str, str]:
        return {"redraw": f"entropy of the last {self.window} tokens below {self.least:g}"}

    def gives(self, metric: str) -> bool:
        return super().gives(metric) or metric in ("redrawn", "still_low")

    def gen_length(self, model: Model) -> int:
        return self.length

    def workload(self, model: Model, ask: Ask) -> Workload:
        found = super().workload(model, ask)
        return replace(found, assumed=(*found.assumed, "no sample is drawn again"))

    def has_low_entropy(self, ids: Ids, block: int) -> bool:
        """Whether a sample (its `ids`) is to be discarded: for some block of `block` ids that ends beyond the first
        `window` ids, the `window` ids before its end have an entropy below `least` nats."""
        ends = [end for end in range(block, len(ids) + 1, block) if end > self.window]
        return any(entropy(ids[end - self.window : end]) < self.least for end in ends)

    def shared(self, model: Model, ask: Ask, work: WorkQueue) -> Answer:
        assert ask.sampler is not None and ask.plan is not None
        count, block = self.count(ask), ask.plan.block_length
        rows: list[list[int]] = [[] for _ in range(count)]
        draws, forwards, left = [0] * count, 0, list(range(count))
        for attempt in range(self.tries):
            names = [i + attempt * count for i in left]
            prompts: list[list[int]] = [[] for _ in left]
            found = decoded(
                work, model, ask.sampler, ask.plan, prompts, seed=ask.seed, names=names, batch=work.batch
            )
            forwards += int(found.cost.forwards.sum())
            for i, row in zip(left, found.ids.tolist(), strict=True):
                rows[i], draws[i] = row, draws[i] + 1
            left = [i for i in left if self.has_low_entropy(rows[i], block)]
            if not left:
                break
        metrics, items = self.score_samples(model, rows, work)
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
