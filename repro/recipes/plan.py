"""What a run needs, by arithmetic: parameters, tokens, memory a GPU, FLOPs and GPU hours (spec I)."""

from __future__ import annotations

from typing import Any

from repro import parts
from repro.data.corpus import UNRESOLVED
from repro.ops import CHUNK_ACCELERATOR
from repro.recipe import Recipe

PEAK = 989e12
"""Dense bf16 FLOP/s of one H100 (vendor's data sheet)."""
UTILISATION = 0.40
"""Share of the peak that a run is assumed to reach (ours; measure yours)."""
GPUS = 8
BYTES = {"float32": (4, 4, 8), "bf16_autocast": (4, 4, 8), "bf16_master": (2, 6, 12), "bf16_pure": (2, 2, 4)}
"""Weights, gradients (with their float32 sums), optimizer state with masters: bytes a parameter by precision."""
ACTIVATIONS = 34
"""Bytes of 16-bit activations a token, layer and unit of width (Korthikanti et al. 2022, attention recomputed)."""


COPIES = {"relaxed": 9, "plain": 3}
"""Copies of its logits that a loss makes: cross-entropy alone, or the terms on soft tokens (spec I.1)."""


def plan(recipe: Recipe) -> dict[str, Any]:
    """The plan in numbers: counts, bytes a GPU, FLOPs, hours; what the fused head spares stands apart."""
    pins = parts.leaves(recipe)
    size = recipe.backbone.size(recipe.data)
    length = recipe.data.row_length()
    tokens = recipe.batch * length
    relaxed = "objective.temperature.floor" in pins or "objective.temperature.value" in pins
    # dense soft tokens are embedded by a product as large as the head
    heads = 2 if pins.get("objective.tokens") == "dense_tokens" else 1
    step = 3 * (size.body_flops + size.attention_flops + size.head_flops * heads) * tokens
    weights, gradients, state = (b * size.parameters for b in BYTES[recipe.precision])
    rows = min(recipe.micro_batch, max(1, recipe.batch // GPUS))
    copies = COPIES["relaxed" if relaxed else "plain"]
    dense = rows * length * recipe.data.vocabulary().total
    held = min(dense, CHUNK_ACCELERATOR)
    return {
        "recipe": recipe.name,
        "parameters": size.parameters,
        "source_rows": pins.get("data.source_rows"),
        "training_rows_expected": recipe.data.expected_rows(),
        "unresolved": sorted(pin for pin, value in pins.items() if value == UNRESOLVED),
        "steps": recipe.steps,
        "rows_a_step": recipe.batch,
        "tokens_a_step": tokens,
        "tokens": tokens * recipe.steps,
        "epochs": recipe.steps * recipe.batch / max(1, recipe.data.expected_rows()),
        "flops_a_step": step,
        "flops": step * recipe.steps,
        "gpus": GPUS,
        "utilisation": UTILISATION,
        "seconds_a_step": step / (GPUS * PEAK * UTILISATION),
        "gpu_hours": step * recipe.steps / (PEAK * UTILISATION) / 3600,
        "bytes_a_gpu": {
            "weights": weights,
            "gradients": gradients,
            "optimizer": state,
            "ema": 4 * size.parameters if recipe.ema else 0,
            "activations": ACTIVATIONS * rows * length * size.layers * size.width,
            "logits": 4 * copies * held,
        },
        "bytes_spared_by_the_fused_head": 4 * copies * (dense - held),
    }


def text(found: dict[str, Any]) -> str:
    """The plan for a person, assumptions included."""
    memory = found["bytes_a_gpu"]
    counted = "" if found["source_rows"] is None else f"{found['source_rows']:,} in the source, "
    lines = [
        f"{found['recipe']}: plan for {found['gpus']} x H100, DDP",
        f"parameters      {found['parameters']:,}",
        f"rows            {counted}{found['training_rows_expected']:,} training rows expected;"
        f" UNRESOLVED until online: {', '.join(found['unresolved']) or 'none'}",
        f"steps           {found['steps']:,} of {found['rows_a_step']} rows"
        f" ({found['tokens_a_step']:,} tokens) = {found['epochs']:.3g} epochs",
        f"tokens          {found['tokens']:.4g}",
        f"FLOPs           {found['flops_a_step']:.4g} a step, {found['flops']:.4g} in all",
        f"time            {found['seconds_a_step']:.3g} s a step, {found['gpu_hours']:.4g} GPU hours"
        f" at {found['utilisation']:.0%} of {PEAK / 1e12:.0f} TFLOP/s (assumed)",
        f"memory a GPU    {sum(memory.values()) / 2**30:.1f} GiB: "
        + ", ".join(f"{name} {size / 2**30:.1f}" for name, size in memory.items())
        + f"; spared by the fused head: {found['bytes_spared_by_the_fused_head'] / 2**30:.1f}",
    ]
    return "\n".join(lines)
