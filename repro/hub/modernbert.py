"""Layout of released ModernBERT weights: tensor names are those of transformers."""

from __future__ import annotations

from repro.hub.layout import Config, Layout
from repro.hub.mapping import TensorNames, within
from repro.models.backbone import Backbone
from repro.models.modernbert import ModernBert
from repro.processes.absorbing import Absorbing

_NAMES = (
    *(f"model.embeddings.{x}.weight" for x in ("tok_embeddings", "norm")),
    *("model.final_norm.weight", "head.dense.weight", "head.norm.weight", "decoder.bias"),
    *(
        f"model.layers.{{i}}.{x}.weight"
        for x in ("attn_norm", "attn.Wqkv", "attn.Wo", "mlp_norm", "mlp.Wi", "mlp.Wo")
    ),
)


def _backbone(config: Config) -> Backbone:
    """The backbone that a config.json describes, in either format of transformers: with `layer_types` and
    `rope_parameters`, or with `global_attn_every_n_layers` and two rotary bases (`global_rope_theta`,
    `local_rope_theta`)."""
    layers, ropes = config["num_hidden_layers"], config.get("rope_parameters", {})
    every = config.get("global_attn_every_n_layers")
    if every is None:
        kinds = config["layer_types"]
        rest = [i for i, kind in enumerate(kinds) if kind == "full_attention" and i]
        every = rest[0] if rest else layers
        if kinds != ["sliding_attention" if i % every else "full_attention" for i in range(layers)]:
            raise ValueError(
                "layer_types are not periodic; only networks whose every n-th layer is global are supported"
            )

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


MODERNBERT = Layout(
    name="ModernBERT",
    tensor_names=TensorNames(used=within("network", _NAMES), ignored={}),
    backbone=_backbone,
    process=Absorbing(),
    meaning="x0_mean",
    score="improper score",
    mask="[MASK]",
    required={
        "hidden_activation": "gelu",
        "classifier_activation": "gelu",
        "tie_word_embeddings": True,
        "attention_bias": False,
        "mlp_bias": False,
        "norm_bias": False,
        "classifier_bias": False,
        "decoder_bias": True,
    },
)
