"""The recipes of BD3-LM: blocks that start from weights of whole rows, at nano from random ones
(docs/method.md#block-diffusion)."""

from __future__ import annotations

import pytest
import torch
from helpers import released
from helpers.spaces import Words

from repro.core import parts
from repro.data.corpus import UNRESOLVED
from repro.hub.pretrained import PretrainedBackbone
from repro.models.attention import Copies
from repro.models.dit import DitBlocks, WithDropout
from repro.processes.prediction import Role
from repro.recipes.scale import by_name

SIZES = pytest.mark.parametrize("block", [4, 8, 16])
ROLE = Role(Words(size=released.V - 1, length=16), (released.V,), "leave_one_out")


def started(folder, block, **more) -> PretrainedBackbone:
    pins = {"layers": 2, "width": 32, "heads": 4, "ffn": 128, "condition": 16, "frequencies": 256}
    blocks = DitBlocks(**{**pins, "block": block, "rope_base": 10_000.0, "norm_eps": 1e-5, **more})
    return PretrainedBackbone(
        backbone=WithDropout(backbone=blocks, rate=0.1), source=str(folder), revision=UNRESOLVED
    )


@SIZES
def test_the_three_recipes_differ_in_their_blocks_and_mask_rates_alone(block):
    one, other = (parts.leaves(by_name(f"bd3_owt_{size}")) for size in (4, block))
    different = {pin for pin in one if one[pin] != other[pin]}
    assert different <= {
        *("name", "suite", "process.block", "backbone.backbone.backbone.block"),
        *("objective.rate.low", "objective.rate.high"),
    }


@SIZES
def test_at_nano_a_small_network_reads_the_same_blocks(block):
    small = by_name(f"bd3_owt_{block}@nano")
    assert isinstance(small.backbone, WithDropout) and small.backbone.required_block_size() == block
    full = by_name(f"bd3_owt_{block}")
    assert (small.process, small.objective) == (full.process, full.objective)
    with pytest.raises(ValueError, match=r"no exact denoiser for bd3_owt_\d+@nano, .* read whole rows"):
        by_name(f"oracle:bd3_owt_{block}@nano")


@pytest.mark.parametrize("cross", [True, False], ids=["blocks of 4", "whole rows"])
def test_training_starts_from_weights_of_other_blocks(cross, tmp_path, tokenizer):
    """The parameters of a network of whole rows, or of blocks of another length, fill the network of blocks."""
    folder, weights = released.bd3(tmp_path / "whole", tokenizer / "tokenizer.json", cross=cross)
    network = started(folder, block=2).module(ROLE, 0)
    found = dict(network.named_parameters())
    theirs = weights["backbone.blocks.1.attn_qkv.weight"]
    assert torch.equal(found["blocks.1.qkv.weight"], theirs) and network.required_block_size == 2
    ids = torch.arange(16).view(2, 8) % 5
    network.train().set_dropout_keys(torch.tensor([1, 2]))
    read = network.encode(torch.cat([ids, ids], 1), t=None, attention=Copies(block=2))
    network.eval()
    assert not torch.equal(network.encode(torch.cat([ids, ids], 1), t=None, attention=Copies(block=2)), read)


def test_weights_of_another_network_are_refused(tmp_path, tokenizer):
    folder, _ = released.bd3(tmp_path / "whole", tokenizer / "tokenizer.json")
    with pytest.raises(ValueError, match=r"backbone\.layers is 3 in the recipe and 2 in these weights"):
        started(folder, block=2, layers=3).module(ROLE, 0)
