"""The scale ladder: the same recipe, small enough for one CPU core.

    nano            the oracle language `strong`        nano.lexicon   the oracle language `lexicon`
    nano.sudoku     4x4 sudoku                          nano.text      State of the Union addresses, by characters

Replaced: data, backbone (a Llama, or a small DiT where the recipe has a large one), batch, steps, optimizer values and
warm-up. Kept: process, objective and schedules as laws.
Noise windows are re-expressed for the smaller vocabulary, so that as many tokens flip; step counts of curricula and
annealings keep their share of the run. Steps are pinned, never seconds; they were chosen so that a run takes about 30
seconds of one core (60 for sudoku).
"""

from __future__ import annotations

import dataclasses
from typing import Any

from repro.core import parts, registry
from repro.core.errors import nearest
from repro.core.schedules import LinearToZero
from repro.data.corpus import Data
from repro.data.documents import Sotu
from repro.data.language import Language
from repro.data.sudoku import Sudoku
from repro.data.text import Characters, Text
from repro.models.backbone import Backbone
from repro.models.dit import Dit, WithDropout
from repro.models.llama import Llama
from repro.models.oracle import Oracle
from repro.objectives.dcd import Dcd
from repro.objectives.elbo import DuoElbo
from repro.objectives.noise import GammaWindow, Window
from repro.objectives.objective import Objective
from repro.objectives.soft_tokens import Dense
from repro.objectives.sym_kl import SymKL, SymKLScript
from repro.processes.process import diffusion
from repro.training.recipe import Recipe, TrainedTeacher

CORPORA: dict[str, Data] = {
    "nano": Language(
        table="strong",
        table_sha256="3ea547f74845d64349bac5c304d14d350362d090aa1623c325d8ac0d6364e69e",
        rows=80_000,
        heldout=4096,
        seed=0,
    ),
    "nano.lexicon": Language(
        table="lexicon",
        table_sha256="431410b0c4e056a45520e2bfd838a1e379c75fb3ee7bb6807456c46fc6910ccc",
        rows=80_000,
        heldout=4096,
        seed=0,
    ),
    "nano.sudoku": Sudoku(clues_low=5, clues_high=9, rows=60_000, heldout=2048, seed=0),
    "nano.text": Text(
        documents=Sotu(
            sha256="49bf5edcd2da5e10ee7e81ad48cdf811ae14c0f9688583c394105cada859a4f6",
            heldout_stride=20,
        ),
        units=Characters(),
        length=64,
    ),
}

LAYERS = {"nano": 2, "nano.lexicon": 2, "nano.sudoku": 4, "nano.text": 2}
STEPS = {"nano": 2200, "nano.lexicon": 1200, "nano.sudoku": 2000, "nano.text": 900}
DIT_SHARE = 0.5
"""Share of these steps that a DiT takes: its modulation and its dropout make a step twice as dear as a Llama's."""
TEACHERS = {"duo_owt_distilled": "duo_owt"}
"""Whom a distillation learns from at these scales: the recipe of the weights that it starts from in full."""
WARMUP = 100
LEARNING_RATE = {"absorbing": 2e-3, "uniform": 1e-3, "left_to_right": 4e-3}
DISTILLING = 0.2
"""Share of that learning rate that a distillation takes, as in full: 6e-5 of 3e-4."""
EMA_DECAY = 0.995


def scaled(recipe: Recipe, scale: str) -> Recipe:
    """The recipe at a scale, named `RECIPE@SCALE`; ValueError names the nearest scale."""
    if scale == "full":
        return recipe
    if scale not in CORPORA:
        raise ValueError(f"no scale {scale!r}; {nearest(scale, [*CORPORA, 'full'])}")
    data, steps = CORPORA[scale], STEPS[scale]
    if isinstance(recipe.backbone, WithDropout):
        steps = round(DIT_SHARE * steps)
    share = steps / recipe.steps
    noise = parts.canonical(recipe.process)["part"]
    overrides: dict[str, Any] = {
        "name": f"{recipe.name}@{scale}",
        "data": data,
        "backbone": _backbone(recipe, data, LAYERS[scale]),
        "objective": _objective(
            recipe.objective, recipe.data.vocabulary().size, data.vocabulary().size, share
        ),
        "optimizer.lr": LEARNING_RATE[noise],
        "optimizer.betas": (0.9, 0.98),
        "learning_rate.warmup": WARMUP,
        "precision": "float32",
        "batch": 32,
        "micro_batch": 32,
        "steps": steps,
        "log_every": 20,
        "heldout_every": max(1, steps // 4),
        "heldout_rows": 512,
        "checkpoint_every": 500,
        "suite": scale,
    }
    for pin in ("drop", "decay"):
        if f"learning_rate.{pin}" in parts.leaves(recipe):
            overrides[f"learning_rate.{pin}"] = round(getattr(recipe.learning_rate, pin) * share)
    if recipe.ema is not None:
        overrides["ema.decay"] = EMA_DECAY
    if recipe.teacher is not None:
        base = scaled(registry.recipe(TEACHERS[recipe.name]), scale)
        overrides["optimizer.lr"] = DISTILLING * LEARNING_RATE[noise]
        overrides["teacher"] = TrainedTeacher(recipe=base, seed=0, steps=base.steps)
    return parts.derive(recipe, overrides)


def oracle(recipe: Recipe) -> Recipe:
    """The recipe with the exact conditional for a network and nothing to train (its language must be an oracle's)."""
    if not isinstance(recipe.data, Language) or recipe.process.causal:
        raise ValueError(
            f"no exact denoiser for {recipe.name}; it exists for diffusion at nano and nano.lexicon"
        )
    exact = Oracle(process=diffusion(recipe.process))
    return dataclasses.replace(recipe, name=f"oracle:{recipe.name}", backbone=exact, steps=0)


def by_name(name: str) -> Recipe:
    """The recipe of `NAME`, `NAME@SCALE` or `oracle:NAME@SCALE`; ValueError names the nearest."""
    base, at, scale = name.removeprefix("oracle:").partition("@")
    recipe = scaled(registry.recipe(base), scale if at else "full")
    return oracle(recipe) if name.startswith("oracle:") else recipe


def _backbone(recipe: Recipe, data: Data, layers: int) -> Backbone:
    """A network of toy size: the papers' DiT where that is the recipe's, else a Llama."""
    if isinstance(recipe.backbone, WithDropout):
        pins: dict[str, Any] = {"layers": layers, "width": 64, "heads": 2, "ffn": 256}
        if isinstance(recipe.backbone.backbone, Dit):
            pins["condition"] = 64
        return parts.derive(recipe.backbone, {f"backbone.{pin}": value for pin, value in pins.items()})
    causal = recipe.process.causal
    return Llama(
        layers=layers,
        width=64,
        heads=2,
        kv_heads=2,
        ffn=256,
        attention="causal" if causal else "bidirectional",
        rope_base=10_000.0,
        norm_eps=1e-5,
        learned_positions=data.row_length(),
        tied=False,
        init_deviation=0.02,
    )


def _objective(objective: Objective, full: int, count: int, share: float) -> Objective:
    """The same law, written for `full` ids, over `count` ids and a run of `share` times the steps."""
    overrides: dict[str, Any] = {}
    if isinstance(objective, SymKL | SymKLScript | DuoElbo) and count <= FEW:
        overrides["tokens"] = Dense()
    match objective:
        case SymKL() | SymKLScript():
            window = objective.noise
            overrides["noise"] = Window(
                low=_same_flips(window.low, full, count), high=_same_flips(window.high, full, count)
            )
            if isinstance(objective.temperature, LinearToZero):
                overrides["temperature.steps"] = round(objective.temperature.steps * share)
        case DuoElbo():
            window = objective.window
            overrides["window"] = GammaWindow(
                low=_same_gamma(window.low, full, count), high=_same_gamma(window.high, full, count)
            )
            overrides["until"] = round(objective.until * share)
        case Dcd():
            window = objective.window
            overrides["window"] = GammaWindow(
                low=_same_gamma(window.low, full, count), high=_same_gamma(window.high, full, count)
            )
            overrides["round"] = round(objective.round * share)
    return parts.derive(objective, overrides)


FEW = 512
"""Vocabularies up to this take the dense soft tokens, which are as fast there and need no kept mass."""


def _same_gamma(gamma: float, full: int, count: int) -> float:
    """The gamma at which `count` ids keep as many tokens, T(A), as `full` do at `gamma`; 6 digits, so that it locks."""
    from repro.core.lazy import torch
    from repro.processes import gaussian

    level = gaussian.transform(torch.tensor(gamma, dtype=torch.float64), full)[0].item()
    return float(f"{gaussian.invert(level, count):.6g}")


def _same_flips(t: float, full: int, count: int) -> float:
    """The t = 1 - A at which `count` ids keep as many tokens as `full` do at `t`; 6 digits."""
    from repro.core.lazy import torch
    from repro.processes import gaussian

    gamma = gaussian.gamma_of(torch.tensor(1 - t, dtype=torch.float64)).item()
    level = gaussian.transform(torch.tensor(gamma, dtype=torch.float64), full)[0].item()
    signal = torch.sigmoid(torch.tensor(-gaussian.invert(level, count), dtype=torch.float64)).sqrt()
    return float(f"{1 - signal.item():.6g}")
