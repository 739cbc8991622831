"""Layout of released GPT-2 weights: tensor names without a prefix (the Hub's file) or with `transformer.`
(transformers)."""

from __future__ import annotations

from repro.hub.layout import Config, Layout
from repro.hub.mapping import TensorNames
from repro.models.backbone import Backbone
from repro.models.gpt2 import Gpt2
from repro.processes.left_to_right import LeftToRight

_NAMES = (
    *("wte.weight", "wpe.weight", "ln_f.weight", "ln_f.bias"),
    *(
        f"h.{{i}}.{x}.{kind}"
        for x in ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")
        for kind in ("weight", "bias")
    ),
)
_PREFIXES = ("", "transformer.")


def _backbone(config: Config) -> Backbone:
    return Gpt2(
        layers=config["n_layer"],
        width=config["n_embd"],
        heads=config["n_head"],
        ffn=config.get("n_inner") or 4 * config["n_embd"],
        positions=config["n_positions"],
        norm_eps=config["layer_norm_epsilon"],
        init_deviation=0.02,
    )


GPT2 = Layout(
    name="GPT-2",
    tensor_names=TensorNames(
        used={
            **{f"{prefix}{name}": f"network.transformer.{name}" for prefix in _PREFIXES for name in _NAMES},
            "lm_head.weight": "network.lm_head.weight",
        },
        ignored=dict.fromkeys(
            (f"{prefix}h.{{i}}.attn.{name}" for prefix in _PREFIXES for name in ("bias", "masked_bias")),
            "the causal mask and its filler",
        ),
    ),
    backbone=_backbone,
    process=LeftToRight(),
    meaning="x0_mean",
    score="exact",
    mask=None,
    required={
        "activation_function": "gelu_new",
        "add_cross_attention": False,
        "tie_word_embeddings": True,
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "reorder_and_upcast_attn": False,
    },
)
