"""Networks and batches of the benchmarks: random weights and ids, sizes pinned by each row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from repro.data.corpus import Data, Vocabulary

if TYPE_CHECKING:
    from repro.models.denoiser import Denoiser
    from repro.objectives.objective import Batch
    from repro.processes.process import Process


@dataclass(frozen=True)
class Sizes(Data):
    """Sizes of a data source: `ids` tokens, the mask or BOS id after them (if any), and the row length."""

    ids: int
    mask: int | None
    bos: int | None
    length: int

    def vocabulary(self) -> Vocabulary:
        total = self.ids + (self.mask is not None) + (self.bos is not None)
        return Vocabulary(size=self.ids, total=total, mask=self.mask, bos=self.bos, eos=None, pad=None)

    def row_length(self) -> int:
        return self.length


def batch(data: Sizes, rows: int) -> Batch:
    """Rows of uniformly drawn ids, all of them scored."""
    from repro.core import rng
    from repro.core.lazy import torch
    from repro.models.attention import Mask
    from repro.objectives.objective import Batch

    index = torch.arange(rows)
    return Batch(
        ids=(rng.uniform(rng.keys(0, rng.SENTENCE, 0, index), data.length) * data.ids).long(),
        candidates=torch.ones(rows, data.length, dtype=torch.bool),
        attention=Mask(),
        index=index,
        step=0,
        seed=0,
        vocabulary=data.vocabulary(),
        step_examples=index,
        step_candidates=torch.full((rows,), data.length),
    )


def llama(data: Data, process: Process, width: int, layers: int, ffn: int, heads: int) -> Denoiser:
    """A Llama with random weights, causal for a left-to-right process."""
    from repro.models.llama import Llama
    from repro.models.products import multiply_by_onednn
    from repro.processes.prediction import Role

    backbone = Llama(
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=heads,
        ffn=ffn,
        attention="causal" if process.causal else "bidirectional",
        rope_base=10_000.0,
        norm_eps=1e-5,
        learned_positions=0,
        tied=False,
        init_deviation=0.02,
    )
    role = Role(data, process.forbidden(data.vocabulary()), "x0_mean")
    return multiply_by_onednn(backbone.module(role, 0)).eval()
