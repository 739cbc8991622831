"""The kind of part that describes a network; it imports no torch, so that plans and locks need none."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from repro.core.parts import Part, part
from repro.core.registry import resolve
from repro.data.corpus import Data, Vocabulary
from repro.processes.prediction import Meaning

if TYPE_CHECKING:
    from repro.models.denoiser import Denoiser


@dataclass(frozen=True)
class Role:
    """What a network is built for: the data whose ids it reads, the ids that are never a clean token, and the meaning
    of its output (`repro.models.denoiser`)."""

    data: Data
    forbidden: tuple[int, ...]
    meaning: Meaning

    @property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary of the data."""
        return self.data.vocabulary()


@dataclass(frozen=True, kw_only=True)
class Size:
    """Counts from which the cost of a forward follows (docs/method.md#cost-model).

    `parameters`: of the whole network; `blocks`: weights in the matrices that every token is multiplied by; `width`,
    `kv_width` and `ffn`: features of the hidden states, of keys and values, and inside the feed-forward network;
    `vocab_size`: rows of the output layer.
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
        """FLOPs of the layers per token without attention: one multiplication and one addition per weight."""
        return 2.0 * self.blocks

    @property
    def head_flops(self) -> float:
        """FLOPs of the output layer per token."""
        return 2.0 * self.width * self.vocab_size


class Backbone(Part):
    """Kind: the hyperparameters of a network. Every network is built by `module`.

    `network`: import path of the network's class, "MODULE:CLASS", called as CLASS(backbone, role, seed). It is imported
    when a network is built, so that plans, locks and `--print` need no torch.
    """

    network: ClassVar[str]

    def module(self, role: Role, seed: int) -> Denoiser:
        """The network for a role, initialised from `seed`, or with the pretrained weights that the part names."""
        return resolve(self.network)(self, role, seed)

    def blank(self) -> Backbone:
        """The same backbone without pretrained weights."""
        return self

    def required_block_size(self) -> int | None:
        """The block length, in tokens, that decoding must use; None if the network accepts any."""
        return None

    @abstractmethod
    def size(self, data: Data) -> Size:
        """Exact counts for the vocabulary of `data`."""

    @abstractmethod
    def attention_flops(self, data: Data) -> float:
        """FLOPs of attention per token of a full row: 4 (width) (keys that a token sees), summed over layers."""


@part
class Wrapper(Backbone):
    """A part that changes how another backbone's network is built, but not its sizes."""

    backbone: Backbone

    def required_block_size(self) -> int | None:
        return self.backbone.required_block_size()

    def size(self, data: Data) -> Size:
        return self.backbone.size(data)

    def attention_flops(self, data: Data) -> float:
        return self.backbone.attention_flops(data)
