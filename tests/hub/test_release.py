"""Folders of released weights give the logits of their authors' networks, written out or by transformers.

Tiny random weights are written as the authors do: LLaDA, Dream and the DiTs under the names of
tests/helpers/literal.py; Llama, Qwen2, ModernBERT and DiffusionGemma by transformers.
"""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from helpers import literal, lm_worlds, released, tiny_tokenizer
from helpers.released import (
    DIT,
    GEMMA,
    IDS,
    LIKE_LLAMA,
    LLADA,
    SIGMA,
    SIZES,
    SPECIAL,
    V,
    bd3,
    diffusion_gemma,
    dream,
    duo,
    llada,
    mdlm,
    sharded,
    written,
)
from helpers.spaces import Words
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from benchmarks import loading
from repro import load, sample
from repro.data import sources
from repro.evals.__main__ import main as evals
from repro.hub import quantise
from repro.hub.release import network, open_release
from repro.models.attention import Copies, KVCache, Mask
from repro.processes.blocks import BlockAbsorbing
from repro.results.record import read_record

IDS_OF = {"cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3}


tokenizer = released.tokenizer  # a fixture


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path / "runs"))


def logits(folder, t=None):
    denoiser = network(open_release(folder))
    with torch.no_grad():
        return denoiser.head().logits(denoiser.encode(IDS, t=t, attention=Mask()))


def close(ours, theirs):
    assert theirs.std() > 0.01
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


# --- the same logits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("conditional", [False, True])
def test_mdlm(conditional, tmp_path, tokenizer):
    folder, weights = mdlm(tmp_path / "mdlm owt", tokenizer, conditional)
    t = (1 - torch.exp(-SIGMA)) / (1 - 1e-3)
    sigma = SIGMA if conditional else torch.zeros(2)
    close(logits(folder, t if conditional else None), literal.dit(weights, IDS, 4, sigma))
    released = open_release(folder).release
    assert released.data.vocabulary().mask == V == released.data.vocabulary().size
    assert released.role().forbidden == (V, V)


def test_duo(tmp_path, tokenizer):
    folder, weights = duo(tmp_path / "duo", tokenizer)
    t = (1 - torch.exp(-SIGMA)) / (1 - 1e-3)
    close(logits(folder, t), literal.dit(weights, IDS, 4, SIGMA))
    released = open_release(folder).release
    assert released.meaning == "leave_one_out" and released.role().forbidden == ()


@pytest.mark.parametrize(
    "write, field, value, line",
    [
        (duo, "time_conditioning", False, "time_conditioning is False; only True is supported for Duo's DiT"),
        (mdlm, "causal", True, "causal is True; only False is supported for MDLM's DiT"),
    ],
)
def test_an_unsupported_dit(write, field, value, line, tmp_path, tokenizer):
    folder, _ = write(tmp_path / "dit", tokenizer)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), field: value}), "utf-8")
    with pytest.raises(ValueError, match=line):
        open_release(folder)


@pytest.mark.parametrize("adaln", [True, False])
def test_bd3(adaln, tmp_path, tokenizer):
    folder, weights = bd3(tmp_path / "bd3", tokenizer, adaln)
    opened = open_release(folder)
    assert opened.layout.name == "BD3-LM's DiT" and opened.release.role().forbidden == (V, V)
    assert opened.release.process == BlockAbsorbing(block=4)
    noisy = IDS.masked_fill(IDS % 2 == 0, V)
    with torch.no_grad():
        denoiser = network(opened)
        both = denoiser.encode(torch.cat([noisy, IDS], 1), t=None, attention=Copies(block=4))
        close(
            denoiser.head().logits(both)[:, : IDS.shape[1]],
            literal.bd3(weights, noisy, IDS, 4, 4, modulated=adaln),
        )
    assert {"sampling_eps_min", "sampling_eps_max"} <= {e.name for e in opened.tensors if e.ours is None}


def test_bd3_without_blocks(tmp_path, tokenizer):
    """The MDLM baseline that BD3-LM's authors released in the same layout."""
    folder, weights = bd3(tmp_path / "whole", tokenizer, cross=False)
    close(logits(folder), literal.dit(weights, IDS, 4, torch.zeros(2)))


@pytest.mark.parametrize("kind", ["duo", "bd3lm"])
def test_a_causal_dit(kind, tmp_path, tokenizer):
    """Left to right; BOS and EOS come from tokenizer_config.json, because config.json has none."""
    if kind == "bd3lm":
        folder, weights = bd3(tmp_path / "ar", tokenizer, adaln=False, cross=False, causal=True)
    else:
        weights = literal.dit_weights(2, 32, 0, V + 1)
        config = {**DIT, "model_type": "DUO", "vocab_size": V + 1, "causal": True}
        folder = written(tmp_path / "ar", tokenizer, config, weights)
    (folder / "tokenizer_config.json").write_text(json.dumps(SPECIAL), "utf-8")
    close(logits(folder), literal.dit(weights, IDS, 4, None))
    model = load(folder)
    vocabulary = model.data.vocabulary()
    assert (vocabulary.bos, vocabulary.eos) == (tiny_tokenizer.CLS, tiny_tokenizer.SEP)
    (text,) = sample(model, ["What is"], gen_length=4)
    assert "[MASK]" not in text


def test_llada(tmp_path, tokenizer):
    folder, weights = llada(tmp_path / "llada", tokenizer)
    close(logits(folder), literal.llada(weights, IDS, 2, 4, 500_000.0, 1e-5))
    assert open_release(folder).release.role().forbidden == (tiny_tokenizer.MASK,)


@pytest.mark.parametrize("full", [None, True, False])
def test_llada_rotates_in_float32(full, tmp_path, tokenizer):
    """With weights in bfloat16, cached keys are those rotated in float32 and then rounded, unless rope_full_precision
    is false; the rotation alone is right at all columns in float32."""
    more = {} if full is None else {"rope_full_precision": full}
    opened = open_release(llada(tmp_path / "llada", tokenizer, **more)[0])
    denoiser = network(opened, torch.bfloat16)
    seen = []
    first = denoiser.network.model.layers[0].self_attn
    first.k_proj.register_forward_hook(lambda module, given, out: seen.append(out))
    ids = torch.arange(60)[None] % tiny_tokenizer.MASK
    cache = KVCache(1, 60)
    cache.span, cache.rows = slice(0, 60), None
    with torch.no_grad():
        denoiser.encode(ids, t=None, attention=Mask(None, None), kv_cache=cache)
    key = seen[0].unflatten(-1, (-1, first.head_dim)).transpose(1, 2)
    angles = torch.arange(60)[:, None] / 500_000.0 ** (torch.arange(0, first.head_dim, 2) / first.head_dim)
    cosine, sine = angles.cos().repeat(1, 2), angles.sin().repeat(1, 2)
    kind = torch.bfloat16 if full is False else torch.float32
    cosine, sine, wide = cosine.to(kind), sine.to(kind), key.to(kind)
    half = first.head_dim // 2
    turned = torch.cat([-wide[..., half:], wide[..., :half]], -1)
    assert torch.equal(cache.layers[0][0], (wide * cosine + turned * sine).to(torch.bfloat16))


def test_dream(tmp_path, tokenizer):
    folder, weights = dream(tmp_path / "dream", tokenizer)
    close(logits(folder), literal.dream(weights, IDS, 2, 4, 1e6, 1e-6))


@pytest.mark.parametrize("bare", [True, False])
def test_gpt2(bare, tmp_path, tokenizer):
    """Both spellings (the Hub's file has no prefix, but the causal mask); decoding with a KV cache gives the same
    ids."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=V, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=2
    )
    theirs = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.2)
    folder = tmp_path / "gpt2"
    if bare:
        weights = {name: tensor.clone() for name, tensor in theirs.transformer.state_dict().items()}
        weights |= {f"h.{i}.attn.bias": torch.ones(1, 1, 64, 64).tril() for i in range(2)}
        written(folder, tokenizer, config.to_dict(), weights)
    else:
        theirs.save_pretrained(folder)
        shutil.copy(tokenizer, folder)
    with torch.no_grad():
        close(logits(folder), theirs(IDS).logits)
    model = load(folder)
    size = model.recipe.backbone.size(model.data)
    assert size.parameters == sum(p.numel() for p in theirs.parameters())
    prompt = model.data.decode([7, 8, 9])
    (text,) = sample(model, [prompt], gen_length=6)
    row = torch.tensor([[1, *model.data.encode(prompt)]])
    with torch.no_grad():
        for _ in range(6):
            row = torch.cat([row, theirs(row).logits[:, -1:].argmax(-1)], 1)
    assert text == model.data.decode(row[0, -6:].tolist())


MODERNBERT = {
    **{
        **SIZES,
        "num_hidden_layers": 4,
        "intermediate_size": 48,
        "model_type": "modernbert",
        "norm_eps": 1e-5,
    },
    **{
        "global_attn_every_n_layers": 3,
        "local_attention": 6,
        "max_position_embeddings": 64,
        "pad_token_id": 3,
    },
    **{"global_rope_theta": 160_000.0, "local_rope_theta": 10_000.0},
}


def test_modernbert(tmp_path, tokenizer):
    """Two global layers, two with a window of three tokens to each side; other windows, periods and bases differ."""
    weights = literal.modernbert_weights(4, 32, 48, V)
    folder = written(tmp_path / "modernbert", tokenizer, MODERNBERT, weights)
    ours = logits(folder)
    close(ours, literal.modernbert(weights, IDS, 4, 4, 3, 6, (160_000.0, 10_000.0)))
    for every, window, bases in (
        (3, 8, (160_000.0, 10_000.0)),
        (2, 6, (160_000.0, 10_000.0)),
        (3, 6, (1e4, 1e4)),
    ):
        assert (ours - literal.modernbert(weights, IDS, 4, 4, every, window, bases)).abs().max() > 1e-3


def test_wrong_readings_of_a_layout_give_other_logits(tmp_path, tokenizer):
    """Without the shift, with swapped gates, with another rotation base, with time conditioning."""
    folder, weights = dream(tmp_path / "dream", tokenizer)
    ours = logits(folder)
    unshifted = literal.dream(weights, torch.cat([IDS[:, 1:], IDS[:, :1]], 1), 2, 4, 1e6, 1e-6)
    assert (ours - unshifted).abs().max() > 0.1
    folder, weights = llada(tmp_path / "llada", tokenizer)
    ours = logits(folder)
    swapped = {
        name.replace("ff_proj", "x").replace("up_proj", "ff_proj").replace("x", "up_proj"): tensor
        for name, tensor in weights.items()
    }
    assert (ours - literal.llada(swapped, IDS, 2, 4, 500_000.0, 1e-5)).abs().max() > 0.1
    assert (ours - literal.llada(weights, IDS, 2, 4, 10_000.0, 1e-5)).abs().max() > 1e-3
    folder, weights = mdlm(tmp_path / "mdlm", tokenizer)
    assert (logits(folder) - literal.dit(weights, IDS, 4, SIGMA)).abs().max() > 1e-3


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("name", ["llama", "qwen2", "modernbert"])
def test_what_transformers_writes(name, tied, tmp_path, tokenizer):
    """Network, configuration and file are transformers'; ModernBERT is always tied."""
    torch.manual_seed(0)
    if name == "modernbert":
        theirs = ModernBertForMaskedLM(ModernBertConfig(**SIZES, **IDS_OF, intermediate_size=48))
    else:
        config, kind = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen2": (Qwen2Config, Qwen2ForCausalLM)}[
            name
        ]
        theirs = kind(config(**LIKE_LLAMA, tie_word_embeddings=tied, rope_theta=50_000.0))
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.2)
    theirs.eval().save_pretrained(tmp_path / name)
    shutil.copy(tokenizer, tmp_path / name)
    with torch.no_grad():
        close(logits(tmp_path / name), theirs(IDS).logits)


def test_diffusion_gemma(tmp_path, tokenizer):
    """Logits of a canvas after a prompt equal transformers'; what encoder and decoder do not share is read too."""
    folder, theirs = diffusion_gemma(tmp_path / "gemma", tokenizer)
    opened = open_release(folder)
    denoiser, ids = network(opened), torch.cat([IDS, IDS.flip(1)], 1)[:, :20]
    t = torch.ones(2, 20).masked_fill(torch.arange(20) < 12, 0.0)
    with torch.no_grad():
        ours = denoiser.logits(denoiser.encode(ids, t=t, attention=Mask()))[:, 12:]
        close(ours, theirs(input_ids=ids[:, :12], decoder_input_ids=ids[:, 12:]).logits)
        scalar = theirs.model.encoder.language_model.layers[1].layer_scalar
        scalar.add_(0.5)  # a buffer that the decoder does not share
        other = theirs(input_ids=ids[:, :12], decoder_input_ids=ids[:, 12:]).logits
    assert (ours - other).abs().max() > 1e-3
    ignored = {entry.reason for entry in opened.tensors if entry.ours is None}
    assert ignored == {"images: this suite reads text only"}


def test_flops_of_local_attention_end_at_the_window():
    """Beyond canvas and window, a longer row adds keys to the global layers of DiffusionGemma only."""
    full = GEMMA.window + GEMMA.canvas
    short, long, longer = (GEMMA.attention_flops(Words(size=V, length=n)) for n in (full, 2 * full, 3 * full))
    layers = GEMMA.layers // GEMMA.global_every
    assert long - short == longer - long == 4 * GEMMA.heads * GEMMA.global_head_width * layers * full
    local = (GEMMA.layers - layers) * GEMMA.head_width
    assert short - (long - short) == 4 * GEMMA.heads * local * full


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("layer_types", ["full_attention"] * 2 + ["sliding_attention"] * 2, "layer_types are not periodic"),
        ("num_experts", None, "num_experts is None; only layers with experts"),
        ("final_logit_softcapping", ..., "lacks 'final_logit_softcapping'"),
        ("tie_word_embeddings", False, "tie_word_embeddings is False"),
    ],
)
def test_an_unsupported_gemma(field, value, message, tmp_path, tokenizer):
    folder, _ = diffusion_gemma(tmp_path / "gemma", tokenizer)
    path = folder / "config.json"
    config = json.loads(path.read_text("utf-8"))
    config.pop("tie_word_embeddings")
    if value is ...:
        del config["text_config"][field]
    else:
        config["text_config"][field] = value
    path.write_text(json.dumps(config), "utf-8")
    with pytest.raises(ValueError, match=message):
        open_release(folder)


def test_half_precision_is_read_as_float32(tmp_path, tokenizer):
    folder, weights = llada(tmp_path / "a", tokenizer)
    half = {name: tensor.bfloat16() for name, tensor in weights.items()}
    other = written(tmp_path / "b", tokenizer, LLADA, half)
    found = network(open_release(other))
    assert {parameter.dtype for parameter in found.parameters()} == {torch.float32}
    back = {name: tensor.float() for name, tensor in half.items()}
    close(logits(other), literal.llada(back, IDS, 2, 4, 500_000.0, 1e-5))
    assert open_release(folder).digest() != open_release(other).digest()


def test_weights_that_are_not_finite_are_refused(tmp_path, tokenizer):
    """A network of such weights would write texts as any other."""
    _, weights = llada(tmp_path / "a", tokenizer)
    for number, value in enumerate((float("nan"), float("inf"), -float("inf"))):
        name = "model.transformer.blocks.1.q_proj.weight"
        weights[name][3, 4] = value
        folder = written(tmp_path / str(number), tokenizer, LLADA, weights)
        with pytest.raises(
            ValueError, match=rf"{name}' holds NaN or infinite weights; copy the file from its source again"
        ):
            network(open_release(folder))


def test_weights_in_bfloat16(tmp_path, tokenizer, capsys):
    """Logits within a tenth of their deviation, and the record says so; our own checkpoints stay in float32."""
    folder, weights = llada(tmp_path / "a", tokenizer)
    found = network(open_release(folder), torch.bfloat16)
    assert {parameter.dtype for parameter in found.parameters()} == {torch.bfloat16}
    with torch.no_grad():
        rough = found.head().logits(found.encode(IDS, t=None, attention=Mask())).float()
    exact = literal.llada(weights, IDS, 2, 4, 500_000.0, 1e-5)
    assert 0 < (rough - exact).abs().mean() < 0.1 * exact.std()
    chosen = str(lm_worlds.tasks(tmp_path, rows=1)["writing"])
    flags = ["--samplers", "low_confidence", "--tokens-per-step", "all", "--json", "--precision", "bfloat16"]
    assert evals(["--ckpt", str(folder), "--tasks", chosen, *flags]) == 0
    (record,) = map(read_record, json.loads(capsys.readouterr().out)["records"])
    assert record.question.protocol["weights_precision"] == "bfloat16"
    assert record.measurements.numerics.dtype == "bfloat16"
    with pytest.raises(ValueError, match="a checkpoint of ours, in float32"):
        load(tmp_path, precision="bfloat16")


def test_eight_bits_need_an_extra(tmp_path, tokenizer, monkeypatch):
    folder, _ = llada(tmp_path / "a", tokenizer)
    monkeypatch.setattr(quantise, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs torchao, which is not installed: pip install 'dlm-repro\[q"):
        load(folder, precision="int8")


@pytest.mark.parametrize("write", ["llada", "dream", "duo"])
def test_weights_in_eight_bits(write, tmp_path, tokenizer):
    """Logits near the float32 ones and not equal; only where the extra is installed."""
    pytest.importorskip("torchao")
    folder, _ = globals()[write](tmp_path / "a", tokenizer)
    found, t = [], torch.full((2,), 0.5) if write == "duo" else None
    for precision in ("float32", "int8"):
        model = load(folder, precision=precision)
        assert model.precision == precision
        with torch.no_grad():
            features = model.denoiser.encode(IDS, t=t, attention=Mask())
            found.append(model.denoiser.raw_logits(features).float())
    exact, rough = found
    assert 0 < (rough - exact).abs().mean() < 0.1 * exact.std()


def test_a_tied_folder_that_stores_its_head_too(tmp_path, tokenizer):
    """The stored head is compared with the embedding; a different one is an error."""
    torch.manual_seed(0)
    theirs = LlamaForCausalLM(LlamaConfig(**LIKE_LLAMA, tie_word_embeddings=True)).eval()
    weights = {name: tensor.clone() for name, tensor in theirs.state_dict().items()}
    config = json.loads(theirs.config.to_json_string(use_diff=False))
    folder = written(tmp_path / "tied", tokenizer, config, weights)
    entries = {entry.name: entry.reason for entry in open_release(folder).tensors}
    assert entries["lm_head.weight"].startswith("tied: compared")
    with torch.no_grad():
        close(logits(folder) * 10, theirs(IDS).logits * 10)
    weights["lm_head.weight"][3] += 1
    sharded(weights, folder)
    with pytest.raises(ValueError, match=r"'lm_head.weight' differs from the weight that config.json ties"):
        network(open_release(folder))


def test_a_name_on_the_hub(tmp_path, tokenizer, monkeypatch):
    """Fetched at the pinned revision and named as there; errors distinguish no network, a wrong name and no folder."""
    folder, _ = llada(tmp_path / "snapshots" / "0123abc", tokenizer)
    fetched = []
    monkeypatch.setattr(sources, "weights", lambda name, pinned: fetched.append((name, pinned)) or folder)
    model = load("GSAI-ML/LLaDA-8B-Base")
    assert model.recipe.name == "GSAI-ML/LLaDA-8B-Base"
    assert fetched == [("GSAI-ML/LLaDA-8B-Base", "UNRESOLVED")]
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ConnectionError, match="no folder nobody/nothing, and the Hub is out of reach"):
        load("nobody/nothing")
    with pytest.raises(ConnectionError, match=r"give the path .nearest is 'GSAI-ML/LLaDA-8B-Base'"):
        load("GSAI-ML/LLaDA-8B-Bse")
    (tmp_path / "runs").mkdir(exist_ok=True)
    for path in ("runs/nothing", "./nobody/nothing", "nothing"):
        with pytest.raises(ValueError, match="no such folder"):
            load(path)


def test_a_release_is_the_same_wherever_it_lies(tmp_path, tokenizer):
    """Except for its name: read-only, through a symbolic link, in a path with spaces, or in one file."""
    folder, _ = llada(tmp_path / "a", tokenizer)
    moved = shutil.copytree(folder, tmp_path / "with some spaces" / "b")
    link = tmp_path / "link"
    link.symlink_to(moved)
    for file in moved.iterdir():
        file.chmod(0o444)
    moved.chmod(0o555)
    one, other = open_release(folder), open_release(link)
    moved.chmod(0o755)
    assert one.digest() == other.digest() and other.release.name == "b"
    whole, _ = llada(tmp_path / "whole", tokenizer, shards=False)
    assert torch.equal(logits(whole), logits(folder))


# --- size ---------------------------------------------------------------------------------------------------


def test_the_bench_writes_a_folder_that_loads(tmp_path, monkeypatch):
    sizes = {"LAYERS": 2, "WIDTH": 64, "HEADS": 4, "KV_HEADS": 2, "FFN": 96, "IDS": 300, "MASK": 299}
    for name, value in sizes.items():
        monkeypatch.setattr(loading, name, value)
    largest = loading.write(tmp_path / "llada")
    model = load(tmp_path / "llada", precision="bfloat16")
    weights = dict(model.denoiser.named_parameters())
    assert largest < 2 * sum(p.numel() for p in weights.values()) and model.precision == "bfloat16"
    drawn = weights["network.model.layers.1.mlp.up_proj.weight"].float()
    assert drawn.abs().min() >= 2**-8 and drawn.abs().max() < 2**-6 and 0.4 < (drawn > 0).float().mean() < 0.6


@pytest.mark.slow
def test_a_billion_and_a_half_load_within_one_shard(tmp_path):
    """Peak memory of a separate process: network, largest shard and half a gigabyte (benchmark row `loading`)."""
    (row,) = loading.loading(1)
    assert row.ratio >= row.target and "1.53 B" in row.row
