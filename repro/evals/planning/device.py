"""Devices, and the time of a workload on one, estimated from FLOPs and memory traffic.

    seconds(workload, network, device("h100", "bfloat16"), batch)

A forward of N tokens that each attend to K keys takes 2 N (parameters of the transformer blocks) + 4 N K (layers)
(width) FLOPs, and its logits 2 (width) (vocabulary size) FLOPs per position that needs them. A forward of a batch takes
at least the time to read the weights once. Random draws add memory traffic. Tokenisation and scoring of text are not
counted.
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
    """A GPU or CPU in one precision: dense `flops` [FLOP/s], memory `bandwidth` [bytes/s], `memory` [bytes], bytes per
    activation (`value`) and bytes per `weight`."""

    name: str
    flops: float
    bandwidth: float
    memory: float
    value: int
    weight: int


@dataclass(frozen=True, kw_only=True)
class Card:
    """A GPU or CPU: dense FLOP/s in bfloat16 (`narrow`) and in float32 without TF32 (`wide`), memory `bandwidth`
    [bytes/s] and `memory` [bytes]."""

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
"""Device name on the command line -> its figures, from the vendors' data sheets; those of the CPU are a guess."""


def device(name: str, precision: Precision) -> Device:
    """The device of `name` (h100, h200, a100 or cpu) with weights in `precision`.

    int8: one byte per weight, matrix products in bfloat16. ValueError names the nearest name if it is unknown.
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
    """Number of FLOPs for one item of an evaluation; `workload`: tokens, attended keys and logits of its forward
    passes, `network`: size of the network."""
    blocks = 2 * network.blocks * workload.tokens
    attention = 4 * network.layers * network.width * workload.keys
    return blocks + attention + 2 * network.width * network.vocab_size * workload.heads


def seconds(workload: Workload, network: Size, device: Device, batch: int) -> float:
    """Estimated seconds per item of an evaluation on `device`, in batches of `batch` rows; `workload`: forward passes,
    tokens and random draws per item, `network`: size of the network.

    The larger of the time for the FLOPs and the time to read the weights, each at 40 % of the device's peak
    (`UTILISATION`), plus the time for the memory traffic of random draws at full bandwidth.
    """
    arithmetic = flops(workload, network) / device.flops
    reading = workload.forwards / batch * network.parameters * device.weight / device.bandwidth
    drawing = workload.drawn * network.vocab_size / device.bandwidth
    return max(arithmetic, reading) / UTILISATION + drawing
