"""--plan against measurement: parameters, optimizer states, saved activations and copies of logits are counted."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from helpers.toy import toy
from torch import Tensor

from benchmarks.nets import Sizes
from benchmarks.row import peak_bytes
from repro.models.attention import Mask
from repro.models.denoiser import Denoiser, Head
from repro.models.llama import Llama
from repro.objectives.dcd import reverse_kl_gradient
from repro.objectives.sym_kl import ce_gradient, closed_gradient, script_gradient
from repro.processes.prediction import Role
from repro.processes.process import cross_entropy
from repro.processes.uniform import token_nll_gradient
from repro.recipes.command import command, select
from repro.recipes.scale import by_name
from repro.training.cost import ACTIVATIONS, COPIES, COPIES_CE, COPIES_UNIFORM, ENGINES, plan
from repro.training.optimizer import MasterWeights
from repro.training.recipe import Recipe


def size_in_bytes(tensors: list[Tensor]) -> int:
    return sum(
        t.numel() * t.element_size() for t in tensors if t.ndim
    )  # Adam's step counters have no dimension


@pytest.mark.parametrize("precision", ["float32", "bf16_autocast", "bf16_master", "bf16_pure"])
def test_planned_state_is_the_state_of_training(precision):
    """Bytes of a toy network after one step: weights, gradients, optimizer state with master weights, average."""
    recipe = toy("duo_nelbo", f"precision={precision}")
    network = recipe.network(0)
    master_weights = MasterWeights(network, recipe.precision, recipe.ema)
    optimizer = recipe.optimizer.build(master_weights.parameters())
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    held = size_in_bytes([p.grad for p in network.parameters() if p.grad is not None])
    master_weights.collect_gradients()
    if master_weights.separate:
        held += size_in_bytes(master_weights.gradients())
    optimizer.step()
    separate = master_weights.parameters() if master_weights.separate else []
    states = [t for state in optimizer.state.values() for t in state.values()]
    planned = plan(recipe, gpus=1)["bytes_a_gpu"]
    assert planned["weights"] == size_in_bytes(list(network.parameters()))
    assert planned["gradients"] == held
    assert planned["optimizer"] == size_in_bytes([*separate, *states])
    assert planned["ema"] == size_in_bytes(list(master_weights.average.values()))


def deeper(layers: int, kind: str) -> Denoiser:
    """The full recipe's network in bfloat16, with a quarter of its width and `layers` layers."""
    recipe = by_name("duo" if kind == "modernbert" else "ar")
    pins = recipe.backbone.blank()
    shared = {"kv_heads": 4} if isinstance(pins, Llama) else {}
    smaller = dataclasses.replace(pins, layers=layers, width=256, heads=4, ffn=pins.ffn // 4, **shared)
    role = Role(Sizes(ids=100, mask=None, bos=None, length=64), (), "x0_mean")
    return smaller.module(role, 0).bfloat16().train()


@pytest.mark.parametrize("kind", ["modernbert", "llama"])
def test_activations_are_counted(kind):
    """Three more layers make autograd save about `ACTIVATIONS` more values per token and unit of width, without
    weights."""
    saved = []
    for layers in (3, 6):
        network = deeper(layers, kind)
        weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
        stored: dict[int, Tensor] = {}

        def store(tensor: Tensor, stored: dict[int, Tensor] = stored) -> Tensor:
            stored[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(store, lambda tensor: tensor):
            features = network.encode(torch.zeros(4, 64, dtype=torch.long), t=None, attention=Mask())
        saved.append(
            sum(t.untyped_storage().nbytes() for address, t in stored.items() if address not in weights)
        )
        del features
    values = (saved[1] - saved[0]) / 3 / 2 / (4 * 64 * 256)
    assert 0.9 * ACTIVATIONS < values < 1.03 * ACTIVATIONS


TEACHER = torch.ones(50, 2), Head(torch.ones(2000, 2), None, ())


@pytest.mark.parametrize(
    ("copies", "differentiate"),
    [
        (COPIES["sym_kl"], lambda z, x: closed_gradient(z(), x, 1e-8)),
        (COPIES["sym_kl_script"], lambda z, x: script_gradient(z(), x, 1e-8)),
        (COPIES["relaxed_ce"], lambda z, x: ce_gradient(z(), x)),
        (COPIES["dcd"], lambda z, x: reverse_kl_gradient(z(), *TEACHER)),
        (
            COPIES_UNIFORM,
            lambda z, x: token_nll_gradient(
                *(z(), x, x.roll(1), (alpha := torch.full(x.shape, 0.5).double()), -alpha), 2000
            ),
        ),
        (COPIES_CE, lambda z, x: cross_entropy(z(), x).sum().backward()),
    ],
    ids=["sym_kl", "sym_kl_script", "relaxed_ce", "dcd", "uniform", "cross_entropy"],
)
def test_copies_of_dense_logits_are_counted(copies, differentiate):
    """The logits, and what a loss holds besides them; all but cross-entropy's overwrite them by their gradient."""
    count, ids = 2000, torch.arange(50)
    x, w = torch.ones(50, 2), torch.ones(count, 2, requires_grad=copies == COPIES_CE)
    peak = peak_bytes(lambda: differentiate(lambda: x @ w.T, ids))
    assert peak / (4 * count * len(ids)) == pytest.approx(copies, abs=0.05)


def test_engines_shard_what_they_claim():
    """A sharded part is 1/8 of DDP's; under FSDP2 the float32 shards are the weights, with no second gradient."""
    recipe = by_name("duo_nelbo")
    found = {name: plan(recipe, engine=name)["bytes_a_gpu"] for name in ENGINES}
    count = plan(recipe)["parameters"]
    whole = {"weights": 2, "gradients": 6, "optimizer": 12, "ema": 4}
    for part, size in whole.items():
        assert found["ddp"][part] == size * count
    assert [found["zero2"][part] / count for part in whole] == [2, 6 / 8, 12 / 8, 4 / 8]
    assert [found["fsdp2"][part] / count for part in whole] == [4 / 8, 4 / 8, 8 / 8, 4 / 8]
    assert found["ddp"]["buffers"] == 0 and found["zero2"]["buffers"] == 2 * 2 * 200_000_000
    for part in ("activations", "logits", "head_gradient"):
        assert found["ddp"][part] == found["zero2"][part] == found["fsdp2"][part]


def test_what_fsdp2_gathers():
    """Weights and gradients of the parameters outside layers and of two layers, counted on the real modules."""
    backbone = by_name("mdlm").backbone.blank()
    pins = {"layers": 3, "width": 64, "heads": 4, "ffn": 96}
    small = dataclasses.replace(toy("mdlm"), backbone=dataclasses.replace(backbone, **pins))
    network = small.network(0)
    layers = [sum(p.numel() for p in layer.parameters()) for layer in network.network.model.layers]
    root = sum(p.numel() for p in network.parameters()) - sum(layers)
    planned = plan(small, engine="fsdp2", gpus=2)["bytes_a_gpu"]["buffers"]
    assert planned == pytest.approx(4 * 2 * (root + max(layers)), rel=2e-3)  # layer 0 lacks a norm


def test_checkpointing_saves_activations_and_adds_a_forward():
    recipe = by_name("duo")
    plain, saving = plan(recipe), plan(recipe, activation_checkpointing=True)
    assert 1.25 < saving["flops_a_step"] / plain["flops_a_step"] < 4 / 3
    assert saving["bytes_a_gpu"]["activations"] < plain["bytes_a_gpu"]["activations"] / 10
    rest = ("weights", "gradients", "optimizer", "ema", "buffers", "logits", "head_gradient")
    assert all(saving["bytes_a_gpu"][part] == plain["bytes_a_gpu"][part] for part in rest)


def test_two_copies_of_a_row_pass_the_layers_of_block_diffusion():
    """Each column of BD3-LM's two copies sees half a row on average, so attention costs what one whole row costs; the
    head reads one copy."""
    blocks = by_name("bd3_owt_4")
    whole = select(by_name("mdlm_owt"), "full", ["micro_batch=16"])
    size, tokens = blocks.backbone.size(blocks.data), 512 * 1024
    assert size.parameters == whole.backbone.size(whole.data).parameters
    extra = plan(blocks)["flops_a_step"] - plan(whole)["flops_a_step"]
    assert extra == pytest.approx(3 * size.body_flops * tokens)
    memory, other = plan(blocks)["bytes_a_gpu"], plan(whole)["bytes_a_gpu"]
    assert memory["activations"] == 2 * other["activations"] and memory["logits"] == other["logits"]


def test_totals_of_a_run_by_hand():
    """LM1B's Duo trains on 512 rows of 128 tokens a step, for 1 M steps."""
    recipe = by_name("duo_lm1b")
    found = plan(recipe)
    assert (found["tokens_a_step"], found["steps"]) == (512 * 128, 1_000_000)
    assert found["tokens"] == 512 * 128 * 1_000_000
    assert found["flops"] == pytest.approx(found["flops_a_step"] * 1e6)


def test_more_gpus_share_rows_and_time():
    recipe = by_name("duo")
    eight, sixteen = plan(recipe, gpus=8), plan(recipe, gpus=16)
    assert (eight["rows_a_gpu_at_once"], sixteen["rows_a_gpu_at_once"]) == (32, 16)
    assert sixteen["bytes_a_gpu"]["activations"] * 2 == eight["bytes_a_gpu"]["activations"]
    assert sixteen["seconds_a_step"] * 2 == eight["seconds_a_step"]
    assert sixteen["gpu_hours"] == pytest.approx(eight["gpu_hours"])
    assert sixteen["reference_script"] == eight["reference_script"], "it had 8"


@pytest.mark.parametrize("name", ["llada", "duo", "duo_script"])
def test_the_plan_shows_what_the_reference_script_published(name, capsys):
    """8 H100s, one epoch, 256 rows a step; 40.4 TFLOP a GPU and step (docs/method.md#cost-duo-step); 3,215 steps
    (docs/method.md#masked-script)."""
    found = plan(by_name(name))
    assert found["flops_a_step"] / 8 == pytest.approx(40.4e12, rel=2e-3)
    seconds = 3215 * 40.4e12 / (0.4 * 989e12)
    assert found["reference_script"] == {
        "gpus": 8,
        "rows_a_step": 256,
        "epochs": 1,
        "steps_implied": 3215,
        "hours_implied": pytest.approx(seconds / 3600, rel=2e-3),
    }
    command(by_name(name), ["--plan"])
    printed = capsys.readouterr().out
    assert "published: 8 H100s, one epoch, 256 sequences a step, no time" in printed
    assert "3,215 steps and 5.5 minutes" in printed and "(not measured)" in printed


@pytest.mark.parametrize(
    "recipe",
    [by_name("mdlm"), select(by_name("duo"), "full", ["steps=5"])],
    ids=["mdlm", "set"],
)
def test_other_recipes_show_no_reference_script(recipe, capsys):
    assert "reference_script" not in plan(recipe)
    command(by_name("mdlm"), ["--plan"])
    assert "published" not in capsys.readouterr().out


def test_the_command_plans_for_an_engine(capsys):
    """--json prints the output of `plan`; the text names engine, parts and assumptions."""
    recipe, flags = (
        by_name("duo"),
        ["--engine", "fsdp2", "--gpus", "16", "--activation-checkpointing"],
    )
    command(recipe, ["--plan", "--json", *flags])
    wanted = plan(recipe, engine="fsdp2", gpus=16, activation_checkpointing=True)
    assert json.loads(capsys.readouterr().out) == wanted
    command(recipe, ["--plan", *flags])
    printed = capsys.readouterr().out
    assert "16 x H100, fsdp2, layers recomputed" in printed
    assert "split over GPUs: ema, gradients, optimizer, weights" in printed
    for part in wanted["bytes_a_gpu"]:
        assert f"{part.replace('_', ' ')} " in printed


@pytest.mark.parametrize(
    ("recipe", "arguments", "message"),
    [
        (by_name("duo"), {"engine": "zero"}, "no engine 'zero'; nearest is 'zero2'"),
        (by_name("duo"), {"gpus": 7}, "--gpus 7 does not divide the batch of 256 rows"),
        (by_name("duo"), {"gpus": 0}, "--gpus 0 does not divide"),
        (
            select(by_name("duo"), "full", ["precision=bf16_pure"]),
            {"engine": "zero2"},
            "bf16_pure has no",
        ),
    ],
    ids=["engine", "gpus", "none", "pure"],
)
def test_impossible_plans_are_refused(recipe: Recipe, arguments, message):
    with pytest.raises(ValueError, match=message):
        plan(recipe, **arguments)
