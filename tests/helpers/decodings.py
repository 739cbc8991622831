"""Toy vocabulary, prompts and block sizes shared by tests of decoding."""

from __future__ import annotations

from helpers.spaces import Words
from repro.processes.absorbing import Absorbing
from repro.processes.left_to_right import LeftToRight

ABSORBING, CAUSAL = Absorbing(), LeftToRight()
TOY = Words(size=11, length=24)
PROMPTS = [[3, 1, 4, 1, 5], [9], [2, 6, 5]]
BLOCK, LENGTH = 4, 12
