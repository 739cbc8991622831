"""The layouts that authors publish their weights in: which names, and `config.json` as our parts.

    layout, backbone = recognise(folder)           by config.json's model_type; ValueError names those that are known

The names of tensors are in `repro.names`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from collections.abc import Mapping as Table
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from repro.backbones.backbone import Backbone, Meaning
from repro.backbones.dit import Dit, DitCausal
from repro.backbones.llama import Llama
from repro.backbones.modernbert import ModernBert
from repro.backbones.qwen2 import Qwen2
from repro.backbones.shifted import Shifted
from repro.mapping import Mapping
from repro.names import DIT, DREAM, LLADA, LLAMA, MODERNBERT, QWEN2
from repro.parts import nearest
from repro.processes.absorbing import Absorbing
from repro.processes.left_to_right import LeftToRight
from repro.processes.process import Process
from repro.processes.uniform import Uniform

Config = dict[str, Any]

SIZES = ("embedding_size", "vocab_size")
"""Fields of config.json that may hold the rows of the embedding."""
LENGTHS = ("model_length", "max_sequence_length", "max_position_embeddings")
"""Fields of config.json that may hold the longest row."""
ALPHA_END = 1e-3
"""alpha(1) of the log-linear schedule whose sigma the DiTs were trained with (spec C, D.4)."""


@dataclass(frozen=True)
class Layout:
    """How one kind of folder is read.

    `backbone`: config.json as pins, without weights; `process`, `meaning`, `score`: what they were trained for;
    `mask`: config.json's field that holds the mask id, else its token; "last" for the last id, None for none;
    `required`: values that config.json must have wherever it has the field, because our network has no other.
    """

    name: str
    mapping: Mapping
    backbone: Callable[[Config], Backbone]
    process: Process
    meaning: Meaning
    score: str
    mask: str | None
    required: Table[str, Any]


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


def _llama(config: Config) -> Backbone:
    return Llama(**_like_llama(config, "causal", 10_000.0), learned_positions=0)


def _qwen2(config: Config) -> Backbone:
    return Qwen2(**_like_llama(config, "causal", 10_000.0))


def _dream(config: Config) -> Backbone:
    return Shifted(backbone=Qwen2(**_like_llama(config, "bidirectional", 10_000.0)))


def _llada(config: Config) -> Backbone:
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


def _modernbert(config: Config) -> Backbone:
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


_SILU = {"hidden_act": "silu", "mlp_bias": False}
LAYOUTS = {
    "mdlm": Layout(
        name="MDLM's DiT",
        mapping=DIT,
        backbone=lambda config: _dit(config, config["time_conditioning"]),
        process=Absorbing(),
        meaning="leave_one_out",
        score="truncated bound",
        mask="last",
        required={},
    ),
    "duo": Layout(
        name="Duo's DiT",
        mapping=DIT,
        backbone=lambda config: _dit(config, told=True),
        process=Uniform(alpha_end=ALPHA_END, eps=ALPHA_END),
        meaning="leave_one_out",
        score="truncated bound",
        mask=None,
        required={"causal": False},
    ),
    "llada": Layout(
        name="LLaDA",
        mapping=LLADA,
        backbone=_llada,
        process=Absorbing(),
        meaning="x0_mean",
        score="truncated bound",
        mask="mask_token_id",
        required={
            **{"block_type": "llama", "activation_type": "silu", "layer_norm_type": "rms", "rope": True},
            **{
                "alibi": False,
                "include_bias": False,
                "include_qkv_bias": False,
                "attention_layer_norm": False,
            },
            **{"scale_logits": False, "input_emb_norm": False, "multi_query_attention": None},
        },
    ),
    "dream": Layout(
        name="Dream",
        mapping=DREAM,
        backbone=_dream,
        process=Absorbing(),
        meaning="x0_mean",
        score="truncated bound",
        mask="mask_token_id",
        required={**_SILU, "use_sliding_window": False},
    ),
    "modernbert": Layout(
        name="ModernBERT",
        mapping=MODERNBERT,
        backbone=_modernbert,
        process=Absorbing(),
        meaning="x0_mean",
        score="improper score",
        mask="[MASK]",
        required={
            **{"hidden_activation": "gelu", "classifier_activation": "gelu", "tie_word_embeddings": True},
            **{"attention_bias": False, "mlp_bias": False, "norm_bias": False, "classifier_bias": False},
            **{"decoder_bias": True},
        },
    ),
    "llama": Layout(
        name="Llama",
        mapping=LLAMA,
        backbone=_llama,
        process=LeftToRight(),
        meaning="x0_mean",
        score="exact",
        mask=None,
        required={**_SILU, "attention_bias": False},
    ),
    "qwen2": Layout(
        name="Qwen2",
        mapping=QWEN2,
        backbone=_qwen2,
        process=LeftToRight(),
        meaning="x0_mean",
        score="exact",
        mask=None,
        required={**_SILU, "use_sliding_window": False},
    ),
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
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
