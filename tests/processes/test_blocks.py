"""Block diffusion: its mask, its bound over all sentences, and its two ends, autoregression and masked diffusion
(BD3-LM, arXiv 2503.09573; docs/method.md#block-diffusion).

Symbols: B rows, L tokens, W tokens a block, S sentences, V tokens.
"""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
import torch
from helpers.spaces import InBlocks, Space, Words, exact, random_space, stranger
from torch import Tensor

from repro.core import rng
from repro.models.attention import Copies, Mask
from repro.models.blocks import BlockPrediction
from repro.models.denoiser import Denoiser, initialise
from repro.models.dit import Dit, DitBlocks
from repro.models.prediction import Prediction
from repro.objectives.bound import reading, truncated
from repro.processes import blocks
from repro.processes.absorbing import Absorbing
from repro.processes.blocks import BlockAbsorbing, block_subsets
from repro.processes.prediction import Role
from repro.samplers.law import law
from repro.samplers.plan import Plan
from repro.samplers.presets import preset

SHAPE = {"layers": 2, "width": 32, "heads": 4, "ffn": 64, "condition": 16, "frequencies": 8}
SHAPE |= {"rope_base": 10_000.0, "norm_eps": 1e-5}
SPACE = random_space(3, 4)
BLOCKS = pytest.mark.parametrize("block", [1, 2, 3, 4])


def network(words: Words, block: int, seed: int = 1) -> Denoiser:
    """A DiT with large random weights that reads blocks."""
    role = Role(words, Absorbing().forbidden(words.vocabulary()), "leave_one_out")
    denoiser = DitBlocks(**SHAPE, block=block).module(role, 0).eval().double()
    initialise(denoiser, seed, 0.3)
    return denoiser


def known(space: Space, block: int, source: str) -> Denoiser:
    """A denoiser of the space in blocks: exact, of random conditionals ("stranger"), or a network's ("dit")."""
    if source == "dit":
        return network(space.words, block)
    whole = (exact if source == "exact" else stranger)(space, Absorbing())
    return InBlocks(space.words, Absorbing(), block, whole.answer)


def bound(
    denoiser: Denoiser, process: Absorbing, x: Tensor, u: Tensor, keys: Tensor, where: Tensor | None = None
) -> Tensor:
    """`process.bound` of clean ids x [B, L]; scored are all positions, or those `where` [B, L]."""

    def predict(noisy: Tensor, t: Tensor) -> Prediction:
        block = process.block_length()
        if block is None:
            return Prediction(denoiser, noisy, t, Mask())
        return BlockPrediction(denoiser, noisy, x, t, Mask(), block)

    where = torch.ones_like(x, dtype=torch.bool) if where is None else where
    with torch.no_grad():
        return process.bound(predict, x, where, denoiser.vocabulary, u, keys)


CELLS = {1: 1, 2: 2, 3: 6, 4: 4}
"""Block length -> number of equal cells of u in (0, 1) on which every mask count of a row of 4 tokens is constant."""


def expected(
    denoiser: Denoiser, process: BlockAbsorbing, space: Space, monkeypatch: pytest.MonkeyPatch
) -> Tensor:
    """E[bound] of every sentence of 4 tokens, [S]: the mean over all orders of its positions, in which the positions of
    each block have a uniform order, and over all mask counts."""
    orders = torch.tensor(list(itertools.permutations(range(4))), dtype=torch.float64) / 4
    cells = CELLS[process.block]
    sentence, order, cell = torch.cartesian_prod(
        torch.arange(len(space.sentences)), torch.arange(len(orders)), torch.arange(cells)
    ).T
    with monkeypatch.context() as patched:
        patched.setattr(blocks, "rng", SimpleNamespace(uniform=lambda keys, length: orders[keys]))
        nats = bound(denoiser, process, space.sentences[sentence], (cell.double() + 0.5) / cells, order)
    return nats.view(len(space.sentences), -1).mean(1)


# --- the mask -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "block"), [(6, 1), (6, 2), (7, 3), (4, 4)])
def test_the_mask_is_that_of_the_paper(length, block):
    """arXiv 2503.09573, section 3.1: M_BD is block-diagonal in the noisy copy, M_OBC lets noisy blocks see earlier
    clean ones, M_BC is block-causal in the clean copy, and nothing sees noise of another block."""
    found = Copies(block=block).allowed(torch.arange(2 * length)[None], 2 * length, None)
    assert found is not None
    number = [i // block for i in range(length)]
    for q, k in itertools.product(range(length), repeat=2):
        block_diagonal = number[q] == number[k]
        offset_block_causal = number[q] > number[k]
        block_causal = number[q] >= number[k]
        assert found[0, 0, q, k] == block_diagonal
        assert found[0, 0, q, length + k] == offset_block_causal
        assert found[0, 0, length + q, length + k] == block_causal
        assert not found[0, 0, length + q, k]


def test_a_noisy_block_reads_neither_its_own_clean_copy_nor_other_noise():
    """Behind a network: no leak of the target, as a mask that is off by one block would have."""
    denoiser, block = network(SPACE.words, 2), 2
    x = torch.tensor([[0, 1, 2, 0]])
    noisy = torch.tensor([[3, 1, 3, 0]])
    where = torch.tensor([[False, False, True, True]])

    def read(noisy, clean):
        return BlockPrediction(denoiser, noisy, clean, torch.ones(1, 4), Mask(), block).probs(where)

    base = read(noisy, x)
    own, other_noise = x.clone(), noisy.clone()
    own[0, 2:] = torch.tensor([1, 1])
    other_noise[0, :2] = torch.tensor([2, 2])
    assert torch.equal(read(noisy, own), base) and torch.equal(read(other_noise, x), base)
    before = x.clone()
    before[0, 1] = 2
    assert (read(noisy, before) - base).abs().max() > 1e-3


# --- subsets ------------------------------------------------------------------------------------------------


def test_each_block_has_a_uniform_subset_of_its_own_candidates():
    """Blocks of 3 in a row of 8: counts as asked, non-candidates never, each pair of a block equally often."""
    n = 30_000
    where = torch.tensor([[True, True, True, True, False, True, True, True]]).expand(n, -1)
    count = torch.tensor([[2, 1, 5]]).expand(n, -1)
    found = block_subsets(rng.keys(0, rng.CORRUPT, 0, torch.arange(n)), count, where, 3)
    assert (found[:, :3].sum(1) == 2).all() and (found[:, 3:6].sum(1) == 1).all()
    assert not found[:, 4].any() and found[:, 6:].all()
    share = found.double().mean(0)[[0, 1, 2, 3, 5]]
    assert (share - torch.tensor([2 / 3, 2 / 3, 2 / 3, 1 / 2, 1 / 2])).abs().max() < 0.015
    together = (found[:, 0] & found[:, 3]).double().mean()
    assert abs(together - 1 / 3) < 0.015, "blocks are independent"


# --- the bound ----------------------------------------------------------------------------------------------


@BLOCKS
@pytest.mark.parametrize("source", ["exact", "stranger", "dit"])
def test_a_bound_is_a_bound(block, source, monkeypatch):
    """For any network exp(-bound) sums to at most 1 over sentences; the certificate of the bound."""
    process, denoiser = BlockAbsorbing(block=block), known(SPACE, block, source)
    found = expected(denoiser, process, SPACE, monkeypatch)
    total = (-found).exp().sum().item()
    print(f"blocks of {block}, {source}: sum of exp(-bound) = {total:.8f}")
    assert total <= 1 + 1e-9
    if block == 1:
        assert abs(total - 1) < 1e-9 and process.exact
    elif source == "stranger":
        assert total < 0.99 and not process.exact
    if source == "exact":
        assert (found + SPACE.law.log()).abs().max() < 1e-9, "tight for each sentence"


def test_without_its_weight_it_is_no_bound(monkeypatch):
    """The weight n/l restored: dropping it makes the sum exceed 1."""
    denoiser, process = known(SPACE, 2, "exact"), BlockAbsorbing(block=2)
    monkeypatch.setattr(blocks, "per_position", lambda values, block, length: torch.ones(len(values), length))
    assert (-expected(denoiser, process, SPACE, monkeypatch)).exp().sum() > 1.5


def test_blocks_of_one_token_are_autoregression():
    """-log p of each sentence is the sum of the conditionals that the network gives block by block in decoding, and the
    sampler's law, by enumeration, is exp(-bound)."""
    denoiser, process = network(SPACE.words, 1), BlockAbsorbing(block=1)
    x, mask, rows = SPACE.sentences, SPACE.size, torch.arange(len(SPACE.sentences))
    nats = bound(denoiser, process, x, torch.rand(len(x)).double(), rows)
    assert torch.equal(nats, bound(denoiser, process, x, torch.zeros(len(x)).double(), rows + 7)), "exact"
    chain = torch.zeros(len(x), dtype=torch.float64)
    for place in range(SPACE.length):
        column = torch.arange(SPACE.length)
        row = torch.where(column < place, x, mask)
        t = (column >= place).double().expand(len(x), -1)
        with torch.no_grad():
            logp = denoiser.logits(denoiser.encode(row, t=t, attention=Mask()))[:, place].log_softmax(-1)
        chain -= logp.gather(1, x[:, place, None])[:, 0]
    assert (nats - chain).abs().max() < 1e-9
    for name in ("ancestral", "random:temperature=1.0"):
        listed = law(denoiser, process, preset(name), Plan(gen_length=4, block_length=1, steps=4))
        found = torch.tensor([listed[tuple(row)] for row in x.tolist()], dtype=torch.float64)
        assert (found - (-nats).exp()).abs().max() < 1e-9


def test_a_block_of_the_whole_row_is_masked_diffusion():
    """The same draws, and bound and law of a DiT that reads whole rows with the same weights."""
    denoiser, words = network(SPACE.words, SPACE.length), SPACE.words
    role = Role(words, Absorbing().forbidden(words.vocabulary()), "leave_one_out")
    whole = Dit(**SHAPE, alpha_end=None).module(role, 0).eval().double()
    whole.load_state_dict(denoiser.state_dict())
    x = SPACE.sentences
    u, keys = rng.uniform(rng.keys(0, rng.BOUND, 0, torch.arange(len(x)))), torch.arange(len(x))
    where = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < 0.8
    where[0] = False
    ours = bound(denoiser, BlockAbsorbing(block=SPACE.length), x, u, keys, where)
    assert (ours - bound(whole, Absorbing(), x, u, keys, where)).abs().max() < 1e-9
    assert ours[0] == 0 and ours.std() > 0.3
    plan = Plan(gen_length=4, block_length=4, steps=2)
    one = law(denoiser, BlockAbsorbing(block=4), preset("ancestral"), plan)
    other = law(whole, Absorbing(), preset("ancestral"), plan)
    assert max(abs(one[x] - other[x]) for x in one) < 1e-9


def test_sampling_one_token_a_step_has_no_larger_loss_than_the_bound(monkeypatch):
    """Random orders: the sampler's law is the mean over orders of the product of conditionals, whose -log is at most
    the bound, the mean of the -log (Jensen)."""
    denoiser, process = network(SPACE.words, 2, seed=2), BlockAbsorbing(block=2)
    plan = Plan(gen_length=4, block_length=2, steps=4)
    listed = law(denoiser, process, preset("random:temperature=1.0"), plan)
    p = torch.tensor([listed[tuple(x)] for x in SPACE.sentences.tolist()], dtype=torch.float64)
    slack = expected(denoiser, process, SPACE, monkeypatch) + p.log()
    assert abs(p.sum().item() - 1) < 1e-9 and slack.min() > -1e-9 and slack.max() > 1e-3


def test_the_truncated_integral_has_one_time_for_all_blocks_of_a_row():
    """Blocks of one token, 20,000 rows of one sentence: its mean is the exact -log p, as the weight 1/t undoes the
    chance t of a mask; a row's estimate is within the weights of its time."""
    denoiser, process = known(SPACE, 1, "stranger"), BlockAbsorbing(block=1)
    x, rows = SPACE.sentences[50].expand(20_000, -1), torch.arange(20_000)
    where = torch.ones_like(x, dtype=torch.bool)
    words = denoiser.vocabulary
    keys = rng.keys(0, rng.BOUND, 0, rows)
    predict = reading(denoiser, process, x, where, words, keys)
    u = rng.uniform(rng.keys(1, rng.BOUND, 0, rows))
    nats = truncated(process, predict, x, where, words, u, keys)
    exact = bound(denoiser, process, x[:1], u[:1], keys[:1]).item()
    assert abs(nats.mean().item() - exact) < 5 * nats.std().item() / 20_000**0.5
    assert ((nats > 0) & (nats * (1e-3 + 0.999 * u) > exact + 1e-9)).sum() == 0


def test_mask_counts_of_a_rows_blocks_are_stratified():
    """Eight blocks of 4: each count twice in every row, whatever u."""
    counts = []

    class Counting(BlockPrediction):
        def logits(self, where: Tensor) -> Tensor:
            counts.append(where.unflatten(1, (8, 4)).sum(2))
            return torch.zeros(int(where.sum()), 5)

    x = torch.zeros(50, 32, dtype=torch.int64)
    denoiser = InBlocks(Words(size=3, length=32), Absorbing(), 4, lambda ids, t: torch.zeros(0))
    u = rng.uniform(rng.keys(0, rng.BOUND, 0, torch.arange(50)))
    BlockAbsorbing(block=4).bound(
        lambda noisy, t: Counting(denoiser, noisy, x, t, Mask(), 4),
        x,
        torch.ones_like(x, dtype=torch.bool),
        denoiser.vocabulary,
        u,
        torch.arange(50),
    )
    for count in range(1, 5):
        assert ((counts[0] == count).sum(1) == 2).all()


def test_errors_name_the_value_and_the_remedy():
    with pytest.raises(ValueError, match=r"block=0 .*give 1 or more"):
        BlockAbsorbing(block=0)
    x = SPACE.sentences[:2]
    with pytest.raises(ValueError, match=r"blocks of 4 tokens, and this network reads blocks of 2"):
        bound(network(SPACE.words, 2), BlockAbsorbing(block=4), x, torch.zeros(2).double(), torch.arange(2))
