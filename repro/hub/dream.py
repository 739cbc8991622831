"""Layout of released Dream weights: a bidirectional Qwen2 whose logits at position i predict the token at i + 1
(docs/method.md#dream-rules).

Tensor names and fields of config.json are those of modeling_dream.py in the Hub's repositories Dream-org/Dream-v0-*;
they equal Qwen2's.
"""

from __future__ import annotations

from repro.hub.layout import Layout
from repro.hub.llama import pins, qwen2_names
from repro.models.llama import Qwen2
from repro.models.shifted import Shifted
from repro.processes.absorbing import Absorbing

DREAM = Layout(
    name="Dream",
    tensor_names=qwen2_names("network.network"),
    backbone=lambda config: Shifted(backbone=Qwen2(**pins(config, "bidirectional"))),
    process=Absorbing(),
    meaning="x0_mean",
    score="truncated bound",
    mask="mask_token_id",
    required={"hidden_act": "silu", "mlp_bias": False, "use_sliding_window": False},
)
