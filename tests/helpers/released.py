"""Tiny folders in the authors' layouts, with random weights under the authors' tensor names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers.models.diffusion_gemma import DiffusionGemmaConfig, DiffusionGemmaForBlockDiffusion
from transformers.models.gemma4 import Gemma4VisionConfig

from helpers import literal, tiny_tokenizer
from repro.models.diffusion_gemma import DiffusionGemma
from repro.models.diffusion_gemma_network import text_configuration

GEMMA = DiffusionGemma(
    layers=4,
    width=32,
    heads=4,
    kv_heads=2,
    head_width=8,
    global_every=2,
    global_kv_heads=1,
    global_head_width=16,
    window=6,
    ffn=48,
    experts=4,
    experts_used=2,
    expert_ffn=16,
    rope_base_local=1e4,
    rope_base_global=1e6,
    rotary_share=0.25,
    norm_eps=1e-6,
    softcap=30.0,
    canvas=8,
    max_positions=128,
    init_deviation=0.4,
)

V = tiny_tokenizer.SIZE
IDS = torch.randint(5, V, (2, 12), generator=torch.Generator().manual_seed(0))
SIGMA = torch.tensor([0.4, 2.0])
SIZES = {"vocab_size": V, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
LIKE_LLAMA = {
    **SIZES,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "rms_norm_eps": 1e-6,
    "bos_token_id": 1,
}
DIT = {"hidden_dim": 32, "cond_dim": 16, "n_blocks": 2, "n_heads": 4, "dropout": 0.1, "model_length": 64}
LLADA = {
    **{
        "model_type": "llada",
        "d_model": 32,
        "n_layers": 2,
        "n_heads": 4,
        "n_kv_heads": 2,
        "mlp_hidden_size": 48,
    },
    **{
        "vocab_size": V,
        "embedding_size": V,
        "rope_theta": 500_000.0,
        "rms_norm_eps": 1e-5,
        "weight_tying": False,
    },
    **{
        "max_sequence_length": 64,
        "mask_token_id": tiny_tokenizer.MASK,
        "eos_token_id": 2,
        "block_type": "llama",
    },
    **{"activation_type": "silu", "layer_norm_type": "rms", "rope": True, "include_bias": False},
}


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory) -> Path:
    return tiny_tokenizer.save(tmp_path_factory.mktemp("tokenizer")) / "tokenizer.json"


def sharded(weights, folder: Path) -> None:
    """Two shards and their index, as `save_pretrained` names them."""
    names = sorted(weights)
    files = {}
    for number, part in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), 1):
        file = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: weights[name].contiguous() for name in part}, folder / file, {"format": "pt"})
        files |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": files}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")


def written(folder: Path, tokenizer: Path, config: dict, weights, shards: bool = True) -> Path:
    folder.mkdir(parents=True)
    shutil.copy(tokenizer, folder / "tokenizer.json")
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    if shards:
        sharded(weights, folder)
    else:
        save_file(weights, folder / "model.safetensors")
    return folder


def mdlm(folder, tokenizer, conditional: bool = False, **more):
    config = {**DIT, "model_type": "mdlm", "vocab_size": V + 1, "time_conditioning": conditional, **more}
    weights = literal.dit_weights(2, 32, 16, V + 1)
    return written(folder, tokenizer, config, weights), weights


def llada(folder, tokenizer, shards=True, **more):
    weights = literal.llada_weights(2, 32, 16, 48, V)
    return written(folder, tokenizer, {**LLADA, **more}, weights, shards), weights


def duo(folder, tokenizer):
    weights = literal.dit_weights(2, 32, 16, V)
    config = {**DIT, "model_type": "DUO", "vocab_size": V, "causal": False}
    return written(folder, tokenizer, config, weights, shards=False), weights


BD3 = {**DIT, "model_type": "bd3lm", "vocab_size": V + 1, "block_size": 4, "time_conditioning": False}
BOUNDS = {"sampling_eps_min": torch.tensor(1e-3), "sampling_eps_max": torch.tensor(0.999)}
SPECIAL = {"bos_token": "[CLS]", "eos_token": {"content": "[SEP]"}}


def bd3(folder, tokenizer, adaln=True, cross=True, causal=False):
    weights = literal.dit_weights(2, 32, 16 if adaln else 0, V + 1)
    config = {**BD3, "adaln": adaln, "cross_attn": cross, "causal": causal}
    return written(folder, tokenizer, config, {**weights, **BOUNDS}), weights


DREAM = {
    **LIKE_LLAMA,
    **{"model_type": "Dream", "rope_theta": 1e6, "mask_token_id": tiny_tokenizer.MASK, "hidden_act": "silu"},
    **{"tie_word_embeddings": False, "max_position_embeddings": 64, "use_sliding_window": False},
}


def dream(folder, tokenizer):
    weights = literal.dream_weights(2, 32, 16, 48, V)
    return written(folder, tokenizer, DREAM, weights), weights


def diffusion_gemma(folder, tokenizer, **more):
    """A folder written by transformers, with a vision tower; returns it and the network."""
    torch.manual_seed(0)
    text = text_configuration(GEMMA, V)
    text.eos_token_id = 2
    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = DiffusionGemmaConfig(
        text_config=text,
        vision_config=Gemma4VisionConfig(**vision, num_key_value_heads=1),
        canvas_length=GEMMA.canvas,
        **more,
    )
    theirs = DiffusionGemmaForBlockDiffusion(config)
    with torch.no_grad():
        for name, tensor in theirs.state_dict().items():
            tensor.add_(torch.randn(tensor.shape) * (0.05 if "layer_scalar" in name else 0.2))
    theirs.eval().save_pretrained(folder)
    shutil.copy(tokenizer, folder)
    return folder, theirs
