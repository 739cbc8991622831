"""Several processes of one training run, started as by a launcher, with torchrun's and an engine's variables.

    together(2, trained, "mdlm", str(out), environment={"ACCELERATE_USE_FSDP": "true", ...})

They are forked from a server that has imported `PRELOADED`, so that a run spends no time on imports.
"""

from __future__ import annotations

import errno
import importlib
import multiprocessing
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint import HuggingFaceStorageWriter

from helpers.toy import toy
from repro.training.engines.options import PLAIN, Options
from repro.training.loop import train

PRELOADED = [
    "pytest",
    "torch.distributed.checkpoint",
    "repro.training.loop",
    "repro.training.engines.launcher",
    "repro.models.llama_network",
    "repro.models.dit_network",
    "repro.evals.__main__",
]
"""Modules that the server imports; it finds those that are installed or in the working folder."""

FSDP2 = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
}
"""Variables that `accelerate launch` sets for recipes/launch/fsdp2_8.yaml (see test_launcher.py)."""

ZERO2 = {
    "ACCELERATE_USE_DEEPSPEED": "true",
    "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2",
    "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "none",
    "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": "none",
    "ACCELERATE_DEEPSPEED_ZERO3_INIT": "false",
}
"""The same for recipes/launch/zero2_8.yaml."""


def together(count: int, work: Callable[..., Any], *args: Any, environment: Mapping[str, str]) -> list[Any]:
    """work(*args) in `count` processes of one group; returns their results, or raises the first error."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "REPRO_RUNS": os.environ["REPRO_RUNS"],
        **environment,
    }
    context = multiprocessing.get_context("forkserver")
    for name in PRELOADED:
        importlib.import_module(name)  # the server would pass over a name that does not exist
    context.set_forkserver_preload(PRELOADED)
    last = time.monotonic() + 300
    # leaving the pool ends processes that wait for one that failed
    with context.Pool(count, maxtasksperchild=1) as pool:
        results = [
            pool.apply_async(_one, ({**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}, work, args))
            for rank in range(count)
        ]
        while not all(result.ready() for result in results):
            for result in results:
                if result.ready():
                    result.get()  # raises the error of a process at once
            assert time.monotonic() < last, "a process died, or they wait for each other"
            time.sleep(0.02)
        return [result.get() for result in results]


def _one(environment: Mapping[str, str], work: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    os.environ.update(environment)
    torch.set_num_threads(1)
    return work(*args)


def trained(name: str, pins: tuple[str, ...], out: str, stop: int, resume: bool, options: Options) -> None:
    """One process of a toy run with seed 3."""
    train(toy(name, *pins), seed=3, out=Path(out), stop=stop, resume=resume, options=options)


def exchanges(pins: tuple[str, ...], out: str, stop: int, whole: bool) -> int:
    """One process of a toy run of mdlm; returns how many numbers of larger tensors (a norm is one number) it gave to
    torch's reduce-scatter, and under DeepSpeed to its all-reduce."""
    given: list[int] = []

    def counted(exchange: Callable[..., Any]) -> Callable[..., Any]:
        def exchanged(*args: Any, **kwargs: Any) -> Any:
            tensors = [each for each in (*args, *kwargs.values()) if isinstance(each, torch.Tensor)]
            given.extend(each.numel() for each in tensors if each.numel() > 1)
            return exchange(*args, **kwargs)

        return exchanged

    torch.distributed.reduce_scatter_single = counted(torch.distributed.reduce_scatter_single)
    if "ACCELERATE_USE_DEEPSPEED" in os.environ:
        comm = importlib.import_module("deepspeed.comm")
        comm.all_reduce = counted(comm.all_reduce)
    trained("mdlm", pins, out, stop, False, replace(PLAIN, whole_gradients=whole))
    return sum(given)


def fault(name: str, pins: tuple[str, ...], out: str) -> None:
    """The same run resumed, with a full disk for the second process only."""

    def full(self, plan, planner):
        raise OSError(errno.ENOSPC, "No space left on device", "shard")

    if os.environ["RANK"] == "1":
        HuggingFaceStorageWriter.write_data = full
    trained(name, pins, out, 20, True, PLAIN)
