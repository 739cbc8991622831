"""Toy vocabulary, prompts, block sizes, plans and networks shared by tests of decoding."""

from __future__ import annotations

import pytest

from helpers.spaces import Words, llama, modernbert
from repro.processes.absorbing import Absorbing
from repro.processes.left_to_right import LeftToRight
from repro.samplers.plan import Plan

ABSORBING, CAUSAL = Absorbing(), LeftToRight()
TOY = Words(size=11, length=24)
PROMPTS = [[3, 1, 4, 1, 5], [9], [2, 6, 5]]
BLOCK, LENGTH = 4, 12
NETWORKS = {
    "llama": lambda: llama("bidirectional", ABSORBING, TOY),
    "modernbert": lambda: modernbert(ABSORBING, TOY),
}
BIDIRECTIONAL = pytest.mark.parametrize("network", NETWORKS)
FALSE_ALARM = 1e-6
"""False-alarm rate of each chi-square test; streams are keyed, so a test always gives the same result."""
MARGIN = 1e-4
"""Smaller margins between two decisions could differ between machines; no test has one."""


def plan(length: int, count: int | None, block: int | None = None) -> Plan:
    """A plan of `length` tokens in `count` steps, in one block by default."""
    return Plan(gen_length=length, block_length=block or length, steps=count)
