"""`config.json` of other people's folders as our parts: their names for what our pins say.

Each function takes the file's values and gives a backbone without weights; KeyError for a field that is missing,
ValueError for a value that our network has not.
"""

from __future__ import annotations

from typing import Any, Literal

from repro.models.backbone import Backbone
from repro.models.diffusion_gemma import DiffusionGemma
from repro.models.dit import Dit, DitBlocks, DitCausal
from repro.models.gpt2 import Gpt2
from repro.models.llama import Llama, Qwen2
from repro.models.modernbert import ModernBert
from repro.models.shifted import Shifted

Config = dict[str, Any]

ALPHA_END = 1e-3
"""alpha(1) of the log-linear schedule whose sigma the DiTs were trained with (docs/method.md#mdlm,
docs/method.md#duo-curriculum)."""


def _dit_shape(config: Config) -> Config:
    """The pins that every DiT has; the rest is fixed in the authors' code (models/dit.py)."""
    width = config["hidden_dim"]
    return {
        "layers": config["n_blocks"],
        "width": width,
        "heads": config["n_heads"],
        "ffn": 4 * width,
        "rope_base": 10_000.0,
        "norm_eps": 1e-5,
    }


def dit(config: Config, told: bool) -> Backbone:
    """MDLM's and Duo's network, and BD3-LM's without blocks."""
    shape = _dit_shape(config)
    return Dit(**shape, condition=config["cond_dim"], frequencies=256, alpha_end=ALPHA_END if told else None)


def dit_causal(config: Config) -> Backbone:
    """The left-to-right baseline of Duo and BD3-LM."""
    return DitCausal(**_dit_shape(config))


def dit_blocks(config: Config) -> Backbone:
    """BD3-LM's network; `adaln` false: nothing is modulated."""
    condition = config["cond_dim"] if config["adaln"] else 0
    return DitBlocks(**_dit_shape(config), condition=condition, frequencies=256, block=config["block_size"])


def _rope(config: Config, default: float) -> float:
    """Base of the rotation, in either spelling of transformers'; ValueError where positions are rescaled."""
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind != "default":
        raise ValueError(f"rope_type {kind!r} is not built; our rotation is not rescaled")
    return float(scaling.get("rope_theta", config.get("rope_theta", default)))


def _like_llama(config: Config, attention: Literal["causal", "bidirectional"], base: float) -> Config:
    """The pins that Llama and Qwen2 share, from transformers' names for them."""
    width, heads = config["hidden_size"], config["num_attention_heads"]
    if (config.get("head_dim") or width // heads) * heads != width:
        raise ValueError(f"head_dim is {config['head_dim']}, and ours is hidden_size / num_attention_heads")
    return {
        "layers": config["num_hidden_layers"],
        "width": width,
        "heads": heads,
        "kv_heads": config.get("num_key_value_heads") or heads,
        "ffn": config["intermediate_size"],
        "attention": attention,
        "rope_base": _rope(config, base),
        "norm_eps": config["rms_norm_eps"],
        "tied": config.get("tie_word_embeddings", False),
        "init_deviation": 0.02,
    }


def llama(config: Config) -> Backbone:
    return Llama(**_like_llama(config, "causal", 10_000.0), learned_positions=0)


def qwen2(config: Config) -> Backbone:
    return Qwen2(**_like_llama(config, "causal", 10_000.0))


def gpt2(config: Config) -> Backbone:
    return Gpt2(
        layers=config["n_layer"],
        width=config["n_embd"],
        heads=config["n_head"],
        ffn=config.get("n_inner") or 4 * config["n_embd"],
        positions=config["n_positions"],
        norm_eps=config["layer_norm_epsilon"],
        init_deviation=0.02,
    )


def dream(config: Config) -> Backbone:
    return Shifted(backbone=Qwen2(**_like_llama(config, "bidirectional", 10_000.0)))


def llada(config: Config) -> Backbone:
    return Llama(
        layers=config["n_layers"],
        width=config["d_model"],
        heads=config["n_heads"],
        kv_heads=config.get("n_kv_heads") or config["n_heads"],
        ffn=config["mlp_hidden_size"],
        attention="bidirectional",
        rope_base=float(config["rope_theta"]),
        norm_eps=config["rms_norm_eps"],
        learned_positions=0,
        tied=config.get("weight_tying", False),
        init_deviation=0.02,
    )


def modernbert(config: Config) -> Backbone:
    """Both spellings of transformers': `layer_types` and `rope_parameters`, or a period and two bases."""
    layers, ropes = config["num_hidden_layers"], config.get("rope_parameters", {})
    every = config.get("global_attn_every_n_layers")
    if every is None:
        kinds = config["layer_types"]
        rest = [i for i, kind in enumerate(kinds) if kind == "full_attention" and i]
        every = rest[0] if rest else layers
        if kinds != ["sliding_attention" if i % every else "full_attention" for i in range(layers)]:
            raise ValueError("layer_types are not periodic, and ours are global in every n-th layer")

    def base(kind: str, old: str) -> float:
        return float(ropes[kind]["rope_theta"] if kind in ropes else config[old])

    return ModernBert(
        layers=layers,
        width=config["hidden_size"],
        heads=config["num_attention_heads"],
        ffn=config["intermediate_size"],
        global_every=every,
        window=config["local_attention"],
        rope_base_global=base("full_attention", "global_rope_theta"),
        rope_base_local=base("sliding_attention", "local_rope_theta"),
        norm_eps=config["norm_eps"],
        max_positions=config["max_position_embeddings"],
        attend_pads=False,
        init_deviation=0.02,
        weights=None,
        revision=None,
    )


def diffusion_gemma(config: Config) -> Backbone:
    """The language part; what global layers have instead of local ones stands in `per_layer_config`, or beside."""
    layers, kinds = config["num_hidden_layers"], config["layer_types"]
    wide = [i for i, kind in enumerate(kinds) if kind == "full_attention"]
    every = wide[0] + 1 if wide else layers
    periodic = ["full_attention" if (i + 1) % every == 0 else "sliding_attention" for i in range(layers)]
    if kinds != periodic or layers % every:
        raise ValueError("layer_types are not periodic, and ours are global in every n-th layer and the last")
    other = config.get("per_layer_config", {}).get(str(every - 1), {})
    global_width = other["head_dim"] if other else config["global_head_dim"]
    global_heads = other.get("num_key_value_heads", config.get("num_global_key_value_heads"))
    local, everywhere = (config["rope_parameters"][f"{kind}_attention"] for kind in ("sliding", "full"))
    for where, rope, kind in (("sliding", local, "default"), ("full", everywhere, "proportional")):
        if rope["rope_type"] != kind:
            raise ValueError(f"rope_type {rope['rope_type']!r} in {where} attention, and ours is {kind!r}")
    if not config["num_experts"]:
        raise ValueError(f"num_experts is {config['num_experts']}, and every layer of ours has experts")
    return DiffusionGemma(
        layers=layers,
        width=config["hidden_size"],
        heads=config["num_attention_heads"],
        kv_heads=config["num_key_value_heads"],
        head_width=config["head_dim"],
        global_every=every,
        global_kv_heads=global_heads or config["num_key_value_heads"],
        global_head_width=global_width,
        window=config["sliding_window"],
        ffn=config["intermediate_size"],
        experts=config["num_experts"],
        experts_used=config["top_k_experts"],
        expert_ffn=config["moe_intermediate_size"],
        rope_base_local=float(local["rope_theta"]),
        rope_base_global=float(everywhere["rope_theta"]),
        rotary_share=float(everywhere["partial_rotary_factor"]),
        norm_eps=config["rms_norm_eps"],
        softcap=float(config["final_logit_softcapping"]),
        canvas=config["canvas_length"],
        max_positions=config["max_position_embeddings"],
        init_deviation=0.02,
    )
