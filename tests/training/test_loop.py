"""A step does not depend on its split, a resumed run equals an uninterrupted one, and broken runs are not resumed."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from helpers.toy import EVERY, curve, same_curve, toy
from safetensors.torch import load_file, save_file

from repro.model import load
from repro.training import checkpoint as checkpoints
from repro.training.loop import Order, train


@pytest.fixture(autouse=True)
def runs(tmp_path_factory, monkeypatch):
    """One folder for prepared data, so that the toy corpus is drawn once."""
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path_factory.getbasetemp() / "runs"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Uninterrupted toy runs of 10 steps by recipe name, each trained at its first use."""
    found: dict[str, Path] = {}

    def of(name: str) -> Path:
        if name not in found:
            found[name] = tmp_path_factory.mktemp(name)
            train(toy(name), seed=3, out=found[name], stop=10, resume=False)
        return found[name]

    return of


@pytest.fixture
def run(trained, tmp_path):
    """A copy of mdlm's toy run that a test may modify."""
    return shutil.copytree(trained("mdlm"), tmp_path / "run")


def go(name, out, *pins, stop=20, seed=3, resume=False):
    return train(toy(name, *pins), seed=seed, out=out, stop=stop, resume=resume)


def bytes_of(out: Path) -> dict[str, bytes]:
    last = checkpoints.steps_in(out)[-1]
    return {file.name: file.read_bytes() for file in sorted(last.iterdir())}


# --- one curve ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERY)
def test_five_steps_and_five_more_are_ten(name, trained, tmp_path):
    """Bitwise in weights, optimizer, average, state and every logged row, the held-out bound included."""
    go(name, tmp_path / "run", stop=5)
    go(name, tmp_path / "run", stop=10, resume=True)
    assert bytes_of(tmp_path / "run") == bytes_of(trained(name))
    assert curve(tmp_path / "run") == curve(trained(name))


@pytest.mark.parametrize("name", EVERY)
def test_a_step_does_not_depend_on_its_microbatches(name, tmp_path):
    """8 x 1 = 4 x 2 = 2 x 4 over 20 steps; the two groups of a step differ from its microbatches."""
    curves = {}
    for rows in (8, 4, 2):
        go(name, tmp_path / f"{rows}", f"micro_batch={rows}")
        curves[rows] = curve(tmp_path / f"{rows}")
    same_curve(curves[8], curves[4])
    same_curve(curves[8], curves[2])


def test_another_seed_is_another_curve(trained, tmp_path):
    go("mdlm", tmp_path, stop=1, seed=4)
    assert curve(tmp_path)[0]["loss"] != pytest.approx(curve(trained("mdlm"))[0]["loss"], rel=1e-5)


@pytest.mark.parametrize("name", ["mdlm", "duo"])
def test_the_learning_rate_follows_its_schedule(name, tmp_path):
    """Two steps of warm-up, then half a cosine (mdlm) or a line (duo) to 0 at step 20, whatever step a run stops at."""
    recipe = toy(name)
    go(name, tmp_path, stop=7)
    share = [(step - 2) / 18 for step in range(2, 7)]
    law = [0.5 * (1 + math.cos(math.pi * x)) if name == "mdlm" else 1 - x for x in share]
    expected = [recipe.optimizer.lr * factor for factor in (0, 0.5, *law)]
    assert [row["lr"] for row in curve(tmp_path)] == pytest.approx(expected)


def test_every_row_occurs_once_an_epoch():
    order = Order(rows=10, batch=4, seed=0)
    seen = [int(row) for step in range(5) for row in order(step)]
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert seen[:10] != seen[10:]
    assert [int(row) for row in Order(rows=10, batch=4, seed=1)(0)] != seen[:4]


@pytest.mark.parametrize("precision", ["bf16_master", "bf16_autocast", "bf16_pure"])
@pytest.mark.parametrize("name", ["mdlm", "duo", "ar"])
def test_precisions_train(name, precision, trained, tmp_path):
    """bfloat16 has 8 bits: the first loss is near float32's; weights and moments have the expected types."""
    go(name, tmp_path, f"precision={precision}", stop=3)
    rows = curve(tmp_path)
    assert all(math.isfinite(row["loss"]) and row["grad_norm"] > 0 for row in rows)
    assert rows[0]["loss"] == pytest.approx(curve(trained(name))[0]["loss"], rel=0.02)
    weights = load_file(checkpoints.steps_in(tmp_path)[-1] / "model.safetensors")
    moments = load_file(checkpoints.steps_in(tmp_path)[-1] / "optimizer.safetensors")
    expected = {torch.bfloat16 if precision == "bf16_pure" else torch.float32}
    assert {tensor.dtype for tensor in weights.values()} == expected
    assert {tensor.dtype for key, tensor in moments.items() if key.endswith("exp_avg_sq")} == expected


def test_master_weights_take_steps_that_bfloat16_loses(tmp_path):
    """A step of 1e-5 on a norm weight of 1 is lost in bfloat16, but not in a float32 master weight
    (docs/method.md#masked-script)."""
    moved = {}
    for precision in ("bf16_master", "bf16_pure"):
        out = go("ar", tmp_path / precision, f"precision={precision}", "optimizer.lr=1e-5", stop=3)
        weight = load_file(checkpoints.steps_in(out)[-1] / "model.safetensors")["network.model.norm.weight"]
        moved[precision] = bool((weight.float() != 1).any())
    assert moved == {"bf16_master": True, "bf16_pure": False}


def test_bfloat16_weights_do_not_round_the_rotary_frequencies():
    from repro.training.optimizer import MasterWeights

    network = toy("ar").network(0)
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    MasterWeights(network, "bf16_master", None)
    assert all(torch.equal(buffer, before[name]) for name, buffer in network.named_buffers())
    assert {parameter.dtype for parameter in network.parameters()} == {torch.bfloat16}


def test_the_average_follows_its_formula(tmp_path):
    """Decay min(decay, (1 + n)/(10 + n)) at update n = 1, 2, ... (docs/method.md#duo-hyperparameters); in warm-up,
    update 1 changes nothing."""
    out = go("mdlm", tmp_path, "ema.decay=0.9999", stop=2)
    saved = checkpoints.steps_in(out)[-1]
    start = dict(toy("mdlm").network(3).named_parameters())
    weights, average = load_file(saved / "model.safetensors"), load_file(saved / "ema.safetensors")
    for name, tensor in average.items():
        expected = 3 / 12 * start[name].data + 9 / 12 * weights[name]
        torch.testing.assert_close(tensor, expected, atol=1e-6, rtol=0)


# --- the run folder -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERY)
def test_metrics_rows(name, trained):
    rows = curve(trained(name))
    assert [row["step"] for row in rows] == list(range(1, 11))
    for row in rows:
        assert {"step", "loss", "grad_norm", "lr", "nll", "tokens"} <= row.keys()
        assert all(math.isfinite(value) for value in row.values())
    assert [row["step"] for row in rows if "heldout_nll_bound" in row] == [10]
    assert rows[-1]["heldout_error"] > 0
    own = {"llada": "mask_rate", "mdlm": "t", "duo": "p_flip", "duo_script": "p_flip", "duo_nelbo": "p_flip"}
    own |= {
        "duo_owt": "p_flip",
        "duo_owt_distilled": "delta",
        "llada_pretrain": "length",
        "llada_sft": "length",
    }
    assert name not in own or own[name] in rows[0]


def test_the_run_folder(trained):
    """The canonical recipe, one row a step, the last two checkpoints, and no temporary file."""
    out = trained("mdlm")
    names = {path.name for path in out.iterdir() if path.name != ".lock"}
    assert names == {"recipe.json", "metrics.jsonl", "step_00000005", "step_00000010"}
    saved = checkpoints.open_checkpoint(out)
    assert (saved.recipe, saved.seed, saved.step) == (toy("mdlm"), 3, 10)
    assert saved.has_ema and load(out).weights == "ema" and load(out, "raw").weights == "raw"


def test_a_run_killed_between_checkpoint_and_row_logs_each_step_once(run, trained):
    """--resume drops rows after the checkpoint and an incomplete last line."""
    with open(run / "metrics.jsonl", "a") as handle:
        handle.write('{"step": 11, "loss": 1.0}\n{"step": 12, "lo')
    go("mdlm", run, stop=12, resume=True)
    assert [row["step"] for row in curve(run)] == list(range(1, 13))
    assert curve(run)[:10] == curve(trained("mdlm"))


def test_an_incomplete_copy_of_a_checkpoint_does_not_stop_the_run(run, trained):
    """A copy that broke off leaves a folder without state.json; the run goes on from the checkpoint before it."""
    broken = checkpoints.steps_in(run)[-1]
    (broken / "state.json").unlink()
    go("mdlm", run, stop=10, resume=True)
    assert bytes_of(run) == bytes_of(trained("mdlm"))


# --- errors ---------------------------------------------------------------------------------------------


def refused(match, *args, **options):
    with pytest.raises(ValueError, match=match) as error:
        go(*args, **options)
    assert "\n" not in str(error.value)


def test_resume_needs_the_same_recipe_seed_and_folder(run, tmp_path):
    refused("no folder", "mdlm", tmp_path / "absent", resume=True)
    refused(
        r"holds mdlm@nano\+\w+, not this mdlm@nano\+\w+; settings differ", "mdlm", run, "batch=4", resume=True
    )
    refused(r"holds mdlm@nano\+\w+, not this llada@nano\+\w+", "llada", run, resume=True)
    refused("trained with --seed 3, not 4", "mdlm", run, resume=True, seed=4)
    refused("holds a run already; go on with --resume", "mdlm", run)
    (tmp_path / "empty").mkdir()
    refused("no checkpoint in", "mdlm", tmp_path / "empty", resume=True)


def test_resume_on_other_data_is_refused(run):
    state = json.loads((run / "step_00000010" / "state.json").read_text())
    (run / "step_00000010" / "state.json").write_text(json.dumps(state | {"data": "0" * 64}))
    refused("trained on other data", "mdlm", run, resume=True)


def test_impossible_steps_are_refused(tmp_path):
    refused(r"cannot stop at step 21: mdlm@nano\+\w+ has steps 1 to 20", "mdlm", tmp_path, stop=21)
    refused("cannot stop at step 0", "mdlm", tmp_path, stop=0)
    refused("batch 8 does not split into 1 processes x microbatches of 3", "mdlm", tmp_path, "micro_batch=3")


def test_a_second_run_into_the_folder_is_refused_at_once(run):
    with FileLock(run / ".lock"):
        refused("another run is writing to", "mdlm", run, resume=True)


@pytest.mark.parametrize("pin", ["optimizer.lr=1e30", "backbone.init_deviation=1e30"])
def test_a_loss_that_is_not_finite_stops_the_run(pin, tmp_path):
    """Before any checkpoint is written, so that every checkpoint can be resumed."""
    refused(
        r"(loss|grad_norm) is (nan|inf) at step \d+; try a lower learning rate in a new run \(checkpoints are intact",
        "ar",
        tmp_path,
        pin,
    )
    assert not list(tmp_path.glob("step_*"))


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "ema.safetensors"])
def test_a_truncated_file_is_detected(file, run):
    path = run / "step_00000010" / file
    path.write_bytes(path.read_bytes()[:-1])
    refused("truncated or changed", "mdlm", run, resume=True)
    path.unlink()
    refused(f"{file} is missing", "mdlm", run, resume=True)


def exchanged(run, file, change):
    """Replace a tensor file and its hash, as other code might have written them."""
    folder = run / "step_00000010"
    tensors = load_file(folder / file)
    save_file(change(tensors), folder / file)
    state = json.loads((folder / "state.json").read_text())
    state["files"][file] = checkpoints.file_digest(folder / file)
    (folder / "state.json").write_text(json.dumps(state))


NORM = "network.model.norm.weight"


@pytest.mark.parametrize(
    "change, match",
    [
        (
            lambda t: {k: v for k, v in t.items() if k != NORM},
            "lacks tensor .* which the recipe's backbone has",
        ),
        (lambda t: {**t, "more": torch.zeros(1)}, "has tensor 'more', which the recipe's backbone lacks"),
        (lambda t: {**t, NORM: torch.ones(1)}, r"shape \(1,\), expected \(32,\)"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(change, match, run):
    """A weight of shape [1] would otherwise broadcast silently."""
    exchanged(run, "model.safetensors", change)
    refused(match, "mdlm", run, resume=True)
    with pytest.raises(ValueError, match=match):
        load(run, "raw")


def test_an_optimizer_state_that_does_not_fit_is_named(run):
    exchanged(run, "optimizer.safetensors", lambda t: {**t, "more|exp_avg": torch.zeros(1)})
    refused(r"'more\|exp_avg' does not fit", "mdlm", run, resume=True)


def test_no_pickle_is_ever_read(tmp_path):
    torch.save({"weight": torch.zeros(1)}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"model\.pt is a pickle; only safetensors are read"):
        load(tmp_path)
    with pytest.raises(ValueError, match="is a file, but a checkpoint is a folder"):
        load(tmp_path / "model.pt")


def test_a_checkpoint_of_broken_json_or_an_unknown_format(run):
    state = run / "step_00000010" / "state.json"
    whole = state.read_text()
    state.write_text(whole[:100])
    refused("state.json: not sound JSON", "mdlm", run, resume=True)
    state.write_text(whole.replace('"format": 1', '"format": 2'))
    refused(r"has format 2, this code reads 1", "mdlm", run, resume=True)
    state.write_text(whole.replace('"batch": 8', '"batch": "8"'))
    refused(r"batch=\"8\": expected int, got str", "mdlm", run, resume=True)
