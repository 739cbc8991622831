"""A causal network that reads blocks: in blocks of one token it is itself, and decoding reads what training read
(docs/method.md#ar-to-block-diffusion).

Symbols: B rows, L tokens, W tokens a block.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from helpers.spaces import Words

from repro.models.attention import Copies, KVCache, Mask
from repro.models.blocks import BlockPrediction
from repro.models.causal_blocks import CausalBlocks
from repro.models.denoiser import initialise
from repro.models.dit import DitBlocks
from repro.models.llama import Llama
from repro.models.prediction import Prediction
from repro.processes.blocks import BlockAbsorbing
from repro.processes.prediction import Role
from repro.samplers.decode import decode
from repro.samplers.law import law
from repro.samplers.plan import DualCache, Plan, ServedPlan
from repro.samplers.presets import preset

V, L, W, MASK = 7, 12, 4, 7
WORDS = Words(size=V, length=L)
LLAMA = Llama(
    layers=2, width=32, heads=4, kv_heads=2, ffn=48, attention="causal", rope_base=1e4, norm_eps=1e-5,
    learned_positions=0, tied=True, init_deviation=0.3,
)  # fmt: skip
ROLE = Role(WORDS, (MASK, MASK + 1), "leave_one_out")
CLEAN = torch.randint(0, V, (2, L), generator=torch.Generator().manual_seed(1))
NOISY = CLEAN.masked_fill(torch.rand(2, L, generator=torch.Generator().manual_seed(2)) < 0.5, MASK)


def network(block):
    denoiser = CausalBlocks(backbone=LLAMA, block=block).module(ROLE, 0).eval().double()
    initialise(denoiser, 3, 0.4)
    return denoiser


def at(first, length=L):
    """Times of a row: 0 before the block at column `first`, .5 within it, 1 after it."""
    t = (torch.arange(length) >= first).double()
    t[first : first + W] = 0.5
    return t.expand(2, length)


def logits(denoiser, ids, mask, t=None, **more):
    with torch.no_grad():
        return denoiser.head().logits(denoiser.encode(ids, t=t, attention=mask, **more))


def test_blocks_of_one_token_are_the_causal_network_itself():
    """The bound of block diffusion is the network's own -log p of all tokens after the first one, and a greedy text the
    network's own."""
    denoiser, x = network(1), CLEAN
    where = (torch.arange(L) > 0).expand(2, L)
    u, keys = torch.zeros(2).double(), torch.arange(2)
    with torch.no_grad():
        ours = BlockAbsorbing(block=1).bound(
            lambda noisy, t: BlockPrediction(denoiser, noisy, x, t, Mask(), 1),
            x,
            where,
            denoiser.vocabulary,
            u,
            keys,
        )
        features = denoiser.network.encode(x, t=None, attention=Mask())
        logp = denoiser.logits(features).log_softmax(-1)[:, :-1].gather(2, x[:, 1:, None])[..., 0]
    assert (ours + logp.sum(1)).abs().max() < 1e-9 and ours.std() > 0.1
    plan, prompts = Plan(gen_length=6, block_length=1, steps=6), [[1, 2, 3], [4, 5]]
    greedy = decode(
        denoiser, BlockAbsorbing(block=1), preset("low_confidence"), plan, prompts, seed=0, names=[0, 1]
    )
    for prompt, found in zip(prompts, greedy.ids.tolist(), strict=True):
        ids = list(prompt)
        for _ in found:
            with torch.no_grad():
                features = denoiser.network.encode(torch.tensor([ids]), t=None, attention=Mask())
            ids.append(int(denoiser.logits(features)[0, -1].argmax()))
        assert ids == prompt + found
    assert len(greedy.ids.unique()) > 2


def test_the_mask_reads_the_clean_copy_causally():
    """Entry by entry: a noisy block sees itself and clean blocks before it, a clean token the clean ones up to it."""
    found = Copies(block=3, clean=1).allowed(torch.arange(14)[None], 14, None)
    for q, k in itertools.product(range(7), repeat=2):
        assert found[0, 0, q, k] == (q // 3 == k // 3)
        assert found[0, 0, q, 7 + k] == (q // 3 > k // 3)
        assert found[0, 0, 7 + q, 7 + k] == (q >= k)
        assert not found[0, 0, 7 + q, k]


def test_one_copy_block_by_block_is_two_copies_at_once():
    """A block after clean ones, with and without a KV cache whose finished blocks are read causally."""
    denoiser, kv_cache = network(W), KVCache(2, L)
    kv_cache.rows = None
    both = logits(denoiser, torch.cat([NOISY, CLEAN], 1), Copies(block=W))
    for first in range(0, L, W):
        row = torch.where(torch.arange(L) < first, CLEAN, NOISY)
        here = slice(first, first + W)
        whole = logits(denoiser, row, Mask(), at(first))[:, here]
        assert (whole - both[:, here]).abs().max() < 1e-9
        kv_cache.span = slice(max(0, first - W), first + W)
        cached = logits(
            denoiser, row[:, kv_cache.span], Mask(), at(first)[:, kv_cache.span], kv_cache=kv_cache
        )
        assert (cached[:, -W:] - whole).abs().max() < 1e-9


def test_rows_may_decode_different_blocks():
    """Each row of a batch, one of them clean throughout, as alone: the block is that of the row's own times."""
    denoiser, ids = network(W), torch.cat([NOISY, CLEAN])
    t = torch.stack([at(0)[0], at(4)[0], at(8)[0], at(L)[0]])
    together = logits(denoiser, ids, Mask(), t)
    for row in range(4):
        one = slice(row, row + 1)
        assert (logits(denoiser, ids[one], Mask(), t[one]) - together[one]).abs().max() < 1e-9
    features = denoiser.network.encode(ids[3:], t=None, attention=Mask())
    assert (denoiser.head().logits(features)[0, :-1] - together[3, 1:]).abs().max() < 1e-9


def test_the_law_of_sampling_is_that_of_blocks_after_a_causal_prefix():
    """Two blocks of 2, all 81 sentences: random order within a block, each conditional from the causal network under an
    explicit mask."""
    words = Words(size=3, length=4)
    role = Role(words, (3, 4), "leave_one_out")
    denoiser = CausalBlocks(backbone=LLAMA, block=2).module(role, 0).eval().double()
    initialise(denoiser, 3, 0.4)
    theirs, mask = denoiser.network.network, 3
    theirs.config._attn_implementation = "sdpa"

    def conditional(ids, first, place):
        """p of the token at `place` of a row whose block begins at column `first`."""
        n = first + 2
        seen = torch.ones(n, n, dtype=torch.bool).tril()
        seen[first:, first:] = True
        bias = torch.zeros(n, n, dtype=torch.float64).masked_fill(~seen, -torch.inf)
        with torch.no_grad():
            found = theirs(torch.tensor([ids[:n]]), attention_mask=bias[None, None]).logits[
                0, max(0, place - 1), :3
            ]
        return found.softmax(-1)

    by_hand = {}
    for x in itertools.product(range(3), repeat=4):
        p = 1.0
        for first in (0, 2):
            a, b, clean = first, first + 1, list(x[:first])
            orders = []
            for one, other in ((a, b), (b, a)):
                hidden = [*clean, mask, mask]
                half = [*clean, mask, mask]
                half[one] = x[one]
                orders.append(
                    conditional(hidden, first, one)[x[one]] * conditional(half, first, other)[x[other]]
                )
            p *= float(sum(orders)) / 2
        by_hand[x] = p
    theirs.config._attn_implementation = "repro"
    plan = Plan(gen_length=4, block_length=2, steps=4)
    listed = law(denoiser, BlockAbsorbing(block=2), preset("random:temperature=1.0"), plan)
    assert abs(sum(by_hand.values()) - 1) < 1e-9
    assert max(abs(listed[x] - p) for x, p in by_hand.items()) < 1e-9 and max(by_hand.values()) > 0.03


@pytest.mark.parametrize("name", ["low_confidence", "ancestral"])
def test_a_cache_changes_no_token(name):
    """Prompts of unequal length; a step takes one column before the block, whose features predict its first token."""
    denoiser, rule = network(W), preset(name)
    plan = {"gen_length": 12, "block_length": W, "steps": 9}
    prompts = [[1, 2, 3, 4, 5], [6, 0]]
    whole, served = (
        decode(denoiser, BlockAbsorbing(block=W), rule, some, prompts, seed=1, names=[3, 4])
        for some in (Plan(**plan), ServedPlan(**plan, cache=DualCache(refresh=None), stop=()))
    )
    assert torch.equal(whole.ids, served.ids) and len(whole.ids.unique()) > 3
    assert served.cost.token_forwards.sum() < 0.7 * whole.cost.token_forwards.sum()


def test_what_does_not_fit_is_a_one_line_error():
    with pytest.raises(ValueError, match="block=0 is not a block length"):
        CausalBlocks(backbone=LLAMA, block=0)
    with pytest.raises(ValueError, match="give a llama or qwen2 with attention=causal"):
        CausalBlocks(backbone=replace(LLAMA, attention="bidirectional"), block=4)
    where = torch.ones_like(NOISY, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"not a row that is noisy throughout; give t \[B, L\]"):
        Prediction(network(W), NOISY, torch.tensor([0.5, 0.5]), Mask()).logits(where)


def test_two_noisy_copies_in_one_forward_are_two_forwards():
    """Of this network and of a DiT; each copy reads the clean one and nothing of the other."""
    other = CLEAN.masked_fill(NOISY != MASK, MASK)
    dit = DitBlocks(
        layers=2, width=32, heads=4, ffn=48, condition=16, frequencies=8, block=W, rope_base=1e4, norm_eps=1e-5
    ).module(ROLE, 0)  # fmt: skip
    initialise(dit, 3, 0.4)
    where = torch.rand(2, 2 * L, generator=torch.Generator().manual_seed(0)) < 0.7
    valid = torch.ones(2, L, dtype=torch.bool)
    valid[0, -3:] = False
    for denoiser in (network(W), dit.eval().double()):
        for mask in (Mask(), Mask(valid)):
            both = BlockPrediction(
                denoiser, torch.cat([NOISY, other], 1), CLEAN, torch.ones(2, 2 * L), mask, W
            )
            one, two = (
                BlockPrediction(denoiser, ids, CLEAN, torch.ones(2, L), mask, W) for ids in (NOISY, other)
            )
            with torch.no_grad():
                found = both.probs(where)
                alone = torch.zeros(2, 2 * L, found.shape[1], dtype=torch.float64)
                alone[:, :L][where[:, :L]], alone[:, L:][where[:, L:]] = (
                    one.probs(where[:, :L]),
                    two.probs(where[:, L:]),
                )
            assert (found - alone[where]).abs().max() < 1e-9 and found.std() > 0.05
            assert torch.equal(2 * both.token_forwards(), 3 * one.token_forwards())
