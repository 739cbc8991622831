"""Names that authors give their tensors, as data: the DiT of Duo, MDLM and BD3-LM, LLaDA, Dream, Qwen2, Llama,
ModernBERT, GPT-2, DiffusionGemma.

They are those of s-sahoo/duo, kuleshov-group/mdlm and kuleshov-group/bd3lms (models/dit.py), of the modelling files
that GSAI-ML/LLaDA-8B and Dream-org/Dream-v0 ship, and of transformers.
"""

from __future__ import annotations

from collections.abc import Mapping as Table

from repro.hub.mapping import Mapping

_DIT_BLOCK = {
    "norm1.weight": "norm_attention.weight",
    "attn_qkv.weight": "qkv.weight",
    "attn_out.weight": "out.weight",
    "norm2.weight": "norm_mlp.weight",
    "mlp.0.weight": "up.weight",
    "mlp.0.bias": "up.bias",
    "mlp.2.weight": "down.weight",
    "mlp.2.bias": "down.bias",
    "adaLN_modulation.weight": "modulation.weight",
    "adaLN_modulation.bias": "modulation.bias",
}
_RATES_DIT = {"backbone.rotary_emb.inv_freq": "rates of the rotation, computed from the base"}
DIT = Mapping(
    used={
        "backbone.vocab_embed.embedding": "embedding.weight",
        "backbone.sigma_map.mlp.0.weight": "level.first.weight",
        "backbone.sigma_map.mlp.0.bias": "level.first.bias",
        "backbone.sigma_map.mlp.2.weight": "level.second.weight",
        "backbone.sigma_map.mlp.2.bias": "level.second.bias",
        **{f"backbone.blocks.{{i}}.{a}": f"blocks.{{i}}.{b}" for a, b in _DIT_BLOCK.items()},
        "backbone.output_layer.norm_final.weight": "norm.weight",
        "backbone.output_layer.linear.weight": "output.weight",
        "backbone.output_layer.linear.bias": "output.bias",
        "backbone.output_layer.adaLN_modulation.weight": "modulation.weight",
        "backbone.output_layer.adaLN_modulation.bias": "modulation.bias",
    },
    ignored=_RATES_DIT,
)
BD3 = Mapping(
    used=DIT.used,
    ignored={
        **_RATES_DIT,
        "sampling_eps_min": "least noise level of its training",
        "sampling_eps_max": "greatest noise level of its training",
    },
)

_LLAMA = {
    "model.embed_tokens.weight": "model.embed_tokens.weight",
    "model.norm.weight": "model.norm.weight",
    "lm_head.weight": "lm_head.weight",
    **{
        f"model.layers.{{i}}.{name}.weight": f"model.layers.{{i}}.{name}.weight"
        for name in (
            *(f"self_attn.{x}_proj" for x in "qkvo"),
            *(f"mlp.{x}_proj" for x in ("gate", "up", "down")),
            *("input_layernorm", "post_attention_layernorm"),
        )
    },
}
_BIASES = {
    f"model.layers.{{i}}.self_attn.{x}_proj.bias": f"model.layers.{{i}}.self_attn.{x}_proj.bias"
    for x in "qkv"
}
_RATES = {"model.layers.{i}.self_attn.rotary_emb.inv_freq": "rates of the rotation, computed from the base"}
_LLADA_BLOCK = {
    **{f"{x}_proj": f"self_attn.{x}_proj" for x in "qkv"},
    "attn_out": "self_attn.o_proj",
    "ff_proj": "mlp.gate_proj",  # the one under SiLU
    "up_proj": "mlp.up_proj",
    "ff_out": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ff_norm": "post_attention_layernorm",
}
_LLADA = {
    "model.transformer.wte.weight": "model.embed_tokens.weight",
    "model.transformer.ln_f.weight": "model.norm.weight",
    "model.transformer.ff_out.weight": "lm_head.weight",
    **{
        f"model.transformer.blocks.{{i}}.{a}.weight": f"model.layers.{{i}}.{b}.weight"
        for a, b in _LLADA_BLOCK.items()
    },
}
_MODERNBERT = (
    "model.embeddings.tok_embeddings.weight",
    "model.embeddings.norm.weight",
    "model.final_norm.weight",
    "head.dense.weight",
    "head.norm.weight",
    "decoder.bias",
    *(
        f"model.layers.{{i}}.{x}.weight"
        for x in ("attn_norm", "attn.Wqkv", "attn.Wo", "mlp_norm", "mlp.Wi", "mlp.Wo")
    ),
)

_GPT2 = (
    *("wte.weight", "wpe.weight", "ln_f.weight", "ln_f.bias"),
    *(
        f"h.{{i}}.{x}.{kind}"
        for x in ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")
        for kind in ("weight", "bias")
    ),
)
_GEMMA_LAYER = (
    *(f"self_attn.{x}.weight" for x in ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm")),
    *(f"mlp.{x}_proj.weight" for x in ("gate", "up", "down")),
    *("router.scale", "router.per_expert_scale", "router.proj.weight"),
    *("experts.gate_up_proj", "experts.down_proj"),
    *("input_layernorm.weight", "post_attention_layernorm.weight"),
    *(
        f"{when}_feedforward_layernorm{which}.weight"
        for when, which in (("pre", ""), ("pre", "_2"), ("post", ""), ("post", "_1"), ("post", "_2"))
    ),
)
_GEMMA = {
    "model.decoder.embed_tokens.weight": "model.encoder.language_model.embed_tokens.weight",
    "model.decoder.norm.weight": "model.encoder.language_model.norm.weight",
    **{
        f"model.decoder.layers.{{i}}.{name}": f"model.encoder.language_model.layers.{{i}}.{name}"
        for name in _GEMMA_LAYER
    },
    **{
        name: name  # the one thing that encoder and decoder do not share
        for name in (
            "model.encoder.language_model.layers.{i}.layer_scalar",
            "model.decoder.layers.{i}.layer_scalar",
        )
    },
    "model.decoder.self_conditioning.pre_norm.weight": "model.decoder.self_conditioning.pre_norm.weight",
    **{
        f"model.decoder.self_conditioning.{x}_proj.weight": f"model.decoder.self_conditioning.{x}_proj.weight"
        for x in ("gate", "up", "down")
    },
}


def within(prefix: str, names: Table[str, str]) -> dict[str, str]:
    """The same names, ours lying deeper in our module."""
    return {theirs: f"{prefix}.{ours}" for theirs, ours in names.items()}


LLAMA = Mapping(used=within("network", _LLAMA), ignored=_RATES)
QWEN2 = Mapping(used=within("network", {**_LLAMA, **_BIASES}), ignored=_RATES)
DREAM = Mapping(used=within("network.network", {**_LLAMA, **_BIASES}), ignored=_RATES)
LLADA = Mapping(used=within("network", _LLADA), ignored={})
MODERNBERT = Mapping(used={name: f"network.{name}" for name in _MODERNBERT}, ignored={})
DIFFUSION_GEMMA = Mapping(
    used=within("network", _GEMMA),
    ignored=dict.fromkeys(
        ("model.encoder.vision_tower.*", "model.encoder.embed_vision.*"),
        "pictures: this suite reads text alone",
    ),
)
GPT2 = Mapping(
    used={
        **{name: f"network.transformer.{name}" for name in _GPT2},  # as on the Hub
        **{
            f"transformer.{name}": f"network.transformer.{name}" for name in _GPT2
        },  # as transformers saves it
        "lm_head.weight": "network.lm_head.weight",
    },
    ignored=dict.fromkeys(
        (
            f"{prefix}h.{{i}}.attn.{name}"
            for prefix in ("", "transformer.")
            for name in ("bias", "masked_bias")
        ),
        "the causal mask and its filler",
    ),
)
