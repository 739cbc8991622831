"""The loss of complementary masks: every token a target once, equal to a plain computation of each block with the
network of transformers (docs/method.md#ar-to-block-diffusion).

Symbols: B rows, L tokens, W tokens a block.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers.spaces import Words
from transformers import LlamaForCausalLM

from repro.models.attention import Mask
from repro.models.causal_blocks import CausalBlocks
from repro.models.denoiser import initialise
from repro.models.llama import Llama
from repro.objectives.complementary import ComplementaryCE
from repro.objectives.noise import Window
from repro.objectives.objective import Batch, GlobalBatch
from repro.processes.blocks import BlockAbsorbing
from repro.processes.prediction import Role

V, B, L, W, MASK = 7, 3, 12, 4, 7
WORDS = Words(size=V, length=L)
LLAMA = Llama(
    layers=2, width=32, heads=4, kv_heads=2, ffn=48, attention="causal", rope_base=1e4, norm_eps=1e-5,
    learned_positions=0, tied=True, init_deviation=0.3,
)  # fmt: skip
LOSS = ComplementaryCE(rate=Window(low=1e-3, high=1.0), group=GlobalBatch())


def batch(rows: int = B, length: int = L) -> Batch:
    ids = torch.randint(0, V, (rows, length), generator=torch.Generator().manual_seed(0))
    where = torch.ones_like(ids, dtype=torch.bool)
    where[:, 0] = False
    return Batch(
        ids=ids,
        candidates=where,
        attention=Mask(),
        index=torch.arange(rows),
        step=2,
        seed=0,
        vocabulary=WORDS.vocabulary(),
        step_examples=torch.arange(rows),
        step_candidates=where.sum(1),
    )


def plain(theirs: LlamaForCausalLM, row: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
    """Summed -log p of the masked tokens of one row: each block alone after its clean prefix, with an explicit mask."""
    total = torch.zeros((), dtype=torch.float64)
    for first in range(0, L, W):
        ids = row[: first + W].clone()
        here = masked[first : first + W]
        ids[first:][here] = MASK
        n = first + W
        seen = torch.ones(n, n, dtype=torch.bool).tril()
        seen[first:, first:] = True
        bias = torch.zeros(n, n, dtype=torch.float64).masked_fill(~seen, -torch.inf)
        logits = theirs(ids[None], attention_mask=bias[None, None]).logits[0, :, :V].log_softmax(-1)
        for place in here.nonzero()[:, 0].tolist():
            column = first + place
            total = total - logits[max(0, column - 1), row[column]]
    return total


def test_the_loss_is_that_of_each_block_after_its_clean_prefix():
    """Value and gradients, summed over both views and divided by the number of targets."""
    denoiser = (
        CausalBlocks(backbone=LLAMA, block=W)
        .module(Role(WORDS, (MASK, MASK + 1), "leave_one_out"), 0)
        .double()
    )
    initialise(denoiser, 3, 0.4)
    some = batch()
    found = LOSS(denoiser, BlockAbsorbing(block=W), some)
    found.value.backward()
    gradients = {name: p.grad.clone() for name, p in denoiser.named_parameters()}
    denoiser.zero_grad()
    theirs = denoiser.network.network
    theirs.config._attn_implementation = "sdpa"
    views, _ = LOSS.views(some, W)
    sums = [plain(theirs, some.ids[b], view[b]) for view in views for b in range(B)]
    value = torch.stack(sums).sum() / (B * (L - 1))
    value.backward()
    assert abs(found.value.item() - value.item()) < 1e-9 and found.tokens == B * (L - 1)
    assert abs(found.nll.item() / found.tokens - value.item()) < 1e-9
    for name, parameter in denoiser.named_parameters():
        assert (parameter.grad - gradients[name]).abs().max() < 1e-6, name  # their norms are in float32
    assert max(g.abs().max() for g in gradients.values()) > 1e-2


def test_every_candidate_is_hidden_in_one_of_the_two_views():
    """Exactly once, in a share of the first view that is the rate of its block."""
    some = batch(512, 32)
    views, t = LOSS.views(some, W)
    assert torch.equal(views.sum(0), some.candidates.long())
    count = views[0].unflatten(1, (8, W)).sum(2).double()[:, 1:] / W
    assert (count - t[:, 1:]).mean().abs() < 0.01 and torch.corrcoef(
        torch.stack([count, t[:, 1:]]).flatten(1)
    )[0, 1] > 0.7
    assert t.min() < 0.01 and t.max() > 0.99 and abs(t.mean() - 0.5) < 1e-2


def test_a_step_does_not_depend_on_its_split():
    """Rows keep their masks in any microbatch."""
    some = batch()
    whole, _ = LOSS.views(some, W)
    for row in range(B):
        one = slice(row, row + 1)
        alone = replace(some, ids=some.ids[one], candidates=some.candidates[one], index=some.index[one])
        assert torch.equal(LOSS.views(alone, W)[0], whole[:, one])


def test_errors_name_the_value_and_the_remedy():
    with pytest.raises(
        ValueError, match=r"mask rates from 0.0 to 1.0 are no range in \(0, 1\]; give 0 < low"
    ):
        ComplementaryCE(rate=Window(low=0.0, high=1.0), group=GlobalBatch())
