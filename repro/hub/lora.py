"""Low-rank adapters beside released weights that stay frozen (LoRA, arXiv 2106.09685; docs/method.md#lora).

Lora(backbone=PretrainedBackbone(...), rank=32, alpha=64.0, dropout=0.05, targets=("q_proj", "v_proj"),
     mask_embedding=False)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from repro.core.errors import nearest
from repro.core.parts import part
from repro.core.registry import resolve
from repro.data.corpus import Data
from repro.hub.pretrained import PretrainedBackbone
from repro.models.backbone import Backbone, Size, Wrapper
from repro.models.llama import Llama, Qwen2
from repro.processes.prediction import Role

if TYPE_CHECKING:
    from repro.models.denoiser import Denoiser

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Matrices of a layer of Llama and Qwen2, by transformers' names."""


@part
class Lora(Wrapper):
    """The network of `backbone` with frozen released weights, and trained adapters of the package peft beside them.

    Each matrix W [out, in] of the layers that `targets` names (of "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj",
    "up_proj", "down_proj") acts as W + (alpha / rank) B A, with A [rank, in] and B [out, rank]; B is 0 at the start.
    `dropout`: rate at which inputs of A are dropped in training; `mask_embedding`: whether the input embedding of the
    mask id is trained too. A checkpoint holds the adapters alone; for inference they are merged into W, so that sizes
    are those of `backbone`.

    Raises ValueError for settings out of range, an unknown target, and a backbone that is no Llama or Qwen2 with
    released weights; `module` also if peft is not installed, and for a mask embedding without a mask id.
    """

    network: ClassVar[str] = "repro.hub.lora_network:AdaptedDenoiser"

    backbone: Backbone
    rank: int
    alpha: float
    dropout: float
    targets: tuple[str, ...]
    mask_embedding: bool

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0:
            raise ValueError(
                f"rank={self.rank}, alpha={self.alpha}: give a rank of 1 or more and an alpha above 0"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout} is no rate of dropout; give 0 or more, and less than 1")
        unknown = [name for name in self.targets if name not in LINEAR]
        if unknown:
            raise ValueError(f"targets: a layer has no matrix {unknown[0]!r}; {nearest(unknown[0], LINEAR)}")
        if not self.targets or len(set(self.targets)) < len(self.targets):
            fault = "names a matrix twice" if self.targets else "is empty"
            raise ValueError(f"targets={self.targets} {fault}; name one matrix or more, each once")
        if not isinstance(self._released().backbone, Llama | Qwen2):
            raise ValueError("lora adapts the layers of a Llama or Qwen2; give a backbone of that family")

    def _released(self) -> PretrainedBackbone:
        """The backbone with released weights that this part wraps, directly or within another wrapper; ValueError if
        there is none."""
        inner = self.backbone
        while isinstance(inner, Wrapper) and not isinstance(inner, PretrainedBackbone):
            inner = inner.backbone
        if not isinstance(inner, PretrainedBackbone):
            raise ValueError(
                "lora adapts released weights, and this backbone starts from random ones; wrap it in the part"
                " `started`, which loads released weights"
            )
        return inner

    def module(self, role: Role, seed: int) -> Denoiser:
        made = self.backbone.module(role, seed)
        return resolve(self.network)(made, role, self, seed, self._released().weights_digest())

    def blank(self) -> Backbone:
        return self.backbone.blank()

    def resumed(self) -> Backbone:
        return self

    def trained_parameters(self, data: Data) -> int:
        size = self.size(data)
        return (
            size.layers * sum(self.rank * (i + o) for i, o in self._matrices(size))
            + size.width * self.mask_embedding
        )

    def _matrices(self, size: Size) -> list[tuple[int, int]]:
        """(Number of inputs, number of outputs) of each matrix that gets an adapter (those that the setting `targets`
        names), in one layer of a network of this `size`."""
        width, inner = size.width, (size.width, size.ffn)
        narrow = {"q_proj": width, "k_proj": size.kv_width, "v_proj": size.kv_width, "o_proj": width}
        shapes = {name: (width, out) for name, out in narrow.items()}
        shapes |= {"gate_proj": inner, "up_proj": inner, "down_proj": inner[::-1]}
        return [shapes[name] for name in self.targets]
