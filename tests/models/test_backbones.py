"""Networks under the denoiser contract are transformers' own: the same weights give the same logits to 1e-5.

Rows of unequal length are padded on the left (prompts) or on the right (training rows).
"""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForMaskedLM, LlamaForCausalLM, ModernBertForMaskedLM

from repro import checkpoint as checkpoint_command
from repro.core import registry
from repro.data.chat import Chat
from repro.data.corpus import Vocabulary
from repro.models.attention import KVCache, Mask, View
from repro.models.denoiser import Soft, initialise
from repro.models.dit import Dit, DitCausal
from repro.models.llama import Llama, Qwen2
from repro.models.modernbert import ModernBert
from repro.processes.prediction import Role
from repro.recipes.command import select
from repro.recipes.scale import by_name
from repro.training import checkpoint as checkpoints
from repro.training.recipe import Recipe

V, PAD, L = 40, 38, 24
LLAMA = Llama(
    layers=3,
    width=32,
    heads=4,
    kv_heads=2,
    ffn=48,
    attention="causal",
    rope_base=10_000.0,
    norm_eps=1e-5,
    learned_positions=0,
    tied=False,
    init_deviation=0.2,
)
MODERNBERT = ModernBert(
    layers=4,
    width=32,
    heads=4,
    ffn=48,
    global_every=3,
    window=8,
    rope_base_global=160_000.0,
    rope_base_local=10_000.0,
    norm_eps=1e-5,
    max_positions=64,
    attend_pads=False,
    init_deviation=0.2,
    weights=None,
    revision=None,
)
CAUSAL, BOTH = LLAMA, dataclasses.replace(LLAMA, attention="bidirectional")
NETWORKS = {"causal": CAUSAL, "bidirectional": BOTH, "modernbert": MODERNBERT}
DIT_CAUSAL = DitCausal(layers=3, width=32, heads=4, ffn=64, rope_base=10_000.0, norm_eps=1e-5)
DIT = Dit(
    layers=3,
    width=32,
    heads=4,
    ffn=64,
    condition=16,
    frequencies=32,
    alpha_end=None,
    rope_base=10_000.0,
    norm_eps=1e-5,
)
QWEN2 = Qwen2(
    **{name: getattr(LLAMA, name) for name in ("layers", "width", "heads", "kv_heads", "ffn", "attention")},
    rope_base=10_000.0,
    norm_eps=1e-5,
    tied=False,
    init_deviation=0.2,
)
BOTH_QWEN2 = dataclasses.replace(QWEN2, attention="bidirectional")
NETWORKS |= {"qwen2": QWEN2, "qwen2 both ways": BOTH_QWEN2}
ALL = {**NETWORKS, "dit": DIT, "dit causal": DIT_CAUSAL}


class Tokens(Chat):
    """Chat rows whose vocabulary is small enough for a toy network."""

    def vocabulary(self) -> Vocabulary:
        return Vocabulary(size=V - 3, total=V, mask=37, bos=36, eos=35, pad=PAD)

    def row_length(self) -> int:
        return L


CHAT = by_name("mdlm").data
DATA = Tokens(**{field.name: getattr(CHAT, field.name) for field in dataclasses.fields(CHAT)})
ROLE = Role(DATA, (37, PAD), "x0_mean")


def network(pins):
    denoiser = pins.module(ROLE, 0).eval()
    if isinstance(pins, Dit | DitCausal):
        initialise(denoiser, 0, 0.2)  # its modulations and its head start at zero
    return denoiser


def stock(denoiser, kernel: str):
    """transformers' own network with the same weights, its own masks and its own attention."""
    inner = denoiser.network
    config = type(inner.config).from_dict(inner.config.to_dict())
    config._attn_implementation = kernel
    fresh = type(inner)(config)
    fresh.load_state_dict(inner.state_dict())
    return fresh.eval()


def rows(pad: tuple[int, ...], side: str):
    """Ids [B, L] and a bool [B, L] that is False on padding."""
    ids = torch.randint(0, 35, (len(pad), L), generator=torch.Generator().manual_seed(1))
    place = torch.arange(L)
    real = torch.stack([place >= n if side == "left" else place < L - n for n in pad])
    return ids.masked_fill(~real, PAD), real


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def logits(denoiser, ids, mask=None, **more):
    with torch.no_grad():
        features = denoiser.encode(ids, t=None, attention=mask or Mask(), **more)
        return denoiser.head().logits(features)


# --- the same network -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
@pytest.mark.parametrize("name", NETWORKS)
def test_logits_are_transformers_own(name, kernel):
    """Without padding; L = 24 is three windows of ModernBERT's local layers."""
    denoiser = network(NETWORKS[name])
    ids, _ = rows((0, 0), "left")
    with torch.no_grad():
        close(logits(denoiser, ids), stock(denoiser, kernel)(ids).logits)


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pins", [CAUSAL, BOTH], ids=["causal", "bidirectional"])
def test_llama_masks_are_their_4d_masks(pins, side, kernel):
    """Our Mask against an explicit mask [B, 1, Q, K]; positions count from a row's own start."""
    denoiser = network(pins)
    ids, real = rows((0, 7, 15), side)
    positions = (real.long().cumsum(-1) - 1).clamp_min(0)
    seen = real[:, None, None, :] & (
        torch.ones(L, L).tril().bool() if pins.attention == "causal" else torch.ones(L, L).bool()
    )
    seen = seen | torch.eye(L, dtype=torch.bool)  # padding sees itself: no row of the softmax may be empty
    additive = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
    ours = logits(denoiser, ids, Mask(real), positions=positions)
    with torch.no_grad():
        theirs = stock(denoiser, kernel)(ids, attention_mask=additive, position_ids=positions).logits
    close(ours[real], theirs[real])


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_modernbert_masks_are_its_2d_masks(side, kernel):
    """Local windows and padding together, against transformers' own construction of both."""
    denoiser = network(MODERNBERT)
    ids, real = rows((0, 7, 15), side)
    ours = logits(denoiser, ids, Mask(real))
    with torch.no_grad():
        close(ours[real], stock(denoiser, kernel)(ids, attention_mask=real.long()).logits[real])


def test_a_local_layer_sees_half_a_window_to_each_side():
    """window = 8: the output at position 12 of a local layer depends on keys 8..16 only."""
    local = dataclasses.replace(MODERNBERT, layers=2, global_every=2, window=8)
    denoiser = network(local)
    ids, _ = rows((0,), "left")
    layer = denoiser.network.model.layers[1]
    assert layer.attention_type == "sliding_attention"
    hidden = denoiser.network.model.embeddings(input_ids=ids).detach().requires_grad_()
    angles = denoiser.network.model.rotary_emb(hidden, torch.arange(L)[None], "sliding_attention")
    view = View(Mask(), torch.arange(L)[None], None)
    out = layer(hidden, attention_mask=None, position_embeddings=angles, view=view)
    out[0, 12].sum().backward()
    moved = hidden.grad[0].abs().sum(-1).nonzero()[:, 0].tolist()
    assert moved == list(range(8, 17))


def test_a_causal_network_does_not_look_ahead_and_a_bidirectional_one_does():
    ids, _ = rows((0,), "left")
    other = ids.clone()
    other[0, 12] = (ids[0, 12] + 1) % 35
    for pins, ahead in (
        (CAUSAL, False),
        (BOTH, True),
        (MODERNBERT, True),
        (DIT_CAUSAL, False),
        (DIT, True),
        (BOTH_QWEN2, True),
    ):
        denoiser = network(pins)
        before, after = logits(denoiser, ids)[0], logits(denoiser, other)[0]
        assert torch.equal(before[:12], after[:12]) != ahead
        assert not torch.equal(before[12:], after[12:])


def test_blocks_see_their_own_block_and_those_before():
    """Mask(block=6) is causal between blocks of 6 and bidirectional within."""
    denoiser = network(BOTH)
    ids, _ = rows((0,), "left")
    other = ids.clone()
    other[0, 14] = (ids[0, 14] + 1) % 35
    before, after = (logits(denoiser, x, Mask(block=6))[0] for x in (ids, other))
    same = (before == after).all(-1)
    assert same[:12].all() and not same[12:].any()


# --- padding --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ALL)
def test_the_ids_of_padding_do_not_matter(name, side):
    denoiser = network(ALL[name])
    ids, real = rows((0, 7, 15), side)
    other = torch.where(real, ids, 3)
    ours, theirs = (logits(denoiser, x, Mask(real)) for x in (ids, other))
    assert torch.equal(ours[real], theirs[real])


def test_attend_pads_makes_padding_visible():
    """As without a mask: the masked reference script passes none (docs/method.md#masked-script)."""
    denoiser = network(dataclasses.replace(MODERNBERT, attend_pads=True))
    ids, real = rows((0, 7, 15), "right")
    other = torch.where(real, ids, 3)
    ours, theirs = (logits(denoiser, x, Mask(real)) for x in (ids, other))
    assert torch.equal(ours, logits(denoiser, ids))
    moved = (ours - theirs).abs().amax(-1)
    assert (moved[0] == 0).all() and (moved[1:][real[1:]] > 0).all()


@pytest.mark.parametrize("name", ALL)
def test_a_row_does_not_depend_on_other_rows(name):
    """Left-padded in a batch, a row has the logits that it has alone (1e-5)."""
    denoiser = network(ALL[name])
    ids, real = rows((0, 9), "left")
    positions = (real.long().cumsum(-1) - 1).clamp_min(0)
    together = logits(denoiser, ids, Mask(real), positions=positions)[1, 9:]
    close(together, logits(denoiser, ids[1:, 9:])[0])


# --- contract -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_soft_tokens_that_are_one_hot_are_tokens(name):
    """All V weights in order, or K = 3 ids with weights (1, 0, 0)."""
    denoiser = network(ALL[name])
    ids, _ = rows((0, 0), "left")
    dense = Soft(None, torch.nn.functional.one_hot(ids, V).float())
    sparse = Soft(torch.stack([ids, ids * 0, ids * 0 + 5], -1), torch.tensor([1.0, 0.0, 0.0]).expand(2, L, 3))
    for soft in (dense, sparse):
        close(logits(denoiser, soft), logits(denoiser, ids))


def test_soft_tokens_are_mean_embeddings_and_carry_gradient():
    denoiser = network(BOTH)
    table = denoiser.network.model.embed_tokens.weight
    weights = torch.rand(1, L, V - 3, generator=torch.Generator().manual_seed(0)).softmax(-1).requires_grad_()
    features = denoiser.encode(Soft(None, weights), t=None, attention=Mask())
    inner = denoiser.network.model(
        inputs_embeds=weights @ table[: V - 3],
        use_cache=False,
        position_ids=torch.arange(L)[None],
        view=View(Mask(), torch.arange(L)[None], None),
    )
    close(features, inner.last_hidden_state)
    features.square().sum().backward()
    assert weights.grad.abs().sum() > 0 and table.grad[: V - 3].abs().sum() > 0
    assert (table.grad[V - 3 :] == 0).all(), "ids beyond the weights have no gradient"


@pytest.mark.parametrize("name", ALL)
def test_forbidden_ids_have_no_probability(name):
    denoiser = network(ALL[name])
    ids, _ = rows((0,), "left")
    with torch.no_grad():
        features = denoiser.encode(ids, t=None, attention=Mask())
        p = denoiser.logits(features).softmax(-1)
    assert (p[..., [37, PAD]] == 0).all() and (p.sum(-1) - 1).abs().max() < 1e-5


def test_the_head_gives_the_same_logits_for_few_and_many_rows():
    """Bitwise, although a matrix product of few rows would use another kernel (docs/method.md#exactness)."""
    denoiser = network(BOTH)
    features = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
    head = denoiser.head()
    with torch.no_grad():
        whole = head.logits(features)
        for count in (1, 3, 16, 17):
            assert torch.equal(head.logits(features[:count]), whole[:count])


@pytest.mark.parametrize("pad", [(0, 0), (0, 9)])
@pytest.mark.parametrize("pins", [CAUSAL, DIT_CAUSAL], ids=["llama", "dit"])
def test_cached_forwards_give_the_logits_of_one_forward(pins, pad):
    """One token or five tokens at a time (1e-5)."""
    denoiser = network(pins)
    ids, real = rows(pad, "left")
    positions = (real.long().cumsum(-1) - 1).clamp_min(0)
    whole = logits(denoiser, ids, Mask(real), positions=positions)
    for step in (1, 5):
        kv_cache, found = KVCache(2, L), []
        kv_cache.rows = None
        for start in range(0, L, step):
            at = torch.arange(start, min(start + step, L))
            kv_cache.span = slice(start, start + len(at))
            more = {"positions": positions[:, at], "kv_cache": kv_cache}
            found.append(logits(denoiser, ids[:, at], Mask(real), **more))
        close(torch.cat(found, 1)[real], whole[real])


def test_initial_weights_depend_only_on_seed_and_name():
    """Not on the number of layers: the first layer of a deeper network starts with the same weights."""
    small, deep = network(BOTH), network(dataclasses.replace(BOTH, layers=5))
    name = "network.model.layers.0.mlp.up_proj.weight"
    weight = dict(small.named_parameters())[name]
    assert torch.equal(weight, dict(deep.named_parameters())[name])
    assert not torch.equal(weight, dict(BOTH.module(ROLE, 1).named_parameters())[name])
    assert weight.std().item() == pytest.approx(0.2, rel=0.05) and abs(weight.mean().item()) < 0.02


# --- counts ---------------------------------------------------------------------------------------------


def count(module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    "pins",
    [
        CAUSAL,
        dataclasses.replace(CAUSAL, tied=True, layers=1),
        dataclasses.replace(BOTH, learned_positions=L, kv_heads=4),
        MODERNBERT,
        dataclasses.replace(MODERNBERT, layers=1),
        QWEN2,
    ],
    ids=["grouped queries", "tied", "learned positions", "modernbert", "one layer", "qwen2"],
)
def test_sizes_are_those_of_the_networks(pins):
    assert pins.size(DATA).parameters == count(network(pins))


SIZES = {  # docs/method.md#masked-script: ModernBERT-large has 395.9 M parameters, AR as many to .1 %
    **dict.fromkeys(("llada", "duo", "duo_script", "duo_nelbo", "mdlm", "ar"), 395.9e6),
    "llada_pretrain": 8.02e9,  # docs/method.md#llada-pretraining
    "llada_sft": 8.02e9,
    "mdlm_owt": 169.6e6,  # docs/method.md#duo-hyperparameters: about 170 M
    "duo_owt": 169.6e6,
    "duo_owt_distilled": 169.6e6,
    "ar_owt": 162.2e6,
    "mdlm_lm1b": 139.3e6,
    "duo_lm1b": 139.3e6,
    "ar_lm1b": 131.9e6,
}


@pytest.mark.parametrize("name", registry.RECIPES)
def test_sizes_of_the_full_recipes_are_exact(name):
    """On the meta device."""
    recipe = by_name(name)
    with torch.device("meta"):
        module = recipe.backbone.blank().module(Role(recipe.data, (), "x0_mean"), 0)
    assert recipe.backbone.size(recipe.data).parameters == count(module)


@pytest.mark.parametrize("name", SIZES)
def test_sizes_of_the_full_recipes_are_published(name):
    recipe = by_name(name)
    assert math.isclose(recipe.backbone.size(recipe.data).parameters, SIZES[name], rel_tol=1e-3)


def test_modernbert_has_the_layers_of_the_method_document():
    """12,255,232 parameters a layer and its two norms (docs/method.md#masked-script)."""
    recipe = by_name("mdlm")
    large, fewer = (dataclasses.replace(recipe.backbone, layers=n).size(recipe.data) for n in (28, 27))
    assert large.parameters - fewer.parameters == 12_255_232 + 2 * 1024
    assert round(large.parameters / 1e5) == 3959


# --- export ---------------------------------------------------------------------------------------------


def written(pins, tmp_path: Path) -> tuple[Path, Recipe]:
    """A checkpoint of an untrained network of these pins."""
    recipe = select(by_name("mdlm"), "nano", [])
    recipe = dataclasses.replace(recipe, backbone=pins)
    weights = dict(recipe.network(0).named_parameters())
    files = {"model.safetensors": weights, "optimizer.safetensors": {}}
    checkpoints.save(tmp_path / "run", recipe, 0, 1, "0" * 64, {}, files)
    return tmp_path / "run", recipe


@pytest.mark.parametrize(
    "pins, theirs",
    [
        (CAUSAL, LlamaForCausalLM),
        (dataclasses.replace(CAUSAL, tied=True), LlamaForCausalLM),
        (BOTH, LlamaForCausalLM),
        (MODERNBERT, AutoModelForMaskedLM),
    ],
    ids=["causal", "tied", "bidirectional", "modernbert"],
)
def test_transformers_loads_what_is_exported(pins, theirs, tmp_path, capsys):
    """transformers' own class, configuration and attention give our logits."""
    run, recipe = written(pins, tmp_path)
    assert checkpoint_command.main(["export", str(run), "--hf", str(tmp_path / "hf")]) == 0
    # transformers imports DeepSpeed where it is installed, and that logs to stdout
    assert f"wrote the raw weights to {tmp_path / 'hf'}\n" in capsys.readouterr().out
    loaded = theirs.from_pretrained(tmp_path / "hf").eval()
    ids = torch.randint(0, 32, (2, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        close(logits(recipe.network(0).eval(), ids), loaded(ids).logits)
    if isinstance(pins, ModernBert):
        assert isinstance(loaded, ModernBertForMaskedLM)
