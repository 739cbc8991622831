"""Attention masks, the KV cache, and the one attention function that every network calls.

transformers' networks call the function under the name that `registered` gives it. The `View` of a forward reaches it
as a keyword argument, so the masks and caches of transformers are not used (for a registered attention function,
transformers silently turns a 2-D padding mask into None).

    Mask          which keys a query may see: padding, and blocks (block = 1 is causal, None bidirectional)
    Copies        Mask of a noisy row followed by its clean copy
    CausalPrefix  Mask of blocks after a prefix that is read causally
    KVCache       keys and values of positions already computed, one entry per column
    View          mask, columns and cache of one forward

A column is an index into the padded row; a position, which RoPE reads, does not count left padding.

Shapes: B rows of the batch, b of them in this forward, H heads, Q queries, S columns of keys, D features per head.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Mask:
    """Attention mask: which of the S key columns of a row a query may attend to.

    `valid` [B, S] bool: False on padding (None: no padding). With `block` = n a query sees its own block of n columns
    and the blocks before that block; with None it sees all columns. A block begins at column `first`; if `first` is not
    a multiple of n, the first block of the row is shorter.
    """

    valid: Tensor | None = None
    block: int | None = None
    first: int = 0

    def of_network(self, block: int | None) -> Mask:
        """This mask for a network that reads blocks of `block` columns (1: causal; None: bidirectional). A mask that
        has a block length keeps it; one without (None) gets the network's."""
        return Mask(self.valid, self.block or block)

    def allowed(self, columns: Tensor, keys: int, window: int | None) -> Tensor | None:
        """Attention mask, [B or 1, 1, Q, S] bool, True where a query may see a key; None if every query sees every key.

        `columns` [B or 1, Q]: index of each query among the `keys` = S columns; `window`: for layers with local
        attention, the largest |query - key| (None: any). Where there is padding, every query may see itself, so that no
        row of the softmax is empty.
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
    """Attention mask of n = `views` noisy copies of a row of L tokens, one after the other, and then its clean copy:
    (n + 1) L columns (n = 1: BD3-LM, arXiv 2503.09573; docs/method.md#block-diffusion).

    A block of a noisy copy sees itself and the clean tokens of the blocks before it, but no other noisy copy; a clean
    block sees itself and the clean blocks before it. `block`: tokens per block of the noisy copies; `clean`: of the
    clean copy (None: `block`; 1: it is causal). `valid` is [B, (n + 1) L]; positions count from 0 in each copy.
    """

    clean: int | None = None
    views: int = 1

    def of_network(self, block: int | None) -> Mask:
        return self

    def allowed(self, columns: Tensor, keys: int, window: int | None) -> Tensor | None:
        assert self.block is not None and window is None and keys % (self.views + 1) == 0
        length, key = keys // (self.views + 1), torch.arange(keys, device=columns.device)
        query = columns[:, :, None]
        query_view, key_view = query // length, key // length
        clean_query, clean_key = query_view == self.views, key_view == self.views
        query_block, key_block = query % length // self.block, key % length // self.block
        own = (query_view == key_view) & (query_block == key_block)
        noisy = torch.where(clean_key, query_block > key_block, own)
        clean = self.block if self.clean is None else self.clean
        earlier = clean_key & (query % length // clean >= key % length // clean)
        allowed = torch.where(clean_query, earlier, noisy)
        if self.valid is not None:
            allowed = (allowed & self.valid[:, None, :keys]) | (key == query)
        return allowed[:, None]


@dataclass(frozen=True)
class CausalPrefix(Mask):
    """Attention mask of B rows: row b is read causally before its column `starts[b]`, and from there on in blocks of
    `block` columns, each of which sees itself and all columns before it (docs/method.md#ar-to-block-diffusion)."""

    starts: Tensor = field(kw_only=True)

    def of_network(self, block: int | None) -> Mask:
        return self

    def allowed(self, columns: Tensor, keys: int, window: int | None) -> Tensor | None:
        assert self.block is not None and window is None
        key = torch.arange(keys, device=columns.device)
        query, first = columns[:, :, None], self.starts[:, None, None]
        last = torch.where(query < first, query, query - (query - first) % self.block + self.block - 1)
        allowed = key <= last
        if self.valid is not None:
            allowed = (allowed & self.valid[:, None, :keys]) | (key == query)
        return allowed[:, None]


class KVCache:
    """Keys and values of each layer, [B, H, S, D]: B rows, H heads, S columns, D features per head.

    A forward overwrites the entries of its tokens. Before each forward the caller sets `span`, the columns of these
    tokens, and `rows` [b], the indices of the rows that take part in the forward (None: all B).
    """

    span: slice
    rows: Tensor | None

    def __init__(self, rows: int, columns: int) -> None:
        self.row_count, self.columns = rows, columns
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}

    def write(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Write the keys and values [b, H, Q, D] of a forward into the layer with the index `layer`, at the rows and
        columns that the attributes `rows` and `span` give; returns the keys and values of all columns of these rows,
        [b, H, S, D] each."""
        if layer not in self.layers:
            shape = (self.row_count, key.shape[1], self.columns, key.shape[3])
            self.layers[layer] = (key.new_zeros(shape), value.new_zeros(shape))
        cached = self.layers[layer]
        rows = slice(None) if self.rows is None else self.rows
        for old, new in zip(cached, (key, value), strict=True):
            old[rows, :, self.span] = new
        if key.shape[2] == self.columns:
            return key, value
        return self.read(layer)

    def replace(self, layer: int, key: Tensor, value: Tensor) -> None:
        """Replace all keys and values of the layer with the index `layer`, in the rows that the attribute `rows` gives,
        by key and value [b, H, S', D], of any number S' of columns."""
        shape = (self.row_count, *key.shape[1:])
        if layer not in self.layers or self.layers[layer][0].shape != shape:
            self.layers[layer] = (key.new_zeros(shape), value.new_zeros(shape))
        for old, new in zip(self.layers[layer], (key, value), strict=True):
            old[slice(None) if self.rows is None else self.rows] = new

    def read(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values of the layer with the index `layer`, [b, H, S', D] each, in the rows that the attribute
        `rows` gives; S': number of columns."""
        key, value = self.layers[layer]
        return (key, value) if self.rows is None else (key[self.rows], value[self.rows])

    def select_rows(self, rows: Tensor) -> None:
        """Keep in the cache only the rows with the indices `rows` [n]."""
        self.row_count = len(rows)
        self.layers = {layer: (k[rows], v[rows]) for layer, (k, v) in self.layers.items()}


@dataclass
class View:
    """Attention context of one forward: the `mask`, the `columns` [B or 1, Q] of its Q tokens, and the `kv_cache` with
    the keys and values of other columns (None: tokens attend only to those of this forward)."""

    mask: Mask
    columns: Tensor
    kv_cache: KVCache | None
    _allowed: dict[tuple[int, int | None], Tensor | None] = field(default_factory=dict)

    def allowed(self, keys: int, window: int | None) -> Tensor | None:
        """Attention mask of this forward, [B or 1, 1, Q, S] bool, True where a query may see a key (None: everywhere),
        for `keys` = S columns of keys and a layer's attention `window` (None: none). It is computed once for all layers
        with the same window."""
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
    **ignored: Any,  # the rest of transformers' calling convention: position ids and kernel hints
) -> tuple[Tensor, None]:
    """Scaled dot-product attention of a query [B, H, Q, D] to `key` and `value` [B, H', Q, D] of the same tokens, and
    to those in the KV cache of the `view` if it has one (H' heads, a divisor of H). The function has the signature of
    transformers' attention interface, and returns the output [B, Q, H, D] and None. `module`: the layer, whose
    `layer_idx` is its index in the cache; `attention_mask` must be None and `dropout` 0; `scaling`: factor on the
    products of queries and keys; `sliding_window` w: a query attends to keys fewer than w tokens away (None: to all).
    """
    assert attention_mask is None and dropout == 0.0, (
        "masks are given by the View, dropout by our own function"
    )
    query, key = query.to(value.dtype), key.to(value.dtype)  # rotated in float32 by some networks
    if view.kv_cache is not None:
        layer = module.layer_idx
        assert isinstance(layer, int)
        key, value = view.kv_cache.write(layer, key, value)
    # transformers counts the query itself as part of the window: its sliding_window is the half width + 1
    window = None if sliding_window is None else sliding_window - 1
    causal = (
        type(view.mask) is Mask and view.mask.valid is None and view.mask.block == 1
    )  # Copies(block=1) is not
    is_causal = causal and view.kv_cache is None and window is None
    out = torch.nn.functional.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=None if is_causal else view.allowed(key.shape[2], window),
        is_causal=is_causal,
        scale=scaling,
        enable_gqa=key.shape[1] != query.shape[1],
    )
    return out.transpose(1, 2), None


def registered() -> str:
    """Register `attend` in transformers, and return the name by which a configuration selects it
    (`_attn_implementation`). The suite's own networks call `attend` directly, since the import of transformers takes
    seconds."""
    from transformers import AttentionInterface

    AttentionInterface.register("repro", attend)
    return "repro"
