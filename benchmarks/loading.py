"""Loading released weights: peak memory and time for a LLaDA of 1.5 billion random parameters in bfloat16 shards.

The peak is `ru_maxrss` of a new process, interpreter and libraries included; its target is the size of the network, one
shard and half a gigabyte. The shards are written to a temporary folder.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.row import Row

LAYERS, WIDTH, HEADS, KV_HEADS, FFN, IDS, MASK = 23, 2048, 32, 4, 5634, 126_464, 126_336
"""LLaDA 1B (docs/method.md#llada-pretraining), which has 22 layers and 1.49 billion parameters."""
SHARDS = 6
GIGA = 1e9
SPARE = 0.5 * GIGA
CHILD = """
import json, resource, sys, time
began = time.perf_counter()
from repro.model import load
model = load(sys.argv[1], precision="bfloat16")
seconds = time.perf_counter() - began
count = sum(p.numel() for p in model.denoiser.parameters())
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"seconds": seconds, "peak": peak, "parameters": count, "precision": model.precision}))
"""


def loading(repeats: int) -> list[Row]:
    """Largest peak of `repeats` processes against the size of the network, its largest shard and 0.5 GB."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "llada"
        largest = write(folder)
        runs = [child(folder) for _ in range(repeats)]
    parameters = runs[0]["parameters"]
    allowed = 2 * parameters + largest + SPARE
    peak = max(run["peak"] for run in runs)
    seconds = statistics.median(run["seconds"] for run in runs)
    name = f"released weights, {parameters / 1e9:.2f} B parameters in bfloat16"
    shown = f"{seconds:.1f} s of wall clock from an empty process, digest included"
    return [
        Row(
            f"{name}, peak in GB against network, a shard and .5",
            peak / GIGA,
            allowed / GIGA,
            allowed / peak,
            1.0,
            shown,
        )
    ]


def child(folder: Path) -> dict:
    """Load a folder in a new process; returns its seconds, peak bytes, parameters and precision."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder)], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def write(folder: Path) -> int:
    """Write a folder in LLaDA's layout with random weights; returns the bytes of the largest shard."""
    folder.mkdir(parents=True)
    config = {
        **{
            "model_type": "llada",
            "d_model": WIDTH,
            "n_layers": LAYERS,
            "n_heads": HEADS,
            "n_kv_heads": KV_HEADS,
        },
        **{"mlp_hidden_size": FFN, "vocab_size": IDS, "embedding_size": IDS, "mask_token_id": MASK},
        **{"rope_theta": 5e5, "rms_norm_eps": 1e-5, "weight_tying": False, "max_sequence_length": 4096},
    }
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    words = {"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}
    (folder / "tokenizer.json").write_text(json.dumps(words), "utf-8")
    named = list(shapes())
    each, files, largest = -(-len(named) // SHARDS), {}, 0
    for number, start in enumerate(range(0, len(named), each), 1):
        file, some = f"model-{number:05d}-of-{SHARDS:05d}.safetensors", named[start : start + each]
        shard(folder / file, some, number)
        largest = max(largest, (folder / file).stat().st_size)
        files |= dict.fromkeys((name for name, _ in some), file)
    index = json.dumps({"metadata": {}, "weight_map": files})
    (folder / "model.safetensors.index.json").write_text(index, "utf-8")
    return largest


def shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of each tensor of LLaDA's layout, in order."""
    kv = WIDTH // HEADS * KV_HEADS
    block = {
        **{
            "q_proj": (WIDTH, WIDTH),
            "k_proj": (kv, WIDTH),
            "v_proj": (kv, WIDTH),
            "attn_out": (WIDTH, WIDTH),
        },
        **{"ff_proj": (FFN, WIDTH), "up_proj": (FFN, WIDTH), "ff_out": (WIDTH, FFN)},
        **{"attn_norm": (WIDTH,), "ff_norm": (WIDTH,)},
    }
    yield "model.transformer.wte.weight", (IDS, WIDTH)
    for i in range(LAYERS):
        for name, shape in block.items():
            yield f"model.transformer.blocks.{i}.{name}.weight", shape
    yield "model.transformer.ln_f.weight", (WIDTH,)
    yield "model.transformer.ff_out.weight", (IDS, WIDTH)


def shard(path: Path, named: list[tuple[str, tuple[int, ...]]], seed: int) -> None:
    """Write one safetensors file (header length, header, data) of values with magnitude from 2^-8 to 2^-6."""
    header, end = {}, 0
    for name, shape in named:
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    draws = np.random.Generator(np.random.SFC64(seed))
    with open(path, "wb") as handle:
        handle.write(len(text).to_bytes(8, "little") + text)
        for _, shape in named:
            bits = draws.integers(0, 1 << 16, int(np.prod(shape)), dtype=np.uint16)
            handle.write(((bits & 0x80FF) | 0x3B80).tobytes())  # any sign and mantissa, two exponents
