"""Adapters beside frozen weights: what they compute, what is trained and kept, merged and exported
(docs/method.md#lora).

Symbols: B rows, L tokens, r rank.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace

import pytest
import torch
from helpers.adapted import base, block_recipe, lora, started, whole_recipe
from helpers.toy import curve
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from repro import model as models
from repro.core import parts, rng
from repro.hub.lora import LINEAR
from repro.model import load
from repro.models.attention import Mask
from repro.models.denoiser import trained_parameters
from repro.models.llama import Llama
from repro.recipes.scale import by_name
from repro.samplers.decode import decode
from repro.samplers.plan import Plan
from repro.samplers.presets import preset
from repro.training import checkpoint as checkpoints
from repro.training.cost import plan
from repro.training.exporting import write_weights
from repro.training.loop import train
from repro.training.optimizer import Ema

IDS = torch.randint(0, 8, (3, 10), generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def runs(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path_factory.getbasetemp() / "runs"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Released weights with the ids of the toy recipes."""
    made = tmp_path_factory.mktemp("base") / "llama"
    return base(made, whole_recipe(made.parent).data.vocabulary().total)


def features(denoiser, ids=IDS):
    with torch.no_grad():
        return denoiser.encode(ids, t=None, attention=Mask())


def shaken(denoiser):
    """The denoiser with random adapters in place of those that do nothing at the start."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trained_parameters(denoiser).values():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return denoiser


def test_an_adapted_matrix_is_the_sum_of_the_paper(folder):
    """At the start the frozen network itself; then W + (alpha / r) B A in every target, by hand, unmerged and merged,
    and the mask's embedding alone is another."""
    recipe = whole_recipe(folder, "precision=float32")
    plain = recipe.backbone.blank()
    assert plain == started(folder, "bidirectional").backbone
    denoiser = recipe.network(0).eval().double()
    frozen = recipe.backbone.backbone.module(recipe.role(), 0).eval().double()
    mask = recipe.data.vocabulary().mask
    ids = torch.cat([IDS, torch.full((3, 1), mask)], 1)
    assert torch.equal(features(denoiser, ids), features(frozen, ids))
    shaken(denoiser)
    mine = dict(denoiser.named_parameters())
    with torch.no_grad():
        for name, weight in frozen.named_parameters():
            stem = f"adapted.model.{name.removesuffix('.weight')}"
            if f"{stem}.lora_A.default.weight" in mine:
                weight += 2.0 * mine[f"{stem}.lora_B.default.weight"] @ mine[f"{stem}.lora_A.default.weight"]
            if name.endswith("embed_tokens.weight"):
                weight[mask] = mine[f"{stem}.token_adapter.trainable_tokens_delta.default"][0]
    apart = features(denoiser, ids)
    assert (apart - features(recipe.network(0).eval().double(), ids)).abs().max() > 0.1
    assert (apart - features(frozen, ids)).abs().max() < 1e-9
    logits = denoiser.logits(apart)
    merged = denoiser.merged()
    assert type(merged) is type(frozen)
    assert (merged.logits(features(merged, ids)) - logits).nan_to_num(0, 0, 0).abs().max() < 1e-9
    assert {n: p.shape for n, p in merged.named_parameters()} == {
        n: p.shape for n, p in frozen.named_parameters()
    }


@pytest.mark.parametrize("targets", [("q_proj",), ("k_proj", "o_proj"), LINEAR])
def test_what_is_trained_is_what_the_plan_counts(folder, targets):
    recipe = whole_recipe(folder)
    for mask_embedding in (False, True):
        pins = lora(started(folder, "bidirectional"), targets=targets, mask_embedding=mask_embedding)
        trained = trained_parameters(pins.module(recipe.role(), 0))
        assert sum(p.numel() for p in trained.values()) == pins.trained_parameters(recipe.data)
        assert all("lora_" in name or "trainable_tokens" in name for name in trained)


def test_an_adapter_depends_on_seed_and_name_alone(folder):
    recipe = whole_recipe(folder)
    torch.manual_seed(5)
    one = trained_parameters(recipe.network(0))
    torch.manual_seed(6)
    other, third = trained_parameters(recipe.network(0)), trained_parameters(recipe.network(1))
    down = [name for name in one if "lora_A" in name]
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not any(torch.equal(one[name], third[name]) for name in down)
    assert not torch.equal(one[down[0]], one[down[1]])
    bound = one[down[0]].shape[1] ** -0.5
    assert 0.8 * bound < one[down[0]].abs().max() <= bound and abs(one[down[0]].mean()) < 0.2 * bound


def test_dropout_is_a_function_of_keys(folder):
    """In training alone; rows of other keys drop other inputs; a half of the inputs doubled."""
    recipe = whole_recipe(folder, dropout=0.5, targets=("q_proj",))
    denoiser = shaken(recipe.network(0))
    assert denoiser.has_dropout and not whole_recipe(folder).network(0).has_dropout
    keys = rng.keys(0, rng.DROPOUT, 0, torch.arange(3))
    ids = IDS[:1].expand(3, -1)

    def out(keys):
        denoiser.set_dropout_keys(keys)
        return features(denoiser.train(), ids)

    torch.manual_seed(0)
    first = out(keys)
    assert torch.equal(first, out(keys)) and not torch.equal(first[0], first[1])
    assert not torch.equal(first, out(keys + 1))
    still = features(denoiser.eval(), ids)
    assert torch.equal(still[0], still[1])
    layer = next(m for m in denoiser.modules() if hasattr(m, "lora_dropout")).lora_dropout["default"].train()
    layer.keys = keys
    dropped = layer(torch.ones(3, 50, 32))
    assert set(dropped.unique().tolist()) == {0.0, 2.0} and abs(dropped.mean() - 1) < 0.05


# --- runs -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory, folder):
    """40 steps of block diffusion from the tiny weights, with an average and dropout."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("REPRO_RUNS", str(tmp_path_factory.getbasetemp() / "runs"))
        recipe = replace(
            block_recipe(folder, "steps=40", "optimizer.lr=0.02", dropout=0.1, targets=LINEAR),
            ema=Ema(decay=0.9),
        )
        out = tmp_path_factory.mktemp("adapted")
        train(recipe, seed=3, out=out / "run", stop=None, resume=False)
    return recipe, out / "run"


def test_a_checkpoint_holds_the_adapters_alone_and_goes_on_bitwise(run, tmp_path):
    """The loss falls; files hold what is trained; a run that stops halfway and goes on has the same bytes and rows."""
    recipe, out = run
    rows = curve(out)
    assert sum(r["loss"] for r in rows[-5:]) < 0.9 * sum(r["loss"] for r in rows[:5])
    last = checkpoints.open_checkpoint(out)
    names = trained_parameters(recipe.network(0)).keys()
    for file in ("model.safetensors", "ema.safetensors"):
        assert load_file(last.folder / file).keys() == names
    assert last.base == recipe.backbone.backbone.backbone.weights_digest()
    train(recipe, seed=3, out=tmp_path / "run", stop=20, resume=False)
    train(recipe, seed=3, out=tmp_path / "run", stop=None, resume=True)
    again = checkpoints.open_checkpoint(tmp_path / "run")
    for file in [*last.files, "state.json"]:
        assert (last.folder / file).read_bytes() == (again.folder / file).read_bytes(), file
    assert curve(tmp_path / "run") == rows


@pytest.mark.parametrize("weights", ["raw", "ema"])
def test_a_run_is_loaded_merged_sampled_and_exported(run, weights, tmp_path):
    """`--ckpt` of the run and of its exported folder, which holds all weights, give the same logits and texts; those
    of the adapters beside the frozen weights are the same up to rounding."""
    recipe, out = run
    model = load(out, weights)
    beside = recipe.network(0).eval()
    found = checkpoints.open_checkpoint(out)
    found.copy("ema.safetensors" if weights == "ema" else "model.safetensors", trained_parameters(beside))
    t = (torch.arange(12) >= 4).double().expand(2, -1)
    ids = torch.randint(0, 8, (2, 12), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        one, other = (
            d.logits(d.encode(ids, t=t, attention=Mask()))[..., :8] for d in (beside, model.denoiser)
        )
    assert (one - other).abs().max() < 1e-4 and one.std() > 0.1
    write_weights(found, weights, tmp_path / "exported")
    read = load(tmp_path / "exported")
    assert read.digest == model.digest == found.digest(weights)
    settings = Plan(gen_length=8, block_length=4, steps=8)
    texts = [
        decode(
            m.denoiser, recipe.process, preset("ancestral"), settings, [[1], [2]], seed=0, names=[0, 1]
        ).ids
        for m in (model, read)
    ]
    assert torch.equal(*texts) and len(texts[0].unique()) > 2


def test_merged_weights_are_transformers_own(folder, tmp_path):
    """A Llama's adapters exported: transformers' network without adapters has the logits."""
    recipe = whole_recipe(folder, "steps=4", "optimizer.lr=0.05")
    train(recipe, seed=0, out=tmp_path / "run", stop=None, resume=False)
    assert write_weights(checkpoints.open_checkpoint(tmp_path / "run"), "raw", tmp_path / "out")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    theirs.config.is_causal = False
    for layer in theirs.model.layers:
        layer.self_attn.is_causal = False
    mask = torch.zeros(3, 1, 10, 10)
    denoiser = load(tmp_path / "run", "raw").denoiser
    with torch.no_grad():
        logits = theirs(IDS, attention_mask=mask).logits
        start = recipe.backbone.backbone.module(recipe.role(), 0)
        assert (denoiser.head().logits(features(denoiser)) - logits).abs().max() < 1e-4
        assert (denoiser.head().logits(features(start)) - logits).abs().max() > 1e-2


def test_adapters_of_other_weights_are_refused(run, tmp_path):
    """Weights of the same shapes in the folder that the recipe names."""
    recipe, out = run
    moved = shutil.copytree(out, tmp_path / "run")
    other = base(tmp_path / "other", recipe.data.vocabulary().total, seed=1)
    shutil.rmtree(checkpoints.steps_in(moved)[-1])
    (step,) = checkpoints.steps_in(moved)
    state = step / "state.json"
    held = json.loads(state.read_text("utf-8"))
    held["recipe"]["backbone"]["backbone"]["backbone"]["source"] = str(other)
    state.write_text(json.dumps(held), "utf-8")
    with pytest.raises(
        ValueError,
        match=r"holds adapters of frozen weights with SHA-256 \w{12}, but those found have \w{12}; restore",
    ):
        load(moved)
    swapped = parts.derive(recipe, {"backbone.backbone.backbone.source": str(other)})
    with pytest.raises(ValueError, match="holds adapters of frozen weights with"):
        train(swapped, seed=3, out=moved, stop=None, resume=True)
    assert checkpoints.open_checkpoint(out).digest("raw") != replace(
        checkpoints.open_checkpoint(out), base="0" * 64
    ).digest("raw")


@pytest.mark.parametrize("precision", ["bf16_master", "bf16_autocast"])
def test_other_precisions_train_the_adapters_alone(folder, precision, tmp_path):
    """Frozen weights stay as they are; the master weights of the adapters are float32."""
    recipe = whole_recipe(folder, "steps=4", f"precision={precision}", "optimizer.lr=0.05")
    train(recipe, seed=0, out=tmp_path / "run", stop=None, resume=False)
    rows, file = (
        curve(tmp_path / "run"),
        checkpoints.open_checkpoint(tmp_path / "run").folder / "model.safetensors",
    )
    assert all(tensor.dtype == torch.float32 for tensor in load_file(file).values())
    assert rows[-1]["grad_norm"] > 0


# --- plans and errors -----------------------------------------------------------------------------------


def test_a_plan_counts_adapters_and_frozen_weights():
    """8B: 84 M trained; gradients and optimizer hold those alone, and a step leaves out the gradient of the weights."""
    adapted = plan(by_name("llada_sft_lora"))
    whole = plan(parts.derive(by_name("llada_sft_lora"), {"backbone": by_name("llada_sft").backbone}))
    assert adapted["parameters"] == whole["parameters"] == 8_015_581_184
    assert adapted["trained_parameters"] == 83_886_080 and whole["trained_parameters"] == whole["parameters"]
    mine, theirs = adapted["bytes_a_gpu"], whole["bytes_a_gpu"]
    assert mine["weights"] == 2 * (8_015_581_184 + 83_886_080) and mine["optimizer"] == 12 * 83_886_080
    assert mine["gradients"] == 6 * 83_886_080 and mine["activations"] == theirs["activations"]
    assert mine["head_gradient"] == 0 < theirs["head_gradient"]
    assert 0.66 < adapted["flops_a_step"] / whole["flops_a_step"] < 0.69


def test_what_does_not_fit_is_a_one_line_error(folder, monkeypatch):
    blocks = started(folder, "causal")
    for changed, says in [
        ({"rank": 0}, "rank=0, alpha=8.0: give a rank of 1 or more"),
        ({"alpha": 0.0}, "and an alpha above 0"),
        ({"dropout": 1.0}, "dropout=1.0 .* give 0 or more, and less than 1"),
        ({"targets": ("q_prj",)}, "targets: a layer has no matrix 'q_prj'; .*q_proj"),
        ({"targets": ()}, "is empty"),
        ({"targets": ("q_proj", "q_proj")}, "names a matrix twice"),
        ({"backbone": blocks.backbone}, "starts from random ones; wrap it in the part `started`"),
    ]:
        with pytest.raises(ValueError, match=says):
            lora(**{"backbone": blocks, **changed})
    dit = by_name("bd3_owt_4").backbone
    with pytest.raises(ValueError, match="adapts the layers of a Llama or Qwen2"):
        lora(dit)
    assert isinstance(blocks.backbone, Llama)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ValueError, match=r"LoRA needs the package peft; pip install 'dlm-repro\[lora\]'"):
        whole_recipe(folder).network(0)


def test_a_recipes_name_is_its_own_run_or_its_released_adapters(run, tmp_path, monkeypatch):
    """`--ckpt NAME`: the run folder first; a released folder holds state and adapters alone."""
    _, out = run
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(models, "ADAPTERS", tmp_path / "results" / "adapters")
    with pytest.raises(ValueError, match=r"recipe smollm2_block4 has no run at .*; train it"):
        load("smollm2_block4")
    folder = tmp_path / "results" / "adapters" / "smollm2_block4"
    folder.mkdir(parents=True)
    for file in ("state.json", "model.safetensors"):
        shutil.copy(checkpoints.open_checkpoint(out).folder / file, folder)
    assert load("smollm2_block4", "raw").digest == checkpoints.open_checkpoint(out).digest("raw")
    shutil.copytree(checkpoints.steps_in(out)[0], tmp_path / "runs" / "smollm2_block4-s0" / "step_00000035")
    assert load("smollm2_block4", "raw").step == 35
