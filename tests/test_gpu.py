"""On a CUDA device: the same draws, the same losses, the same tokens as on a CPU. `make test-gpu` runs these."""

from __future__ import annotations

import pytest
import torch
from toy import curve, toy

from repro import load, rng, sample
from repro.train import train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: nothing of this file ran"),
]


def test_draws_are_the_cpu_s_bit_for_bit():
    keys = rng.keys(1, rng.TOKEN, 2, torch.arange(1000))
    assert torch.equal(rng.uniform(keys.cuda(), 64).cpu(), rng.uniform(keys, 64))


@pytest.mark.parametrize("name", ["llada", "duo", "mdlm", "ar"])
def test_a_run_on_the_device_has_the_cpu_s_curve(name, tmp_path, monkeypatch):
    """Twenty toy steps, float32: losses to 1e-3 (matrix products of the device round differently)."""
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
