"""What a run needs, by arithmetic: parameters, tokens, memory a GPU by part, FLOPs, hours (docs/method.md#cost-model).

    python -m repro.recipes.duo --plan [--engine ddp|fsdp2|zero2] [--gpus N] [--activation-checkpointing] [--json]

Not counted: the allocator's slack, the CUDA context, communication buffers but ZeRO-2's, communication that computing
does not hide.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from repro.core import parts, registry
from repro.core.errors import nearest
from repro.data.corpus import UNRESOLVED
from repro.models.backbone import Size
from repro.models.chunks import BLOCK_ACCELERATOR, CHUNK_ACCELERATOR
from repro.training.recipe import Recipe

PEAK = 989e12
"""Dense bf16 FLOP/s of one H100 (vendor's data sheet)."""
UTILISATION = 0.40
"""Share of the peak that a run is assumed to reach (ours; measure yours)."""
GPUS = 8
ACTIVATIONS = 22
"""Values that backward needs, a token, layer and unit of width, attention recomputed: transformers' ModernBERT keeps
20.4, its Llama 22.4 (counted, tests/training/test_cost.py); Korthikanti et al. 2022 count 17 for a leaner layer."""
BUCKET = 200_000_000
"""Elements that ZeRO-2 reduces at once (docs/method.md#uniform-script)."""
COPIES = {"sym_kl": 5, "clean_prompt": 5, "sym_kl_script": 8}
"""Copies of its logits, float32, that a dense loss keeps at its peak (counted, tests/training/test_cost.py)."""
COPIES_UNIFORM, COPIES_CE = 12, 3
"""The same of a uniform bound, which is computed in float64, and of any other cross-entropy."""


@dataclass(frozen=True, kw_only=True)
class State:
    """Bytes a parameter; `value` is that of a weight in the network and of its gradient in backward."""

    value: int
    weights: int
    gradients: int
    optimizer: int


STATES = {
    "float32": State(value=4, weights=4, gradients=4, optimizer=8),
    "bf16_autocast": State(value=4, weights=4, gradients=4, optimizer=8),
    # gradients are summed in float32 beside the network's own; the optimizer holds float32 masters and two moments
    "bf16_master": State(value=2, weights=2, gradients=6, optimizer=12),
    "bf16_pure": State(value=2, weights=2, gradients=2, optimizer=4),
}


@dataclass(frozen=True, kw_only=True)
class Engine:
    """`split`: what every GPU holds 1/GPUS of; `buffers`: what it holds whole beside that, in words."""

    split: frozenset[str]
    buffers: str


ENGINES = {
    "ddp": Engine(split=frozenset(), buffers="none"),
    "fsdp2": Engine(
        split=frozenset({"weights", "gradients", "optimizer", "ema"}),
        buffers="weights and gradients of the root group (embedding, head) and weights of two layers, gathered",
    ),
    "zero2": Engine(
        split=frozenset({"gradients", "optimizer", "ema"}), buffers=f"two buckets of {BUCKET:.0e} gradients"
    ),
}
"""FSDP2 gathers the next layer while one computes; ZeRO-2 fills one bucket while it reduces the other."""

SEED = {"gpus": 8, "rows_a_step": 256, "epochs": 1}
"""What the seed published of its runs: its README says 8 H100s, its scripts one epoch of 32 rows a GPU
(docs/method.md#masked-script)."""
SEEDS = ("llada", "duo", "duo_script")


def plan(
    recipe: Recipe, *, engine: str = "ddp", gpus: int = GPUS, activation_checkpointing: bool = False
) -> dict[str, Any]:
    """The plan in numbers. ValueError for an unknown engine, or GPUs that cannot share the batch."""
    if engine not in ENGINES:
        raise ValueError(f"no engine {engine!r}; {nearest(engine, ENGINES)}")
    if gpus < 1 or recipe.batch % gpus:
        raise ValueError(f"--gpus {gpus} cannot share a batch of {recipe.batch} rows; give a divisor of it")
    if engine == "zero2" and recipe.precision == "bf16_pure":
        raise ValueError("precision bf16_pure keeps no masters, ZeRO-2 always does; plan ddp or fsdp2")
    pins = parts.leaves(recipe)
    size = recipe.backbone.size(recipe.data)
    tokens = recipe.batch * recipe.data.row_length()
    # dense soft tokens are embedded by a product as large as the head
    heads = 2 if "dense_tokens" in pins.values() else 1
    body = size.body_flops + recipe.backbone.attention_flops(recipe.data)
    step = (3 * (body + size.head_flops * heads) + activation_checkpointing * body) * tokens
    if recipe.teacher is not None:  # one more forward, in the teacher
        step += (body + size.head_flops) * tokens
    rows = min(recipe.micro_batch, recipe.batch // gpus)
    memory, spared = _memory(recipe, size, rows, engine, gpus, activation_checkpointing)
    seconds = step / (gpus * PEAK * UTILISATION)
    epoch = -(-recipe.data.expected_rows() // recipe.batch)
    found = {
        "recipe": recipe.name,
        "parameters": size.parameters,
        "source_rows": pins.get("data.source_rows"),
        "training_rows_expected": recipe.data.expected_rows(),
        "unresolved": sorted(pin for pin, value in pins.items() if value == UNRESOLVED),
        "steps": recipe.steps,
        "rows_a_step": recipe.batch,
        "rows_a_gpu_at_once": rows,
        "tokens_a_step": tokens,
        "tokens": tokens * recipe.steps,
        "epochs": recipe.steps * recipe.batch / max(1, recipe.data.expected_rows()),
        "flops_a_step": step,
        "flops": step * recipe.steps,
        "engine": engine,
        "gpus": gpus,
        "activation_checkpointing": activation_checkpointing,
        "utilisation": UTILISATION,
        "seconds_a_step": seconds,
        "hours": seconds * recipe.steps / 3600,
        "gpu_hours": gpus * seconds * recipe.steps / 3600,
        "bytes_a_gpu": memory,
        "bytes_spared_by_the_fused_head": spared,
    }
    if recipe.name in SEEDS:
        # one epoch of this recipe's arithmetic on the seed's machine, whatever --gpus asks
        hours = epoch * step / (SEED["gpus"] * PEAK * UTILISATION) / 3600
        found["seed"] = {**SEED, "steps_implied": epoch, "hours_implied": hours}
    return found


def _memory(
    recipe: Recipe, size: Size, rows: int, engine: str, gpus: int, checkpointing: bool
) -> tuple[dict[str, float], int]:
    """Bytes a GPU by part for `rows` rows at once, and the bytes that dense logits would need beyond those held."""
    state = STATES[recipe.precision]
    whole = {
        "weights": state.weights * size.parameters,
        "gradients": state.gradients * size.parameters,
        "optimizer": state.optimizer * size.parameters,
        "ema": 4 * size.parameters if recipe.ema else 0,
    }
    if engine == "fsdp2" and recipe.precision == "bf16_master":
        # the shards are the masters: no second copy of weights and gradients
        whole |= {
            "weights": 4 * size.parameters,
            "gradients": 4 * size.parameters,
            "optimizer": 8 * size.parameters,
        }
    if recipe.teacher is not None:
        whole["teacher"] = 4 * size.parameters
    split = ENGINES[engine].split
    memory = {part: amount / gpus if part in split else amount for part, amount in whole.items()}
    layer = _layer(recipe, size)
    root = size.parameters - size.layers * layer
    gathered = state.value * (2 * root + 2 * layer)
    memory["buffers"] = {"ddp": 0, "fsdp2": gathered, "zero2": 2 * BUCKET * state.value}[engine]

    places = rows * recipe.data.row_length()
    narrow = 4 if recipe.precision == "float32" else 2
    of_layer = ACTIVATIONS * narrow * places * size.width
    inputs = narrow * places * size.width
    memory["activations"] = size.layers * inputs + of_layer if checkpointing else size.layers * of_layer

    copies = _copies(recipe)
    dense = places * recipe.data.vocabulary().total
    held = narrow * min(dense, CHUNK_ACCELERATOR) + 4 * copies * min(dense, BLOCK_ACCELERATOR)
    memory["logits"] = held
    # summed in float32, and scaled once more in backward
    memory["head_gradient"] = 2 * 4 * size.head_flops / 2
    return memory, max(0, 4 * copies * dense - held)


def _layer(recipe: Recipe, size: Size) -> int:
    """Parameters of one layer: what as many again would add (0 for an exact denoiser, which has none)."""
    if size.layers == 0:
        return 0
    path = next(pin for pin in parts.leaves(recipe.backbone) if pin.rpartition(".")[2] == "layers")
    deeper = parts.derive(recipe.backbone, {path: 2 * size.layers})
    return (deeper.size(recipe.data).parameters - size.parameters) // size.layers


def _copies(recipe: Recipe) -> int:
    """Copies of its logits that the recipe's loss would keep were they dense."""
    name = registry.part_name(type(recipe.objective))
    bound = (
        recipe.objective.meaning == "leave_one_out" and registry.part_name(type(recipe.process)) == "uniform"
    )
    return COPIES.get(name, COPIES_UNIFORM if bound else COPIES_CE)


def text(found: dict[str, Any]) -> str:
    """The plan for a person, assumptions included."""
    memory, engine = found["bytes_a_gpu"], ENGINES[found["engine"]]
    counted = "" if found["source_rows"] is None else f"{found['source_rows']:,} in the source, "
    recomputed = ", layers computed again in backward" if found["activation_checkpointing"] else ""
    lines = [
        f"{found['recipe']}: plan for {found['gpus']} x H100, {found['engine']}{recomputed}",
        f"parameters      {found['parameters']:,}",
        f"rows            {counted}{found['training_rows_expected']:,} training rows expected;"
        f" UNRESOLVED until online: {', '.join(found['unresolved']) or 'none'}",
        f"steps           {found['steps']:,} of {found['rows_a_step']} rows"
        f" ({found['tokens_a_step']:,} tokens) = {found['epochs']:.3g} epochs;"
        f" {found['rows_a_gpu_at_once']} rows a GPU at once",
        f"tokens          {found['tokens']:.4g}",
        f"FLOPs           {found['flops_a_step']:.4g} a step, {found['flops']:.4g} in all",
        f"time            {found['seconds_a_step']:.3g} s a step, {found['hours']:.4g} hours,"
        f" {found['gpu_hours']:.4g} GPU hours at {found['utilisation']:.0%} of {PEAK / 1e12:.0f} TFLOP/s",
        f"memory a GPU    {sum(memory.values()) / 2**30:.1f} GiB: "
        + ", ".join(f"{name.replace('_', ' ')} {size / 2**30:.1f}" for name, size in memory.items())
        + f"; spared by the fused head: {found['bytes_spared_by_the_fused_head'] / 2**30:.1f}",
        f"assumed         split over GPUs: {', '.join(sorted(engine.split)) or 'nothing'}; buffers: {engine.buffers};"
        f" activations of {ACTIVATIONS} values a token, layer and unit of width; head at every position;"
        " communication hidden",
    ]
    if "seed" in found:
        seed = found["seed"]
        lines.append(
            f"the seed        published: {seed['gpus']} H100s, one epoch, {seed['rows_a_step']} sequences a step,"
            f" no time; this plan implies {seed['steps_implied']:,} steps"
            f" and {60 * seed['hours_implied']:.2g} minutes for that (not measured)"
        )
    return "\n".join(lines)
