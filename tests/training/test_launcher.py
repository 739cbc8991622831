"""Launchers: the engine that the environment selects, refused settings, launch files, the batch script."""

import os
import subprocess
import time
from types import SimpleNamespace

import pytest
from accelerate.utils import DistributedType
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env
from helpers.launching import FOLDER, launch_arguments
from helpers.processes import FSDP2, ZERO2

from repro.training.engines import launcher

# --- the requested engine -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "setting, match",
    [
        ({**FSDP2, "FSDP_VERSION": "1"}, r"FSDP_VERSION=1 .*set fsdp_version: 2"),
        ({**FSDP2, "FSDP_OFFLOAD_PARAMS": "true"}, "set fsdp_offload_params: false"),
        ({**FSDP2, "FSDP_TRANSFORMER_CLS_TO_WRAP": "BertLayer"}, "the network names its layers"),
        ({**FSDP2, "FSDP_AUTO_WRAP_POLICY": "SIZE_BASED_WRAP"}, "TRANSFORMER_BASED_WRAP"),
        ({**FSDP2, "FSDP_ACTIVATION_CHECKPOINTING": "true"}, "use --activation-checkpointing"),
        ({**FSDP2, "FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}, "set fsdp_cpu_ram_efficient_loading: false"),
        ({**ZERO2, "ACCELERATE_DEEPSPEED_ZERO_STAGE": "1"}, "set zero_stage: 2"),
        ({**ZERO2, "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}, "set zero_stage: 2"),
        ({**ZERO2, "ACCELERATE_DEEPSPEED_CONFIG_FILE": "ds.json"}, "zero2_8.yaml"),
        (
            {**ZERO2, "ACCELERATE_GRADIENT_CLIPPING": "1.0"},
            "clipping and accumulation are settings of the recipe",
        ),
        ({**ZERO2, "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"}, "are settings of the recipe"),
        (
            {"ACCELERATE_MIXED_PRECISION": "bf16"},
            "precision, clipping and accumulation are settings of the recipe",
        ),
        ({"ACCELERATE_DYNAMO_BACKEND": "INDUCTOR"}, "compile with --compile"),
        ({"ACCELERATE_USE_MEGATRON_LM": "true"}, "fsdp2_8.yaml"),
        ({"ACCELERATE_USE_PARALLELISM_CONFIG": "true"}, "fsdp2_8.yaml"),
    ],
)
def test_unsupported_settings_are_refused(setting, match, monkeypatch):
    """In one line, before anything is started."""
    for variable, value in {**setting, "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=match) as error:
        launcher.requested_engine()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "setting, processes, kind",
    [({}, 1, "Single"), ({}, 2, "Ddp"), (FSDP2, 2, "Fsdp2"), (ZERO2, 2, "Zero2")],
)
def test_the_environment_selects_the_engine(setting, processes, kind, monkeypatch):
    for variable, value in {**setting, "WORLD_SIZE": str(processes)}.items():
        monkeypatch.setenv(variable, value)
    assert launcher.requested_engine().__name__ == kind


@pytest.mark.parametrize("setting", [FSDP2, ZERO2], ids=["fsdp2", "zero2"])
def test_one_process_cannot_shard(setting, monkeypatch):
    for variable, value in setting.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=r"only one was started; for one GPU launch with .*gpu_1\.yaml"):
        launcher.requested_engine()


@pytest.mark.parametrize(
    "seen, kind, match",
    [
        (1, DistributedType.NO, "the launcher started 2 processes, but accelerate sees 1"),
        (2, DistributedType.MULTI_GPU, "requests FSDP, but accelerate has set up MULTI_GPU"),
    ],
)
def test_a_setup_other_than_requested_is_refused(seen, kind, match, monkeypatch):
    """Two processes requested and one seen, which would be two runs; FSDP requested and DDP set up."""
    ended = []
    made = SimpleNamespace(num_processes=seen, distributed_type=kind, end_training=lambda: ended.append(True))
    monkeypatch.setattr(launcher, "Accelerator", lambda cpu, mixed_precision: made)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=match):
        launcher.join_group(launcher.Fsdp2.distributed)
    assert ended == [True]


# --- launch files ---------------------------------------------------------------------------------------


def environment_of(file: str) -> dict[str, str]:
    """The variables that `accelerate launch` would set for a launch file."""
    args = launch_arguments(FOLDER / f"{file}.yaml")
    assert (args.num_machines, args.num_processes, args.use_cpu) == (1, 8, False)
    args.deepspeed_fields_from_accelerate_config = []  # `accelerate launch` sets it when it has read the file
    return prepare_deepspeed_cmd_env(args)[1] if args.use_deepspeed else prepare_multi_gpu_env(args)


@pytest.mark.parametrize("file, kind, expected", [("fsdp2_8", "Fsdp2", FSDP2), ("zero2_8", "Zero2", ZERO2)])
def test_a_launch_file_requests_its_engine(file, kind, expected, monkeypatch):
    """And it sets the variables that the tests here use."""
    found = environment_of(file)
    assert {variable: found.get(variable) for variable in expected} == expected
    for variable, value in found.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert launcher.requested_engine().__name__ == kind


@pytest.mark.parametrize("file, section", [("fsdp2_8", "fsdp_config"), ("zero2_8", "deepspeed_config")])
def test_a_misspelt_key_of_an_engine_is_an_error(file, section, tmp_path):
    """accelerate accepts any key in these sections without an error."""
    text = (FOLDER / f"{file}.yaml").read_text()
    for wrong in ("reshard_after_foward: true", "zero_stge: 2"):
        path = tmp_path / f"{file}.yaml"
        path.write_text(text.replace(f"{section}:\n", f"{section}:\n  {wrong}\n"))
        with pytest.raises(ValueError, match=rf"no key {section}\.{wrong.partition(':')[0]}"):
            launch_arguments(path)


FAKES = {
    "srun": """
        [ "$1" = --kill-on-bad-exit=0 ] && shift
        SLURM_NODEID=0 "$@" & first=$!
        SLURM_NODEID=1 "$@" & second=$!
        trap 'kill -TERM $first $second' TERM
        wait; wait""",
    "accelerate": """
        trap 'echo "saved $*" >> "$LOG"; exit 1' TERM
        echo "started $*" >> "$LOG"
        while [ ! -e "$DONE" ]; do sleep 0.05; done""",
    "scontrol": """
        if [ "$1" = show ]; then printf '%s\\n' node7 node8; else echo "scontrol $*" >> "$LOG"; fi""",
}
"""Stand-ins for the programs of a cluster that the batch script calls; a machine's launcher saves on SIGTERM."""


@pytest.mark.parametrize("terminated", [True, False])
def test_the_batch_script_starts_both_machines_forwards_sigterm_and_is_requeued(terminated, tmp_path):
    """With stand-ins: Slurm itself was not available."""
    for name, body in FAKES.items():
        (tmp_path / name).write_text("#!/bin/bash\n" + body)
        (tmp_path / name).chmod(0o755)
    log, out = tmp_path / "log", tmp_path / "run"
    (out / "step_00000005").mkdir(parents=True)
    (out / "step_00000005" / "state.json").touch()
    variables = {
        "LOG": str(log),
        "DONE": str(tmp_path / "done"),
        "SLURM_JOB_ID": "42",
        "SLURM_JOB_NODELIST": "n",
    }
    process = subprocess.Popen(
        ["bash", str(FOLDER / "slurm_2x8.sbatch"), "repro.recipes.mdlm", str(out), "--seed", "1"],
        env={**os.environ, **variables, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )
    while not (log.exists() and log.read_text().count("started") == 2):
        time.sleep(0.05)
    process.terminate() if terminated else (tmp_path / "done").touch()
    assert process.wait(30) == 0
    lines = log.read_text().splitlines()
    file = "--config_file recipes/launch/ddp_2x8.yaml"
    launched = {
        f"launch {file} --main_process_ip node7 --machine_rank {rank} -m repro.recipes.mdlm"
        f" --out {out} --resume --seed 1"
        for rank in (0, 1)
    }
    assert {line.removeprefix("started ") for line in lines[:2]} == launched
    assert {line.removeprefix("saved ") for line in lines[2:4]} == (launched if terminated else set())
    assert lines[4:] == (["scontrol requeue 42"] if terminated else [])
