"""Prediction: one forward of a denoiser, evaluated lazily; shared by objectives, samplers and the held-out bound.

Nothing is computed until features or logits are requested at some positions. Then only the rows that hold such a
position pass the layers, and only those positions pass the head. Forwards are therefore counted per row.

`CachedPrediction` and `DecodingCache` do the same during decoding with a KV cache.

Shapes: B rows, L columns, N requested positions (the True entries of `where` [B, L], in row-major order), D features,
V vocabulary size.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Generic, Literal, TypeVar

import torch
from torch import Tensor

from repro.data.corpus import Vocabulary
from repro.models.attention import KVCache, Mask
from repro.models.denoiser import Denoiser, Head, SelfConditioned, Soft
from repro.models.fused_head import TokenLoss, fused_loss
from repro.processes.prediction import Meaning

Reach = Literal["onward", "block"]
"""Which columns a forward with an approximate KV cache recomputes: the current block and all columns after it
("onward"), or the current block alone ("block")."""
Cache = TypeVar("Cache", "DecodingCache", "CausalCache")


class Prediction:
    """Lazy prediction of a denoiser for `tokens` [B, L] (ids or soft tokens) at time `t`, [B] or [B, L].

    `attention`: which columns a token may attend to; `positions` [B, L]: index of each token in its own sequence, which
    left padding makes differ from its column (None: equal to the column).
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
        """[B] bool: rows that have passed the layers."""
        self.refreshed = torch.zeros_like(self.forwarded)
        """[B] bool: rows that forwarded every column to refresh the KV cache (padding apart)."""

    @property
    def meaning(self) -> Meaning:
        """What the output estimates: "x0_mean" or "leave_one_out" (`repro.models.denoiser`)."""
        return self._denoiser.meaning

    @property
    def vocabulary(self) -> Vocabulary:
        """The ids of the network (`Vocabulary`): how many there are, and which are mask, BOS, EOS and padding."""
        return self._denoiser.vocabulary

    @property
    def time_conditioned(self) -> bool:
        """Whether the network reads the time t."""
        return self._denoiser.time_conditioned

    def condition(self, signal: Tensor) -> None:
        """Set the self-conditioning `signal` [B, L, S], computed from the previous prediction, which the network reads;
        to be called before the first forward. S: width of the signal."""
        assert not self.forwarded.any() and isinstance(self._denoiser, SelfConditioned)
        self._signal = signal

    def signal(self, logits: Tensor) -> Tensor | None:
        """Self-conditioning signal [N, S], computed from logits [N, V] of this prediction, which the network reads in
        the next one; None if the network is not self-conditioned. S: width of the signal."""
        if not isinstance(self._denoiser, SelfConditioned):
            return None
        return self._denoiser.signal(logits.to(self._denoiser.device)).to(logits.device)

    def features(self, where: Tensor) -> Tensor:
        """Features [N, D] at the N True entries of `where` [B, L]; runs the network on the rows that hold them, except
        rows on which it has run before.

        With gradients at least one row is forwarded even if `where` has no True entry: engines that shard weights or
        exchange gradients need every process to take part in every layer.
        """
        need = where.any(1) & ~self.forwarded
        if torch.is_grad_enabled() and self._features is None and not need.any():
            need[0] = True
        if torch.is_grad_enabled() and self._denoiser.has_dropout:
            need = ~self.forwarded  # dropout keys were set for every row of the batch
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
        """The network's method `encode`; if `condition` has set a self-conditioning signal, its method `encode_given`
        with that signal as the first argument. `some`: function that takes from the signal [B, L, S] the rows (and
        columns) of this forward."""
        if self._signal is None:
            return self._denoiser.encode
        assert isinstance(self._denoiser, SelfConditioned)
        return partial(self._denoiser.encode_given, some(self._signal))

    def draft(self, features: Tensor) -> DraftPrediction:
        """A prediction by this network's output layer from given `features` [B, L, D], such as those of
        `draft_features`, without a forward."""
        return DraftPrediction(self._denoiser, features)

    def draft_features(self, chosen: Tensor) -> Tensor:
        """Features [n, L, D] from which the next tokens of n sequences can be guessed (see `draft`). The B = m n rows
        of this prediction are m states (versions of the ids) of n sequences: first state 0 of all sequences, then state
        1, and so on. The output has, for each sequence, the features of its state number `chosen` [n], which must have
        been forwarded."""
        assert self._features is not None
        n, device = len(chosen), self._features.device
        states = self._features.view(-1, n, *self._features.shape[1:])
        return states[chosen.to(device), torch.arange(n, device=device)]

    def token_forwards(self) -> Tensor:
        """Number of tokens of each row that passed through the layers in this forward pass, padding not counted, [B]
        int64."""
        return self.forwarded * self._row_lengths()

    def _row_lengths(self) -> Tensor:
        """Number of tokens of each row, padding not counted, [B] int64."""
        length = self._tokens.weights.shape[1] if isinstance(self._tokens, Soft) else self._tokens.shape[1]
        valid = self._attention.valid
        return torch.full_like(self.forwarded, length, dtype=torch.int64) if valid is None else valid.sum(1)

    def head(self) -> Head:
        """Output layer of the network (`Head`): its weight and bias, and the ids that are never a clean token."""
        return self._denoiser.head()

    def logits(self, where: Tensor) -> Tensor:
        """Logits [N, V] at the N True entries of `where` [B, L], float32 at least, forbidden ids at -inf.

        Logits that a network computes in bfloat16 are widened here: in bfloat16 log-probabilities near -10 have steps
        of .06 nats, and samplers would compare probabilities that the network never gave.
        """
        logits = self._denoiser.logits(self.features(where)).to(where.device)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def probs(self, where: Tensor) -> Tensor:
        """Probabilities [N, V] float64 at the N True entries of `where` [B, L]; 0 for forbidden ids."""
        return self.logits(where).double().softmax(-1)

    def weighted_loss(
        self, loss: TokenLoss, where: Tensor, weight: Tensor, *each: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Sum of `weight` [N] times `loss` over the N True entries of `where` [B, L], a scalar, and the loss of each of
        these tokens without gradient, [N].

        `loss` is called with logits, forbidden ids at -inf, and the tensors `each` [N]; the logits of all tokens are
        never in memory at once (`repro.models.fused_head`).
        """
        return fused_loss(self.features(where), self.head().clean(), loss, weight, *each)


class DecodingCache:
    """KV cache of one decoding run of a bidirectional network, `rows` rows and `width` columns, with a record of which
    columns each forward must recompute.

    A forward recomputes the current block alone (`reach` "block") or with all columns after it ("onward"); when a block
    begins, and within a block after every `refresh` such forwards (None: never), it recomputes every column. In
    between, the cached keys and values of other columns are out of date, so this is an approximation (Fast-dLLM, arXiv
    2505.22618; docs/method.md#fast-dllm).
    """

    def __init__(
        self, rows: int, width: int, reach: Reach, refresh: int | None, device: torch.device
    ) -> None:
        self.reach, self.refresh = reach, refresh
        self.kv_cache = KVCache(rows, width)
        self.forwards_since_refresh = torch.full((rows,), -1, dtype=torch.int64, device=device)
        """[B] number of cached forwards since every column was forwarded; -1: not yet in this block."""

    def begin_block(self) -> None:
        """Make the next forward of every row recompute every column."""
        self.forwards_since_refresh.fill_(-1)

    def select_rows(self, rows: Tensor) -> None:
        """Keep in the cache only the rows with the indices `rows` [n]."""
        self.kv_cache.select_rows(rows)
        self.forwards_since_refresh = self.forwards_since_refresh[rows]

    def forwards(self, need: Tensor, window: slice) -> list[tuple[Tensor, slice]]:
        """The forwards that are due for a prediction in the columns `window` of the rows `need` [B] bool, each as (row
        indices [b], columns to recompute). The cache records them as made."""
        stale = self.forwards_since_refresh < 0
        if self.refresh is not None:
            stale = stale | (self.forwards_since_refresh >= self.refresh)
        age = torch.where(stale, 0, self.forwards_since_refresh + 1)
        self.forwards_since_refresh = torch.where(need, age, self.forwards_since_refresh)
        stop = window.stop if self.reach == "block" else self.kv_cache.columns
        forwards = [
            (need & stale, slice(0, self.kv_cache.columns)),
            (need & ~stale, slice(window.start, stop)),
        ]
        return [(rows.nonzero()[:, 0], span) for rows, span in forwards if rows.any()]


class _SpanPrediction(Prediction, Generic[Cache]):
    """Base class of lazy predictions with a KV cache: a forward passes a span of columns through the layers and reads
    the keys and values of the other columns from `cache`. Features are stored for the columns `kept` only."""

    def __init__(
        self,
        denoiser: Denoiser,
        tokens: Tensor,
        t: Tensor,
        attention: Mask,
        positions: Tensor | None,
        cache: Cache,
        kept: slice,
    ) -> None:
        super().__init__(denoiser, tokens, t, attention, positions)
        self._ids, self._cache, self._kept = tokens, cache, kept
        self._token_count = torch.zeros_like(self.forwarded, dtype=torch.int64)

    def _forward(self, rows: Tensor, span: slice, wanted: slice) -> None:
        """Forward the rows with the indices `rows` [b] at the columns `span` and at the columns to their left that the
        network needs for them; store the features of the columns `wanted`."""
        span = slice(max(0, span.start - self._denoiser.cache_left_context), span.stop)
        found = self._encode_span(rows, span)[:, wanted.start - span.start : wanted.stop - span.start]
        if self._features is None:
            columns = self._kept.stop - self._kept.start
            self._features = found.new_zeros(len(self.forwarded), columns, found.shape[2])
        at = slice(wanted.start - self._kept.start, wanted.stop - self._kept.start)
        self._features[rows.to(found.device), at] = found

    def _encode_span(self, rows: Tensor, span: slice) -> Tensor:
        """Features [b, l, D] of the rows with the indices `rows` [b] at the l columns of `span`, whose keys and values
        are written to the cache; records the number of tokens for `token_forwards`."""
        device, valid, kv_cache = self._denoiser.device, self._attention.valid, self._cache.kv_cache
        everything = len(rows) == len(self.forwarded)

        def some(values: Tensor) -> Tensor:
            return (values if everything else values[rows]).to(device)

        kv_cache.span, kv_cache.rows = span, None if everything else rows.to(device)
        self._token_count[rows] = span.stop - span.start if valid is None else valid[rows, span].sum(1)
        return self._encoder(lambda signal: some(signal[:, span]))(
            some(self._ids[:, span]),
            t=some(self._t[:, span]) if self._denoiser.time_conditioned else None,
            attention=Mask(None if valid is None else some(valid), self._attention.block),
            positions=None if self._positions is None else some(self._positions[:, span]),
            kv_cache=kv_cache,
        )

    def token_forwards(self) -> Tensor:
        return self._token_count


class CachedPrediction(_SpanPrediction[DecodingCache]):
    """Lazy prediction for `kept`, the columns of the current block; the keys and values of columns that a forward does
    not recompute come from the KV cache `cache`."""

    def features(self, where: Tensor) -> Tensor:
        """Features [N, D] at the N True entries of `where` [B, L], which must lie within the current block."""
        need = where.any(1) & ~self.forwarded
        if need.any():
            for rows, span in self._cache.forwards(need, self._kept):
                self._forward(rows, span, self._kept)
                self.refreshed[rows] = self._token_count[rows] == self._row_lengths()[rows]
        self.forwarded = self.forwarded | need
        if self._features is None:
            return self.head().weight.new_empty(0, self.head().weight.shape[1])
        return self._features[where[:, self._kept].to(self._features.device)]


class CausalCache:
    """Exact KV cache of one decoding run of a causal network, for `rows` rows of `width` columns, with the number of
    columns of each row that it holds already."""

    def __init__(self, rows: int, width: int, device: torch.device) -> None:
        self.kv_cache = KVCache(rows, width)
        self.computed = torch.zeros(rows, dtype=torch.int64, device=device)
        """[B] per row, the number of columns that have been forwarded, counted from the left."""

    def begin_block(self) -> None:
        """Do nothing when a block begins: the cached keys and values stay exact."""

    def select_rows(self, rows: Tensor) -> None:
        """Keep in the cache only the rows with the indices `rows` [n]."""
        self.kv_cache.select_rows(rows)
        self.computed = self.computed[rows]


class CausalPrediction(_SpanPrediction[CausalCache]):
    """Lazy prediction of a causal network, which predicts the token of a column from the features one column before it.

    `tokens` [B, L], B = m n: m states (versions of the ids) of each of the n rows of `cache`, first state 0 of all
    rows, then state 1, and so on. Each state has the tokens of the one before it and more after them, so a forward of
    the last state gives the prediction for all m. This forward starts at the first column that is not cached, or at the
    column before the first requested one if that is earlier, because ids from there on may have been rewritten.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        tokens: Tensor,
        t: Tensor,
        attention: Mask,
        positions: Tensor | None,
        cache: CausalCache,
    ) -> None:
        n = len(cache.computed)
        valid = attention.valid
        last = Mask(None if valid is None else valid[-n:], 1)
        latest = None if positions is None else positions[-n:]
        super().__init__(denoiser, tokens[-n:], t[-n:], last, latest, cache, slice(0, 0))
        self._first = self._stop = torch.zeros(n, dtype=torch.int64, device=t.device)

    def features(self, where: Tensor) -> Tensor:
        """Features [N, D] from which the tokens at the N True entries of `where` [B, L] are predicted, B = m n for m
        states of n rows (see the class). All entries that will ever be read must be requested in the first call."""
        n, width = self._ids.shape
        wanted = where.view(-1, n, width).any(0)
        need = wanted.any(1) & ~self.forwarded
        if need.any():
            column = torch.arange(width, device=where.device)
            self._first = torch.where(wanted, column, width).amin(1)
            self._stop = torch.where(wanted, column, 0).amax(1)
            self._forward_all(need)
        self.forwarded = self.forwarded | need
        if self._features is None:
            return self.head().weight.new_empty(0, self.head().weight.shape[1])
        rows, columns = where.to(self._features.device).nonzero(as_tuple=True)
        return self._features[rows % n, columns - 1 - self._kept.start]

    def _forward_all(self, need: Tensor) -> None:
        """Run the network on the last of the m states (versions of the ids) of each of the rows `need` [n] bool; rows
        that recompute the same columns are forwarded together."""
        start = torch.minimum(self._cache.computed, self._first - 1)
        spans = torch.stack([start, self._first, self._stop], 1)
        self._kept = slice(int(self._first[need].min()) - 1, int(self._stop[need].max()))
        for span in spans[need].unique(dim=0):
            rows = (need & (spans == span).all(1)).nonzero()[:, 0]
            begin, first, stop = span.tolist()
            self._forward(rows, slice(begin, stop), slice(first - 1, stop))
        self._cache.computed = torch.where(need, self._stop, self._cache.computed)

    def draft_features(self, chosen: Tensor) -> Tensor:
        """Features [n, L, D] from which the next tokens of n rows can be guessed (see `draft`): the features of the
        last of the m states, whichever states `chosen` [n] the sampler accepted. The columns after the last column that
        was forwarded have the features of that column."""
        assert self._features is not None
        n, width = self._ids.shape
        column = torch.arange(width, device=self._stop.device)
        nearest = (torch.minimum(column, self._stop[:, None]) - 1 - self._kept.start).clamp_min(0)
        return self._features[torch.arange(n)[:, None], nearest.to(self._features.device)]


class DraftPrediction(Prediction):
    """A prediction without a forward: the output layer of `denoiser` is applied to given `features` [B, L, D], those of
    an earlier forward, to guess tokens that a later forward checks."""

    def __init__(self, denoiser: Denoiser, features: Tensor) -> None:
        self._denoiser, self._features = denoiser, features
        self.forwarded = torch.ones(len(features), dtype=torch.bool, device=denoiser.home)
