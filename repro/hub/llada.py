"""Layout of released LLaDA weights: tensor names and config.json fields are those of modeling_llada.py as
the Hub's repositories GSAI-ML/LLaDA-8B-* have it (block type `llama`)."""

from __future__ import annotations

from repro.hub.layout import Config, Layout
from repro.hub.mapping import TensorNames
from repro.models.backbone import Backbone
from repro.models.llama import Llama, LlamaFloat32Rope
from repro.processes.absorbing import Absorbing

_BLOCK = {
    **{f"{x}_proj": f"self_attn.{x}_proj" for x in "qkv"},
    "attn_out": "self_attn.o_proj",
    "ff_proj": "mlp.gate_proj",  # the half that goes through SiLU
    "up_proj": "mlp.up_proj",
    "ff_out": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ff_norm": "post_attention_layernorm",
}


def _backbone(config: Config) -> Backbone:
    full = config.get("rope_full_precision", True)  # the default of LLaDA's configuration_llada.py
    return (LlamaFloat32Rope if full else Llama)(
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


LLADA = Layout(
    name="LLaDA",
    tensor_names=TensorNames(
        used={
            "model.transformer.wte.weight": "network.model.embed_tokens.weight",
            "model.transformer.ln_f.weight": "network.model.norm.weight",
            "model.transformer.ff_out.weight": "network.lm_head.weight",
            **{
                f"model.transformer.blocks.{{i}}.{theirs}.weight": f"network.model.layers.{{i}}.{ours}.weight"
                for theirs, ours in _BLOCK.items()
            },
        },
        ignored={},
    ),
    backbone=_backbone,
    process=Absorbing(),
    meaning="x0_mean",
    score="truncated bound",
    mask="mask_token_id",
    required={
        "block_type": "llama",
        "activation_type": "silu",
        "layer_norm_type": "rms",
        "rope": True,
        "alibi": False,
        "include_bias": False,
        "include_qkv_bias": False,
        "attention_layer_norm": False,
        "scale_logits": False,
        "input_emb_norm": False,
        "multi_query_attention": None,
        "clip_qkv": None,
    },
)
