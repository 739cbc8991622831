"""Linear layers by oneDNN: the same products as torch's, the same gradients, and no row that depends on the others."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from repro.core import onednn as core
from repro.models.products import Linear, linear, multiply_by_onednn, suits_onednn
from repro.recipes.scale import by_name

FITS = torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() != "DEFAULT"
pytestmark = pytest.mark.skipif(not FITS, reason="torch was built without oneDNN for this processor")


@pytest.fixture(autouse=True)
def chosen(monkeypatch):
    """oneDNN multiplies on every processor."""
    monkeypatch.setattr("repro.models.products.onednn_is_faster", lambda: True)


def drawn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("shape", [(1, 128), (3, 5, 128), (4, 64, 128)])
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_those_of_torch(shape, bias):
    x, upstream = drawn(*shape), drawn(*shape[:-1], 160)
    own, theirs = (kind(128, 160, bias=bias) for kind in (Linear, nn.Linear))
    own.load_state_dict(theirs.state_dict())
    results = []
    for layer in (own, theirs):
        given = x.clone().requires_grad_()
        out = layer(given)
        out.backward(upstream)
        results.append([out.detach(), given.grad, *(p.grad for p in layer.parameters())])
    assert suits_onednn(x, own.weight)
    for mine, other in zip(*results, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=2e-5)


def test_error_is_that_of_float32():
    x, weight = drawn(64, 512), drawn(300, 512) / 512**0.5
    exact = x.double() @ weight.double().T
    assert (linear(x, weight) - exact).abs().max() < 2e-5


@pytest.mark.skipif(
    not core.onednn_is_faster(), reason="networks are not multiplied by oneDNN on this processor"
)
def test_a_row_has_the_same_bits_whatever_the_other_rows_are():
    x, weight = drawn(96, 256), drawn(512, 256)
    whole = linear(x, weight)
    for rows in (2, 3, 4, 7, 8, 16, 17, 33, 95):
        assert torch.equal(linear(x[:rows], weight), whole[:rows]), rows
        assert torch.equal(linear(x[-rows:], weight), whole[-rows:]), rows


def test_strides_change_nothing():
    x, weight = drawn(2, 40, 300), drawn(300, 160)
    sliced = x[..., 7:135]
    assert torch.equal(
        linear(sliced, weight[7:135].T), linear(sliced.contiguous(), weight[7:135].T.contiguous())
    )


@pytest.mark.parametrize(
    ("x", "weight"),
    [
        (drawn(4, 64), drawn(64, 64)),
        (drawn(4, 128).double(), drawn(160, 128).double()),
        (drawn(4, 128).bfloat16(), drawn(160, 128).bfloat16()),
        (drawn(0, 128), drawn(160, 128)),
        (drawn(4, 128).to("meta"), drawn(160, 128).to("meta")),
    ],
)
def test_torch_multiplies_what_onednn_would_not_win(x, weight):
    assert not suits_onednn(x, weight)
    out = linear(x, weight)
    assert out.shape == (len(x), len(weight)) and out.dtype == x.dtype


def test_autocast_keeps_its_precision():
    layer = Linear(128, 160)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(drawn(4, 128)).dtype == torch.bfloat16


def test_layers_of_other_packages_are_taken_over_with_their_weights():
    """Linear layers and transformers' Conv1D, whose weight is transposed; names and values of parameters stay."""
    network = nn.Sequential(nn.Linear(128, 160), Conv1D(200, 160), nn.LayerNorm(200))
    x = drawn(6, 128)
    before, names = network(x), list(network.state_dict())
    assert multiply_by_onednn(network) is network and list(network.state_dict()) == names
    assert isinstance(network[0], Linear) and not isinstance(network[1], Conv1D)
    torch.testing.assert_close(network(x), before, rtol=1e-5, atol=1e-5)


def test_networks_of_recipes_have_the_faster_layers_and_released_ones_torchs_own():
    """Released weights are to agree with their authors' code, so their products are the same."""
    recipe = by_name("mdlm@nano")
    trained, plain = recipe.network(0), recipe.backbone.module(recipe.role(), 0)
    assert trained.head().fast and not plain.head().fast
    for network, kind in ((trained, Linear), (plain, nn.Linear)):
        assert {type(layer) for layer in network.modules() if isinstance(layer, nn.Linear)} == {kind}


@pytest.mark.parametrize(
    ("maker", "capability", "faster"),
    [("AuthenticAMD", "AVX512", True), ("AuthenticAMD", "AVX2", False), ("GenuineIntel", "AVX512", False)],
)
def test_onednn_is_chosen_on_amd_processors_with_avx512(monkeypatch, maker, capability, faster):
    monkeypatch.undo()
    monkeypatch.setattr(core, "processor_maker", lambda: maker)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    core.onednn_is_faster.cache_clear()
    try:
        assert core.onednn_is_faster() is faster
    finally:
        core.onednn_is_faster.cache_clear()
