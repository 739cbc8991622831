"""What a question costs before it is asked: forwards, tokens through the network, and hours on a stated device.

    decoding(sampler, plan, prompt, causal)    one text: forwards and token-forwards, at most where a rule stops early
    seconds(workload, network, device, batch)    time by arithmetic
    fitting_batch(network, length, free)       rows of a forward that fit in free memory

A forward of N tokens that sees K keys a token takes 2 N (blocks) + 4 N K (layers) (width) FLOPs, and its logits
2 (width) (vocabulary) at each position where they are asked; it cannot be faster than reading the weights once a batch.
Draws move bytes beside that. Tokenisation and judges are not counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from repro.core.errors import nearest
from repro.evals.workload import Workload
from repro.models.backbone import Size
from repro.training.cost import PEAK, UTILISATION

if TYPE_CHECKING:
    from repro.model import Precision


# --- devices and time ---------------------------------------------------------------------------------------
@dataclass(frozen=True, kw_only=True)
class Device:
    """`flops`: dense, at the width of numbers `value` [bytes]; `weight` [bytes] of a weight; `bandwidth` [bytes/s] and
    `memory` [bytes]."""

    name: str
    flops: float
    bandwidth: float
    memory: float
    value: int
    weight: int


@dataclass(frozen=True, kw_only=True)
class Card:
    """A machine in either width: dense FLOP/s of bfloat16 (`narrow`) and of float32 without TF32 (`wide`)."""

    name: str
    narrow: float
    wide: float
    bandwidth: float
    memory: float


CARDS = {
    "h100": Card(name="one H100 80 GB", narrow=PEAK, wide=67e12, bandwidth=3.35e12, memory=80e9),
    "h200": Card(name="one H200 141 GB", narrow=PEAK, wide=67e12, bandwidth=4.8e12, memory=141e9),
    "a100": Card(name="one A100 80 GB", narrow=312e12, wide=19.5e12, bandwidth=2.0e12, memory=80e9),
    "cpu": Card(name="one thread of a CPU", narrow=60e9, wide=60e9, bandwidth=10e9, memory=8e9),
}
"""Vendors' data sheets; the CPU is a guess of ours."""


def device(name: str, precision: Precision) -> Device:
    """The device of a name, weights kept in `precision` (int8: products in bfloat16, a byte for every weight).

    ValueError names the nearest.
    """
    if name not in CARDS:
        raise ValueError(f"no device {name!r}; {nearest(name, CARDS)}")
    card, wide = CARDS[name], precision == "float32"
    return Device(
        name=f"{card.name}, {precision}",
        flops=card.wide if wide else card.narrow,
        bandwidth=card.bandwidth,
        memory=card.memory,
        value=4 if wide else 2,
        weight={"float32": 4, "bfloat16": 2, "int8": 1}[precision],
    )


def flops(workload: Workload, network: Size) -> float:
    """FLOPs of one item."""
    blocks = 2 * network.blocks * workload.tokens
    attention = 4 * network.layers * network.width * workload.keys
    return blocks + attention + 2 * network.width * network.vocab_size * workload.heads


def seconds(workload: Workload, network: Size, device: Device, batch: int) -> float:
    """Seconds of one item where `batch` are forwarded together: the slower of arithmetic and reading the weights, and
    the bytes of its draws at the full bandwidth."""
    arithmetic = flops(workload, network) / device.flops
    reading = workload.forwards / batch * network.parameters * device.weight / device.bandwidth
    drawing = workload.drawn * network.vocab_size / device.bandwidth
    return max(arithmetic, reading) / UTILISATION + drawing
