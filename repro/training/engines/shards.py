"""Writing of sharded tensors to one safetensors file, without gathering them in any process."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed import checkpoint as sharded
from torch.distributed.checkpoint import CheckpointException, HuggingFaceStorageWriter

JOINED = "model-00001-of-00001.safetensors"
"""Name that torch gives the single file into which it joins the shards."""


def write(folder: Path, tensors: Mapping[str, Tensor], first: bool) -> Path:
    """Write sharded `tensors` (name -> tensor) to one safetensors file under `folder`; returns the file's path (a
    collective operation: all processes call it). `first`: whether this is the process with index 0.

    Each process writes its shards, and the first process joins them. All processes must share the file system. An error
    in one process (a full disk: OSError) is raised in all of them.
    """
    if first:
        shutil.rmtree(folder, ignore_errors=True)
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True, enable_consolidation=True)
    torch.distributed.barrier()
    try:
        sharded.save({name: _at_least_1d(t.detach()) for name, t in tensors.items()}, storage_writer=writer)
    except CheckpointException as error:  # a BaseException: no handler of the commands would catch it
        failure, _ = next(iter(error.failures.values()))
        raise failure from None
    return folder / JOINED


def _at_least_1d(tensor: Tensor) -> Tensor:
    """The tensor itself, but a scalar with shape [1] in place of (): torch 2.13 would write a scalar as zeros."""
    return tensor if tensor.ndim else tensor[None]
