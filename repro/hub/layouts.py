"""The layouts that authors publish their weights in: which names, and `config.json` as our parts.

    layout, backbone = recognise(folder)           by config.json's model_type; ValueError names those that are known

The names of tensors are in `repro.hub.names`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from collections.abc import Mapping as Table
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repro.core.errors import nearest
from repro.hub import configs
from repro.hub.configs import ALPHA_END, Config
from repro.hub.mapping import Mapping
from repro.hub.names import BD3, DIFFUSION_GEMMA, DIT, DREAM, GPT2, LLADA, LLAMA, MODERNBERT, QWEN2
from repro.models.backbone import Backbone
from repro.processes.absorbing import Absorbing
from repro.processes.left_to_right import LeftToRight
from repro.processes.prediction import Meaning
from repro.processes.process import Process
from repro.processes.uniform import Uniform

SIZES = ("embedding_size", "vocab_size")
"""Fields of config.json that may hold the rows of the embedding."""
LENGTHS = ("model_length", "max_sequence_length", "max_position_embeddings", "n_positions")
"""Fields of config.json that may hold the longest row."""
COUNTS = (
    *(
        "hidden_dim",
        "cond_dim",
        "n_blocks",
        "n_heads",
        "block_size",
        "d_model",
        "n_layers",
        "mlp_hidden_size",
    ),
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "n_embd", "n_layer"),
    *("n_head", "canvas_length"),
)
"""Fields that are a positive integer wherever they stand."""
HEADS = (("hidden_dim", "n_heads"), ("d_model", "n_heads"), ("n_embd", "n_head"))
"""Widths, and the heads that divide them."""
NUMBERS = ("rope_theta", "rms_norm_eps", "norm_eps", "layer_norm_epsilon")
"""Fields that are a number wherever they stand."""


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


_SILU = {"hidden_act": "silu", "mlp_bias": False}
LAYOUTS = {
    "mdlm": Layout(
        name="MDLM's DiT",
        mapping=DIT,
        backbone=lambda config: configs.dit(config, config["time_conditioning"]),
        process=Absorbing(),
        meaning="leave_one_out",
        score="truncated bound",
        mask="last",
        required={"causal": False},
    ),
    "duo": Layout(
        name="Duo's DiT",
        mapping=DIT,
        backbone=lambda config: configs.dit(config, told=True),
        process=Uniform(alpha_end=ALPHA_END, eps=ALPHA_END),
        meaning="leave_one_out",
        score="truncated bound",
        mask=None,
        required={"time_conditioning": True, "causal": False},
    ),
    "duo_causal": Layout(
        name="Duo's causal DiT",
        mapping=DIT,
        backbone=configs.dit_causal,
        process=LeftToRight(),
        meaning="x0_mean",
        score="exact",
        mask="last",
        required={},
    ),
    "bd3lm": Layout(
        name="BD3-LM's DiT",
        mapping=BD3,
        backbone=configs.dit_blocks,
        process=Absorbing(),
        meaning="leave_one_out",
        score="truncated bound",
        mask="last",
        required={"time_conditioning": False},
    ),
    "bd3lm_whole": Layout(
        name="BD3-LM's DiT without blocks",
        mapping=BD3,
        backbone=lambda config: configs.dit(config, told=False),
        process=Absorbing(),
        meaning="leave_one_out",
        score="truncated bound",
        mask="last",
        required={"time_conditioning": False, "adaln": True},
    ),
    "bd3lm_causal": Layout(
        name="BD3-LM's causal DiT",
        mapping=BD3,
        backbone=configs.dit_causal,
        process=LeftToRight(),
        meaning="x0_mean",
        score="exact",
        mask="last",
        required={"adaln": False, "cross_attn": False},
    ),
    "llada": Layout(
        name="LLaDA",
        mapping=LLADA,
        backbone=configs.llada,
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
            **{"clip_qkv": None},
        },
    ),
    "dream": Layout(
        name="Dream",
        mapping=DREAM,
        backbone=configs.dream,
        process=Absorbing(),
        meaning="x0_mean",
        score="truncated bound",
        mask="mask_token_id",
        required={**_SILU, "use_sliding_window": False},
    ),
    "modernbert": Layout(
        name="ModernBERT",
        mapping=MODERNBERT,
        backbone=configs.modernbert,
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
        backbone=configs.llama,
        process=LeftToRight(),
        meaning="x0_mean",
        score="exact",
        mask=None,
        required={**_SILU, "attention_bias": False},
    ),
    "qwen2": Layout(
        name="Qwen2",
        mapping=QWEN2,
        backbone=configs.qwen2,
        process=LeftToRight(),
        meaning="x0_mean",
        score="exact",
        mask=None,
        required={**_SILU, "use_sliding_window": False},
    ),
    "gpt2": Layout(
        name="GPT-2",
        mapping=GPT2,
        backbone=configs.gpt2,
        process=LeftToRight(),
        meaning="x0_mean",
        score="exact",
        mask=None,
        required={
            **{"activation_function": "gelu_new", "add_cross_attention": False, "tie_word_embeddings": True},
            **{"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False},
            **{"reorder_and_upcast_attn": False},
        },
    ),
    "diffusion_gemma": Layout(
        name="DiffusionGemma",
        mapping=DIFFUSION_GEMMA,
        backbone=configs.diffusion_gemma,
        process=Uniform(alpha_end=ALPHA_END, eps=ALPHA_END),
        meaning="x0_mean",
        score="no bound",
        mask=None,
        required={
            **{"hidden_activation": "gelu_pytorch_tanh", "attention_bias": False},
            **{"tie_word_embeddings": True},
        },
    ),
}
"""By config.json's model_type, in lower case, and what one type is used for beside the first (`_kind`)."""


def read_config(folder: Path) -> Config:
    """config.json of a folder, its language part laid flat; ValueError when it is not there or no JSON object."""
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"{path} is missing; copy it beside the weights")
    config = read_json(path)
    text = config.get("text_config")  # a network that also sees pictures keeps its language part apart
    return {**text, **config} if isinstance(text, dict) else config


def read_json(path: Path) -> Config:
    """A JSON object; ValueError in one line where it is none."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read ({error}); copy it again") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} is no JSON object; copy it again")
    return found


def count(path: Path, config: Config, field: str) -> int:
    """A field that counts something; ValueError that names it where it is no positive integer."""
    value = config[field]
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{path}: {field} is {value!r}, which is no count; copy it again")
    return value


def recognise(folder: Path) -> tuple[Layout, Backbone]:
    """The layout of a folder and its network's pins; ValueError in one line for one that is not known."""
    config, path = read_config(folder), folder / "config.json"
    kind = _kind(config)
    if kind not in LAYOUTS:
        raise ValueError(f"{path}: no layout for model_type {kind!r}; {nearest(kind, LAYOUTS)}")
    layout = LAYOUTS[kind]
    for field, value in layout.required.items():
        if config.get(field, value) != value:
            raise ValueError(
                f"{path}: {field} is {config[field]!r}, and our {layout.name} has {value!r} alone"
            )
    for field in COUNTS:
        if field in config:
            count(path, config, field)
    for field in NUMBERS:
        value = config.get(field, 1.0)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{path}: {field} is {value!r}, which is no number; copy it again")
    for width, heads in HEADS:
        if width in config and heads in config and config[width] % config[heads]:
            raise ValueError(
                f"{path}: {heads} is {config[heads]}, which does not divide {width}={config[width]}"
            )
    try:
        return layout, layout.backbone(config)
    except KeyError as error:
        raise ValueError(f"{path} lacks {error}; it is no configuration of {layout.name}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _kind(config: Config) -> str:
    """The key of a configuration's layout: three networks of Duo and BD3-LM share their type."""
    kind = str(config.get("model_type", "")).lower()
    if kind in ("duo", "bd3lm") and config.get("causal", False):
        return f"{kind}_causal"
    if kind == "bd3lm" and not config.get("cross_attn", True):
        return "bd3lm_whole"
    return kind
