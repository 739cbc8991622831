"""The kind of part that makes a network; light, so that plans and locks need no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from repro.data.corpus import Data, Vocabulary
from repro.parts import Part

if TYPE_CHECKING:
    from repro.backbones.denoiser import Denoiser

Meaning = Literal["x0_mean", "leave_one_out"]


@dataclass(frozen=True)
class Role:
    """What a network is asked to be: whose ids it reads, which ids are never a clean token, what its output means."""

    data: Data
    forbidden: tuple[int, ...]
    meaning: Meaning

    @property
    def vocabulary(self) -> Vocabulary:
        return self.data.vocabulary()


@dataclass(frozen=True)
class Size:
    """Counts for plans: parameters, blocks and their width; forward FLOPs a token by what makes them."""

    parameters: int
    layers: int
    width: int
    body_flops: float
    attention_flops: float
    head_flops: float


class Backbone(Part):
    """Kind: a network's pins. `module` is the one constructor of a network."""

    def module(self, role: Role, seed: int) -> Denoiser:
        """The network for a role, initialised by the stream of `seed` (or by the weights that it pins)."""
        raise AssertionError("abstract")

    def blank(self) -> Backbone:
        """The same network without pre-trained weights."""
        return self

    def writes(self) -> int | None:
        """Length of the only blocks that the network can decode; None: any."""
        return None

    def size(self, data: Data) -> Size:
        """Exact parameter counts and analytic FLOPs of one row's forward, divided by its tokens."""
        raise AssertionError("abstract")
