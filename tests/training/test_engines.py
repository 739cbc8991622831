"""DDP, FSDP2 and ZeRO-2 give the run of one process; launch options; trackers."""

import errno
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers.launching import FOLDER, arguments
from helpers.processes import FSDP2, ZERO2, exchanges, fault, together, trained
from helpers.toy import RARER, RECIPES, curve, same_curve, toy

from repro import model as models
from repro.core.errors import one_line
from repro.models.attention import Mask
from repro.models.prediction import Prediction
from repro.processes.process import cross_entropy
from repro.recipes.command import command
from repro.recipes.scale import by_name
from repro.training import checkpoint as checkpoints
from repro.training.engines import launcher
from repro.training.engines.options import PLAIN, Options
from repro.training.loop import train

MICRO = ("micro_batch=2",)
"""Pins of every run here: two processes take two microbatches each, which also tests accumulation."""


@pytest.fixture(scope="module", autouse=True)
def runs(tmp_path_factory):
    """One folder for prepared data, so that the toy corpus is drawn once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REPRO_RUNS", str(tmp_path_factory.getbasetemp() / "runs"))
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


def go(out, stop=20, pins=MICRO, resume=False, options=PLAIN, track=None):
    """A run in this process."""
    recipe = toy("mdlm", *pins)
    return train(recipe, seed=3, out=out, stop=stop, resume=resume, options=options, track=track)


@pytest.fixture(scope="module")
def one(tmp_path_factory, runs):
    """20 steps in one process, of mdlm, which has an average."""
    return go(tmp_path_factory.mktemp("one") / "run")


@pytest.fixture(scope="module")
def half(tmp_path_factory, runs):
    """The first 10 steps under FSDP2 on two processes."""
    out = tmp_path_factory.mktemp("half") / "run"
    together(2, trained, "mdlm", MICRO, str(out), 10, False, PLAIN, environment=FSDP2)
    return out


def close(one: Path, other: Path, atol: float) -> None:
    """Assert that two checkpoints hold the same weights, average and optimizer state."""
    a, b = checkpoints.open_checkpoint(one), checkpoints.open_checkpoint(other)
    assert a.step == b.step and a.files.keys() == b.files.keys() and "ema.safetensors" in a.files
    master_weights = {n: p.data for n, p in a.recipe.blank_network().named_parameters()}
    for file in ("model.safetensors", "ema.safetensors"):
        torch.testing.assert_close(a.tensors(file), b.tensors(file), atol=atol, rtol=0)
    state, other_state = (c.optimizer("optimizer.safetensors", master_weights) for c in (a, b))
    torch.testing.assert_close(state, other_state, atol=atol, rtol=0)
    assert {int(fields["step"]) for fields in state.values()} == {a.step}


# --- one curve ------------------------------------------------------------------------------------------


def test_four_processes_train_the_curve_of_one(one, half, tmp_path):
    """DDP on four; test_launch.py runs every recipe on two."""
    together(4, trained, "mdlm", MICRO, str(tmp_path / "four"), 10, False, PLAIN, environment={})
    same_curve(curve(one)[:10], curve(tmp_path / "four"))
    close(half, tmp_path / "four", atol=1e-6)


def test_a_sharded_checkpoint_of_fsdp2_resumes_anywhere(half, one, tmp_path):
    """Saved by two processes; resumed by one process and by four sharded ones with the same curve."""
    assert sorted(p.name for p in half.iterdir() if p.name != ".lock") == [
        "metrics.jsonl", "recipe.json", "step_00000005", "step_00000010",
    ]  # fmt: skip
    files = {p.name for p in (half / "step_00000010").iterdir()}
    assert files == {"state.json", "model.safetensors", "optimizer.safetensors", "ema.safetensors"}
    assert models.load(half).weights == "ema" and models.load(half, "raw").step == 10
    shutil.copytree(half, tmp_path / "alone")
    go(tmp_path / "alone", resume=True)
    same_curve(curve(one), curve(tmp_path / "alone"))
    close(one, tmp_path / "alone", atol=1e-6)
    shutil.copytree(half, tmp_path / "four")
    together(4, trained, "mdlm", MICRO, str(tmp_path / "four"), 15, True, PLAIN, environment=FSDP2)
    same_curve(curve(one)[:15], curve(tmp_path / "four"))
    close(tmp_path / "alone" / "step_00000015", tmp_path / "four", atol=1e-6)


def test_gradients_that_stay_whole_are_exchanged_once_a_step(one, tmp_path):
    """Two microbatches a step: half as many exchanges as with sharded gradients, and the same run."""
    runs = ((str(tmp_path / "each"), 1, False), (str(tmp_path / "once"), 20, True))
    each, once = (
        together(2, exchanges, MICRO, out, stop, whole, environment=FSDP2) for out, stop, whole in runs
    )
    assert each[0] == each[1] > 0 and once == [20 * each[0] // 2] * 2
    same_curve(curve(one), curve(tmp_path / "once"))
    close(one, tmp_path / "once", atol=1e-6)


def test_a_microbatch_without_a_scored_token_still_runs_every_layer():
    """Its weights get a gradient of zeros rather than None, because other processes wait for them."""
    network = toy("mdlm").network(0)
    ids = torch.zeros(2, 8, dtype=torch.long)
    seen = Prediction(network, ids, torch.full((2,), 0.5), Mask(None))
    nothing = torch.zeros_like(ids, dtype=torch.bool)
    value, _ = seen.weighted_loss(cross_entropy, nothing, torch.zeros(0, dtype=torch.float64), ids[nothing])
    value.backward()
    assert all(p.grad is not None and not p.grad.any() for p in network.parameters())
    assert seen.forwarded.tolist() == [True, False]
    with torch.no_grad():  # without gradients no forward is needed
        idle = Prediction(network, ids, torch.full((2,), 0.5), Mask(None))
        assert idle.features(nothing).shape == (0, 32) and not idle.forwarded.any()


def test_accelerate_launches_fsdp2(tmp_path):
    """The launch file, reduced to two CPU processes, with layers recomputed in backward and duo's loss."""
    command(by_name("duo"), arguments("duo", tmp_path / "one"))
    launch = ["--config_file", str(FOLDER / "fsdp2_8.yaml"), "--num_processes", "2", "-m"]
    started = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", *launch]
    more = ["repro.recipes.duo", *arguments("duo", tmp_path / "two"), "--activation-checkpointing"]
    done = subprocess.run([*started, *more], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "two" / ".shards").exists()
    same_curve(curve(tmp_path / "one"), curve(tmp_path / "two"))


@pytest.mark.slow
@pytest.mark.parametrize("environment", [{}, FSDP2], ids=["ddp", "fsdp2"])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_any_engine_on_any_count_resumes_one_process(count, environment, tmp_path):
    """12 rows a step, so that three processes share them."""
    pins = ("batch=12", "micro_batch=1")
    go(tmp_path / "one", pins=pins)
    go(tmp_path / "more", pins=pins, stop=10)
    together(count, trained, "mdlm", pins, str(tmp_path / "more"), 20, True, PLAIN, environment=environment)
    same_curve(curve(tmp_path / "one"), curve(tmp_path / "more"))
    close(tmp_path / "one", tmp_path / "more", atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in (*RECIPES, *RARER) if name != "mdlm"])
def test_every_recipe_under_fsdp2(name, tmp_path):
    train(toy(name, *MICRO), seed=3, out=tmp_path / "one", stop=None, resume=False)
    together(2, trained, name, MICRO, str(tmp_path / "two"), 20, False, PLAIN, environment=FSDP2)
    same_curve(curve(tmp_path / "one"), curve(tmp_path / "two"))


BFLOAT16 = {"bf16_autocast": 1e-3, "bf16_master": 1e-3, "bf16_pure": 3e-2}
"""Largest relative deviation of a gradient norm from one process: bfloat16 sums in another order, and `bf16_pure` also
rounds weights and gradients to 8 bits (0.008 observed; the others 2e-4)."""


def near(precision: str, environment: dict, tmp_path: Path) -> None:
    """Assert that two processes train the curve of one up to bfloat16's precision and save the same types."""
    pins = (*MICRO, f"precision={precision}")
    go(tmp_path / "one", pins=pins)
    together(2, trained, "mdlm", pins, str(tmp_path / "two"), 20, False, PLAIN, environment=environment)
    for a, b in zip(curve(tmp_path / "one"), curve(tmp_path / "two"), strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-3)
        assert b["grad_norm"] == pytest.approx(a["grad_norm"], rel=BFLOAT16[precision])
    one, two = (checkpoints.open_checkpoint(tmp_path / name) for name in ("one", "two"))
    for file in one.files:
        types = {name: tensor.dtype for name, tensor in one.tensors(file).items()}
        assert types == {name: tensor.dtype for name, tensor in two.tensors(file).items()}


@pytest.mark.slow
@pytest.mark.parametrize("precision", BFLOAT16)
def test_precisions_under_fsdp2(precision, tmp_path):
    near(precision, FSDP2, tmp_path)


def test_a_full_disk_of_one_process_leaves_the_old_checkpoint(half, tmp_path):
    """All processes raise the error of one, with the remedy; none hangs, and the old checkpoint is intact."""
    out = shutil.copytree(half, tmp_path / "run")
    before = checkpoints.steps_in(out)
    with pytest.raises(OSError) as caught:
        together(2, fault, "mdlm", MICRO, str(out), environment=FSDP2)
    assert caught.value.errno == errno.ENOSPC and one_line(caught.value).startswith("the disk is full")
    assert checkpoints.steps_in(out) == before and not (out / ".shards").exists()
    assert checkpoints.open_checkpoint(out).step == 10


# --- DeepSpeed ------------------------------------------------------------------------------------------


@pytest.fixture
def deepspeed():
    pytest.importorskip("deepspeed", reason="needs the extra `deepspeed`: make test-all installs it")


@pytest.mark.slow
def test_zero2_trains_the_curve_of_one_and_resumes_anywhere(deepspeed, half, one, tmp_path):
    """From FSDP2's ten steps on two, five on four under ZeRO-2, the last five on one."""
    out = shutil.copytree(half, tmp_path / "run")
    together(4, trained, "mdlm", MICRO, str(out), 15, True, PLAIN, environment=ZERO2)
    go(out, resume=True)
    same_curve(curve(one), curve(out))
    close(one, out, atol=1e-6)


@pytest.mark.slow
def test_zero2_from_the_first_step(deepspeed, one, tmp_path):
    """Resuming its own checkpoint on the same count, with layers recomputed in backward."""
    out, again = (
        str(tmp_path / "run"),
        Options(activation_checkpointing=True, compile=False, whole_gradients=False),
    )
    together(2, trained, "mdlm", MICRO, out, 10, False, PLAIN, environment=ZERO2)
    together(2, trained, "mdlm", MICRO, out, 20, True, again, environment=ZERO2)
    same_curve(curve(one), curve(Path(out)))
    close(one, Path(out), atol=1e-6)


@pytest.mark.slow
def test_gradients_that_stay_whole_are_exchanged_once_a_step_by_deepspeed(deepspeed, one, tmp_path):
    """DeepSpeed exchanges weights as well when it starts, so the second step is compared."""
    each, once = {}, {}
    for stop in (1, 2):
        for whole, found in ((False, each), (True, once)):
            out = str(tmp_path / f"{stop} {whole}")
            found[stop] = together(2, exchanges, MICRO, out, stop, whole, environment=ZERO2)[0]
    assert each[2] - each[1] == 2 * (once[2] - once[1]) > 0
    out, options = str(tmp_path / "whole"), replace(PLAIN, whole_gradients=True)
    together(2, trained, "mdlm", MICRO, out, 10, False, options, environment=ZERO2)
    together(2, trained, "mdlm", MICRO, out, 20, True, options, environment=ZERO2)
    same_curve(curve(one), curve(Path(out)))
    close(one, Path(out), atol=1e-6)
    pins, whole = ("precision=bf16_master",), replace(PLAIN, whole_gradients=True)
    with pytest.raises(ValueError, match="of float32 weights alone, not of precision bf16_master"):
        together(2, trained, "mdlm", pins, str(tmp_path / "no"), 1, False, whole, environment=ZERO2)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16_autocast", "bf16_master"])
def test_precisions_under_zero2(precision, deepspeed, tmp_path):
    near(precision, ZERO2, tmp_path)


@pytest.mark.slow
def test_zero2_refuses_weights_without_master_weights(deepspeed, tmp_path):
    with pytest.raises(
        ValueError,
        match="bf16_pure has no master weights, ZeRO-2 needs them; launch with recipes/launch/ddp_8",
    ):
        together(
            2, trained, "mdlm", ("precision=bf16_pure",), str(tmp_path), 1, False, PLAIN, environment=ZERO2
        )


def test_a_missing_deepspeed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    accelerator = SimpleNamespace(process_index=0, num_processes=2, device=torch.device("cpu"))
    made = launcher.Zero2(accelerator, PLAIN)
    with pytest.raises(ValueError, match=r"DeepSpeed is not installed; pip install 'dlm-repro\[deepspeed\]'"):
        made.build(toy("ar").network(0), toy("ar"))


# --- launch options -------------------------------------------------------------------------------------


def test_activation_checkpointing_changes_no_result(one, tmp_path, monkeypatch):
    """The same curve, and each layer of each microbatch runs twice."""
    ran = []
    layer = type(toy("mdlm").network(0).layers()[0])
    forward = layer.forward
    monkeypatch.setattr(layer, "forward", lambda self, *a, **k: (ran.append(self), forward(self, *a, **k))[1])
    go(tmp_path / "plain", stop=1)
    plain = len(ran)
    out = go(
        tmp_path / "run",
        stop=1,
        options=Options(activation_checkpointing=True, compile=False, whole_gradients=False),
    )
    layers, microbatches = 2, 4
    assert len(ran) - plain == plain + layers * microbatches
    go(out, resume=True, options=Options(activation_checkpointing=True, compile=False, whole_gradients=False))
    same_curve(curve(one)[1:], curve(out)[1:])


@pytest.mark.slow
@pytest.mark.parametrize("again", [False, True], ids=["compiled", "compiled and recomputed"])
def test_compiled_layers_change_no_result(again, one, tmp_path):
    """Parameters keep their names: other engines can read the checkpoint."""
    options = Options(activation_checkpointing=again, compile=True, whole_gradients=False)
    together(2, trained, "mdlm", MICRO, str(tmp_path / "two"), 20, False, options, environment=FSDP2)
    same_curve(curve(one), curve(tmp_path / "two"))
    close(one, tmp_path / "two", atol=1e-6)


# --- trackers -------------------------------------------------------------------------------------------


class MemoryTracker:
    """A tracker in memory."""

    requires_logging_directory = True
    made: "list[MemoryTracker]" = []  # noqa: RUF012

    def __init__(self, name, folder):
        self.name, self.folder, self.rows, self.ended = name, folder, {}, False
        self.made.append(self)

    def start(self):
        pass

    def store_init_configuration(self, values):
        self.pins = values

    def log(self, values, step):
        self.rows[step] = values

    def finish(self):
        self.ended = True


def test_a_tracker_gets_the_rows_of_the_log(tmp_path, monkeypatch):
    monkeypatch.setattr("repro.training.metrics.LOGGER_TYPE_TO_CLASS", {"memory": MemoryTracker})
    monkeypatch.setattr("repro.training.metrics.get_available_trackers", lambda: ["memory"])
    out = go(tmp_path / "run", stop=10, track="memory")
    (seen,) = MemoryTracker.made
    assert seen.ended and seen.folder == str(out) and seen.name == toy("mdlm", *MICRO).name
    assert json.loads(seen.pins["optimizer.lr"]) == toy("mdlm").optimizer.lr
    logged = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [{"step": step, **row} for step, row in seen.rows.items()] == logged


def test_a_missing_tracker_is_named_before_the_run_starts(tmp_path, monkeypatch):
    monkeypatch.setattr("repro.training.metrics.get_available_trackers", list)
    with pytest.raises(ValueError, match="no tracker 'tensorbord'; nearest is 'tensorboard'"):
        go(tmp_path / "run", track="tensorbord")
    with pytest.raises(ValueError, match="tracker 'wandb' is not installed; pip install"):
        go(tmp_path / "run", track="wandb")
    assert not (tmp_path / "run").exists()


def test_launch_options_are_flags_of_every_recipe(tmp_path, monkeypatch):
    """They are passed to the loop and change neither name nor digest."""
    seen = {}
    monkeypatch.setattr(
        "repro.training.loop.train", lambda recipe, **given: seen.update(given, recipe=recipe)
    )
    monkeypatch.setattr("repro.training.checkpoint.open_checkpoint", lambda out: SimpleNamespace(step=20))
    flags = ["--activation-checkpointing", "--compile", "--whole-gradients", "--track", "tensorboard"]
    command(by_name("mdlm"), [*arguments("mdlm", tmp_path), *flags])
    assert seen["options"] == Options(activation_checkpointing=True, compile=True, whole_gradients=True)
    assert seen["track"] == "tensorboard" and seen["recipe"] == toy("mdlm")
    command(by_name("mdlm"), arguments("mdlm", tmp_path))
    assert seen["options"] == PLAIN and seen["track"] is None
    for flags in (["--compile", "--plan"], ["--whole-gradients", "--plan"], ["--track", "wandb", "--print"]):
        with pytest.raises(ValueError, match=r"is for a run; it goes with neither --print nor --plan"):
            command(by_name("mdlm"), flags)
