"""Layout of released DiffusionGemma weights: tensor names are those of transformers; the vision encoder is not read."""

from __future__ import annotations

from repro.hub.layout import Config, Layout
from repro.hub.mapping import TensorNames
from repro.models.backbone import Backbone
from repro.models.diffusion_gemma import DiffusionGemma
from repro.processes.uniform import Uniform

_LAYER = (
    *(f"self_attn.{x}.weight" for x in ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm")),
    *(f"mlp.{x}_proj.weight" for x in ("gate", "up", "down")),
    *("router.scale", "router.per_expert_scale", "router.proj.weight"),
    *("experts.gate_up_proj", "experts.down_proj"),
    *("input_layernorm.weight", "post_attention_layernorm.weight"),
    *(f"{x}_feedforward_layernorm.weight" for x in ("pre", "post")),
    *(f"{x}.weight" for x in ("pre_feedforward_layernorm_2", "post_feedforward_layernorm_1")),
    "post_feedforward_layernorm_2.weight",
)
_DECODER, _ENCODER = "model.decoder", "model.encoder.language_model"
_SHARED = ("embed_tokens.weight", "norm.weight", *(f"layers.{{i}}.{name}" for name in _LAYER))
"""Names of the weights that encoder and decoder share; they are stored under the decoder's prefix."""
_OWN = (
    *(f"{where}.layers.{{i}}.layer_scalar" for where in (_ENCODER, _DECODER)),
    f"{_DECODER}.self_conditioning.pre_norm.weight",
    *(f"{_DECODER}.self_conditioning.{x}_proj.weight" for x in ("gate", "up", "down")),
)


def _period(config: Config) -> int:
    """The n for which exactly every n-th layer attends globally (the others within a sliding window), from the field
    `layer_types` of a config.json; ValueError if there is none."""
    layers, kinds = config["num_hidden_layers"], config["layer_types"]
    wide = [i for i, kind in enumerate(kinds) if kind == "full_attention"]
    every = wide[0] + 1 if wide else layers
    periodic = ["full_attention" if (i + 1) % every == 0 else "sliding_attention" for i in range(layers)]
    if kinds != periodic or layers % every:
        raise ValueError(
            "layer_types are not periodic; only networks whose every n-th layer is global are supported"
        )
    return every


def _backbone(config: Config) -> Backbone:
    """The backbone that a config.json describes. The head width of layers that attend globally, and their number of key
    and value heads, are in `per_layer_config` or in separate fields such as `global_head_dim`."""
    every = _period(config)
    other = config.get("per_layer_config", {}).get(str(every - 1), {})
    global_heads = other.get("num_key_value_heads", config.get("num_global_key_value_heads"))
    local, everywhere = (config["rope_parameters"][f"{kind}_attention"] for kind in ("sliding", "full"))
    for where, rope, kind in (("sliding", local, "default"), ("full", everywhere, "proportional")):
        if rope["rope_type"] != kind:
            raise ValueError(
                f"rope_type of {where} attention is {rope['rope_type']!r}; only {kind!r} is supported"
            )
    if not config["num_experts"]:
        raise ValueError(f"num_experts is {config['num_experts']}; only layers with experts are supported")
    return DiffusionGemma(
        layers=config["num_hidden_layers"],
        width=config["hidden_size"],
        heads=config["num_attention_heads"],
        kv_heads=config["num_key_value_heads"],
        head_width=config["head_dim"],
        global_every=every,
        global_kv_heads=global_heads or config["num_key_value_heads"],
        global_head_width=other["head_dim"] if other else config["global_head_dim"],
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


DIFFUSION_GEMMA = Layout(
    name="DiffusionGemma",
    tensor_names=TensorNames(
        used={
            **{f"{_DECODER}.{name}": f"network.{_ENCODER}.{name}" for name in _SHARED},
            **{name: f"network.{name}" for name in _OWN},
        },
        ignored=dict.fromkeys(
            ("model.encoder.vision_tower.*", "model.encoder.embed_vision.*"),
            "images: this suite reads text only",
        ),
    ),
    backbone=_backbone,
    process=Uniform(alpha_end=1e-3, eps=1e-3),
    meaning="x0_mean",
    score="no bound",
    mask=None,
    required={
        "hidden_activation": "gelu_pytorch_tanh",
        "attention_bias": False,
        "tie_word_embeddings": True,
    },
)
