"""Counter-based random numbers: they depend on what is drawn, not on device, batch size or number of processes.

`keys(seed, purpose, step, rows)` chains the SplitMix64 finaliser (Steele, Lea, Flood 2014) over its arguments in plain
int64 tensor operations; `uniform(keys, *shape)` hashes key and counter. All randomness of the suite comes from here:
data order, corruption, decoding, network initialisation, language tables (docs/method.md#randomness).

A *purpose* is a constant below; draws that must be independent differ in (seed, purpose, step, row).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from repro.core.errors import LARGEST_COUNT
from repro.core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

# Purposes. Every result depends on these numbers: append, never renumber.
ORDER = 1  # order of the training rows, one permutation an epoch
TIME = 2  # diffusion time or mask rate of a row
CORRUPT = 3  # which tokens are corrupted
NOISE = 4  # Gaussian noise of the relaxation
INIT = 5  # network initialisation
LANGUAGE = 6  # tables of the synthetic languages (oracles)
SENTENCE = 7  # sentences drawn from a synthetic language
PUZZLE = 8  # clues and grids of the toy tasks
PRIOR = 9  # ids at t = 1
TOKEN = 10  # the token that a sampler writes
POSITION = 11  # which position a sampler chooses
REVEAL = 12  # whether an absorbing sampler reveals a position
BOUND = 13  # noise of the held-out bound
QUOTED = 14  # which held-out rows are printed as examples
LIKELIHOOD = 15  # mask counts and masked sets of a likelihood's draws
HIT = 17  # when first-hitting reveals the next position
REMOVAL = 18  # the token that replaces what noise is left at the end
CORRECTION = 19  # the token that a corrector writes
NAIVE = 20  # ids of naive samples that exploit a text-quality metric
CORPUS = 23  # which rows of a corpus are scored under a limit
CLUSTER = 24  # where k-means starts
RESAMPLE = 25  # which rows a bootstrap draws
DROPOUT = 28  # which activations dropout zeroes in training
LENGTH = 29  # the length to which a training row is cut
PARITY = 30  # ids and noise of a recorded fixture

Bits = TypeVar("Bits", "Tensor", int)
"""64 bits: int64 tensors, or a Python integer of their range."""

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as int64
_MIX1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX2 = -7723592293110705685  # 0x94D049BB133111EB


def check_seeds(*seeds: int) -> None:
    """Raise ValueError for a seed below 0 or above 2^53; seeds that differ by 2^64 would give the same draws."""
    for seed in seeds:
        if not 0 <= seed <= LARGEST_COUNT:
            raise ValueError(f"seed={seed} is no seed; give 0 to {LARGEST_COUNT:,}")


def _shift(x: Bits, bits: int) -> Bits:
    """Logical right shift of int64: torch and Python shift arithmetically, so the copies of the sign are masked off."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _wrapped(x: Bits) -> Bits:
    """x modulo 2^64, as a signed 64-bit integer; a tensor is returned unchanged, since torch's int64 already wraps."""
    return ((x + (1 << 63)) & ((1 << 64) - 1)) - (1 << 63) if isinstance(x, int) else x


def _mix(x: Bits) -> Bits:
    """Hash of each number, int64 -> int64: the last mixing step (finaliser) of the generator SplitMix64."""
    x = _wrapped((x ^ _shift(x, 30)) * _MIX1)
    x = _wrapped((x ^ _shift(x, 27)) * _MIX2)
    return x ^ _shift(x, 31)


def _fold(key: Any, value: Any) -> Any:
    """Hash of `key` and `value`: an integer if both are Python integers, else an int64 tensor, elementwise."""
    return _mix(_wrapped((key ^ _mix(_wrapped(value + _GOLDEN))) + _GOLDEN))


def fold(keys: Tensor, value: Tensor | int) -> Tensor:
    """New keys, int64 [...]: each of `keys` [...] hashed with `value` (an integer, or a tensor that broadcasts), so
    that draws for different values are independent."""
    return _fold(keys, value if isinstance(value, int) else torch.as_tensor(value, device=keys.device))


def keys(seed: int, purpose: int, step: int | Tensor, rows: Tensor | Sequence[int] | int) -> Tensor:
    """Random keys, one per row: int64 [B] for row numbers `rows` [B], a scalar tensor for an integer. `seed`: random
    seed; `purpose`: a constant of this module; `step`: number of the optimizer step, decoding step or epoch, an integer
    or [B]."""
    key = 0  # Python integers are hashed as such: with a tensor it takes a hundred times as long
    for value in (seed, purpose, step):
        key = _fold(key, value)
    return _fold(key, torch.as_tensor(rows, dtype=torch.int64))


def uniform(keys: Tensor, *shape: int) -> Tensor:
    """Uniform draws in (0, 1), float64 [B..., *shape], from keys [B...]: ((h >>> 12) + 1/2) 2^-52, where h is the hash
    of a key and of the number of the draw within `shape`."""
    count = math.prod(shape)
    counter = torch.arange(count, dtype=torch.int64, device=keys.device).reshape(shape)
    hashed = fold(keys.reshape((*keys.shape, *[1] * len(shape))), counter)
    return (_shift(hashed, 12).double() + 0.5) * 2.0**-52


def normal(keys: Tensor, *shape: int) -> Tensor:
    """Standard normal draws, float64 [B..., *shape], from keys [B...], by inversion of `uniform`."""
    return torch.special.ndtri(uniform(keys, *shape))


def low_discrepancy(seed: int, purpose: int, step: int, rows: Tensor, count: int) -> Tensor:
    """Stratified uniform draws, [B] float64: row r of the `count` rows of an optimizer step gets (r + u) / count, with
    one random u in (0, 1) shared by the whole step (docs/method.md#oracle-32).

    `seed`, `purpose` (a constant of this module) and `step` determine u; `rows` [B]: number r of each row within the
    step. Each stratum [i/count, (i+1)/count) has exactly one value, which is uniform on it.
    """
    shared = uniform(keys(seed, purpose, step, 0)).to(rows.device)
    return (rows.double() + shared) / count


def permutation(seed: int, purpose: int, epoch: int, count: int) -> Tensor:
    """Uniformly random permutation of 0..count-1, [count] int64, determined by `seed`, `purpose` (a constant of this
    module) and `epoch`, and the same on every machine (stable sort of hashed keys)."""
    return torch.sort(keys(seed, purpose, epoch, torch.arange(count)), stable=True).indices


def choose(probabilities: Tensor, u: Tensor) -> Tensor:
    """Index drawn per row by inverse CDF, [N] int64; probabilities [N, C] of C categories, float64, need not sum to 1.

    `u` [N]: uniform in (0, 1). The index is the first at which the row's cumulative sum exceeds u times the row's sum;
    if rounding leaves none, the first at which it reaches the row's sum. So no category of probability 0 is drawn; the
    index is C for probabilities that hold a NaN. Float64 throughout: a float32 Gumbel-max draw cannot reach rare tokens
    (docs/method.md#mdlm, docs/method.md#oracle-34).
    """
    total = probabilities.cumsum(-1)
    index = torch.searchsorted(total, (u * total[:, -1])[:, None], right=True)[:, 0]
    last = torch.searchsorted(total, total[:, -1:].contiguous())[:, 0]
    return torch.minimum(index, last)
