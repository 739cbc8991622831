"""Two processes train the curve of one, and launch files change only where a run takes place."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
from accelerate.utils.launch import prepare_multi_gpu_env, prepare_simple_launcher_cmd_env
from helpers.launching import FOLDER, arguments, launch_arguments
from helpers.processes import together, trained
from helpers.toy import RECIPES, curve, same_curve, toy

from repro.recipes.command import command
from repro.recipes.scale import by_name
from repro.training.engines.options import PLAIN
from repro.training.loop import train

FILES = ("cpu_2", "gpu_1", "ddp_8", "ddp_2x8", "fsdp2_8", "zero2_8")
ACCELERATE = ["accelerate.commands.accelerate_cli", "launch", "--config_file", str(FOLDER / "cpu_2.yaml")]
TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
LAUNCHERS = {"accelerate": ACCELERATE, "torchrun": TORCHRUN}


@pytest.fixture(autouse=True)
def runs(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path_factory.getbasetemp() / "runs"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


FIRST = {"mdlm": "accelerate", "ar": "torchrun"}
"""The recipe that `make test` starts with each launcher; `make test-all` starts all with both."""


def one_and_two(name, two, tmp_path):
    """Assert that the run `two` of two processes has the curve of one, of 20 steps, every logged number to 1e-5, and
    that one process resumes its checkpoint."""
    command(by_name(name), arguments(name, tmp_path / "one"))
    one = curve(tmp_path / "one")
    assert len(one) == 20
    same_curve(one, curve(two))
    shutil.rmtree(two / "step_00000020")
    train(toy(name), seed=3, out=two, stop=None, resume=True)
    same_curve(one, curve(two))


@pytest.mark.parametrize("name", ["llada", "duo", "duo_script", "duo_nelbo"])
def test_two_processes_train_the_curve_of_one(name, tmp_path):
    """With the variables that a launcher sets."""
    together(2, trained, name, (), str(tmp_path / "two"), 20, False, PLAIN, environment={})
    one_and_two(name, tmp_path / "two", tmp_path)


@pytest.mark.parametrize(
    "name, launcher",
    [
        pytest.param(name, launcher, marks=() if FIRST.get(name) == launcher else pytest.mark.slow)
        for name in RECIPES
        for launcher in LAUNCHERS
    ],
)
def test_a_launcher_starts_two_processes_with_the_curve_of_one(name, launcher, tmp_path):
    launched = [sys.executable, "-m", *LAUNCHERS[launcher], "-m", f"repro.recipes.{name}"]
    done = subprocess.run(
        [*launched, *arguments(name, tmp_path / "two")], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(f"{toy(name).name}: {tmp_path / 'two'}") == 1, "only the first process reports"
    one_and_two(name, tmp_path / "two", tmp_path)


def test_every_launch_file_is_checked():
    assert sorted(path.stem for path in FOLDER.glob("*.yaml")) == sorted(FILES)


@pytest.mark.parametrize(
    "file, machines, processes, cpu",
    [("cpu_2", 1, 2, True), ("gpu_1", 1, 1, False), ("ddp_8", 1, 8, False), ("ddp_2x8", 2, 16, False)],
)
def test_accelerate_reads_the_launch_file_as_intended(file, machines, processes, cpu):
    args = launch_arguments(FOLDER / f"{file}.yaml")
    assert (args.num_machines, args.num_processes, args.use_cpu) == (machines, processes, cpu)
    assert args.mixed_precision == "no" and args.training_script_args == ["--scale", "nano"]
    assert not (args.use_fsdp or args.use_deepspeed or args.cpu)
    if processes == 1:
        started, environment = prepare_simple_launcher_cmd_env(args)
        assert started[-4:] == ["-m", "repro.recipes.mdlm", "--scale", "nano"]
    else:
        environment = prepare_multi_gpu_env(args)
        assert int(args.nproc_per_node) == processes // machines, "MULTI_CPU would start one process"
        if machines == 2:
            assert (args.nnodes, args.node_rank) == ("2", 0) and args.rdzv_endpoint == "10.0.0.1:29500"
    assert environment.get("ACCELERATE_USE_FSDP", "false") == "false"


@pytest.mark.parametrize("file", FILES)
def test_a_launch_file_changes_no_result(file):
    """Precision, clipping and accumulation are the recipe's pins (docs/architecture.md)."""
    text = (FOLDER / f"{file}.yaml").read_text()
    for key in ("mixed_precision", "gradient_clipping", "gradient_accumulation_steps"):
        assert key not in text


def test_a_misspelt_key_of_a_launch_file_is_an_error(tmp_path):
    base = "compute_environment: LOCAL_MACHINE\ndistributed_type: FSDP\nnum_machines: 1\nnum_processes: 8\n"
    wrong = tmp_path / "nested.yaml"
    wrong.write_text(base + "fsdp_config:\n  fsdp_version: 2\n  fsdp_reshard_after_foward: true\n")
    with pytest.raises(ValueError, match=r"nested\.yaml: no key fsdp_config\.fsdp_reshard_after_foward"):
        launch_arguments(wrong)
    wrong.write_text(base + "num_proceses: 8\n")
    with pytest.raises(ValueError, match="num_proceses"):
        launch_arguments(wrong)


def test_the_readme_names_every_launch_file():
    text = (FOLDER.parent / "README.md").read_text()
    assert all(f"recipes/launch/{file}.yaml" in text for file in FILES)
