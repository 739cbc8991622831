"""BD3-LM's network reads a noisy block after clean ones: as two copies of the row in one forward, or block by block
with exact keys and values (arXiv 2503.09573; docs/method.md#block-diffusion, docs/method.md#oracle-28).

Symbols: B rows, L tokens, W tokens a block.
"""

from __future__ import annotations

import pytest
import torch
from helpers import literal
from helpers.spaces import Words

from repro.hub import mapping
from repro.hub.dit import BD3_NAMES
from repro.models.attention import Copies, KVCache, Mask, View, attend
from repro.models.denoiser import initialise
from repro.models.dit import DitBlocks
from repro.models.llama import Qwen2
from repro.models.prediction import CachedPrediction, DecodingCache, Prediction
from repro.models.shifted import Shifted
from repro.processes.absorbing import Absorbing
from repro.processes.prediction import Role
from repro.samplers.decode import decode
from repro.samplers.plan import DualCache, Plan, PrefixCache, ServedPlan
from repro.samplers.presets import preset

WORDS = Words(size=20, length=12)  # and a mask and a BOS: V = 22
ROLE = Role(WORDS, (20, 21), "leave_one_out")
V, L, W, HEADS, MASK = 22, 12, 4, 4, 20
SHAPE = {"layers": 2, "width": 32, "heads": HEADS, "ffn": 128, "frequencies": 256, "block": W}
PINS = DitBlocks(**SHAPE, condition=16, rope_base=10_000.0, norm_eps=1e-5)
CLEAN = torch.randint(0, 20, (2, L), generator=torch.Generator().manual_seed(1))
NOISY = CLEAN.masked_fill(torch.rand(2, L, generator=torch.Generator().manual_seed(2)) < 0.5, MASK)


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def warm():
    denoiser = PINS.module(ROLE, 0).eval()
    initialise(denoiser, 3, 0.2)
    return denoiser


def logits(denoiser, ids, mask, t=None, **more):
    with torch.no_grad():
        return denoiser.head().logits(denoiser.encode(ids, t=t, attention=mask, **more))


def at(first, length=L):
    """Times of a row: 0 before the block at column `first`, .5 within it, 1 after it."""
    t = (torch.arange(length) >= first).double()
    t[first : first + W] = 0.5
    return t.expand(2, length)


@pytest.mark.parametrize("mask", [Mask(block=1), Copies(block=1), Copies(block=W)])
def test_attention_follows_its_mask(mask):
    """With every kernel: Copies(block=1) must not use the causal one."""
    query, key, value = torch.randn(3, 2, HEADS, 2 * L, 8, generator=torch.Generator().manual_seed(0))
    columns = torch.arange(2 * L)[None]
    module = torch.nn.Identity()
    found, _ = attend(
        module, query, key, value, None, scaling=0.5, dropout=0.0, view=View(mask, columns, None)
    )
    scores = (query @ key.mT * 0.5).masked_fill(~mask.allowed(columns, 2 * L, None), -torch.inf)
    close(found.transpose(1, 2), scores.softmax(-1) @ value)


@pytest.mark.parametrize("condition", [0, 16])
def test_logits_are_those_of_the_equations(condition, tmp_path):
    from safetensors.torch import save_file

    pins = DitBlocks(**SHAPE, condition=condition, rope_base=10_000.0, norm_eps=1e-5)
    weights = literal.dit_weights(2, 32, condition, V)
    save_file(weights, tmp_path / "model.safetensors")
    ours = pins.module(ROLE, 0).eval()
    parameters = dict(ours.named_parameters())
    found = mapping.account(tmp_path, BD3_NAMES, {name: p.shape for name, p in parameters.items()}, {})
    mapping.fill(tmp_path, found, parameters)
    both = logits(ours, torch.cat([NOISY, CLEAN], 1), Copies(block=W))[:, :L]
    theirs = literal.bd3(weights, NOISY, CLEAN, HEADS, W, modulated=condition > 0)
    close(both, theirs)
    assert theirs.std() > 0.1
    other = literal.bd3(weights, NOISY, CLEAN, HEADS, 2 * W, modulated=condition > 0)
    assert (both - other).abs().max() > 0.1, "blocks of another length are another network"


def test_one_copy_block_by_block_is_two_copies_at_once():
    """A block after clean ones, with and without a KV cache, which a changed earlier token makes stale."""
    denoiser, kv_cache = warm(), KVCache(2, L)
    kv_cache.rows = None
    both = logits(denoiser, torch.cat([NOISY, CLEAN], 1), Copies(block=W))
    for first in range(0, L, W):
        span = slice(first, first + W)
        row = torch.where(torch.arange(L) < first, CLEAN, NOISY)
        close(logits(denoiser, row, Mask(), at(first))[:, span], both[:, span])
        kv_cache.span = span
        here = {"t": at(first)[:, span], "kv_cache": kv_cache}
        close(logits(denoiser, NOISY[:, span], Mask(), **here), both[:, span])
        if first + W == L:
            moved = row.clone()
            moved[:, 0] = (moved[:, 0] + 1) % 20
            stale = logits(denoiser, NOISY[:, span], Mask(), **here)
            assert (stale - logits(denoiser, moved, Mask(), at(first))[:, span]).abs().max() > 1e-3
        logits(denoiser, CLEAN[:, span], Mask(), **here)  # the finished block's keys and values must be clean


def test_columns_after_a_block_are_not_seen():
    denoiser, row = warm(), NOISY.clone()
    before = logits(denoiser, row, Mask(), at(W))
    row[:, 2 * W :] = 7
    assert torch.equal(logits(denoiser, row, Mask(), at(W))[:, : 2 * W], before[:, : 2 * W])


def test_padding_changes_nothing():
    """With three columns of padding before it, a row has the logits that it has alone."""
    denoiser = warm()
    valid = (torch.arange(L + 3) >= 3).expand(2, L + 3)
    positions = (torch.arange(L + 3) - 3).clamp_min(0).expand(2, L + 3)
    row = torch.cat([torch.full((2, 3), MASK), torch.where(torch.arange(L) < W, CLEAN, NOISY)], 1)
    padded = logits(denoiser, row, Mask(valid), at(W + 3, L + 3), positions=positions)
    close(padded[:, 3:], logits(denoiser, row[:, 3:], Mask(), at(W)))


@pytest.mark.parametrize("name", ["first_hitting", "low_confidence", "remdm_cap"])
@pytest.mark.parametrize("cache", [PrefixCache, DualCache])
def test_a_cache_changes_no_token(name, cache):
    """Prompts of unequal length, none a multiple of the block's."""
    denoiser, rule = warm(), preset(name)
    steps = None if rule.capabilities.plan == "adaptive" else 9
    plan = {"gen_length": 12, "block_length": W, "steps": steps}
    prompts = [[1, 2, 3, 4, 5], [6, 7]]
    whole, served = (
        decode(denoiser, Absorbing(), rule, some, prompts, seed=1, names=[3, 4])
        for some in (Plan(**plan), ServedPlan(**plan, cache=cache(refresh=None), stop=()))
    )
    assert torch.equal(whole.ids, served.ids) and len(whole.ids.unique()) > 3
    assert served.cost.token_forwards.sum() < whole.cost.token_forwards.sum()
    if name == "low_confidence" and cache is DualCache:
        # the prompts leave 3 and 2 positions of their last block open, which take 2 steps and 1; two full blocks take
        # 3 each, the rest 1; the first step of a block also takes what was written since: the prompt, the block before
        full, rest = 2 * (2 * W + W + W), 2 * W
        assert served.cost.token_forwards.tolist() == [2 * W + W + full + rest, W + full + rest]
    alone = decode(denoiser, Absorbing(), rule, Plan(**plan), prompts[1:], seed=1, names=[4])
    assert torch.equal(alone.ids[0], whole.ids[1])


@pytest.mark.parametrize("seed", range(4))
def test_a_cache_changes_no_token_of_rows_that_stop_or_wait(seed):
    """Rows leave the batch at a stop id, and rows that reveal nothing in a step take no forward: in twelve blocks of a
    network in float64 every token is the same with and without a cache."""
    denoiser = warm().double()
    plan = {"gen_length": 12 * W, "block_length": W, "steps": 12 * 6}
    prompts = [[1, 2, 3, 4, 5], [6, 7], [8], []]
    rule, stop = preset("ancestral"), (int(CLEAN[0, seed]),)
    whole, served = (
        decode(
            denoiser,
            Absorbing(),
            rule,
            ServedPlan(**plan, cache=cache, stop=stop),
            prompts,
            seed=seed,
            names=range(4),
        )
        for cache in (None, DualCache(refresh=None))
    )
    assert torch.equal(whole.ids, served.ids) and torch.equal(whole.cost.forwards, served.cost.forwards)
    assert served.cost.token_forwards.sum() < 0.6 * whole.cost.token_forwards.sum()


@pytest.mark.parametrize("length", [0, 1, 3, 4, 6])
def test_blocks_are_counted_from_the_first_token_of_a_prompt(length):
    """Greedy decoding in one step a block, against the two copies of training, block after block: the first block has
    the end of the prompt, and positions after the last one to be generated stay masked."""
    denoiser, prompt = warm().double(), CLEAN[0, :length].tolist()
    plan = Plan(gen_length=8, block_length=W, steps=2)
    found = decode(denoiser, Absorbing(), preset("low_confidence"), plan, [prompt], seed=0, names=[0])
    width, stop = -(-(length + 8) // W) * W, length + 8
    row = torch.full((1, width), MASK)
    row[0, :length] = CLEAN[0, :length]
    for first in range(length // W * W, width, W):
        logp = logits(denoiser, torch.cat([row, row], 1), Copies(block=W))[0, :width, :20]
        here = slice(max(first, length), min(first + W, stop))
        row[0, here] = logp[here].argmax(-1)
    assert found.ids[0].tolist() == row[0, length:stop].tolist()
    assert found.cost.forwards.tolist() == [len(range(length // W * W, stop, W))]


def test_rows_of_any_prompts_decode_as_they_do_alone():
    """Prompts that end at every place of a block, in one batch: tokens, costs and their order."""
    denoiser, plan = warm().double(), Plan(gen_length=8, block_length=W, steps=4)
    prompts = [[1, 2, 3], [], [4], [5, 6, 7, 8, 9], [1, 2], [3, 4, 5, 6]]
    rule = preset("random:temperature=1.0")
    whole = decode(denoiser, Absorbing(), rule, plan, prompts, seed=3, names=range(6))
    for row, prompt in enumerate(prompts):
        alone = decode(denoiser, Absorbing(), rule, plan, [prompt], seed=3, names=[row])
        assert torch.equal(alone.ids[0], whole.ids[row]) and torch.equal(alone.useful[0], whole.useful[row])
        for name in ("forwards", "token_forwards", "writes"):
            assert getattr(alone.cost, name)[0] == getattr(whole.cost, name)[row]


def test_unsupported_uses_are_one_line_errors():
    denoiser, rule = warm(), preset("low_confidence")
    with pytest.raises(ValueError, match=r"blocks of 4.*, not 8; set block_length=4"):
        decode(
            denoiser, Absorbing(), rule, Plan(gen_length=8, block_length=8, steps=8), [[1]], seed=0, names=[0]
        )
    with pytest.raises(ValueError, match="not a row that is noisy throughout"):
        where = torch.ones_like(NOISY, dtype=torch.bool)
        Prediction(denoiser, NOISY, torch.tensor([0.5, 0.5]), Mask()).logits(where)
    with pytest.raises(ValueError, match="block=0"):
        DitBlocks(**{**SHAPE, "block": 0}, condition=0, rope_base=1e4, norm_eps=1e-5)


def test_one_mask_holds_blocks_that_begin_alike():
    """The blocks of all rows are counted from one column; rows without noise do not count."""
    denoiser, whole = warm(), at(4)
    apart = torch.stack([at(4)[0], at(5)[0]])
    with pytest.raises(ValueError, match=r"begin at columns \[4, 5\], which are not whole blocks of 4 apart"):
        logits(denoiser, CLEAN, Mask(), t=apart)
    idle = torch.stack([torch.zeros(L, dtype=torch.float64), whole[1]])
    close(logits(denoiser, CLEAN, Mask(), t=idle)[1], logits(denoiser, CLEAN, Mask(), t=whole)[1])


@pytest.mark.parametrize("condition", [0, 16])
def test_sizes_are_those_of_the_networks(condition):
    pins = DitBlocks(**SHAPE, condition=condition, rope_base=10_000.0, norm_eps=1e-5)
    assert pins.size(WORDS).parameters == sum(p.numel() for p in pins.module(ROLE, 0).parameters())


# --- the left context of a block in bidirectional networks -------------------------------------------------------


def test_a_shifted_network_recomputes_one_column_before_a_block():
    """With a fresh cache, all features of the block equal those of a whole forward, the first one included."""
    qwen = Qwen2(
        layers=2, width=32, heads=4, kv_heads=2, ffn=48, attention="bidirectional", rope_base=1e4,
        norm_eps=1e-6, tied=False, init_deviation=0.3,
    )  # fmt: skip
    denoiser = Shifted(backbone=qwen).module(ROLE, 0).eval()
    t, window = torch.full((2, L), 0.5), slice(W, 2 * W)
    inside = (torch.arange(L) // W == 1).expand(2, L)
    cache = DecodingCache(2, L, "block", None, torch.device("cpu"))
    with torch.no_grad():
        whole = Prediction(denoiser, NOISY, t, Mask()).features(inside)
        first, then = (CachedPrediction(denoiser, NOISY, t, Mask(), None, cache, window) for _ in range(2))
        close(first.features(inside), whole)
        close(then.features(inside), whole)
    assert first.token_forwards().tolist() == [L, L] and then.token_forwards().tolist() == [W + 1, W + 1]
