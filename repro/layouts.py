"""The layouts that authors publish their weights in: names of tensors as data, and `config.json` as our parts.

    layout, backbone = recognise(folder)           by config.json's model_type; ValueError names those that are known

Names are those of s-sahoo/duo and kuleshov-group/mdlm (DiT), ML-GSAI/LLaDA, HKUNLP/Dream, and transformers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from collections.abc import Mapping as Table
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repro.backbones.backbone import Backbone
from repro.backbones.dit import Dit, DitCausal
from repro.mapping import Mapping
from repro.parts import nearest

Config = dict[str, Any]

ALPHA_END = 1e-3
"""alpha(1) of the log-linear schedule whose sigma the DiTs were trained with (spec C, D.4)."""


@dataclass(frozen=True)
class Layout:
    """How one kind of folder is read.

    `backbone`: config.json as pins, without weights; `required`: values that config.json must have wherever it has the
    field, because our network has no other.
    """

    name: str
    mapping: Mapping
    backbone: Callable[[Config], Backbone]
    required: Table[str, Any]


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
    ignored={"backbone.rotary_emb.inv_freq": "rates of the rotation, computed from the base"},
)


def _dit(config: Config, told: bool) -> Backbone:
    """MDLM's and Duo's configuration; the rest of the pins is fixed in their code (models/dit.py)."""
    width = config["hidden_dim"]
    shared = {"layers": config["n_blocks"], "width": width, "heads": config["n_heads"], "ffn": 4 * width}
    if config.get("causal", False):
        return DitCausal(**shared, rope_base=10_000.0, norm_eps=1e-5)
    return Dit(
        **shared,
        condition=config["cond_dim"],
        frequencies=256,
        alpha_end=ALPHA_END if told else None,
        rope_base=10_000.0,
        norm_eps=1e-5,
    )


LAYOUTS = {
    "mdlm": Layout("MDLM's DiT", DIT, lambda config: _dit(config, config["time_conditioning"]), {}),
    "duo": Layout("Duo's DiT", DIT, lambda config: _dit(config, told=True), {}),
}
"""By config.json's model_type, in lower case."""


def read_config(folder: Path) -> Config:
    """config.json of a folder; ValueError when it is not there or no JSON object."""
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"{path} is missing; copy it beside the weights")
    try:
        config = json.loads(path.read_text("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read ({error}); copy it again") from None
    if not isinstance(config, dict):
        raise ValueError(f"{path} is no JSON object; copy it again")
    return config


def recognise(folder: Path) -> tuple[Layout, Backbone]:
    """The layout of a folder and its network's pins; ValueError in one line for one that is not known."""
    config, path = read_config(folder), folder / "config.json"
    kind = str(config.get("model_type", "")).lower()
    if kind not in LAYOUTS:
        raise ValueError(f"{path}: no layout for model_type {kind!r}; {nearest(kind, LAYOUTS)}")
    layout = LAYOUTS[kind]
    for field, value in layout.required.items():
        if config.get(field, value) != value:
            raise ValueError(
                f"{path}: {field} is {config[field]!r}, and our {layout.name} has {value!r} alone"
            )
    try:
        return layout, layout.backbone(config)
    except KeyError as error:
        raise ValueError(f"{path} lacks {error}; it is no configuration of {layout.name}") from None
