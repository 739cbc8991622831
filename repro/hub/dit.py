"""Layouts of released DiTs: MDLM, Duo and BD3-LM, with their left-to-right baselines (docs/method.md#dit).

Tensor names and fields of config.json are those of models/dit.py in s-sahoo/duo, kuleshov-group/mdlm and
kuleshov-group/bd3lms. Constants that config.json lacks (feed-forward width 4 x width, base of the rotary embedding,
epsilon of the norms, 256 sinusoidal frequencies of the noise level) are fixed in those files.
"""

from __future__ import annotations

from repro.hub.layout import Config, Layout
from repro.hub.mapping import ROTARY, TensorNames
from repro.models.backbone import Backbone
from repro.models.dit import Dit, DitBlocks, DitCausal
from repro.processes.absorbing import Absorbing
from repro.processes.left_to_right import LeftToRight
from repro.processes.uniform import Uniform

ALPHA_END = 1e-3
"""alpha(1), the share of clean tokens at t = 1, of the log-linear noise schedule whose sigma = -log alpha the DiTs were
trained with (docs/method.md#mdlm, docs/method.md#duo-curriculum)."""

_BLOCK = {
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
DIT_NAMES = TensorNames(
    used={
        "backbone.vocab_embed.embedding": "embedding.weight",
        "backbone.sigma_map.mlp.0.weight": "level.first.weight",
        "backbone.sigma_map.mlp.0.bias": "level.first.bias",
        "backbone.sigma_map.mlp.2.weight": "level.second.weight",
        "backbone.sigma_map.mlp.2.bias": "level.second.bias",
        **{f"backbone.blocks.{{i}}.{theirs}": f"blocks.{{i}}.{ours}" for theirs, ours in _BLOCK.items()},
        "backbone.output_layer.norm_final.weight": "norm.weight",
        "backbone.output_layer.linear.weight": "output.weight",
        "backbone.output_layer.linear.bias": "output.bias",
        "backbone.output_layer.adaLN_modulation.weight": "modulation.weight",
        "backbone.output_layer.adaLN_modulation.bias": "modulation.bias",
    },
    ignored={"backbone.rotary_emb.inv_freq": ROTARY},
)
BD3_NAMES = TensorNames(
    used=DIT_NAMES.used,
    ignored={
        **DIT_NAMES.ignored,
        "sampling_eps_min": "lowest noise level of its training",
        "sampling_eps_max": "highest noise level of its training",
    },
)


def _pins(config: Config) -> Config:
    """The settings that all DiT backbones share (name -> value), from the fields of a config.json."""
    width = config["hidden_dim"]
    return {
        "layers": config["n_blocks"],
        "width": width,
        "heads": config["n_heads"],
        "ffn": 4 * width,
        "rope_base": 10_000.0,
        "norm_eps": 1e-5,
    }


def _dit(config: Config, conditional: bool) -> Backbone:
    """The backbone of MDLM, of Duo, and of BD3-LM without blocks, from the fields of a config.json. `conditional`:
    whether the network reads the noise level."""
    alpha_end = ALPHA_END if conditional else None
    return Dit(**_pins(config), condition=config["cond_dim"], frequencies=256, alpha_end=alpha_end)


def _causal(config: Config) -> Backbone:
    return DitCausal(**_pins(config))


def _blocks(config: Config) -> Backbone:
    """BD3-LM's block-causal backbone, from the fields of a config.json; the network has no adaptive layer norm
    (modulation by the noise level) if `adaln` is false."""
    condition = config["cond_dim"] if config["adaln"] else 0
    return DitBlocks(**_pins(config), condition=condition, frequencies=256, block=config["block_size"])


def _duo_variant(config: Config) -> str | None:
    return "duo_causal" if config.get("causal", False) else None


def _bd3lm_variant(config: Config) -> str | None:
    if config.get("causal", False):
        return "bd3lm_causal"
    return None if config.get("cross_attn", True) else "bd3lm_whole"


MDLM = Layout(
    name="MDLM's DiT",
    tensor_names=DIT_NAMES,
    backbone=lambda config: _dit(config, config["time_conditioning"]),
    process=Absorbing(),
    meaning="leave_one_out",
    score="truncated bound",
    mask="last",
    required={"causal": False},
)
DUO = Layout(
    name="Duo's DiT",
    tensor_names=DIT_NAMES,
    backbone=lambda config: _dit(config, conditional=True),
    process=Uniform(alpha_end=ALPHA_END, eps=ALPHA_END),
    meaning="leave_one_out",
    score="truncated bound",
    mask=None,
    required={"time_conditioning": True, "causal": False},
    variant=_duo_variant,
)
DUO_CAUSAL = Layout(
    name="Duo's causal DiT",
    tensor_names=DIT_NAMES,
    backbone=_causal,
    process=LeftToRight(),
    meaning="x0_mean",
    score="exact",
    mask="last",
    required={},
)
BD3LM = Layout(
    name="BD3-LM's DiT",
    tensor_names=BD3_NAMES,
    backbone=_blocks,
    process=Absorbing(),
    meaning="leave_one_out",
    score="truncated bound",
    mask="last",
    required={"time_conditioning": False},
    variant=_bd3lm_variant,
)
BD3LM_WHOLE = Layout(
    name="BD3-LM's DiT without blocks",
    tensor_names=BD3_NAMES,
    backbone=lambda config: _dit(config, conditional=False),
    process=Absorbing(),
    meaning="leave_one_out",
    score="truncated bound",
    mask="last",
    required={"time_conditioning": False, "adaln": True},
)
BD3LM_CAUSAL = Layout(
    name="BD3-LM's causal DiT",
    tensor_names=BD3_NAMES,
    backbone=_causal,
    process=LeftToRight(),
    meaning="x0_mean",
    score="exact",
    mask="last",
    required={"adaln": False, "cross_attn": False},
)
