"""The kind of part that makes a network; light, so that plans and locks need no torch."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from repro.core.parts import Part
from repro.core.registry import resolve
from repro.data.corpus import Data, Vocabulary
from repro.processes.prediction import Meaning

if TYPE_CHECKING:
    from repro.models.denoiser import Denoiser


@dataclass(frozen=True)
class Role:
    """What a network is asked to be: whose ids it reads, which ids are never a clean token, what its output means."""

    data: Data
    forbidden: tuple[int, ...]
    meaning: Meaning

    @property
    def vocabulary(self) -> Vocabulary:
        return self.data.vocabulary()


@dataclass(frozen=True, kw_only=True)
class Size:
    """What a forward costs, in counts.

    `parameters`: of the whole network; `blocks`: weights of the layers that every token is multiplied with; `width`,
    `kv_width` and `ffn`: of the states, of keys and values, and inside the feed-forward; `vocab_size`: rows of the
    head.
    """

    parameters: int
    blocks: float
    layers: int
    width: int
    kv_width: int
    ffn: int
    vocab_size: int

    @property
    def body_flops(self) -> float:
        """FLOPs of the layers a token, attention apart: a multiplication and an addition a weight."""
        return 2.0 * self.blocks

    @property
    def head_flops(self) -> float:
        """FLOPs of the output layer a token."""
        return 2.0 * self.width * self.vocab_size


class Backbone(Part):
    """Kind: a network's pins. `module` is the one constructor of a network.

    `network`: where its module's class stands, "MODULE:CLASS", called as CLASS(pins, role, seed). It is imported when a
    network is made, so that plans, locks and `--print` need no torch.
    """

    network: ClassVar[str]

    def module(self, role: Role, seed: int) -> Denoiser:
        """The network for a role, initialised by the stream of `seed` (or by the weights that it pins)."""
        return resolve(self.network)(self, role, seed)

    def blank(self) -> Backbone:
        """The same network without pre-trained weights."""
        return self

    def required_block_size(self) -> int | None:
        """Length of the only blocks that the network can decode; None: any."""
        return None

    @abstractmethod
    def size(self, data: Data) -> Size:
        """Exact counts for the vocabulary of `data`."""

    @abstractmethod
    def attention_flops(self, data: Data) -> float:
        """FLOPs of attention a token, in one row's forward: 4 (width) (keys that a token sees), summed over layers."""
