"""Adapters on several processes: the curve and the files of one process."""

import pytest
import torch
from helpers.adapted import adapted, base, block_recipe
from helpers.processes import FSDP2, ZERO2, together
from helpers.toy import curve, same_curve

from repro.training import checkpoint as checkpoints
from repro.training.engines.options import PLAIN, Options

RECOMPUTED = Options(activation_checkpointing=True, compile=False, whole_gradients=False)


@pytest.mark.slow
@pytest.mark.parametrize("environment", [{}, FSDP2, ZERO2], ids=["ddp", "fsdp2", "zero2"])
def test_two_processes_train_the_adapters_of_one(environment, tmp_path, monkeypatch):
    """Six steps, and four more in one process, which recomputes its layers; frozen weights are in no file."""
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path / "runs"))
    if environment is ZERO2:
        pytest.importorskip("deepspeed")
    folder = tmp_path / "base"
    base(folder, block_recipe(tmp_path).data.vocabulary().total)
    one, two = tmp_path / "one", tmp_path / "two"
    adapted(str(folder), str(one), 10, False, PLAIN)
    together(2, adapted, str(folder), str(two), 6, False, PLAIN, environment=environment)
    adapted(str(folder), str(two), 10, True, RECOMPUTED)
    same_curve(curve(one), curve(two))
    a, b = checkpoints.open_checkpoint(one), checkpoints.open_checkpoint(two)
    assert a.files.keys() == b.files.keys() and a.base == b.base is not None
    for file in a.files:
        torch.testing.assert_close(a.tensors(file), b.tensors(file), atol=2e-5, rtol=0)
