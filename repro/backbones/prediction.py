"""Prediction: a lazy view of one forward, shared by objectives, samplers and the held-out bound.

Nothing is computed until somebody asks; then only the rows that are asked for go through the body, and only the
positions that are asked for through the head. So the count of forwards is kept per row, and no logits are computed
that nobody reads.

Shapes: B rows, L positions, N positions asked for (True entries of a [B, L] mask, in row-major order), V ids.
"""

from __future__ import annotations

import torch
from torch import Tensor

from repro.backbones.attention import Mask, Slots
from repro.backbones.backbone import Meaning
from repro.backbones.denoiser import Denoiser, Head, Soft
from repro.data.corpus import Vocabulary
from repro.ops.fused_head import TokenLoss, fused_loss


class Prediction:
    """What `denoiser` says of `tokens` [B, L] (ids or soft tokens) at time `t`, [B] or [B, L].

    `positions` [B, L]: index of each token in its own sequence, where left padding makes that unequal.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        tokens: Tensor | Soft,
        t: Tensor,
        attention: Mask,
        positions: Tensor | None = None,
    ) -> None:
        self._denoiser = denoiser
        self._tokens = tokens
        self._t = t
        self._attention = attention
        self._positions = positions
        self._features: Tensor | None = None
        shape = tokens.weights.shape[:2] if isinstance(tokens, Soft) else tokens.shape
        self.forwarded = torch.zeros(shape[0], dtype=torch.bool, device=t.device)
        """[B] bool: rows that have gone through the body."""

    @property
    def meaning(self) -> Meaning:
        return self._denoiser.meaning

    @property
    def vocabulary(self) -> Vocabulary:
        return self._denoiser.vocabulary

    def features(self, where: Tensor) -> Tensor:
        """Features [N, D] at `where` [B, L] bool; forwards the rows that need it and have not been forwarded."""
        need = where.any(1) & ~self.forwarded
        if need.all():
            self._features = self._encode(slice(None))
        elif need.any():
            rows = need.nonzero()[:, 0]
            fresh = self._encode(rows)
            if self._features is None:
                self._features = fresh.new_zeros(len(need), *fresh.shape[1:])
            self._features = self._features.index_copy(0, rows, fresh)
        self.forwarded = self.forwarded | need
        if self._features is None:
            return self.head().weight.new_empty(0, self.head().weight.shape[1])
        return self._features[where.to(self._features.device)]

    def _encode(self, rows: Tensor | slice) -> Tensor:
        device = self._denoiser.device

        def some(values: Tensor) -> Tensor:
            return values[rows].to(device)

        tokens, valid, positions = self._tokens, self._attention.valid, self._positions
        if isinstance(tokens, Soft):
            chosen = Soft(None if tokens.ids is None else some(tokens.ids), some(tokens.weights))
        else:
            chosen = some(tokens)
        return self._denoiser.encode(
            chosen,
            t=some(self._t) if self._denoiser.timed else None,
            attention=Mask(None if valid is None else some(valid), self._attention.block),
            positions=None if positions is None else some(positions),
        )

    def token_forwards(self) -> Tensor:
        """[B] tokens that went through the body."""
        length = self._tokens.weights.shape[1] if isinstance(self._tokens, Soft) else self._tokens.shape[1]
        return self.forwarded.long() * length

    def head(self) -> Head:
        return self._denoiser.head()

    def logits(self, where: Tensor) -> Tensor:
        """Logits [N, V] at `where`, forbidden ids at -inf."""
        return self._denoiser.logits(self.features(where)).to(where.device)

    def probs(self, where: Tensor) -> Tensor:
        """Probabilities [N, V] float64."""
        return self.logits(where).double().softmax(-1)

    def weighted_loss(
        self, loss: TokenLoss, where: Tensor, weight: Tensor, *each: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Sum of weight [N] times `loss` of the logits at `where`, and the loss of each token, without the logits.

        Forbidden ids are at -inf; `each` [N] is what the loss needs beside the logits. Scalar, and [N] detached.
        """
        return fused_loss(self.features(where), self.head().clean(), loss, weight, *each)


class CausalPrediction(Prediction):
    """What a causal network says of the next token, with keys and values kept in slots from step to step.

    `tokens` grow from step to step: `read(ids)` shows the current ids [B, L], and asking at column c forwards only the
    columns before c that are not in the slots yet. `pad` [B] columns of left padding.
    """

    def __init__(self, denoiser: Denoiser, width: int, pad: Tensor) -> None:
        tokens = torch.zeros(len(pad), width, dtype=torch.int64, device=pad.device)
        super().__init__(denoiser, tokens, torch.zeros(len(pad), device=pad.device), Mask())
        self._pad = pad
        self._slots = Slots(width)
        self._done = 0
        self._count = 0

    def read(self, ids: Tensor) -> None:
        self._tokens = ids

    def features(self, where: Tensor) -> Tensor:
        """Features [B, D] for the token at the one column that `where` [B, L] marks in every row."""
        column = int(where[0].nonzero()[0, 0])
        assert where.sum() == len(where) and where[:, column].all(), (
            "a causal network writes one column at a time"
        )
        columns = torch.arange(self._done, column, device=where.device).expand(len(where), -1)
        assert isinstance(self._tokens, Tensor)
        valid = torch.arange(self._slots.size, device=where.device) >= self._pad[:, None]
        device = self._denoiser.device
        self._slots.columns = columns.to(device)
        features = self._denoiser.encode(
            self._tokens[:, self._done : column].to(device),
            t=None,
            attention=Mask(valid.to(device) if self._pad.any() else None, 1),
            positions=(columns - self._pad[:, None]).clamp_min(0).to(device),
            slots=self._slots,
        )
        self._count = column - self._done
        self._done = column
        self.forwarded = torch.ones_like(self.forwarded)
        return features[:, -1]

    def token_forwards(self) -> Tensor:
        return torch.full_like(self._pad, self._count)
