"""On a CUDA device: draws, losses and tokens equal those on a CPU; memory and time of a full-size training step.

`make test-gpu` runs these tests; they are skipped without a device.
"""

from __future__ import annotations

import dataclasses
import statistics
import time

import pytest
import torch
from helpers.toy import curve, toy

from repro import load, sample
from repro.core import parts, rng
from repro.models.attention import Mask
from repro.objectives.objective import Batch
from repro.recipes.scale import by_name
from repro.training.cost import plan
from repro.training.loop import train
from repro.training.optimizer import MasterWeights
from repro.training.recipe import Recipe

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: no test of this file ran"),
]


def test_draws_are_the_cpu_s_bit_for_bit():
    keys = rng.keys(1, rng.TOKEN, 2, torch.arange(1000))
    assert torch.equal(rng.uniform(keys.cuda(), 64).cpu(), rng.uniform(keys, 64))


@pytest.mark.parametrize("name", ["llada", "duo", "mdlm", "ar"])
def test_a_run_on_the_device_has_the_cpu_s_curve(name, tmp_path, monkeypatch):
    """Twenty toy steps in float32: losses agree to 1e-3 (the device rounds matrix products differently)."""
    train(toy(name), seed=0, out=tmp_path / "cuda", stop=None, resume=False)
    with monkeypatch.context() as patched:
        patched.setattr(torch.cuda, "is_available", lambda: False)
        train(toy(name), seed=0, out=tmp_path / "cpu", stop=None, resume=False)
    for one, other in zip(curve(tmp_path / "cuda"), curve(tmp_path / "cpu"), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-3)


@pytest.mark.parametrize("precision", ["bf16_autocast", "bf16_master", "bf16_pure"])
def test_precisions_train_on_the_device(precision, tmp_path):
    train(toy("mdlm", f"precision={precision}"), seed=0, out=tmp_path / "run", stop=None, resume=False)
    rows = curve(tmp_path / "run")
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_sampling_stays_on_the_device(tmp_path):
    train(toy("mdlm"), seed=0, out=tmp_path / "run", stop=None, resume=False)
    model = load(tmp_path / "run")
    assert model.denoiser.device.type == "cuda"
    assert sample(model, n=2, seed=1) == sample(model, n=2, seed=1)


# --- full size ----------------------------------------------------------------------------------------------

ROWS = 32
"""One GPU's share of the batch of the reference script (docs/method.md#reference-scripts)."""
STEPS = 5


def full_batch(recipe: Recipe, device: str) -> Batch:
    """32 rows of random ids in which every position may be corrupted, the most expensive case."""
    vocabulary, index = recipe.data.vocabulary(), torch.arange(ROWS, device=device)
    shape = (ROWS, recipe.data.row_length())
    u = rng.uniform(rng.keys(0, rng.SENTENCE, 0, index), shape[1])
    return Batch(
        ids=(u * vocabulary.size).long(),
        candidates=torch.ones(shape, dtype=torch.bool, device=device),
        attention=Mask(),
        index=index,
        step=0,
        seed=0,
        vocabulary=vocabulary,
        step_examples=index,
        step_candidates=torch.full((ROWS,), shape[1], device=device),
    )


def steps(recipe: Recipe, device: str, wait) -> tuple[list[float], float]:
    """Seconds of each of STEPS optimizer steps on one batch, and the last loss; `wait` synchronises the device."""
    network = recipe.network(0).to(device).train()
    master_weights = MasterWeights(network, recipe.precision, recipe.ema)
    optimizer = recipe.optimizer.build(master_weights.parameters())
    batch, seconds, loss = full_batch(recipe, device), [], torch.tensor(torch.nan)
    for step in range(STEPS):
        wait()
        began = time.perf_counter()
        loss = recipe.objective(network, recipe.process, dataclasses.replace(batch, step=step)).value
        loss.backward()
        master_weights.collect_gradients()
        if recipe.optimizer.clip is not None:
            torch.nn.utils.clip_grad_norm_(master_weights.parameters(), recipe.optimizer.clip)
        optimizer.step()
        master_weights.update_network(step)
        optimizer.zero_grad()
        wait()
        seconds.append(time.perf_counter() - began)
    return seconds, loss.item()


@pytest.mark.parametrize("name", ["llada", "duo"])
def test_a_full_size_step_costs_what_is_planned(name, capsys):
    """Random ModernBERT-large weights, 32 x 512 tokens: at most 1.5 times the planned memory; time is printed."""
    full = by_name(name)
    recipe = parts.derive(
        dataclasses.replace(full, backbone=full.backbone.blank()), {"batch": ROWS, "micro_batch": ROWS}
    )
    planned = plan(recipe, gpus=1)
    torch.cuda.reset_peak_memory_stats()
    seconds, loss = steps(recipe, "cuda", torch.cuda.synchronize)
    held, wanted = torch.cuda.max_memory_allocated(), sum(planned["bytes_a_gpu"].values())
    taken = statistics.median(seconds[1:])
    reached = planned["utilisation"] * planned["seconds_a_step"] / taken
    with capsys.disabled():
        print(
            f"\n{name}, {ROWS} x {full.data.row_length()} on {torch.cuda.get_device_name()}:"
            f" {held / 2**30:.1f} GiB, planned {wanted / 2**30:.1f};"
            f" {taken:.3f} s a step, planned {planned['seconds_a_step']:.3f} at {planned['utilisation']:.0%}"
            f" of an H100; reached {reached:.0%}"
        )
    assert loss == loss and held < 1.5 * wanted
