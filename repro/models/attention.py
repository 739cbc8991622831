"""What a position may attend to, and where keys and values are kept: one attention function for every network.

transformers' networks call the function registered here under the name "repro". The `View` of a forward reaches it as
a keyword argument, so masks and caches of transformers stay out of the way (a registered name would turn a 2-D padding
mask into None in silence).

    Mask    which keys a query may see: padding, and blocks (block = 1 is causal, None bidirectional)
    Copies  the same for a noisy row with its clean one behind it
    KVCache   keys and values of positions already computed, one slot a position
    View    mask, columns and slots of one forward; columns count left padding, the positions that RoPE sees do not

Shapes: B rows, H heads, Q queries, S slots or keys, D features a head.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface


@dataclass(frozen=True)
class Mask:
    """Which keys a query may see. `valid` [B, S] bool marks real tokens (None: all are real); with `block` = b a query
    sees its own block of b columns and those before it, with None it sees everything. Blocks are counted from column
    `first`; where columns before it fill no whole block, the first one of a row is shorter."""

    valid: Tensor | None = None
    block: int | None = None
    first: int = 0

    def allowed(self, columns: Tensor, keys: int, window: int | None) -> Tensor | None:
        """Bool [B or 1, 1, Q, S], True where a query may look; None where it may look everywhere.

        `columns` [B, Q] index of each query among the `keys` = S; `window`: |query - key| <= window (local layers).
        A query on padding sees itself only, so that no row of the softmax is empty.
        """
        if self.valid is None and self.block is None and window is None:
            return None
        key = torch.arange(keys, device=columns.device)
        query = columns[:, :, None]
        allowed = torch.ones(1, 1, keys, dtype=torch.bool, device=columns.device)
        if self.block is not None:
            allowed = allowed & ((key - self.first) // self.block <= (query - self.first) // self.block)
        if window is not None:
            allowed = allowed & ((key - query).abs() <= window)
        if self.valid is not None:
            allowed = (allowed & self.valid[:, None, :keys]) | (key == query)
        return allowed[:, None]


@dataclass(frozen=True)
class Copies(Mask):
    """A noisy row of L columns and the clean row behind it (BD3-LM, arXiv 2503.09573; docs/method.md#block-diffusion).

    A noisy block sees itself and the clean blocks before it, a clean one itself and the clean ones before it. `valid`
    [B, 2L]; both copies' positions count from 0.
    """

    def allowed(self, columns: Tensor, keys: int, window: int | None) -> Tensor | None:
        assert self.block is not None and window is None and keys % 2 == 0
        half, key = keys // 2, torch.arange(keys, device=columns.device)
        query = columns[:, :, None]
        clean_query, clean_key = query >= half, key >= half
        mine, theirs = query % half // self.block, key % half // self.block
        itself = (mine == theirs) & (clean_query == clean_key)
        allowed = itself | ((mine > theirs) & clean_key)
        if self.valid is not None:
            allowed = (allowed & self.valid[:, None, :keys]) | (key == query)
        return allowed[:, None]


class KVCache:
    """Keys and values by layer, [B, H, S, D], one slot a column; a forward overwrites the slots of its tokens.

    Before a forward, `span` says which columns its tokens are, and `rows` [b] which rows it is for (None: all B).
    """

    span: slice
    rows: Tensor | None

    def __init__(self, rows: int, size: int) -> None:
        self.count, self.size = rows, size
        self.store: dict[int, tuple[Tensor, Tensor]] = {}

    def put(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Write key and value [b, H, Q, D] at `span`; returns all keys and values of these rows, [b, H, S, D]."""
        if layer not in self.store:
            shape = (self.count, key.shape[1], self.size, key.shape[3])
            self.store[layer] = (key.new_zeros(shape), value.new_zeros(shape))
        kept = self.store[layer]
        rows = slice(None) if self.rows is None else self.rows
        for old, new in zip(kept, (key, value), strict=True):
            old[rows, :, self.span] = new
        if key.shape[2] == self.size:
            return key, value
        return self.kept(layer)

    def replace(self, layer: int, key: Tensor, value: Tensor) -> None:
        """Keep key and value [b, H, S', D] of these rows in the place of what was kept, whatever S' was."""
        shape = (self.count, *key.shape[1:])
        if layer not in self.store or self.store[layer][0].shape != shape:
            self.store[layer] = (key.new_zeros(shape), value.new_zeros(shape))
        for old, new in zip(self.store[layer], (key, value), strict=True):
            old[slice(None) if self.rows is None else self.rows] = new

    def kept(self, layer: int) -> tuple[Tensor, Tensor]:
        """Key and value of these rows, [b, H, S', D]."""
        key, value = self.store[layer]
        return (key, value) if self.rows is None else (key[self.rows], value[self.rows])

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these."""
        self.count = len(rows)
        self.store = {layer: (k[rows], v[rows]) for layer, (k, v) in self.store.items()}


@dataclass
class View:
    """What one forward attends to: `mask`, `columns` [B or 1, Q] of its tokens, `slots` (None: only its own tokens)."""

    mask: Mask
    columns: Tensor
    kv_cache: KVCache | None
    _allowed: dict[tuple[int, int | None], Tensor | None] = field(default_factory=dict)

    def allowed(self, keys: int, window: int | None) -> Tensor | None:
        if (keys, window) not in self._allowed:
            self._allowed[keys, window] = self.mask.allowed(self.columns, keys, window)
        return self._allowed[keys, window]


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    dropout: float,
    view: View,
    sliding_window: int | None = None,
    **theirs: Any,  # the rest of transformers' calling convention: position ids and kernel hints
) -> tuple[Tensor, None]:
    """Scaled dot-product attention [B, H, Q, D] -> [B, Q, H, D] under a View (transformers' attention interface)."""
    assert attention_mask is None and dropout == 0.0, "masks travel in the View; dropout is our own module"
    if view.kv_cache is not None:
        layer = module.layer_idx
        assert isinstance(layer, int)
        key, value = view.kv_cache.put(layer, key, value)
    # transformers counts the window's own position: its sliding_window is the half width + 1
    window = None if sliding_window is None else sliding_window - 1
    plain = type(view.mask) is Mask and view.mask.valid is None and view.mask.block == 1  # no Copies of 1
    whole = plain and view.kv_cache is None and window is None
    out = torch.nn.functional.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=None if whole else view.allowed(key.shape[2], window),
        is_causal=whole,
        scale=scaling,
        enable_gqa=key.shape[1] != query.shape[1],
    )
    return out.transpose(1, 2), None


AttentionInterface.register("repro", attend)
