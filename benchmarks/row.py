"""A row of the benchmarks, and how its sides are measured: CPU seconds in turn, or bytes allocated."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from repro.core.onednn import onednn_is_faster

TOLERANCE = 1e-4
"""Largest relative difference of losses and gradients at the same noise, and of posteriors in total variation; the
peers compute them in float32."""


SAME = " with our products"
"""What follows the name of a side that runs with our float32 products although it is the code of others."""


@dataclass(frozen=True)
class Row:
    """Median CPU seconds of both sides (or the quantity in the row's name), their ratio, its target, and the agreement
    of their results."""

    row: str
    ours: float
    opponent: float
    ratio: float
    target: float
    agreement: str


@dataclass(frozen=True)
class Compared:
    """A row, and whether both sides gave the same result."""

    row: Row
    equal: bool


Side = Callable[[], object]


@dataclass(frozen=True)
class Timed:
    """Median CPU seconds of each side, and the result of its warm-up run."""

    seconds: dict[str, float]
    results: dict[str, Any]

    def row(
        self, name: str, target: float, agreement: str, ours: str = "ours", theirs: str = "theirs"
    ) -> Row:
        """The row of two of the sides, which are called `ours` and `theirs`; its agreement also tells the ratio that
        there is with our float32 products on both sides, where `against` measured it."""
        mine, other = self.seconds[ours], self.seconds[theirs]
        if (same := f"{theirs}{SAME}") in self.seconds:
            agreement += f"; {self.seconds[same] / mine:.2f}x with oneDNN's products on both sides"
        return Row(name, mine, other, other / mine, target, agreement)

    def bound(self) -> str:
        """The largest ratio possible with the same products on both sides, as text: that of a loop whose every step but
        the network's forwards (side "network") took no time."""
        theirs = self.seconds.get(f"theirs{SAME}", self.seconds["theirs"])
        return (
            f"{theirs / self.seconds['network']:.2f}x if only our forwards took time, with the same products"
        )


def timed(sides: dict[str, Side], repeats: int) -> Timed:
    """Time all sides in turn after one warm-up each, in CPU seconds of this process.

    With one thread and no waiting, that equals wall-clock time on an idle machine and leaves out other load on a busy
    one.
    """
    results = {name: work() for name, work in sides.items()}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, work in sides.items():
            began = time.process_time()
            work()
            times[name].append(time.process_time() - began)
    return Timed({name: statistics.median(taken) for name, taken in times.items()}, results)


def against(sides: dict[str, Side], repeats: int, others: Sequence[str] = ("theirs",)) -> Timed:
    """`timed`, where the sides `others` are the code of others: they run with torch's own float32 products, which they
    would have without us (`repro.core.onednn`), and once more, as NAME + `SAME`, with ours."""
    if not onednn_is_faster():
        return timed(sides, repeats)
    own = {name: torch_products(side) if name in others else side for name, side in sides.items()}
    return timed(own | {f"{name}{SAME}": sides[name] for name in others}, repeats)


def torch_products(work: Side) -> Side:
    """`work` with torch's own float32 products."""
    from unittest.mock import patch

    def run() -> object:
        with patch("repro.models.products.onednn_is_faster", lambda: False):
            return work()

    return run


def interleaved(name: str, ours: Side, opponent: Side, target: float, repeats: int, agreement: str) -> Row:
    """A row of both sides, timed in turn after one warm-up each."""
    return timed({"ours": ours, "theirs": opponent}, repeats).row(name, target, agreement)


def peak_bytes(work: Side) -> int:
    """Peak bytes of tensors that `work` allocates; temporary memory inside an operator is not counted."""
    import weakref

    from torch import Tensor
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    alive: dict[int, int] = {}
    peak = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal peak
            made = func(*args, **(kwargs or {}))
            given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
            for tensor in tree_leaves(made):
                if isinstance(tensor, Tensor):
                    storage = tensor.untyped_storage()
                    key = storage._cdata
                    if key not in alive and key not in given:
                        alive[key] = storage.nbytes()
                        weakref.finalize(storage, alive.pop, key)
            peak = max(peak, sum(alive.values()))
            return made

    with Watch():
        work()
    return peak


def product_share(work: Side) -> float:
    """Share of operator time that `work` spends in matrix products (PRODUCTS), in one run after a warm-up."""
    from torch.autograd.profiler import profile

    work()
    with profile(use_kineto=False) as seen:
        work()
    times = {row.key: row.self_cpu_time_total for row in seen.key_averages()}
    return sum(times.get(name, 0.0) for name in PRODUCTS) / sum(times.values())


PRODUCTS = (
    *(f"aten::{name}" for name in ("mm", "addmm", "addmm_", "bmm", "baddbmm")),
    "mkldnn::_linear_pointwise",
)
