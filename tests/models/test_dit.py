"""The DiT of Duo and MDLM follows its equations, under the denoiser contract (docs/method.md#duo-hyperparameters).

The literal network of tests/helpers/literal.py has the authors' names; ours is filled through the mapping of their
layout.
"""

import math

import pytest
import torch
from helpers import literal
from helpers.spaces import Words
from safetensors.torch import save_file

from repro.hub import mapping
from repro.hub.dit import DIT_NAMES
from repro.models.attention import KVCache, Mask
from repro.models.denoiser import initialise
from repro.models.dit import Dit, DitCausal
from repro.models.prediction import Prediction
from repro.objectives.objective import Batch
from repro.processes.absorbing import Absorbing
from repro.processes.prediction import Role
from repro.processes.uniform import Uniform
from repro.recipes.scale import by_name, scaled

WORDS = Words(size=20, length=12)  # and a mask and a BOS: V = 22
ROLE = Role(WORDS, (20, 21), "leave_one_out")
V, L, HEADS = 22, 12, 4
SHAPE = {"layers": 3, "width": 32, "heads": HEADS, "ffn": 128, "rope_base": 10_000.0, "norm_eps": 1e-5}
UNTIMED = Dit(**SHAPE, condition=24, frequencies=256, alpha_end=None)
TIMED = Dit(**SHAPE, condition=24, frequencies=256, alpha_end=1e-3)
CAUSAL = DitCausal(**SHAPE)
NETWORKS = {"timed": TIMED, "untimed": UNTIMED, "causal": CAUSAL}
T = torch.tensor([0.3, 0.95])
IDS = torch.randint(0, 20, (2, L), generator=torch.Generator().manual_seed(1))


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def logits(denoiser, ids, mask=None, t=None, **more):
    with torch.no_grad():
        return denoiser.head().logits(denoiser.encode(ids, t=t, attention=mask or Mask(), **more))


def warm(pins):
    """A network whose modulations and head are not zero."""
    denoiser = pins.module(ROLE, 0).eval()
    initialise(denoiser, 3, 0.2)
    return denoiser


def theirs_and_ours(pins, folder):
    """Random weights under the authors' names, and our network filled with them."""
    condition = pins.condition if isinstance(pins, Dit) else 0
    weights = literal.dit_weights(pins.layers, pins.width, condition, V)
    save_file(weights, folder / "model.safetensors")
    ours = pins.module(ROLE, 0).eval()
    parameters = dict(ours.named_parameters())
    found = mapping.account(folder, DIT_NAMES, {name: p.shape for name, p in parameters.items()}, {})
    mapping.fill(folder, found, parameters)
    return weights, ours


# --- the same network -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_are_those_of_the_equations(name, tmp_path):
    """1e-5 in float32; without time sigma is 0, and the causal network has no sigma at all."""
    pins = NETWORKS[name]
    weights, ours = theirs_and_ours(pins, tmp_path)
    sigma = {"timed": -torch.log(1 - (1 - 1e-3) * T), "untimed": torch.zeros(2), "causal": None}[name]
    found = logits(ours, IDS, t=T if name == "timed" else None)
    close(found, literal.dit(weights, IDS, HEADS, sigma))
    assert ours.time_conditioned == (name == "timed") and found.std() > 0.1


def test_only_the_time_conditioned_network_reads_the_time(tmp_path):
    timed, untimed = warm(TIMED), warm(UNTIMED)
    assert not torch.allclose(logits(timed, IDS, t=T), logits(timed, IDS, t=T / 2), atol=1e-3)
    assert torch.equal(logits(untimed, IDS, t=T), logits(untimed, IDS))
    with pytest.raises(ValueError, match="alpha_end=null"):
        logits(timed, IDS)


def test_equal_times_of_tokens_are_a_time_of_the_row():
    """Equal times t [B, L] give the result of t [B]; another time of one token changes that token's modulation."""
    denoiser = warm(TIMED)
    spread = T[:, None].expand(2, L).clone()
    close(logits(denoiser, IDS, t=spread), logits(denoiser, IDS, t=T))
    spread[:, 5] = 0.0
    assert not torch.allclose(
        logits(denoiser, IDS, t=spread)[:, 5], logits(denoiser, IDS, t=T)[:, 5], atol=1e-3
    )


def test_the_residual_stream_stays_in_float32_under_autocast():
    """A norm of the stream gives float32, and logits deviate by at most a tenth of the largest."""
    denoiser = warm(TIMED)
    exact = logits(denoiser, IDS, t=T)
    seen = []
    denoiser.blocks[0].norm_mlp.register_forward_hook(lambda module, given, out: seen.append(out.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = logits(denoiser, IDS, t=T)
    assert seen == [torch.float32], "the residual stream is float32"
    assert (rough - exact).abs().max() < 0.1 * exact.abs().max()


def test_the_level_of_soft_tokens_is_the_alpha_of_their_argmax(monkeypatch):
    """Duo's curriculum draws gamma, not t: the network reads the t whose alpha is T(A)
    (docs/method.md#duo-curriculum)."""
    recipe = scaled(by_name("duo_nelbo"), "nano")
    denoiser, times = TIMED.module(recipe.role(), 0), []
    encode = denoiser.encode
    monkeypatch.setattr(
        denoiser, "encode", lambda tokens, **more: times.append(more["t"]) or encode(tokens, **more)
    )
    vocabulary, rows = recipe.data.vocabulary(), 4
    batch = Batch(
        ids=torch.arange(rows * L).view(rows, L) % vocabulary.size,
        candidates=torch.ones(rows, L, dtype=torch.bool),
        attention=Mask(),
        index=torch.arange(rows),
        step=0,
        seed=0,
        vocabulary=vocabulary,
        step_examples=torch.arange(rows),
        step_candidates=torch.full((rows,), L),
    )
    logs = recipe.objective(denoiser, recipe.process, batch).logs
    (t,) = times
    assert t.shape == (rows,) and t.min() > 0 and t.max() < 1
    flips = recipe.process.p_flip(t, vocabulary).sum()
    assert flips.item() == pytest.approx(float(logs["p_flip"]), rel=1e-6)


# --- initialisation -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_the_first_loss_is_ln_v_exactly(name):
    """The head starts at zero: every logit is 0 (docs/method.md#duo-hyperparameters)."""
    denoiser = NETWORKS[name].module(ROLE, 0)
    found = logits(denoiser, IDS, t=T if name == "timed" else None)
    assert (found == 0).all()
    nll = torch.nn.functional.cross_entropy(found.flatten(0, 1).double(), IDS.flatten())
    assert nll.item() == pytest.approx(math.log(V), abs=1e-12)


def test_the_held_out_bounds_of_a_fresh_network_are_ln_k():
    """With 20 clean ids, ln 20 per token under both processes (closed form of docs/method.md#duo-nelbo)."""
    denoiser = TIMED.module(ROLE, 0)
    x = IDS[:1].expand(64, L)
    u = (torch.arange(64).double() + 0.5) / 64
    for process, tolerance in ((Absorbing(), 1e-7), (Uniform(alpha_end=1e-3, eps=1e-3), 0.1)):
        keys = torch.arange(64)
        where = torch.ones_like(x, dtype=torch.bool)
        found = process.bound(
            lambda ids, t: Prediction(denoiser, ids, t, Mask()), x, where, WORDS.vocabulary(), u, keys
        )
        assert found.mean().item() / L == pytest.approx(math.log(20), rel=tolerance)


def test_weights_start_as_the_authors_do():
    """U(-1/sqrt n, 1/sqrt n) for matrices, their biases and the embedding; zeros in modulations and head."""
    denoiser = TIMED.module(ROLE, 0)
    for name, parameter in denoiser.named_parameters():
        if "modulation" in name or name.startswith("output."):
            assert (parameter == 0).all(), name
        elif "norm" in name:
            assert (parameter == 1).all(), name
        else:
            inputs = dict(denoiser.named_parameters())[name.rsplit(".", 1)[0] + ".weight"].shape[1]
            edge = inputs**-0.5
            assert edge * 0.8 < parameter.abs().max() <= edge, name
    other = dict(TIMED.module(ROLE, 1).named_parameters())
    assert not torch.equal(other["blocks.0.qkv.weight"], denoiser.blocks[0].qkv.weight)


# --- blocks and caches ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name, size, step", [("untimed", 4, 4), ("timed", 4, 4), ("causal", None, 1)])
def test_cached_forwards_give_the_logits_of_one_forward(name, size, step):
    """Block by block under Mask(block), with and without time (docs/method.md#oracle-28)."""
    denoiser = warm(NETWORKS[name])
    t = torch.linspace(0.9, 0.1, L).expand(2, L) if name == "timed" else None
    whole = logits(denoiser, IDS, Mask(block=size), t=t)
    kv_cache, found = KVCache(2, L), []
    kv_cache.rows = None
    for start in range(0, L, step):
        kv_cache.span = slice(start, start + step)
        some = None if t is None else t[:, kv_cache.span]
        found.append(logits(denoiser, IDS[:, kv_cache.span], Mask(block=size), t=some, kv_cache=kv_cache))
    close(torch.cat(found, 1), whole)
    moved = IDS.clone()
    moved[:, 0] = (moved[:, 0] + 1) % 20
    kv_cache.span = slice(L - step, L)
    more = {"t": None if t is None else t[:, kv_cache.span], "kv_cache": kv_cache}
    stale = logits(denoiser, IDS[:, kv_cache.span], Mask(block=size), **more)
    assert not torch.allclose(
        stale, logits(denoiser, moved, Mask(block=size), t=t)[:, kv_cache.span], atol=1e-3
    )


# --- counts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_sizes_are_the_networks(name):
    pins = NETWORKS[name]
    assert pins.size(WORDS).parameters == sum(p.numel() for p in pins.module(ROLE, 0).parameters())


def test_the_published_size():
    """Duo's small DiT on OpenWebText: about 170 M parameters (docs/method.md#duo-hyperparameters), 284.8 MFLOP a
    token (docs/method.md#cost-model)."""
    pins = Dit(
        layers=12,
        width=768,
        heads=12,
        ffn=3072,
        condition=128,
        frequencies=256,
        alpha_end=1e-3,
        rope_base=10_000.0,
        norm_eps=1e-5,
    )
    data = Words(size=50_256, length=1024)
    size = pins.size(data)
    assert round(size.parameters / 1e6) == 170
    flops = size.body_flops + pins.attention_flops(data) + size.head_flops
    assert flops == pytest.approx(284.8e6, rel=1e-3) and round(100 * size.head_flops / flops) == 27


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"heads": 5}, "heads of an even width"),
        ({"alpha_end": 0.0}, "no finite sigma"),
        ({"frequencies": 3}, "even number"),
    ],
)
def test_invalid_pins_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Dit(**{**SHAPE, "condition": 24, "frequencies": 256, "alpha_end": None, **wrong})
