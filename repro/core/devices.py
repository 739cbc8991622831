"""The device on which models run: the one that the user chose, else the GPU if there is one (CUDA, then MPS), else the
CPU.

take_device("cuda:1")     from now on, models of this process run on this GPU
device()                  "cuda:1", where models run
processor()               name of the CPU
"""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

from repro.core.errors import nearest
from repro.core.lazy import torch

KINDS = ("cuda", "mps", "cpu")
_taken: list[str] = []
"""The device that `take_device` was last given; empty before."""


def device(name: str | None = None) -> str:
    """The name of a device of this machine: `name` itself, checked; for None the device that `take_device` was given,
    else a GPU if there is one, else the CPU.

    Raises ValueError for a name other than cpu, mps, cuda and cuda:N, and for a device that this machine lacks.
    """
    if name is None:
        return _taken[-1] if _taken else _best()
    if not re.fullmatch(r"(cpu|mps|cuda(:\d+)?)", name):
        near = "a GPU is 'cuda'" if name.lower() in ("gpu", "nvidia") else nearest(name, KINDS)
        raise ValueError(f"no device {name!r}; {near} (a GPU among several: cuda:1)")
    kind, _, number = name.partition(":")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"device {name}: this machine has no Apple GPU; use {_best()}")
    count = torch.cuda.device_count() if kind == "cuda" else 0
    if kind == "cuda" and int(number or 0) >= count:
        raise ValueError(
            f"device {name}: {count} GPUs are visible to torch here; use {_best()} (see `repro doctor`)"
        )
    return name


def take_device(name: str | None = None) -> str:
    """Let all models that are loaded or trained from now on run on the device `name` (None: a GPU if there is one,
    else the CPU), and return its name. If a launcher has started several processes on the machine (LOCAL_RANK is set),
    `cuda` is for each process a GPU of its own.

    Raises ValueError for a name other than cpu, mps, cuda and cuda:N, for a device that this machine lacks, and for
    cuda:N where LOCAL_RANK is set.
    """
    chosen = device(name) if name is not None else _best()
    rank = os.environ.get("LOCAL_RANK")
    if rank is not None and ":" in chosen:
        raise ValueError(
            f"--device {name}: the launcher gives each process a GPU; use --device cuda, or leave it out"
        )
    if chosen == "cuda" and rank is not None:
        torch.cuda.set_device(int(rank) % torch.cuda.device_count())
    elif ":" in chosen:
        torch.cuda.set_device(int(chosen.partition(":")[2]))
    _taken[:] = [chosen] if name is not None else []
    return chosen


def _best() -> str:
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def processor() -> str:
    """Model name of the CPU where the system tells it, else its architecture, such as x86_64."""
    return _described("model name") or platform.processor() or platform.machine()


def processor_maker() -> str:
    """Vendor id of the CPU, such as GenuineIntel or AuthenticAMD; on systems other than Linux Python's
    `platform.processor()`, which may contain the id or be empty."""
    return _described("vendor_id") or platform.processor()


def _described(field: str) -> str:
    """Value of a field of Linux's /proc/cpuinfo for the first core; "" where there is no such file or field."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text("utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == field:
                return value.strip()
    return ""
