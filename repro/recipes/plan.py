"""What a run needs, by arithmetic: parameters, tokens, memory a GPU, FLOPs and GPU hours (spec I)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from repro.data.corpus import UNRESOLVED
from repro.parts import leaves
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


@dataclass(frozen=True)
class Plan:
    recipe: Recipe

    def figures(self) -> dict[str, Any]:
        """The plan in numbers: counts, bytes, FLOPs, hours."""
        recipe = self.recipe
        size = recipe.backbone.size(recipe.data)
        length = recipe.data.row_length()
        tokens = recipe.batch * length
        relaxed = any(pin.startswith("objective.temperature") for pin in leaves(recipe))
        dense = (
            leaves(recipe).get("objective.tokens") == "dense_tokens"
        )  # embedded by a product as large as the head
        forward = size.body_flops + size.attention_flops + size.head_flops * (2 if dense else 1)
        step = 3 * forward * tokens
        weights, gradients, state = (b * size.parameters for b in BYTES[recipe.precision])
        average = 4 * size.parameters if recipe.ema else 0
        rows = min(recipe.micro_batch, max(1, recipe.batch // GPUS))
        activations = ACTIVATIONS * rows * length * size.layers * size.width
        vocabulary = recipe.data.vocabulary().total
        logits = rows * length * vocabulary * 4 * (9 if relaxed else 3)
        return {
            "recipe": recipe.name,
            "parameters": size.parameters,
            "training_rows_expected": recipe.data.expected_rows(),
            "unresolved": sorted(p for p, v in leaves(recipe).items() if v == UNRESOLVED),
            "steps": recipe.steps,
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
                "ema": average,
                "activations": activations,
                "logits": logits,
            },
        }

    def text(self) -> str:
        figures = self.figures()
        memory = figures["bytes_a_gpu"]
        rows = figures["training_rows_expected"]
        unresolved = ", ".join(figures["unresolved"]) or "none"
        counted = leaves(self.recipe).get("data.source_rows")
        source = "" if counted is None else f"{counted:,} in the source, "
        lines = [
            f"{figures['recipe']}: plan for {GPUS} x H100, DDP",
            f"parameters      {figures['parameters']:,}",
            f"rows            {source}{rows:,} training rows expected; UNRESOLVED until online: {unresolved}",
            f"steps           {figures['steps']:,} of {self.recipe.batch} rows"
            f" ({figures['tokens_a_step']:,} tokens) = {figures['epochs']:.3g} epochs",
            f"tokens          {figures['tokens']:.4g}",
            f"FLOPs           {figures['flops_a_step']:.4g} a step, {figures['flops']:.4g} in all",
            f"time            {figures['seconds_a_step']:.3g} s a step, {figures['gpu_hours']:.4g} GPU hours"
            f" at {UTILISATION:.0%} of {PEAK / 1e12:.0f} TFLOP/s (assumed)",
            f"memory a GPU    {sum(memory.values()) / 2**30:.1f} GiB: "
            + ", ".join(f"{name} {size / 2**30:.1f}" for name, size in memory.items()),
        ]
        return "\n".join(lines)


def plan(recipe: Recipe) -> Plan:
    return Plan(recipe)
