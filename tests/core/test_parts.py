"""Parts have complete canonical forms, strict reading and stable names; recipes have the pins of their papers.

The surface (field names of all parts) is frozen in tests/core/surface.json: a new capability is a new part, not a new
field. Where a field must change, raise the part's version and run `make accept STEPS="surface"`.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import subprocess
import sys

import pytest
from helpers import paper_claims

from repro.core import parts, registry
from repro.core.parts import canonical, derive, digest, leaves, parse_overrides, read
from repro.recipes.command import citations, command, select
from repro.recipes.scale import CORPORA, by_name, scaled
from repro.samplers.presets import preset
from repro.training.recipe import Recipe
from scripts.accept import LOCKS, SURFACE, lock, surface

RECIPES = tuple(registry.RECIPES)
SCALES = ("full", *CORPORA)

# --- form -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_what_its_canonical_form_says(name, scale):
    """Through JSON text and back: the same parts, digest and name; the digest does not depend on the name."""
    recipe = scaled(by_name(name), scale)
    again = read(json.loads(parts.to_json(recipe)), Recipe)
    assert again == recipe and again.digest() == recipe.digest() and digest(again) == digest(recipe)
    assert recipe.name == (name if scale == "full" else f"{name}@{scale}")
    other = dataclasses.replace(recipe, name="other")
    assert other.digest() == recipe.digest() and digest(other) != digest(recipe)


def test_different_setups_have_different_digests():
    """Two recipes have one digest only if they are equal but for the name, as LM1B and OpenWebText recipes are at a
    scale, which replaces everything in which they differ (except Duo's windows); at full scale no two are equal."""
    recipes = {(name, scale): scaled(by_name(name), scale) for name in RECIPES for scale in SCALES}
    unnamed = {key: dataclasses.replace(recipe, name="") for key, recipe in recipes.items()}
    digests = {key: recipe.digest() for key, recipe in recipes.items()}
    for one, other in itertools.combinations(recipes, 2):
        same = unnamed[one] == unnamed[other]
        assert (digests[one] == digests[other]) == same, (one, other)
        assert not same or (one[1] == other[1] != "full"), f"{one} and {other} are the same recipe"
    assert unnamed["ar_lm1b", "nano"] == unnamed["ar_owt", "nano"]


def test_the_digest_does_not_depend_on_the_order_of_keys():
    recipe = by_name("duo")
    turned = dict(reversed(canonical(recipe).items()))
    assert list(turned) != list(canonical(recipe)) and digest(turned) == digest(recipe)


@pytest.mark.parametrize("name", RECIPES)
def test_locks_are_current(name, capsys):
    """Byte for byte."""
    assert command(by_name(name), ["--print", "--json"]) == 0
    printed, path = capsys.readouterr().out, LOCKS / f"{name}.json"
    assert printed == lock(name)
    remedy = f'{path} is missing or not the recipe; if the change is meant, run make accept STEPS="locks"'
    assert path.is_file() and path.read_text("utf-8") == printed, remedy
    assert read(json.loads(printed), Recipe) == by_name(name)


def test_every_lock_has_its_recipe():
    apart = {path.stem for path in LOCKS.iterdir()} ^ set(RECIPES)
    assert not apart, f'locks without recipe, or recipes without lock: {apart}; run make accept STEPS="locks"'


# --- registry -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", registry.PARTS)
def test_a_registered_part_is_a_part(name):
    """It resolves, has its registered name, and no pin has a default value."""
    cls = parts.part_class(name)
    assert parts.part_name(cls) == name and issubclass(cls, parts.Part)
    for field in dataclasses.fields(cls):
        assert field.default is field.default_factory is dataclasses.MISSING
        assert field.kw_only


def test_names_are_unique():
    assert len(set(registry.PARTS.values())) == len(registry.PARTS)
    assert len(set(registry.RECIPES.values())) == len(registry.RECIPES)
    assert [by_name(name).name for name in RECIPES] == list(RECIPES)


def test_a_part_with_a_default_value_is_refused():
    with pytest.raises(AssertionError, match=r"Loose\.low has a default value"):

        @parts.part
        class Loose(parts.Part):
            low: float = 0.1


def test_a_part_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        by_name("mdlm").steps = 1  # type: ignore[misc]


def test_the_surface_is_frozen():
    frozen, found = json.loads(SURFACE.read_text("utf-8")), surface()
    apart = {part for part in frozen.keys() | found.keys() if frozen.get(part) != found.get(part)}
    assert not apart, (
        f"parts whose fields or version changed, or that are new: {sorted(apart)}; raise the version of a changed part,"
        ' then run make accept STEPS="surface"'
    )


# --- sources --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECIPES)
def test_every_pin_has_a_source(name):
    cited, pins = citations(name), leaves(by_name(name))
    assert not [pin for pin in pins if not cited.get(pin)]
    assert not cited.keys() - pins.keys(), "a source without its pin"


@pytest.mark.parametrize("name", RECIPES)
def test_print_shows_every_pin_with_its_source(name, capsys):
    command(by_name(name), ["--print"])
    head, *rows = capsys.readouterr().out.splitlines()
    assert head == f"{name}  digest {by_name(name).digest()}"
    pins = leaves(by_name(name))
    shown = [row for row in rows if row.split()[0] in pins]
    for row, (pin, value) in zip(shown, pins.items(), strict=True):
        value = canonical(value)
        assert row.startswith(f"  {pin} ") and json.dumps(value).strip(chr(34)) in row
        assert row.endswith(citations(name)[pin])
    for row in rows:  # the others name the part whose settings follow
        assert row in shown or row.split()[1] in registry.PARTS


def test_print_says_which_pins_moved(capsys):
    command(by_name("mdlm"), ["--scale", "nano", "--set", "objective.eps=0.01", "--print"])
    rows = {row[2:].split()[0]: row for row in capsys.readouterr().out.splitlines()[1:]}
    assert rows["objective.eps"].startswith("* ") and rows["objective.eps"].endswith("--set (was 0.001)")
    assert rows["backbone.width"].startswith("  ") and rows["backbone.width"].endswith(
        "  repro/recipes/scale.py"
    )
    assert rows["optimizer.clip"].endswith(
        "transformers 4.53.1 training_args.py:907: train_dllm.py sets none"
    )


def test_print_of_full_recipes_needs_no_torch():
    """Nor any other heavy library: --print must be fast."""
    code = (
        "import sys\nfrom repro.recipes.command import command\nfrom repro.recipes.scale import by_name\n"
        f"for name in {RECIPES!r}:\n"
        "    for form in ([], ['--json']):\n"
        "        command(by_name(name), ['--print', *form])\n"
        "loaded = {'torch', 'transformers', 'datasets', 'accelerate', 'scipy', 'pandas'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


# --- strictness -----------------------------------------------------------------------------------------


def changed(path: str, value: object) -> dict:
    """The canonical form of mdlm with one key set (or, with `...`, removed)."""
    data = canonical(by_name("mdlm"))
    *parents, last = path.split(".")
    node = data
    for step in parents:
        node = node[step]
    if value is ...:
        del node[last]
    else:
        node[last] = value
    return data


@pytest.mark.parametrize(
    "path, value, message",
    [
        ("objective.part", "elbow", "no component (part) 'elbow'; nearest is 'elbo'"),
        ("objective.part", None, "objective: part=null: expected the name of a component"),
        ("objective.part", ..., "no 'part' key at 'objective'"),
        ("objective.part", "cosine", "objective: component 'cosine' is not of the type Objective"),
        ("objective.version", 2, "part 'elbo' at 'objective' has version 2; this code has version 1"),
        ("version", 0, "part 'recipe' has version 0"),
        ("optimizer.epsilon", 1e-8, "no setting 'optimizer.epsilon'; valid: betas, clip, eps, lr"),
        ("optimizer.eps", ..., "part 'adamw' at 'optimizer' lacks the setting 'optimizer.eps'"),
        ("steps", ..., "part 'recipe' lacks the setting 'steps'"),
        ("steps", "5", 'steps="5": expected int, got str'),
        ("steps", 5.0, "steps=5.0: expected int, got float"),
        ("steps", 5.5, "steps=5.5: expected int, got float"),
        ("steps", True, "steps=true: expected int, got bool"),
        ("steps", None, "steps=null: expected int, got null"),
        ("optimizer.lr", "1e-3", 'optimizer.lr="1e-3": expected float, got str'),
        ("optimizer.lr", True, "optimizer.lr=true: expected float, got bool"),
        ("optimizer.betas", [0.9], r"optimizer.betas=[0.9]: expected array of length 2, got 1"),
        ("backbone.attend_pads", 1, "backbone.attend_pads=1: expected bool, got int"),
        ("backbone.attend_pads", "false", 'backbone.attend_pads="false": expected bool, got str'),
        ("precision", "fp16", "precision=\"fp16\": invalid enum value 'fp16'"),
        ("objective", 5, "objective=5: expected a component Objective"),
        (
            "objective.eps",
            {"part": "elbo"},
            'objective.eps={"part": "elbo"}: expected float, got a component',
        ),
        ("ema", 0.99, "ema=0.99: expected"),
    ],
)
def test_reading_is_strict(path, value, message):
    with pytest.raises(ValueError) as error:
        read(changed(path, value), Recipe)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("pin", "line"),
    [
        ("batch=0", "batch=0: expected a number above 0"),
        ("heldout_every=-1", "heldout_every=-1: expected a number above 0"),
        ("steps=-1", "steps=-1: expected a number of 0 or more"),
        ("objective.eps=1", "elbo: eps=1.0 is outside [0, 1); give 0 or more, and less than 1"),
        ("ema.decay=1.5", "ema: decay=1.5 is outside [0, 1)"),
        ("optimizer.betas=[0.9, 2]", "adamw: betas=(0.9, 2.0) is outside [0, 1)"),
        (
            'process={"part": "left_to_right"}',
            "objective 'elbo' is for absorbing or uniform noise",
        ),
        ("teacher=duo", 'teacher="duo": expected null, got str'),
    ],
)
def test_recipes_that_cannot_run_are_refused(pin, line):
    with pytest.raises(ValueError, match=re.escape(line)):
        select(by_name("mdlm"), "nano", [pin])


@pytest.mark.parametrize(
    ("recipe", "pin", "line"),
    [
        ("llada", "objective.rate.low=-1", "noise levels from -1.0 to 0.99 are no range in [0, 1]"),
        ("llada", "objective.rate.high=0.1", "noise levels from 0.15 to 0.1 are no range in [0, 1]"),
        ("duo_nelbo", "process.alpha_end=1", "uniform: alpha_end=1.0 is outside [0, 1)"),
        ("duo_nelbo", "process.eps=2", "uniform: eps=2.0 is outside [0, 1)"),
        ("duo_nelbo", "objective.window.high=-9", "gamma_window: low="),
        ("duo_owt_distilled", "objective.eps=-1", "objective.eps=-1: expected a number of 0 or more"),
    ],
)
def test_noise_outside_its_range_is_refused(recipe, pin, line):
    with pytest.raises(ValueError, match=re.escape(line)):
        select(by_name(recipe), "full", [pin])


@pytest.mark.parametrize(
    ("recipe", "pin", "line"),
    [
        ("duo", "objective.temperature.floor=0", "floor=0.0 is no softmax temperature"),
        ("duo", "objective.temperature.steps=0", "start=0.001, steps=0: give a start of 0 or more"),
        ("duo", "objective.temperature.start=-1", "start=-1.0, steps="),
        ("duo_nelbo", "objective.temperature.value=-1", "value=-1.0 is no softmax temperature"),
        ("duo_owt", "objective.temperature.after=0", "after=0.0 is no softmax temperature"),
        ("duo_lm1b", "objective.tokens.mass=0", "sparse_tokens: mass=0.0 is outside (0, 1)"),
        ("llada_pretrain", "learning_rate.level=-1", "level=-1.0 is no factor of the learning rate"),
    ],
)
def test_schedules_outside_their_range_are_refused(recipe, pin, line):
    """They were trained on: soft tokens of the least likely ids, a rate that climbs the loss, or a division by 0."""
    with pytest.raises(ValueError, match=re.escape(line)):
        select(by_name(recipe), "full", [pin])


@pytest.mark.parametrize("pin", ["low=0", "high=1", "high=0.01", "vocab_size=0"])
def test_a_matched_window_without_finite_ends_is_refused(pin):
    with pytest.raises(
        ValueError, match=r"matched_window from .*; give 0 < low < high < 1, and 2 ids or more"
    ):
        select(by_name("duo"), "nano", [f"objective.noise.{pin}"])


def test_a_temperature_by_which_logits_overflow_is_refused():
    with pytest.raises(ValueError, match=r"temperature=1e-320: too low, logits would overflow; give 0"):
        preset("low_confidence:temperature=1e-320")
    assert preset("low_confidence:temperature=0.001").claim() == "biased"


def test_pins_must_be_finite():
    with pytest.raises(ValueError, match=r"optimizer\.lr=NaN"):
        select(by_name("mdlm"), "full", ["optimizer.lr=NaN"])
    with pytest.raises(ValueError, match=r"optimizer\.clip=-Infinity"):
        select(by_name("mdlm"), "full", ["optimizer.clip=-Infinity"])


def test_a_pin_must_be_a_json_value():
    with pytest.raises(TypeError, match="is not a value of a setting"):
        canonical(dataclasses.replace(by_name("mdlm"), suite={1, 2}))  # type: ignore[arg-type]


# --- deriving -------------------------------------------------------------------------------------------


def test_an_override_changes_one_pin():
    recipe = by_name("duo")
    moved = derive(recipe, {"objective.temperature.steps": 1000, "optimizer.clip": None})
    assert moved.objective.temperature.steps == 1000 and moved.optimizer.clip is None
    before, after = leaves(recipe), leaves(moved)
    assert {pin for pin in before if before[pin] != after[pin]} == {
        "objective.temperature.steps",
        "optimizer.clip",
    }


def test_an_override_may_be_a_whole_part():
    """As JSON on the command line, where its version may be left out; overrides of its own pins may follow."""
    written = 'objective.temperature={"part": "constant", "value": 0.001}'
    moved = select(by_name("duo"), "full", [written, "objective.temperature.value=0.002"])
    assert type(moved.objective.temperature).__name__ == "Constant"
    assert moved.objective.temperature.value == 0.002


@pytest.mark.parametrize(
    "pins, message",
    [
        (["optimiser.lr=1"], "no setting 'optimiser'; nearest is 'optimizer'"),
        (["optimizer.learning_rate=1"], "no setting 'optimizer.learning_rate'; valid: betas, clip, eps, lr"),
        (["steps.more=1"], "no setting 'steps.more'; nearest is 'steps'"),
        (["version=2"], "no setting 'version'"),
        (["part=elbo"], "no setting 'part'"),
        (["objective.part=elbo"], "no setting 'objective.part'"),
        (["steps=1", "steps=2"], "setting 'steps' is given twice; give it once"),
        (["steps=1", "steps=1"], "setting 'steps' is given twice; give it once"),
        (["ema.decay=0.5", "ema=null"], "'ema' would overwrite 'ema.decay'"),
        (["steps"], "'steps' is not NAME=VALUE"),
        (["=5"], "'=5' is not NAME=VALUE"),
        (["steps=five"], 'steps="five": expected int, got str'),
        (["name=mine"], "name follows from its settings"),
        (["objective=elbo"], 'objective="elbo": expected a component Objective'),
    ],
)
def test_an_override_that_does_not_fit_is_named(pins, message):
    with pytest.raises(ValueError) as error:
        select(by_name("mdlm"), "full", pins)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_values_are_json_else_text():
    found = parse_overrides(["a=1", "b=1.0", "c=true", "d=null", "e=[1, 2]", "f=word", "g=x=y", 'h="5"'])
    assert found == {
        "a": 1, "b": 1.0, "c": True, "d": None, "e": [1, 2], "f": "word", "g": "x=y", "h": "5",
    }  # fmt: skip
    assert type(found["a"]) is int and type(found["b"]) is float


def test_the_name_of_a_derived_recipe():
    """A scale is part of the name; any other override appends six digits of the digest."""
    assert by_name("duo@nano.text").name == "duo@nano.text"
    assert by_name("oracle:mdlm@nano").name == "oracle:mdlm@nano"
    one = select(by_name("duo"), "nano", ["optimizer.lr=0.01"])
    assert one.name == f"duo@nano+{one.digest()[:6]}"
    assert select(by_name("duo"), "nano", ["optimizer.lr=0.02"]).name != one.name
    full = select(by_name("duo"), "full", ["steps=10"])
    assert full.name == f"duo+{full.digest()[:6]}"


def test_an_override_by_the_same_value_keeps_the_name():
    assert select(by_name("duo"), "full", ["steps=500000"]) == by_name("duo")


@pytest.mark.parametrize(
    "name, message",
    [
        ("mdml", "no recipe 'mdml'; nearest is 'mdlm'"),
        ("mdlm@nanno", "no scale 'nanno'; nearest is 'nano'"),
        ("mdlm@", "no scale ''"),
        ("oracle:oracle:mdlm@nano", "no recipe 'oracle:mdlm'"),
        ("xoracle:mdlm@nano", "no recipe 'xoracle:mdlm'"),
        ("oracle:mdlm", "no exact denoiser for mdlm"),
        ("oracle:ar@nano", "no exact denoiser for ar@nano"),
        ("oracle:mdlm@nano.sudoku", "no exact denoiser for mdlm@nano.sudoku"),
    ],
)
def test_unknown_names_are_refused(name, message):
    with pytest.raises(ValueError) as error:
        by_name(name)
    assert message in str(error.value)


def test_what_a_new_recipe_lacks_is_named(monkeypatch):
    """Its line in the registry, its teacher at small scale, the learning rate of its family of noise."""
    duo = by_name("duo_owt_distilled")
    new = dataclasses.replace(duo, name="mine")
    with pytest.raises(
        ValueError, match=r"recipe 'mine' is not registered; add its line to RECIPES of repro/core/registry"
    ):
        command(new, ["--print"])
    with pytest.raises(
        ValueError, match=r"distillation 'mine' has .*; add .* to TEACHERS of repro/recipes/scale"
    ):
        scaled(new, "nano")
    monkeypatch.setattr(type(duo.process), "noise", "gaussian")
    with pytest.raises(
        ValueError, match="no learning rate for gaussian noise at this scale; add it to BUDGETS"
    ):
        scaled(duo, "nano")


# --- claims: typed by hand from the papers and scripts, compared with the recipes -------------------

MASKED_SCRIPT = {  # docs/method.md#masked-script
    "data.source": "allenai/tulu-3-sft-mixture-0225",
    "data.template": "User: {user}\n{sep}\nAssistant:\n{assistant}",
    "data.max_length": 512,
    "data.heldout_fraction": 0.05,
    "data.split_seed": 42,
    "data.scored": "answer",
    "data.size": 50368,
    "data.mask": 50284,
    "data.cls": 50281,
    "data.sep": 50282,
    "data.pad": 50283,
    "data.source_rows": 866138,
    "optimizer.lr": 5e-5,
    "optimizer.betas": (0.9, 0.999),
    "optimizer.eps": 1e-8,
    "optimizer.weight_decay": 0.0,
    "optimizer.clip": 1.0,
    "learning_rate.warmup": 0,
    "batch": 256,
    "micro_batch": 32,
    "steps": 3215,
    "heldout_every": 200,
    "log_every": 500,
    "checkpoint_every": 500,
    "precision": "bf16_master",
}
LARGE = {  # docs/method.md#masked-script: ModernBERT-large
    "backbone.layers": 28,
    "backbone.width": 1024,
    "backbone.heads": 16,
    "backbone.ffn": 2624,
    "backbone.global_every": 3,
    "backbone.window": 128,
    "backbone.rope_base_global": 160_000.0,
    "backbone.rope_base_local": 10_000.0,
    "backbone.weights": "answerdotai/ModernBERT-large",
    "data.tokenizer": "answerdotai/ModernBERT-large",
}
RELAXED_SCRIPT = {  # docs/method.md#uniform-script, docs/method.md#symmetric-kl
    **MASKED_SCRIPT,
    **LARGE,
    "data.scored": "all",
    "backbone.attend_pads": False,
    "objective.noise.low": 0.03,
    "objective.noise.high": 0.15,
    "objective.temperature.start": 1e-3,
    "objective.temperature.steps": 500_000,
    "objective.temperature.floor": 1e-8,
    "objective.tokens.mass": 0.9999,
    "objective.floor": 1e-8,
    "objective.group.rows": 32,
    "ema": None,
}
CLAIMS = {
    "llada": MASKED_SCRIPT
    | LARGE
    | {
        "objective.rate.low": 0.15,
        "objective.rate.high": 0.99,
        "objective.masks": "static_masks",
        "objective.group.rows": 32,
        "backbone.attend_pads": True,
        "ema": None,
    },
    # README of the reference script: temperature annealed over 500,000 steps, trained as long; clip 1.0 is our choice
    "duo": RELAXED_SCRIPT | {"steps": 500_000, "heldout_every": 5000},
    "duo_script": RELAXED_SCRIPT | {"optimizer.clip": None},
    "duo_nelbo": MASKED_SCRIPT
    | LARGE
    | {  # docs/method.md#duo-curriculum, docs/method.md#duo-hyperparameters
        "data.scored": "all",
        "backbone.attend_pads": False,
        "process.alpha_end": 1e-3,
        "process.eps": 1e-3,
        "objective.window.low": -3.55,
        "objective.window.high": -1.85,
        "objective.temperature.value": 1e-3,
        "objective.tokens.mass": 0.9999,
        "objective.until": 1607,  # 500 K of 1 M steps, of 3,215: floor(3215 / 2)
        "objective.eps": 1e-3,
        "ema.decay": 0.9999,
    },
    # docs/method.md#mdlm
    "mdlm": MASKED_SCRIPT
    | LARGE
    | {"objective.eps": 1e-3, "ema.decay": 0.9999, "backbone.attend_pads": False},
    "ar": MASKED_SCRIPT | {"backbone.attention": "causal", "backbone.tied": True, "ema": None},
}
CLAIMS |= paper_claims.CLAIMS
KINDS = {  # process, objective, learning-rate schedule
    "llada": ("absorbing", "masked_ce", "cosine"),
    "duo": ("uniform", "sym_kl", "linear"),
    "duo_script": ("uniform", "sym_kl_script", "linear"),
    "duo_nelbo": ("uniform", "duo_elbo", "linear"),
    "mdlm": ("absorbing", "elbo", "cosine"),
    "ar": ("left_to_right", "next_token", "cosine"),
} | paper_claims.KINDS
SCORES = (
    {  # meaning of the output, and kind of bound that the loss is (docs/method.md#masked-script, consequence 2)
        "llada": ("x0_mean", "no bound"),
        "duo": ("x0_mean", "improper score"),
        "duo_script": ("x0_mean", "improper score"),
        "duo_nelbo": ("leave_one_out", "truncated bound"),
        "mdlm": ("leave_one_out", "truncated bound"),
        "ar": ("x0_mean", "exact"),
    }
    | paper_claims.SCORES
)


@pytest.mark.parametrize("name", CLAIMS)
def test_recipes_have_the_pins_of_their_sources(name):
    pins = leaves(by_name(name))
    wrong = {pin: (pins.get(pin), claim) for pin, claim in CLAIMS[name].items() if pins.get(pin) != claim}
    assert not wrong


@pytest.mark.parametrize("name", KINDS)
def test_recipes_have_the_kinds_of_their_sources(name):
    data = canonical(by_name(name))
    assert tuple(data[field]["part"] for field in ("process", "objective", "learning_rate")) == KINDS[name]


@pytest.mark.parametrize("name", SCORES)
def test_recipes_have_the_meaning_and_bound_of_their_sources(name):
    objective = by_name(name).objective
    assert (objective.meaning, objective.score) == SCORES[name]


@pytest.mark.parametrize("name", RECIPES)
def test_a_scale_keeps_process_and_objective(name):
    """Also kinds of schedules and averaging; data, backbone and sizes shrink (docs/method.md#scales)."""
    full, small = canonical(by_name(name)), canonical(scaled(by_name(name), "nano"))
    assert small["process"] == full["process"]
    for key in ("objective", "learning_rate", "optimizer"):
        assert small[key]["part"] == full[key]["part"]
    assert (small["ema"] is None) == (full["ema"] is None)
    assert small["optimizer"]["clip"] == full["optimizer"]["clip"]
    assert small["precision"] == "float32" and small["steps"] <= 2200


def test_networks_of_micro_read_the_noise_level_as_in_the_papers():
    """MDLM's and LLaDA's do not, Duo's does (docs/method.md#duo-hyperparameters); the symmetric KL of the reference
    script gives its network none, and left to right there is none."""
    backbones = {
        name: canonical(scaled(by_name(name), "micro").backbone)
        for name in ("ar", "mdlm", "llada", "duo", "duo_nelbo")
    }
    assert backbones["ar"]["part"] == "dit_causal"
    found = {name: pins["alpha_end"] for name, pins in backbones.items() if name != "ar"}
    assert found == {"mdlm": None, "llada": None, "duo": None, "duo_nelbo": 1e-3}
    sizes = {tuple(pins[pin] for pin in ("layers", "width", "heads", "ffn")) for pins in backbones.values()}
    assert sizes == {(4, 256, 4, 1024)}


def test_scaled_curricula_keep_their_share_of_the_run():
    for name, pin in {"duo": "objective.temperature.steps", "duo_nelbo": "objective.until"}.items():
        for scale in CORPORA:
            full, small = by_name(name), scaled(by_name(name), scale)
            assert leaves(small)[pin] / small.steps == pytest.approx(leaves(full)[pin] / full.steps, abs=1e-3)


@pytest.mark.parametrize("name", ["duo", "duo_script"])
def test_scaled_noise_has_the_law_of_the_full_recipe(name):
    """At any scale a row at time t is intact with T(A) of the full vocabulary (docs/method.md#flip-probability), and
    its weight is that of t, which spans 5.7 over the window (docs/method.md#script-departures row 8)."""
    import torch

    from repro.processes import gaussian

    table = {0.03: 0.40882, 0.05: 0.12569, 0.08: 0.03427, 0.15: 0.00560}
    t = torch.tensor(list(table), dtype=torch.float64)
    for scale in CORPORA:
        small = scaled(by_name(name), scale)
        count, objective = small.data.vocabulary().size, small.objective
        assert (objective.noise.low, objective.noise.high) == (0.03, 0.15)
        alpha = gaussian.transform(objective.noise.gamma(t, count), count)[0]
        assert alpha.tolist() == pytest.approx(list(table.values()), abs=2e-5)
        weight = objective.view_scale.scale(t, alpha, count)
        assert (weight[-1] / weight[0]).item() == pytest.approx(5.7, abs=0.2)
