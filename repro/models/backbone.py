"""Base class of the configuration parts that describe a network (*backbones*). They import no torch, so that the cost
of a recipe can be estimated, and its settings printed and checked, without torch."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from repro.core.parts import Part, part
from repro.core.registry import resolve
from repro.data.corpus import Data
from repro.processes.prediction import Role

if TYPE_CHECKING:
    from repro.models.denoiser import Denoiser


@dataclass(frozen=True, kw_only=True)
class Size:
    """Sizes of a network, from which the cost of a forward follows (docs/method.md#cost-model).

    `parameters`: number of parameters of the whole network; `blocks`: number of weights in the matrices of all layers
    by which a token is multiplied; `layers`: number of layers; `width`, `kv_width` and `ffn`: number of features of the
    hidden states, of keys and values, and inside the feed-forward network; `vocab_size`: rows of the output layer.
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
        """FLOPs per token of one forward pass in the weight matrices of all layers, attention's projections included:
        one multiplication and one addition per weight. Embedding, output layer (`head_flops`) and attention's products
        between tokens (`Backbone.attention_flops`) are not included."""
        return 2.0 * self.blocks

    @property
    def head_flops(self) -> float:
        """FLOPs per token of one forward pass in the output layer."""
        return 2.0 * self.width * self.vocab_size


class Backbone(Part):
    """Base class of the hyperparameters of a network, which `module` builds.

    `network`: import path of the network's class, "MODULE:CLASS", called as CLASS(backbone, role, seed). The class is
    imported only when a network is built, since it needs torch.
    """

    network: ClassVar[str]

    def module(self, role: Role, seed: int) -> Denoiser:
        """Build the network, initialised at random from `seed`, or with the pretrained weights that the settings name.
        `role`: the vocabulary that it reads, the ids that are never a clean token, and what its output estimates."""
        return resolve(self.network)(self, role, seed)

    def blank(self) -> Backbone:
        """The same backbone with random initialisation in place of any pretrained weights."""
        return self

    def resumed(self) -> Backbone:
        """The backbone that builds the network into which a checkpoint's weights are copied: `blank()`, except for
        networks whose checkpoints leave out frozen pretrained weights, which are then loaded from their source."""
        return self.blank()

    def trained_parameters(self, data: Data) -> int:
        """Number of parameters that training changes in the network for the vocabulary of `data`."""
        return self.size(data).parameters

    def required_block_size(self) -> int | None:
        """Block length in tokens that decoding must use; None if the network accepts any."""
        return None

    @abstractmethod
    def size(self, data: Data) -> Size:
        """Exact sizes (parameter counts and widths) of the network for the vocabulary of `data`."""

    @abstractmethod
    def attention_flops(self, data: Data) -> float:
        """FLOPs of one forward pass, per token of a full row of `data`, for attention's products between tokens
        (queries with keys, attention weights with values), summed over layers: 4 x width x number of keys that a token
        attends to."""


def check_heads(width: int, heads: int, kv_heads: int = 1) -> None:
    """Raise ValueError unless the hidden states' `width` splits into `heads` query heads of an even width, and the
    number `kv_heads` of key and value heads divides `heads`."""
    if heads < 1:
        raise ValueError(f"heads={heads} is not a number of attention heads; give 1 or more")
    if width % (2 * heads):
        raise ValueError(
            f"width={width} does not split into {heads} heads of an even width; give a multiple of {2 * heads}"
        )
    if heads % kv_heads:
        raise ValueError(f"kv_heads={kv_heads} does not divide heads={heads}; give a divisor of heads")


@part
class Wrapper(Backbone):
    """Base class of backbones that wrap another `backbone`: they change how its network is built (its weights,
    attention or dropout), but not its sizes."""

    backbone: Backbone

    def required_block_size(self) -> int | None:
        return self.backbone.required_block_size()

    def trained_parameters(self, data: Data) -> int:
        return self.backbone.trained_parameters(data)

    def size(self, data: Data) -> Size:
        return self.backbone.size(data)

    def attention_flops(self, data: Data) -> float:
        return self.backbone.attention_flops(data)
