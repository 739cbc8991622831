"""Scales of recipes: variants of the same method that are small enough to train on one CPU core.

    nano            synthetic language `strong`         nano.lexicon   synthetic language `lexicon`
    nano.sudoku     4x4 sudoku                          nano.text      State of the Union addresses, by characters
    micro           State of the Union addresses, by a byte-level BPE of 4,096 ids, rows of 128

The synthetic languages have known probabilities (oracle). A scale replaces data, backbone, batch, steps, optimizer
settings and warm-up. The new backbone is a small DiT if the recipe has a DiT, else a Llama (at micro also a DiT, unless
the recipe's network reads blocks causally). The new backbone has no adapters, since there are no released weights.
Process, objective and the form of the schedules stay (docs/method.md#scales). Noise levels are converted to the smaller
vocabulary so that the same share of tokens is replaced; the step counts of curricula and annealings keep their share of
the run. Numbers of steps are fixed, not derived from a time limit; they were chosen so that a run takes about 30
seconds on one core (60 for sudoku, 9 to 14 minutes at micro).
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any

from repro.core import parts, registry
from repro.core.errors import nearest
from repro.core.schedules import ConstantUntil, LinearToZero, LogLinearUntil
from repro.data.byte_level import BpeMerges
from repro.data.corpus import Data
from repro.data.documents import Sotu
from repro.data.language import Language
from repro.data.sudoku import Sudoku
from repro.data.text import Characters, Text
from repro.models.backbone import Backbone
from repro.models.causal_blocks import CausalBlocks
from repro.models.dit import Dit, DitBlocks, DitCausal, WithDropout
from repro.models.llama import Llama
from repro.models.oracle import Oracle
from repro.objectives.dcd import Dcd
from repro.objectives.elbo import DuoElbo, Elbo, IndependentElbo
from repro.objectives.noise import GammaWindow, MatchedWindow, Window
from repro.objectives.objective import Objective
from repro.objectives.soft_tokens import Dense
from repro.objectives.sym_kl import RelaxedCE, SymKL, SymKLScript
from repro.processes.process import diffusion
from repro.processes.uniform import Uniform
from repro.training.optimizer import Precision
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
    "micro": Text(
        documents=Sotu(
            sha256="49bf5edcd2da5e10ee7e81ad48cdf811ae14c0f9688583c394105cada859a4f6",
            heldout_stride=20,
        ),
        units=BpeMerges(
            path="evals/data/tokenizers/sotu_4096.txt",
            sha256="5f16553e8ca84c6706aae7ac08dbe8906453ccf4e966d30375c49bdfb73fb125",
            size=4096,
        ),
        length=128,
    ),
}


@dataclasses.dataclass(frozen=True)
class Budget:
    """Size of a scale's networks (`layers` to `ffn`), and length and settings of its runs. `learning_rate`: family of
    noise (`Process.noise`) -> learning rate; `conditioned`: whether a recipe whose network is neither a DiT nor reads
    causal blocks gets a small DiT, as in the papers on MDLM and Duo, in place of a small Llama (`_backbone`)."""

    layers: int
    width: int
    heads: int
    ffn: int
    batch: int
    steps: int
    precision: Precision
    learning_rate: Mapping[str, float]
    heldout_rows: int
    checkpoint_every: int
    conditioned: bool


NANO = Budget(
    layers=2,
    width=64,
    heads=2,
    ffn=256,
    batch=32,
    steps=2200,
    precision="float32",
    learning_rate={"absorbing": 2e-3, "uniform": 1e-3, "left_to_right": 4e-3},
    heldout_rows=512,
    checkpoint_every=500,
    conditioned=False,
)
BUDGETS = {
    "nano": NANO,
    "nano.lexicon": dataclasses.replace(NANO, steps=1200),
    "nano.sudoku": dataclasses.replace(NANO, layers=4, steps=2000),
    "nano.text": dataclasses.replace(NANO, steps=900),
    "micro": Budget(
        layers=4,
        width=256,
        heads=4,
        ffn=1024,
        batch=16,
        steps=2000,
        precision="bf16_autocast",
        learning_rate={"absorbing": 5e-4, "uniform": 1e-3, "left_to_right": 2e-3},
        heldout_rows=256,
        checkpoint_every=200,
        conditioned=True,
    ),
}
DIT_SHARE = 0.5
"""Factor on the steps of a DiT with dropout, whose training step takes twice as long (modulation and dropout)."""
TEACHERS = {"duo_owt_distilled": "duo_owt"}
"""Distillation recipe -> recipe by which its teacher is trained at small scales; at full scale the teacher has released
weights."""
OWN_SUITE = "own"
"""Evaluation suite of models that are trained on the user's own data: evals/suites/own.toml."""
WARMUP = 100
DISTILLATION_LR = 0.2
"""Factor on the learning rate for a distillation, as at full scale: 6e-5 against 3e-4."""
EMA_DECAY = 0.995
CONDITION = {False: 64, True: 128}
"""Whether a scale's networks read the noise level -> width of its embedding (128 in the papers)."""
DENSE_VOCAB_SIZE = 512
"""Largest vocabulary size with dense soft tokens, which are as fast as sparse ones up to there."""


def data_at(recipe: Recipe, scale: str) -> Data:
    """The data source of a recipe at a scale: at "full" the recipe's own. ValueError, with the most similar name, for
    an unknown scale."""
    if scale != "full" and scale not in CORPORA:
        raise ValueError(f"no scale {scale!r}; {nearest(scale, [*CORPORA, 'full'])}")
    return CORPORA.get(scale, recipe.data)


def scaled(recipe: Recipe, scale: str, own: Data | None = None) -> Recipe:
    """The variant of a recipe at a scale, named `RECIPE@SCALE`; for "full" the recipe itself.

    `own`: the user's data, in place of the scale's (None: the scale's data). With the user's data the recipe's suite is
    "own", and the caller must rename the recipe. Raises ValueError, with the most similar name, for an unknown scale.
    """
    data = data_at(recipe, scale) if own is None else own
    if scale == "full":
        return recipe if own is None else parts.derive(recipe, {"data": data, "suite": OWN_SUITE})
    budget = BUDGETS[scale]
    dropout = isinstance(recipe.backbone.blank(), WithDropout)
    steps = round(DIT_SHARE * budget.steps) if dropout else budget.steps
    share = steps / recipe.steps
    noise = recipe.process.noise
    if noise not in budget.learning_rate:
        raise ValueError(
            f"no learning rate for {noise} noise at this scale; add it to BUDGETS of repro/recipes/scale.py"
        )
    lr = budget.learning_rate[noise]
    overrides: dict[str, Any] = {
        "name": f"{recipe.name}@{scale}",
        "data": data,
        "backbone": _backbone(recipe, data, budget),
        "objective": _objective(
            recipe.objective, recipe.data.vocabulary().size, data.vocabulary().size, share
        ),
        "optimizer.lr": lr,
        "optimizer.betas": (0.9, 0.98),
        "learning_rate.warmup": WARMUP,
        "precision": budget.precision,
        "batch": budget.batch,
        "micro_batch": budget.batch,
        "steps": steps,
        "log_every": 20,
        "heldout_every": max(1, steps // 4),
        "heldout_rows": budget.heldout_rows,
        "checkpoint_every": budget.checkpoint_every,
        "suite": scale if own is None else OWN_SUITE,
    }
    for pin in ("drop", "decay"):
        if f"learning_rate.{pin}" in parts.leaves(recipe):
            overrides[f"learning_rate.{pin}"] = round(getattr(recipe.learning_rate, pin) * share)
    if recipe.ema is not None:
        overrides["ema.decay"] = EMA_DECAY
    if recipe.teacher is not None:
        if recipe.name not in TEACHERS:
            raise ValueError(
                f"the distillation {recipe.name!r} has no small teacher; add the teacher's recipe to TEACHERS of"
                " repro/recipes/scale.py"
            )
        base = scaled(full_recipe(TEACHERS[recipe.name]), scale, own)
        overrides["optimizer.lr"] = DISTILLATION_LR * lr
        overrides["teacher"] = TrainedTeacher(recipe=base, seed=0, steps=base.steps)
    return parts.derive(recipe, overrides)


def oracle(recipe: Recipe) -> Recipe:
    """The recipe without training (0 steps), with the exact denoiser of its synthetic language as its network.

    Raises ValueError for an autoregressive recipe, for one that noises a row block by block, and for data that has no
    exact denoiser.
    """
    if not isinstance(recipe.data, Language) or recipe.process.causal:
        raise ValueError(
            f"no exact denoiser for {recipe.name}; it exists for diffusion recipes at scales nano and nano.lexicon"
        )
    if recipe.process.block_length() is not None:
        raise ValueError(
            f"no exact denoiser for {recipe.name}, which reads blocks: exact denoisers read whole rows; use recipe mdlm"
        )
    exact = Oracle(process=diffusion(recipe.process))
    return dataclasses.replace(recipe, name=f"oracle:{recipe.name}", backbone=exact, steps=0)


def full_recipe(name: str) -> Recipe:
    """The full-scale recipe registered under a name. ValueError for an unknown name, with the nearest registered
    one."""
    return importlib.import_module(registry.recipe_module(name)).RECIPE


def by_name(name: str) -> Recipe:
    """The recipe named `NAME` or `NAME@SCALE`; for `oracle:NAME@SCALE` that recipe without training, with the exact
    denoiser of its synthetic language as its network.

    Raises ValueError, with the most similar name, for an unknown recipe or scale.
    """
    base, at, scale = name.removeprefix("oracle:").partition("@")
    recipe = scaled(full_recipe(base), scale if at else "full")
    return oracle(recipe) if name.startswith("oracle:") else recipe


def _backbone(recipe: Recipe, data: Data, budget: Budget) -> Backbone:
    """A backbone of the budget's size with random weights, of a class that depends on the recipe's own backbone. For a
    DiT with dropout: the same class. For a causal Llama that reads blocks: the same. For any other: a Llama, or, if the
    budget is `conditioned`, the DiT of the papers on MDLM and Duo. This DiT reads the noise level only for uniform
    noise with a NELBO as objective (docs/method.md#scales)."""
    sizes = {"layers": budget.layers, "width": budget.width, "heads": budget.heads, "ffn": budget.ffn}
    causal, backbone = recipe.process.causal, recipe.backbone.blank()
    if isinstance(backbone, WithDropout):
        if isinstance(backbone.backbone, Dit | DitBlocks):
            sizes["condition"] = CONDITION[budget.conditioned]
        return parts.derive(backbone, {f"backbone.{pin}": value for pin, value in sizes.items()})
    in_blocks = isinstance(backbone, CausalBlocks)
    if in_blocks or not budget.conditioned:
        llama = Llama(
            **sizes,
            kv_heads=budget.heads,
            attention="causal" if causal or in_blocks else "bidirectional",
            rope_base=10_000.0,
            norm_eps=1e-5,
            learned_positions=data.row_length(),
            tied=False,
            init_deviation=0.02,
        )
        return CausalBlocks(backbone=llama, block=backbone.block) if in_blocks else llama
    if causal:
        return DitCausal(**sizes, rope_base=10_000.0, norm_eps=1e-5)
    reads = isinstance(recipe.process, Uniform) and isinstance(
        recipe.objective, Elbo | IndependentElbo | DuoElbo
    )
    return Dit(
        **sizes,
        condition=CONDITION[True],
        frequencies=256,
        alpha_end=recipe.process.alpha_end if reads else None,
        rope_base=10_000.0,
        norm_eps=1e-5,
    )


def _objective(objective: Objective, full_size: int, vocab_size: int, share: float) -> Objective:
    """The objective at a scale: noise levels are converted from a vocabulary of `full_size` ids to one of `vocab_size`,
    and step counts are multiplied by `share`, the scale's steps divided by the recipe's."""
    overrides: dict[str, Any] = {}
    if isinstance(objective, SymKL | SymKLScript | RelaxedCE | DuoElbo) and vocab_size <= DENSE_VOCAB_SIZE:
        overrides["tokens"] = Dense()
    match objective:
        case SymKL() | SymKLScript() | RelaxedCE():
            if isinstance(objective.noise, Window):
                ends = objective.noise
                overrides["noise"] = MatchedWindow(low=ends.low, high=ends.high, vocab_size=full_size)
            if isinstance(objective.temperature, LinearToZero):
                overrides["temperature.steps"] = round(objective.temperature.steps * share)
        case DuoElbo():
            overrides["window"] = _same_window(objective.window, full_size, vocab_size)
            overrides["until"] = round(objective.until * share)
            if isinstance(objective.temperature, ConstantUntil | LogLinearUntil):
                overrides["temperature.end"] = round(objective.temperature.end * share)
            if isinstance(objective.temperature, LogLinearUntil):
                overrides["temperature.begin"] = round(objective.temperature.begin * share)
        case Dcd():
            overrides["window"] = _same_window(objective.window, full_size, vocab_size)
            overrides["round"] = round(objective.round * share)
    return parts.derive(objective, overrides)


def _same_window(window: GammaWindow, full_size: int, vocab_size: int) -> GammaWindow:
    """The window of noise levels (gamma = -log SNR) for `vocab_size` ids that corresponds to `window` for `full_size`
    ids: at its ends as many tokens are kept as at the ends of `window` (`_same_gamma`). The ends are rounded to six
    digits."""
    low, high = (_same_gamma(gamma, full_size, vocab_size) for gamma in (window.low, window.high))
    return GammaWindow(low=_rounded(low), high=_rounded(high))


def _same_gamma(gamma: float, full_size: int, vocab_size: int) -> float:
    """The noise level (gamma = -log SNR) at which uniform noise over `vocab_size` ids keeps as many tokens as uniform
    noise over `full_size` ids does at the level `gamma`.

    The share of tokens kept is T(A), the weight of the clean token in the uniform noise that Gaussian noise of signal
    level A induces (docs/method.md#transformation-operator).
    """
    from repro.core.lazy import torch
    from repro.processes import gaussian

    level = gaussian.transform(torch.tensor(gamma, dtype=torch.float64), full_size)[0].item()
    return gaussian.invert(level, vocab_size)


def _rounded(value: float) -> float:
    """`value` to six significant digits, so that recipes do not depend on the rounding of the machine."""
    return float(f"{value:.6g}")
