"""Sharded tensors to one safetensors file: no process ever holds the whole, and nothing is pickled."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed import checkpoint as sharded
from torch.distributed.checkpoint import CheckpointException, HuggingFaceStorageWriter

JOINED = "model-00001-of-00001.safetensors"
"""What torch calls the one file that it joins the shards into."""


def write(folder: Path, tensors: Mapping[str, Tensor], first: bool) -> Path:
    """Every process writes its shards of `tensors` under `folder`, the first joins them; returns the joined file.

    All processes must share the file system. Raises in every process what failed in one (a full disk: OSError).
    """
    if first:
        shutil.rmtree(folder, ignore_errors=True)
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True, enable_consolidation=True)
    torch.distributed.barrier()
    try:
        sharded.save({name: _at_least_1d(t.detach()) for name, t in tensors.items()}, storage_writer=writer)
    except CheckpointException as error:  # no Exception: it would pass every handler as a traceback
        failure, _ = next(iter(error.failures.values()))
        raise failure from None
    return folder / JOINED


def _at_least_1d(tensor: Tensor) -> Tensor:
    """A number as one row: torch 2.13 joins tensors of shape () as zeros, in silence."""
    return tensor if tensor.ndim else tensor[None]
