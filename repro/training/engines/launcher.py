"""Selection of the engine from the environment variables that `accelerate launch` or torchrun sets.

A setting of the launcher that the selected engine does not support is never ignored, but raises ValueError.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from accelerate import Accelerator
from accelerate.utils import DistributedType

from repro.core.devices import device
from repro.training.engines.engine import Ddp, Engine, Single
from repro.training.engines.fsdp2 import Fsdp2
from repro.training.engines.zero2 import Zero2

PRECISION = "precision, clipping and accumulation are settings of the recipe"
SETTINGS: Mapping[str, Mapping[str, tuple[tuple[str, ...], str]]] = {
    "any engine": {
        "ACCELERATE_MIXED_PRECISION": (("no",), f"leave the key out: {PRECISION}"),
        "ACCELERATE_DYNAMO_BACKEND": (("no",), "compile with --compile"),
        "ACCELERATE_USE_MEGATRON_LM": (("false",), "launch with recipes/launch/fsdp2_8.yaml"),
        "ACCELERATE_USE_PARALLELISM_CONFIG": (("false",), "launch with recipes/launch/fsdp2_8.yaml"),
    },
    "FSDP": {
        "FSDP_VERSION": (("2",), "set fsdp_version: 2 as in recipes/launch/fsdp2_8.yaml"),
        "FSDP_OFFLOAD_PARAMS": (("false",), "set fsdp_offload_params: false"),
        "FSDP_AUTO_WRAP_POLICY": (
            ("transformer_based_wrap",),
            "set fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP",
        ),
        "FSDP_TRANSFORMER_CLS_TO_WRAP": (("",), "leave the key out: the network names its layers"),
        "FSDP_ACTIVATION_CHECKPOINTING": (("false",), "use --activation-checkpointing"),
        "FSDP_CPU_RAM_EFFICIENT_LOADING": (
            ("false",),
            "set fsdp_cpu_ram_efficient_loading: false (each process draws its own weights)",
        ),
        "FSDP_IGNORED_MODULES": (("",), "leave the key out"),
    },
    "DeepSpeed": {
        "ACCELERATE_DEEPSPEED_CONFIG_FILE": (
            ("", "none"),
            "set zero_stage as in recipes/launch/zero2_8.yaml",
        ),
        "ACCELERATE_DEEPSPEED_ZERO_STAGE": (
            ("2",),
            "set zero_stage: 2 as in recipes/launch/zero2_8.yaml (for stage 1 use DDP, for stage 3 FSDP2)",
        ),
        "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": (
            ("", "none"),
            "set offload_optimizer_device: none",
        ),
        "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": (("", "none"), "set offload_param_device: none"),
        "ACCELERATE_DEEPSPEED_ZERO3_INIT": (("false",), "set zero3_init_flag: false"),
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": (("", "none", "1"), f"leave the key out: {PRECISION}"),
        "ACCELERATE_GRADIENT_CLIPPING": (("", "none"), f"leave the key out: {PRECISION}"),
    },
}
"""Engine -> environment variable of the launcher -> accepted values, and the remedy for any other value."""


def requested_engine() -> type[Engine]:
    """The engine class that the launcher's environment variables request; ValueError for an unsupported setting."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    _check("any engine")
    for name, variable, kind in (
        ("FSDP", "ACCELERATE_USE_FSDP", Fsdp2),
        ("DeepSpeed", "ACCELERATE_USE_DEEPSPEED", Zero2),
    ):
        if os.environ.get(variable, "false").lower() == "true":
            _check(name)
            if processes == 1:
                raise ValueError(
                    f"{name} shards over several processes, but only one was started; for one GPU launch with"
                    " recipes/launch/gpu_1.yaml, else start more processes"
                )
            return kind
    return Ddp if processes > 1 else Single


def _check(engine: str) -> None:
    for variable, (accepted, remedy) in SETTINGS[engine].items():
        value = os.environ.get(variable, accepted[0])
        if value.lower() not in accepted:
            raise ValueError(f"{variable}={value} is not supported with {engine}; {remedy}")


def join_group(distributed: tuple[DistributedType, ...]) -> Accelerator:
    """Join the group of processes; returns accelerate's `Accelerator`.

    `distributed`: the values of accelerate's `distributed_type` that fit the requested engine (an engine that shards
    also accepts MULTI_CPU, which accelerate reports on CPUs). Raises ValueError if accelerate has set up another type,
    or another number of processes than the launcher started: each process would then train alone without an error.
    """
    # precision is the recipe's: accelerate's own setting must have no effect
    accelerator = Accelerator(cpu=not device().startswith("cuda"), mixed_precision="no")
    processes, got = int(os.environ.get("WORLD_SIZE", "1")), accelerator.num_processes
    if processes != got:
        accelerator.end_training()
        raise ValueError(
            f"the launcher started {processes} processes, but accelerate sees {got}; launch with a file of"
            " recipes/launch"
        )
    kind = accelerator.distributed_type
    if kind not in distributed:
        accelerator.end_training()
        raise ValueError(
            f"the launcher requests {distributed[0].value}, but accelerate has set up {kind.value}; launch with a file"
            " of recipes/launch"
        )
    return accelerator
