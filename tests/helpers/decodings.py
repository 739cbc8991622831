"""A toy vocabulary, prompts and blocks that tests of decoding share."""

from __future__ import annotations

from helpers.spaces import Words
from repro.processes.absorbing import Absorbing
from repro.processes.left_to_right import LeftToRight

ABSORBING, CAUSAL = Absorbing(), LeftToRight()
TOY = Words(size=11, length=24)
PROMPTS = [[3, 1, 4, 1, 5], [9], [2, 6, 5]]
BLOCK, LENGTH = 4, 12
