"""What this machine can do: device, bfloat16, threads, memory, disk, Hub, launchers and optional packages.

repro doctor               uses no network
repro doctor --network     also whether the Hugging Face Hub answers
repro doctor --json        the same as a JSON object
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from repro.core.cli import Parser, fill, run
from repro.core.devices import processor
from repro.core.files import RESULTS, ROOT, runs
from repro.core.lazy import torch
from repro.core.onednn import onednn, onednn_is_faster

FASTER = 1.5
"""Ratio of speeds from which bfloat16 is called faster than float32."""
SIZE = 768
"""Rows and columns of the matrices that are multiplied to compare precisions: the width of a small network."""
SECONDS = 0.3
"""Seconds for which matrices are multiplied in each precision."""
TIMEOUT = 5.0
"""Seconds that the Hub has to answer."""
EXTRAS = {
    "deepspeed": ("deepspeed", "ZeRO-2 training (recipes/launch/zero2_8.yaml)"),
    "torchao": ("quantise", "--precision int8"),
    "gguf": ("gguf", "GGUF files as --ckpt and --judge"),
    "peft": ("lora", "low-rank adapters (recipes llada_sft_lora and smollm2_block4)"),
    "diffusers": ("certify", "the certificates of diffusers' schedulers"),
}
"""Optional package -> extra of dlm-repro that installs it, and what the package is for."""
TRACKERS = ("tensorboard", "wandb", "trackio")
"""Packages of metrics trackers, of which `--track` takes those that are installed."""


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code of `repro doctor`: 0. `argv`: its arguments (None: those of the process)."""
    parser = Parser(
        "repro doctor",
        "Say what this machine can do. Nothing is downloaded, and without --network nothing is asked.",
        ["repro doctor", "repro doctor --network --json"],
    )
    parser.add_argument(
        "--network", action="store_true", help="also ask whether the Hugging Face Hub answers"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object: subject -> finding")
    args = parser.parse_args(argv)
    found = examine(args.network)
    if args.json:
        print(json.dumps(found, indent=1))
        return 0
    wide = max(map(len, found))
    for subject, finding in found.items():
        print("\n".join(fill(f"{subject:<{wide}}  ", finding)))
    return 0


def examine(network: bool) -> dict[str, str]:
    """What this machine can do: subject ("memory", "Hub", ...) -> one sentence about it. `network`: whether to test
    that the Hub answers."""
    return {
        "versions": _versions(),
        "device": _device(),
        "precision": _precision(),
        "threads": _threads(),
        "memory": _memory(),
        "runs": _folder(runs(), "runs and records; $REPRO_RUNS chooses another"),
        "results": _folder(RESULTS, "published records"),
        "Hub": _hub(network),
        "launchers": _launchers(),
        **{name: _package(name, *EXTRAS[name]) for name in EXTRAS},
        "trackers": ", ".join(filter(_version, TRACKERS)) or f"none of {', '.join(TRACKERS)} is installed",
    }


def _version(package: str) -> str | None:
    """Installed version of a package; None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _versions() -> str:
    names = ("dlm-repro", "torch", "transformers", "lm_eval")
    each = ", ".join(f"{name} {_version(name) or 'not installed'}" for name in names)
    return f"Python {platform.python_version()}, {each}"


# --- computing ----------------------------------------------------------------------------------------------
def _device() -> str:
    if torch.cuda.is_available():
        cards = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        each = "; ".join(
            f"cuda:{i} {card.name}, {card.total_memory / 2**30:.0f} GiB, compute capability {card.major}.{card.minor}"
            for i, card in enumerate(cards)
        )
        return f"{each} (CUDA {torch.version.cuda}); models run on cuda:0 unless --device says otherwise"
    if torch.backends.mps.is_available():
        return "mps, Apple's GPU; models run there unless --device says otherwise, training runs on the CPU"
    built = "this torch is built for CUDA" if torch.version.cuda else "this torch is built for CPUs only"
    return f"cpu, {processor()}; no GPU is visible ({built})"


def _precision() -> str:
    """One sentence on whether products of matrices are faster in bfloat16 than in float32 here, measured on the GPU if
    there is one, else on the CPU."""
    device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    rates = [_rate(kind, device) for kind in (torch.float32, torch.bfloat16)]
    ratio = rates[1] / rates[0]
    verdict = "faster" if ratio >= FASTER else "slower" if ratio < 1 / FASTER else "no faster"
    slow, fast = (f"{1000 * rate:.3g}" for rate in rates)
    what = f"{fast} and {slow} GFLOP/s, matrices of {SIZE} x {SIZE} on {device}"
    return (
        f"bfloat16 is {verdict} than float32 here ({ratio:.1f}x: {what});"
        " checkpoints of this suite run in float32, released weights also with --precision bfloat16"
    )


def _rate(kind: torch.dtype, device: str) -> float:
    """Speed of products of two SIZE x SIZE matrices of the type `kind` on `device`, in 1e12 floating-point operations
    per second."""
    a = torch.ones(SIZE, SIZE, dtype=kind, device=device)
    own = device == "cpu" and kind == torch.float32 and onednn_is_faster()
    multiply = onednn if own else torch.mm
    multiply(a, a).sum().item()  # warm-up
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < SECONDS:
        multiply(a, a).sum().item()  # waits for the device
        done += 1
    return 2 * SIZE**3 * done / (time.perf_counter() - began) / 1e12


def _threads() -> str:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    given = os.environ.get("OMP_NUM_THREADS", "1")
    return (
        f"{given} of {usable} cores (OMP_NUM_THREADS; 1 unless it is set, because results on a CPU depend on it);"
        " several processes share an evaluation: start the same command again"
    )


def _memory() -> str:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return "unknown on this system"
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = Path("/sys/fs/cgroup/memory.max")
    held = limit.read_text("ascii").strip() if limit.is_file() else "max"
    usable = min(total, int(held)) if held.isdecimal() else total
    parameters = usable / 2 / 4 / 1e9
    return (
        f"{usable / 2**30:.0f} GiB; half of it holds about {parameters:.1f} billion parameters in float32, twice as"
        " many in bfloat16"
    )


# --- files --------------------------------------------------------------------------------------------------
def _folder(path: Path, what: str) -> str:
    """One sentence about the folder `path`: its free space, whether files can be written there, and whether its file
    system locks files. `what`: what the folder is for, such as "published records"."""
    there = next(each for each in (path.absolute(), *path.absolute().parents) if each.is_dir())
    free = f"{path} ({what}): {shutil.disk_usage(there).free / 2**30:.0f} GiB free"
    if not os.access(there, os.W_OK):
        return f"{free}; it cannot be written"
    try:
        with (
            tempfile.TemporaryDirectory(dir=there, prefix=".repro-") as folder,
            FileLock(Path(folder) / "lock", timeout=0),
        ):
            return f"{free}; file locks work, so processes can share an evaluation"
    except (OSError, Timeout, NotImplementedError) as error:
        return (
            f"{free}; file locks do not work ({error}): start processes by one launcher, which numbers them"
        )


def _hub(network: bool) -> str:
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    kept = [p.name for p in cache.glob("*--*") if p.is_dir()] if cache.is_dir() else []
    counts = [f"{sum(name.startswith(kind) for name in kept)} {kind}" for kind in ("models", "datasets")]
    said = f"{' and '.join(counts)} in the cache {cache}"
    if constants.HF_HUB_OFFLINE:
        return f"{said}; HF_HUB_OFFLINE is set, so nothing is downloaded"
    if not network:
        return f"{said}; not asked whether it answers (--network)"
    try:
        with urllib.request.urlopen(constants.ENDPOINT, timeout=TIMEOUT):
            return f"{said}; {constants.ENDPOINT} answers"
    except OSError as error:  # urllib's URLError and HTTPError, and a time-out
        return f"{said}; {constants.ENDPOINT} does not answer ({error}): give --ckpt a folder that you copied here"


# --- packages -----------------------------------------------------------------------------------------------
def _launchers() -> str:
    """One sentence on how to start a run on all GPUs of this machine."""
    from accelerate.commands.config.config_args import default_config_file

    gpus = torch.cuda.device_count()
    files = sorted(path.stem for path in (ROOT / "recipes" / "launch").glob("*.yaml"))
    fit = f"accelerate launch --config_file recipes/launch/ddp_8.yaml --num_processes {gpus}"
    how = f"{gpus} GPUs: {fit}" if gpus > 1 else "one process: plain `python -m` is enough"
    own = ""
    if Path(default_config_file).is_file():
        own = f"; {default_config_file} exists, and --config_file replaces it"
    return f"accelerate {_version('accelerate')}; {how}; recipes/launch has {', '.join(files)}{own}"


def _package(name: str, extra: str, purpose: str) -> str:
    found = _version(name)
    if found is not None:
        return f"{found}, for {purpose}"
    return f"not installed; pip install 'dlm-repro[{extra}]' for {purpose}"


if __name__ == "__main__":
    run(main, "repro doctor")
