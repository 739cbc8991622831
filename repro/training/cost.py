"""Estimated cost of a training run: parameters, tokens, memory per GPU, FLOPs and hours (docs/method.md#cost-model).

    python -m repro.recipes.duo --plan [--engine ddp|fsdp2|zero2] [--gpus N] [--activation-checkpointing] [--json]

Not counted: fragmentation of the allocator, the CUDA context, communication buffers other than ZeRO-2's, and
communication that does not overlap with computation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from repro.core import parts
from repro.core.errors import nearest
from repro.data.corpus import UNRESOLVED
from repro.models.backbone import Size
from repro.models.chunks import BLOCK_ACCELERATOR, CHUNK_ACCELERATOR
from repro.training.recipe import Recipe

PEAK = 989e12
"""Dense bf16 FLOP/s of one H100 (NVIDIA's data sheet)."""
UTILISATION = 0.40
"""Fraction of the peak FLOP/s that a run is assumed to reach (not measured)."""
GPUS = 8
ACTIVATIONS = 22
"""Number of values saved for backward per token, layer and hidden feature, with attention recomputed: 20.4 in
transformers' ModernBERT, 22.4 in its Llama (counted, tests/training/test_cost.py); Korthikanti et al. 2022 count 17 for
a smaller layer."""
BUCKET = 200_000_000
"""Number of gradient elements that ZeRO-2 reduces at once (docs/method.md#uniform-script)."""
COPIES: dict[str, float] = {"sym_kl": 2, "clean_prompt": 2, "sym_kl_script": 4, "relaxed_ce": 4, "dcd": 8.25}
"""Objective -> number of float32 tensors as large as all logits, the logits included, that its loss and gradient would
hold at the peak if all logits were computed at once (counted, tests/training/test_cost.py)."""
COPIES_UNIFORM, COPIES_CE = 7.25, 3
"""The same number for the bound of uniform noise, which is computed in float64, and for any other cross-entropy."""


@dataclass(frozen=True, kw_only=True)
class State:
    """Bytes per parameter that training in one precision needs.

    `weights`: the weight in the network; `gradients`: all copies of its gradient; `optimizer`: optimizer state, with
    the float32 master weight if that is a copy of its own; `value`: a weight or gradient in the buffers through which
    an engine gathers or exchanges it.
    """

    value: int
    weights: int
    gradients: int
    optimizer: int


STATES = {
    "float32": State(value=4, weights=4, gradients=4, optimizer=8),
    "bf16_autocast": State(value=4, weights=4, gradients=4, optimizer=8),
    # gradients are summed in float32 beside the network's own; the optimizer holds float32 master weights and two
    # moments
    "bf16_master": State(value=2, weights=2, gradients=6, optimizer=12),
    "bf16_pure": State(value=2, weights=2, gradients=2, optimizer=4),
}


@dataclass(frozen=True, kw_only=True)
class Engine:
    """How an engine uses memory. `split`: which of "weights", "gradients", "optimizer" and "ema" (averaged weights) are
    sharded over the GPUs; `buffers`: description of the further buffers of each GPU, for the printed estimate."""

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
"""Engine name -> its memory. FSDP2 gathers the next layer while the present one computes; ZeRO-2 fills one bucket while
it reduces the other."""

REFERENCE_SCRIPT = {"gpus": 8, "rows_a_step": 256, "epochs": 1}
"""How the reference scripts, tom-pollak/dllm@43ea9ff, were run: on 8 H100s (README), one epoch with 32 rows per GPU and
step (scripts; docs/method.md#masked-script)."""
OF_REFERENCE_SCRIPTS = ("llada", "duo", "duo_script")
"""Names of the recipes that follow the reference scripts."""


def plan(
    recipe: Recipe, *, engine: str = "ddp", gpus: int = GPUS, activation_checkpointing: bool = False
) -> dict[str, Any]:
    """Estimated cost of training a recipe, a dict of named values: parameters, tokens, bytes per GPU, FLOPs, seconds
    and hours.

    `engine`: "ddp", "fsdp2" or "zero2"; `gpus`: number of GPUs; `activation_checkpointing`: whether layers are
    recomputed in backward. Raises ValueError for an unknown engine, for an engine that does not support the recipe's
    precision, and for a number of GPUs that does not divide the batch.
    """
    if engine not in ENGINES:
        raise ValueError(f"no engine {engine!r}; {nearest(engine, ENGINES)}")
    if gpus < 1 or recipe.batch % gpus:
        raise ValueError(
            f"--gpus {gpus} does not divide the batch of {recipe.batch} rows; give a divisor of {recipe.batch}"
        )
    if engine == "zero2" and recipe.precision == "bf16_pure":
        raise ValueError(
            "precision bf16_pure has no master weights, and ZeRO-2 needs them; use --engine ddp or fsdp2"
        )
    pins = parts.leaves(recipe)
    size = recipe.backbone.size(recipe.data)
    tokens = recipe.batch * recipe.data.row_length()
    # dense soft tokens are embedded by a matrix product as large as the head's
    heads = 2 if "dense_tokens" in pins.values() else 1
    copies, trained = (
        _copies_of_rows(recipe),
        recipe.backbone.trained_parameters(recipe.data),
    )
    body = copies * (size.body_flops + recipe.backbone.attention_flops(recipe.data))
    # forward, backward to the inputs and, unless the weights are frozen, backward to the weights
    passes = 3 if trained == size.parameters else 2
    adapters = 0 if trained == size.parameters else 3 * copies * 2.0 * trained
    step = (passes * (body + size.head_flops * heads) + adapters + activation_checkpointing * body) * tokens
    if recipe.teacher is not None:  # one more forward, in the teacher
        step += (body + size.head_flops) * tokens
    rows = min(recipe.micro_batch, recipe.batch // gpus)
    memory, spared = _memory(recipe, size, rows, engine, gpus, activation_checkpointing)
    seconds = step / (gpus * PEAK * UTILISATION)
    epoch = -(-recipe.data.expected_rows() // recipe.batch)
    found = {
        "recipe": recipe.name,
        "parameters": size.parameters,
        "trained_parameters": trained,
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
    if recipe.name in OF_REFERENCE_SCRIPTS:
        # one epoch of this recipe on the reference script's machine, whatever --gpus says
        hours = epoch * step / (REFERENCE_SCRIPT["gpus"] * PEAK * UTILISATION) / 3600
        found["reference_script"] = {**REFERENCE_SCRIPT, "steps_implied": epoch, "hours_implied": hours}
    return found


def _memory(
    recipe: Recipe, size: Size, rows: int, engine: str, gpus: int, checkpointing: bool
) -> tuple[dict[str, float], int]:
    """(what -> bytes per GPU, bytes saved) of a training run with microbatches of `rows` rows. The first counts
    "weights", "gradients", "activations", ...; the second is what is saved because output layer and loss are computed
    in pieces (fused), not from all logits at once. `checkpointing`: whether layers are recomputed in backward."""
    state, trained = STATES[recipe.precision], recipe.backbone.trained_parameters(recipe.data)
    adapted = trained < size.parameters
    frozen = size.parameters if adapted else 0
    whole = {
        "weights": state.weights * (trained + frozen),
        "gradients": state.gradients * trained,
        "optimizer": state.optimizer * trained,
        "ema": 4 * trained if recipe.ema else 0,
    }
    if engine == "fsdp2" and recipe.precision == "bf16_master":
        # the shards are the master weights: no second copy of weights and gradients
        whole |= {"weights": 4 * (trained + frozen), "gradients": 4 * trained, "optimizer": 8 * trained}
    if recipe.teacher is not None:
        whole["teacher"] = 4 * size.parameters
    split = ENGINES[engine].split
    memory = {part: amount / gpus if part in split else amount for part, amount in whole.items()}
    layer = _layer(recipe, size)
    root = size.parameters - size.layers * layer
    gathered = state.value * (2 * root + 2 * layer)
    memory["buffers"] = {"ddp": 0, "fsdp2": gathered, "zero2": 2 * BUCKET * state.value}[engine]

    tokens = rows * recipe.data.row_length()
    narrow = 4 if recipe.precision == "float32" else 2
    through = _copies_of_rows(recipe) * tokens
    of_layer = ACTIVATIONS * narrow * through * size.width
    inputs = narrow * through * size.width
    memory["activations"] = size.layers * inputs + of_layer if checkpointing else size.layers * of_layer

    copies = _copies(recipe)
    dense = tokens * recipe.data.vocabulary().total
    held = narrow * min(dense, CHUNK_ACCELERATOR) + round(4 * copies) * min(dense, BLOCK_ACCELERATOR)
    memory["logits"] = held
    # summed in float32, and a scaled copy in backward
    memory["head_gradient"] = 0 if adapted else 2 * 4 * size.head_flops / 2
    return memory, max(0, round(4 * copies) * dense - held)


def _copies_of_rows(recipe: Recipe) -> int:
    """Number of copies of a row that pass through the layers: one if whole rows are noised; two, a noisy and a clean
    one, if rows are noised block by block; three if the loss also reads a second noisy copy with the complementary
    mask."""
    if recipe.process.block_length() is None:
        return 1
    return 3 if parts.part_name(type(recipe.objective)) == "complementary_ce" else 2


def _layer(recipe: Recipe, size: Size) -> int:
    """Number of parameters of one layer of the recipe's network, which has this `size`; 0 for a network without layers.
    It is what a network of twice as many layers has more, divided by the number of layers."""
    if size.layers == 0:
        return 0
    path = next(pin for pin in parts.leaves(recipe.backbone) if pin.rpartition(".")[2] == "layers")
    deeper = parts.derive(recipe.backbone, {path: 2 * size.layers})
    return (deeper.size(recipe.data).parameters - size.parameters) // size.layers


def _copies(recipe: Recipe) -> float:
    """Number of float32 tensors [rows, L, vocabulary], the logits included, that the recipe's loss and its gradient
    would hold if all logits were computed at once."""
    name = parts.part_name(type(recipe.objective))
    bound = recipe.objective.meaning == "leave_one_out" and recipe.process.noise == "uniform"
    return COPIES.get(name, COPIES_UNIFORM if bound else COPIES_CE)


def _least(value: float, least: float) -> str:
    """Text of a time `value` with four digits, or "below LEAST" if `value` is below `least` (in the same unit): the
    estimate counts computation alone, so that very short times mean nothing."""
    return f"below {least:g}" if value < least else f"{value:.4g}"


def text(found: dict[str, Any]) -> str:
    """The cost found by `plan` as lines of text, with the assumptions of the estimate."""
    memory, engine = found["bytes_a_gpu"], ENGINES[found["engine"]]
    counted = "" if found["source_rows"] is None else f"{found['source_rows']:,} in the source, "
    frozen = found["trained_parameters"] != found["parameters"]
    trained = f", frozen; {found['trained_parameters']:,} more are trained" if frozen else ""
    recomputed = ", layers recomputed in backward" if found["activation_checkpointing"] else ""
    lines = [
        f"{found['recipe']}: plan for {found['gpus']} x H100, {found['engine']}{recomputed}",
        f"parameters      {found['parameters']:,}" + trained,
        f"rows            {counted}{found['training_rows_expected']:,} training rows expected;"
        f" UNRESOLVED until online: {', '.join(found['unresolved']) or 'none'}",
        f"steps           {found['steps']:,} of {found['rows_a_step']} rows"
        f" ({found['tokens_a_step']:,} tokens) = {found['epochs']:.3g} epochs;"
        f" {found['rows_a_gpu_at_once']} rows a GPU at once",
        f"tokens          {found['tokens']:.4g}",
        f"FLOPs           {found['flops_a_step']:.4g} a step, {found['flops']:.4g} in all",
        f"time            {_least(found['seconds_a_step'], 1e-3)} s a step, {_least(found['hours'], 0.01)} hours,"
        f" {_least(found['gpu_hours'], 0.01)} GPU hours at {found['utilisation']:.0%} of {PEAK / 1e12:.0f} TFLOP/s",
        f"memory per GPU  {sum(memory.values()) / 2**30:.1f} GiB: "
        + ", ".join(f"{name.replace('_', ' ')} {size / 2**30:.1f}" for name, size in memory.items())
        + f"; saved by the fused head: {found['bytes_spared_by_the_fused_head'] / 2**30:.1f}",
        f"assumed         split over GPUs: {', '.join(sorted(engine.split)) or 'nothing'}; buffers: {engine.buffers};"
        f" activations of {ACTIVATIONS} values a token, layer and unit of width; head at every position;"
        " communication hidden",
    ]
    if "reference_script" in found:
        script = found["reference_script"]
        lines.append(
            f"reference       published: {script['gpus']} H100s, one epoch, {script['rows_a_step']} sequences a step,"
            f" no time; this plan implies {script['steps_implied']:,} steps"
            f" and {60 * script['hours_implied']:.2g} minutes for that (not measured)"
        )
    return "\n".join(lines)
