"""The device on which models run: the one that was asked for, else the GPU if there is one (CUDA, then MPS), else the
CPU.

take_device("cuda:1")     from here on, models of this process run there
device()                  where they run
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

    Raises ValueError for a name that torch does not have, and for a device that is not here.
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
    """Let all models that are loaded or trained from here on run on the device `name` (None: a GPU if there is one,
    else the CPU) and return its name; of several processes on one machine (a launcher has set LOCAL_RANK) each takes a
    GPU of its own.

    Raises ValueError for a device that is unknown or not here, and for a numbered GPU where a launcher gives each
    process its own.
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
    """The processor's name where the system tells it, else its architecture."""
    return _described("model name") or platform.processor() or platform.machine()


def processor_maker() -> str:
    """The processor's maker as it names itself, such as GenuineIntel or AuthenticAMD; on systems other than Linux a
    text that holds this name, where they tell it."""
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
