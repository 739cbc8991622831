"""Prediction: a lazy view of one forward, shared by objectives, samplers and the held-out bound.

Nothing is computed until somebody asks; then only the rows that are asked for go through the body, and only the
positions that are asked for through the head. So the count of forwards is kept per row, and no logits are computed
that nobody reads.

Shapes: B rows, L positions, N positions asked for (True entries of a [B, L] mask, in row-major order), V ids.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from repro.data.corpus import Vocabulary
from repro.models.attention import KVCache, Mask
from repro.models.denoiser import Denoiser, Head, SelfConditioned, Soft
from repro.models.fused_head import TokenLoss, fused_loss
from repro.processes.prediction import Meaning

Reach = Literal["causal", "onward", "block"]
"""Which columns a forward carries beside keys and values that are kept: what was written since, the current block and
what comes after it, or the block alone."""


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
        self._signal: Tensor | None = None
        self._features: Tensor | None = None
        shape = tokens.weights.shape[:2] if isinstance(tokens, Soft) else tokens.shape
        self.forwarded = torch.zeros(shape[0], dtype=torch.bool, device=t.device)
        """[B] bool: rows that have gone through the body."""
        self.refreshed = torch.zeros_like(self.forwarded)
        """[B] bool: rows that forwarded every column to renew what is kept."""

    @property
    def meaning(self) -> Meaning:
        return self._denoiser.meaning

    @property
    def vocabulary(self) -> Vocabulary:
        return self._denoiser.vocabulary

    @property
    def time_conditioned(self) -> bool:
        """Whether the network reads t."""
        return self._denoiser.time_conditioned

    def condition(self, signal: Tensor) -> None:
        """Show a self-conditioning network the signal [B, L, S] of its last prediction, before it is first asked."""
        assert not self.forwarded.any() and isinstance(self._denoiser, SelfConditioned)
        self._signal = signal

    def signal(self, logits: Tensor) -> Tensor | None:
        """What a self-conditioning network keeps of logits [N, V] for its next prediction: [N, S]; else None."""
        if not isinstance(self._denoiser, SelfConditioned):
            return None
        return self._denoiser.signal(logits.to(self._denoiser.device)).to(logits.device)

    def features(self, where: Tensor) -> Tensor:
        """Features [N, D] at `where` [B, L] bool; forwards the rows that need it and have not been forwarded.

        With gradients one row is forwarded even if nothing is asked for: where weights are sharded or gradients
        exchanged, the other processes wait for this one's share of every layer.
        """
        need = where.any(1) & ~self.forwarded
        if torch.is_grad_enabled() and self._features is None and not need.any():
            need[0] = True
        if torch.is_grad_enabled() and self._denoiser.has_dropout:
            need = ~self.forwarded  # a network that drops does so row by row of the whole batch
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
        return self._encoder(some)(
            chosen,
            t=some(self._t) if self._denoiser.time_conditioned else None,
            attention=Mask(None if valid is None else some(valid), self._attention.block),
            positions=None if positions is None else some(positions),
        )

    def _encoder(self, some: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
        """`encode`, given `some` of the signal where there is one."""
        if self._signal is None:
            return self._denoiser.encode
        assert isinstance(self._denoiser, SelfConditioned)
        return partial(self._denoiser.encode_given, some(self._signal))

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


class DecodingCache:
    """Keys and values of a decode, kept from step to step, and which tokens a forward must still carry.

    `rows` of the batch, `width` columns. A causal network forwards what was written since (exact); a network that looks
    both ways forwards from the current block on, or the block alone, and everything when a block begins and after
    `refresh` such forwards (None: never within a block): what it keeps of other columns is stale, so this is an
    approximation (Fast-dLLM, arXiv 2505.22618; docs/method.md#fast-dllm).
    """

    def __init__(
        self, rows: int, width: int, reach: Reach, refresh: int | None, device: torch.device
    ) -> None:
        self.reach, self.refresh = reach, refresh
        self.kv_cache = KVCache(rows, width)
        self.done = 0
        self.age = torch.full((rows,), -1, dtype=torch.int64, device=device)
        """[B] forwards since everything was forwarded; -1: never in this block."""

    def begin_block(self) -> None:
        self.age.fill_(-1)

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these [n]."""
        self.kv_cache.keep(rows)
        self.age = self.age[rows]

    def forwards(self, need: Tensor, window: slice) -> list[tuple[Tensor, slice]]:
        """The forwards that rows `need` [B] bool wait for: (rows [b], columns), and notes them as made."""
        if self.reach == "causal":
            assert need.all(), "a causal network writes one column in every row"
            span, self.done = slice(self.done, window.start), window.start
            return [(need.nonzero()[:, 0], span)]
        stale = self.age < 0
        if self.refresh is not None:
            stale = stale | (self.age >= self.refresh)
        self.age = torch.where(need, torch.where(stale, 0, self.age + 1), self.age)
        stop = window.stop if self.reach == "block" else self.kv_cache.size
        some = [(need & stale, slice(0, self.kv_cache.size)), (need & ~stale, slice(window.start, stop))]
        return [(rows.nonzero()[:, 0], span) for rows, span in some if rows.any()]


class CachedPrediction(Prediction):
    """A prediction within `window`, columns of the current block, with what is kept of the other columns.

    A causal network says the token at a column from the features one column before it.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        tokens: Tensor,
        t: Tensor,
        attention: Mask,
        positions: Tensor | None,
        kept: DecodingCache,
        window: slice,
    ) -> None:
        super().__init__(denoiser, tokens, t, attention, positions)
        self._ids, self._kept, self._window = tokens, kept, window
        self._count = torch.zeros_like(self.forwarded, dtype=torch.int64)

    def features(self, where: Tensor) -> Tensor:
        """Features [N, D] at `where` [B, L] bool, True within the window only."""
        need = where.any(1) & ~self.forwarded
        if need.any():
            for rows, span in self._kept.forwards(need, self._window):
                self._forward(rows, span)
        self.forwarded = self.forwarded | need
        if self._features is None:
            return self.head().weight.new_empty(0, self.head().weight.shape[1])
        return self._features[where[:, self._window].to(self._features.device)]

    def _forward(self, rows: Tensor, span: slice) -> None:
        device, causal = self._denoiser.device, self._kept.reach == "causal"
        everything = len(rows) == len(self.forwarded)
        span = slice(max(0, span.start - self._denoiser.halo), span.stop)

        def some(values: Tensor) -> Tensor:
            return (values if everything else values[rows]).to(device)

        valid, kv_cache = self._attention.valid, self._kept.kv_cache
        kv_cache.span, kv_cache.rows = span, None if everything else rows.to(device)
        fresh = self._encoder(lambda signal: some(signal[:, span]))(
            some(self._ids[:, span]),
            t=some(self._t[:, span]) if self._denoiser.time_conditioned else None,
            attention=Mask(None if valid is None else some(valid), 1 if causal else self._attention.block),
            positions=None if self._positions is None else some(self._positions[:, span]),
            kv_cache=kv_cache,
        )
        shift = span.start + causal
        found = fresh[:, self._window.start - shift : self._window.stop - shift]
        if everything:
            self._features = found
        else:
            if self._features is None:
                self._features = found.new_zeros(len(self.forwarded), *found.shape[1:])
            self._features = self._features.index_copy(0, rows.to(device), found)
        self._count[rows] = span.stop - span.start
        self.refreshed[rows] = not causal and span.stop - span.start == kv_cache.size

    def token_forwards(self) -> Tensor:
        return self._count
