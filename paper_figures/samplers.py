"""Colour, marker and kind of every sampler, the same in all figures.

`SAMPLERS` is the one table; a sampler that is not in it is grey (tests/paper_figures/test_samplers.py asks for a line
of each registered preset). Most colours are of Tol's bright and muted palettes, made for colour-blind readers
(https://personal.sron.nl/~pault). Samplers of one kind, which share a panel, differ in colour and marker.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from paper_figures import OTHER

KINDS = {
    "reveal": "each position is written once, in random order",
    "confidence": "the positions of which the network is surest are written first",
    "revise": "written tokens can change again",
    "left to right": "left to right",
    "other": "other samplers",
}
"""Kind of a sampler -> what it does, for people."""


class Style(NamedTuple):
    """How a sampler is drawn. `adaptive`: the text decides how many tokens a step writes; drawn hollow."""

    ink: str
    marker: str
    kind: str
    adaptive: bool = False


SAMPLERS = {
    "ancestral": Style("#4477AA", "o", "reveal"),
    "random": Style("#228833", "s", "reveal"),
    "origin": Style("#AA4499", "v", "reveal"),
    "first_hitting": Style("#999933", ">", "reveal"),
    "drawn_tail": Style("#EE6677", "^", "reveal"),
    "greedy_tail": Style("#222255", "D", "reveal"),
    "low_confidence": Style("#EE6677", "^", "confidence"),
    "margin": Style("#AA3377", "v", "confidence"),
    "entropy": Style("#3FA7D6", "D", "confidence"),
    "threshold": Style("#BB5500", "P", "confidence", True),
    "factor": Style("#222255", "X", "confidence", True),
    "entropy_bound": Style("#887700", "h", "confidence", True),
    "remdm_cap": Style("#CC6677", "o", "revise"),
    "remdm_rescale": Style("#88AA22", "v", "revise"),
    "remdm_conf": Style("#332288", "^", "revise"),
    "remdm_loop": Style("#117733", "s", "revise"),
    "forward_backward": Style("#AA4499", "D", "revise"),
    "psi_cap": Style("#44AADD", "<", "revise"),
    "psi_rescale": Style("#777777", ">", "revise"),
    "psi_loop": Style("#BB5500", "p", "revise"),
    "corrector": Style("#228833", "P", "revise"),
    "corrector_margin": Style("#882255", "X", "revise"),
    "renoise": Style("#222255", "d", "revise"),
    "sample": Style("#000000", "o", "left to right"),
    "greedy": Style("#000000", "D", "left to right"),
}
"""Name of a preset without settings and numbers -> its style."""


def base(preset: str) -> str:
    """The name in SAMPLERS: `threshold_0.9:temperature=1.0` -> `threshold`; an unknown name only loses its settings."""
    name = re.split(r"[:+,]", preset)[0]
    return name if name in SAMPLERS else re.sub(r"_[\d.]+$", "", name)


def style_of(preset: str) -> Style:
    """The style of a preset, whatever its settings."""
    return SAMPLERS.get(base(preset), Style(OTHER, "X", "other"))


def name_of(preset: str) -> str:
    """A preset's name for a label, without a temperature of 1."""
    return re.sub(r":temperature=1(\.0)?$", "", preset)
