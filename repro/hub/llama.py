"""Layouts of released Llama and Qwen2 weights: tensor names are those of transformers; Dream (repro.hub.dream) shares
Qwen2's."""

from __future__ import annotations

from typing import Literal

from repro.hub.layout import Config, Layout
from repro.hub.mapping import ROTARY, TensorNames, within
from repro.models.llama import Llama, Qwen2
from repro.processes.left_to_right import LeftToRight

_MATRICES = (
    *(f"self_attn.{x}_proj" for x in "qkvo"),
    *(f"mlp.{x}_proj" for x in ("gate", "up", "down")),
    *("input_layernorm", "post_attention_layernorm"),
)
_LLAMA = (
    *("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"),
    *(f"model.layers.{{i}}.{name}.weight" for name in _MATRICES),
)
_QWEN2 = (*_LLAMA, *(f"model.layers.{{i}}.self_attn.{x}_proj.bias" for x in "qkv"))
_ROTARY = {"model.layers.{i}.self_attn.rotary_emb.inv_freq": ROTARY}


def qwen2_names(prefix: str) -> TensorNames:
    """Which of Qwen2's tensors fills which parameter of this suite's network: the tensor NAME fills PREFIX.NAME."""
    return TensorNames(used=within(prefix, _QWEN2), ignored=_ROTARY)


def _rope_base(config: Config) -> float:
    """Base of the rotary embedding, from `rope_parameters` or the older `rope_theta` and `rope_scaling`.

    Raises ValueError if positions are rescaled (`rope_type` other than "default").
    """
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind != "default":
        raise ValueError(f"rope_type is {kind!r}; only 'default' (no rescaled positions) is supported")
    return float(scaling.get("rope_theta", config.get("rope_theta", 10_000.0)))


def pins(config: Config, attention: Literal["causal", "bidirectional"]) -> Config:
    """The settings that the `Llama` and `Qwen2` backbones share (name -> value), from the fields of a config.json of
    transformers; `attention`: attention pattern of the backbone.

    Raises ValueError unless head_dim is hidden_size / num_attention_heads.
    """
    width, heads = config["hidden_size"], config["num_attention_heads"]
    if (config.get("head_dim") or width // heads) * heads != width:
        raise ValueError(
            f"head_dim is {config['head_dim']}; only hidden_size / num_attention_heads is supported"
        )
    return {
        "layers": config["num_hidden_layers"],
        "width": width,
        "heads": heads,
        "kv_heads": config.get("num_key_value_heads") or heads,
        "ffn": config["intermediate_size"],
        "attention": attention,
        "rope_base": _rope_base(config),
        "norm_eps": config["rms_norm_eps"],
        "tied": config.get("tie_word_embeddings", False),
        "init_deviation": 0.02,
    }


LLAMA = Layout(
    name="Llama",
    tensor_names=TensorNames(used=within("network", _LLAMA), ignored=_ROTARY),
    backbone=lambda config: Llama(**pins(config, "causal"), learned_positions=0),
    process=LeftToRight(),
    meaning="x0_mean",
    score="exact",
    mask=None,
    required={"hidden_act": "silu", "mlp_bias": False, "attention_bias": False},
)
QWEN2 = Layout(
    name="Qwen2",
    tensor_names=qwen2_names("network"),
    backbone=lambda config: Qwen2(**pins(config, "causal")),
    process=LeftToRight(),
    meaning="x0_mean",
    score="exact",
    mask=None,
    required={"hidden_act": "silu", "mlp_bias": False, "use_sliding_window": False},
)
