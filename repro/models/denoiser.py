"""The denoiser contract: the interface through which objectives, samplers and the held-out bound use a network.

    features = denoiser.encode(tokens, t=t, attention=mask)     [B, L, D]
    weight, bias, forbidden = denoiser.head()                   [V, D], [V] or None, [V] bool
    logits = denoiser.logits(features)                          [..., V], forbidden ids at -inf

Features and head are separate, so that logits are computed only where they are read and a fused loss can take the head
itself. `meaning` says what the output at position l estimates: `x0_mean`, the distribution of the clean token given all
noisy tokens, E[x0 | xt] (trained by cross-entropy), or `leave_one_out`, given all noisy tokens but the one at l (the
optimum of Duo's NELBO, docs/method.md#uniform-samplers). Samplers and bounds of uniform noise need to know which; for
absorbing noise the two coincide at masked positions.

Under a training engine (DDP, FSDP, DeepSpeed) a network is called only as `wrapper(work)`, which runs `work(denoiser)`
inside the forward of a `ForwardWrapper`, so that DDP and sharded engines observe every call.

Shapes: B rows, L tokens, D features, V vocabulary size, K ids of a soft token, N selected tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from repro.core import rng
from repro.models.attention import KVCache, Mask
from repro.models.products import Linear, linear
from repro.processes.prediction import Role

T = TypeVar("T")


class Soft(NamedTuple):
    """Soft tokens, which are weighted mixtures of ids: `weights` [B, L, K] of the K `ids` [B, L, K] at each of L
    positions; if `ids` is None, of the ids 0..K - 1."""

    ids: Tensor | None
    weights: Tensor


class Head(NamedTuple):
    """Output layer of a network: `weight` [V, D], `bias` [V] or None, and `forbidden` [V] bool, the ids that are never
    a clean token; V vocabulary size, D features."""

    weight: Tensor
    bias: Tensor | None
    forbidden: Tensor
    fast: bool = False
    """Whether products are those of `repro.models.products.linear`."""

    @classmethod
    def of(cls, layer: nn.Linear, forbidden: Tensor) -> Head:
        """The output layer `layer` as a `Head`, with `forbidden` [V] bool: True at ids that are never a clean token."""
        return cls(layer.weight, layer.bias, forbidden, isinstance(layer, Linear))

    def product(self, features: Tensor) -> Tensor:
        """Logits [N, V] of features [N, D] by one matrix product of N rows; forbidden ids are not masked out. Unlike
        `logits`, it does not pad the number of rows to a multiple of 8, so a row's logits may depend on N."""
        multiply = linear if self.fast else nn.functional.linear
        return multiply(features, self.weight, self.bias)

    def logits(self, features: Tensor) -> Tensor:
        """Logits [..., V] of features [..., D]; forbidden ids are not masked out (see `clean`)."""
        flat = features.reshape(-1, features.shape[-1])
        # A matrix product of one to three rows uses another kernel and differs by 2e-5; multiples of 8 rows agree.
        short = 0 if flat.requires_grad else -len(flat) % 8
        padded = torch.nn.functional.pad(flat, (0, 0, 0, short)) if short else flat
        logits = self.product(padded)[: len(flat)]
        return logits.view(*features.shape[:-1], len(self.weight))

    def first(self, count: int) -> Head:
        """This output layer for the ids 0..count - 1 alone, for example without the special ids, which come last."""
        bias = None if self.bias is None else self.bias[:count]
        return self._replace(weight=self.weight[:count], bias=bias, forbidden=self.forbidden[:count])

    def clean(self) -> Head:
        """This output layer with a bias of -inf at forbidden ids, so that their logits are -inf without a pass over
        logits."""
        bias = self.weight.new_zeros(len(self.weight)) if self.bias is None else self.bias
        return self._replace(bias=bias.masked_fill(self.forbidden, -torch.inf))


class Denoiser(nn.Module, ABC):
    """Base class of networks that predict clean tokens. Subclasses implement `encode` and `head`.

    The vocabulary, the forbidden ids and the meaning of the output come from the `Role` for which the network is built.
    """

    forbidden: Tensor
    _forbidden_ids: Tensor
    time_conditioned: bool = False  # whether `encode` reads t
    supports_kv_cache: bool = True  # whether `encode` takes a `kv_cache`
    quantised: str | None = None  # name of the format of the layers' matrices, if they are quantised
    cache_left_context: int = 0  # extra columns to the left that a cached forward must recompute
    required_block_size: int | None = None  # the block length that decoding must use; None: any
    block_causal: bool = (
        False  # whether no block depends on later columns, so that keys and values can be kept
    )
    has_dropout: bool = False  # whether a training forward needs `set_dropout_keys`
    base_digest: str | None = (
        None  # SHA-256 of frozen weights that checkpoints leave out; None: there are none
    )
    served_by: dict[str, Any] | None = (
        None  # what records say of the server that computes it; None: this process
    )

    def __init__(self, role: Role) -> None:
        super().__init__()
        self.vocabulary = role.vocabulary
        self.meaning = role.meaning
        forbidden = torch.zeros(self.vocabulary.total, dtype=torch.bool)
        forbidden[list(role.forbidden)] = True
        self.register_buffer("forbidden", forbidden, persistent=False)
        ids = torch.tensor(sorted(role.forbidden), dtype=torch.int64)
        self.register_buffer("_forbidden_ids", ids, persistent=False)

    @property
    def device(self) -> torch.device:
        """Device of the network's weights."""
        return self.forbidden.device

    @property
    def home(self) -> torch.device:
        """Device of ids, times and random draws: that of the network, or the CPU if that device is Apple's mps, which
        has no float64."""
        return torch.device("cpu") if self.device.type == "mps" else self.device

    @abstractmethod
    def encode(
        self,
        tokens: Tensor | Soft,
        *,
        t: Tensor | None,
        attention: Mask,
        positions: Tensor | None = None,
        kv_cache: KVCache | None = None,
    ) -> Tensor:
        """Features [B, L, D] of `tokens`, which are ids [B, L] or soft tokens; B rows, L tokens, D features.

        `t` [B] or [B, L]: diffusion time (None: not given to the network); `attention`: which columns a token may
        attend to; `positions` [B, L]: index of each token in its sequence (None: 0..L-1); `kv_cache`: keys and values
        of earlier forwards, to which this one adds its own.
        """

    def set_dropout_keys(self, keys: Tensor) -> None:
        """Set the random keys [B], one per row, from which dropout draws in the next training forwards.

        Networks without dropout ignore them.
        """

    @abstractmethod
    def head(self) -> Head:
        """Output layer of the network (`Head`): its weight and bias, and the ids that are never a clean token."""

    def layers(self) -> list[nn.Module]:
        """Layers that a training engine may shard, recompute or compile one by one; no embedding, no output layer."""
        return []

    def merged(self) -> Denoiser:
        """The network for inference: the network itself, unless it has adapters. Adapters are merged for good into the
        weights of the network that they adapt, and that network is returned."""
        return self

    def logits(self, features: Tensor) -> Tensor:
        """Logits [..., V] of features [..., D], in the features' precision, with forbidden ids at -inf."""
        return self.raw_logits(features).index_fill_(-1, self._forbidden_ids, -torch.inf)

    def raw_logits(self, features: Tensor) -> Tensor:
        """Logits [..., V] of features [..., D] as the network computes them: those of forbidden ids are not set to
        -inf. A new tensor, which the caller may overwrite."""
        return self.head().logits(features)


class SelfConditioned(Denoiser):
    """Base class of self-conditioned networks, which also read a *signal* computed from their own previous prediction
    (zeros in the first forward). Subclasses give `signal` and `encode_given`."""

    @abstractmethod
    def signal(self, logits: Tensor) -> Tensor:
        """Self-conditioning signal [N, S], by which the next forward reads this prediction, from its logits [N, V] for
        N tokens; S: width of the signal."""

    @abstractmethod
    def encode_given(
        self,
        signal: Tensor | None,
        tokens: Tensor | Soft,
        *,
        t: Tensor | None,
        attention: Mask,
        positions: Tensor | None = None,
        kv_cache: KVCache | None = None,
    ) -> Tensor:
        """Features [B, L, D] of `tokens` (ids [B, L] or soft tokens), read together with the self-conditioning `signal`
        [B, L, S], which is computed from the previous prediction (None: zeros). `t`: diffusion time, `attention`: mask,
        `positions`: index of each token in its sequence, `kv_cache`: keys and values of earlier forwards, all as in
        `Denoiser.encode`."""

    def encode(
        self,
        tokens: Tensor | Soft,
        *,
        t: Tensor | None,
        attention: Mask,
        positions: Tensor | None = None,
        kv_cache: KVCache | None = None,
    ) -> Tensor:
        return self.encode_given(
            None, tokens, t=t, attention=attention, positions=positions, kv_cache=kv_cache
        )


class ForwardWrapper(nn.Module):
    """Module whose call `wrapper(work)` runs the function `work` on `denoiser` and returns its result. This happens
    inside the module's forward, where the hooks of DDP and FSDP apply."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, work: Callable[[Denoiser], T]) -> T:
        return work(self.denoiser)


def trained_parameters(network: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of a network that training changes and checkpoints hold, by name: all but frozen ones (those with
    `requires_grad` false)."""
    return {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}


def copy_weights(into: Mapping[str, Tensor], weights: Mapping[str, Tensor], source: str) -> None:
    """Copy `weights` into the tensors of the same names in `into`; a sharded tensor gets this process's shard.

    Raises ValueError unless names and shapes are the same; `source` says in the message where the weights are from.
    """
    check_same_shapes(into, weights, source)
    for name, tensor in into.items():
        tensor.data.copy_(local_part(weights[name], tensor))


def check_same_shapes(into: Mapping[str, Tensor], weights: Mapping[str, Tensor], source: str) -> None:
    """Raise ValueError for a tensor that only one of `into` and `weights` has, or that has different shapes in them;
    `source` says in the message where the weights are from. The tensors may be on the meta device."""
    odd = sorted(into.keys() ^ weights.keys())
    if odd:
        raise ValueError(
            f"{source} {'lacks' if odd[0] in into else 'has'} tensor {odd[0]!r}, which the recipe's backbone"
            f" {'has' if odd[0] in into else 'lacks'}; use the recipe of these weights"
        )
    for name, tensor in into.items():
        given, expected = tuple(weights[name].shape), tuple(tensor.shape)
        if given != expected:
            raise ValueError(
                f"{source}: tensor {name!r} has shape {given}, expected {expected}; use the recipe of these weights"
            )


def local_part(whole: Tensor, like: Tensor) -> Tensor:
    """If `like` is a DTensor, this process's shard of the tensor `whole`, sharded like it; otherwise `whole` itself."""
    if not hasattr(like, "placements"):  # importing DTensor takes most of a second
        return whole
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    # src_data_rank=None: every process has read the whole tensor, so each takes its part and nothing is sent
    return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def initialise(module: nn.Module, seed: int, deviation: float) -> None:
    """Initialise the parameters of a module in place: matrices from N(0, deviation^2), weights of norms to 1, biases to
    0.

    A parameter's values depend only on `seed` and its name. Parameters on the meta device are skipped.
    """
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.is_meta:
                continue
            if parameter.ndim >= 2:
                parameter.copy_(deviation * rng.normal(parameter_key(seed, name), *parameter.shape))
            elif name.endswith("bias"):
                parameter.zero_()
            else:
                parameter.fill_(1.0)


def parameter_key(seed: int, name: str) -> Tensor:
    """Random key of the initial values of the parameter `name`; it depends on seed and name only, not on the order of
    the parameters, their device or dtype."""
    import hashlib

    return rng.keys(seed, rng.INIT, 0, int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big"))


def embed(table: nn.Embedding, tokens: Tensor | Soft) -> Tensor:
    """Embeddings [B, L, D] from `table` of ids `tokens` [B, L], or the weighted sums of embeddings of soft tokens
    (docs/method.md#uniform-script)."""
    if not isinstance(tokens, Soft):
        return table(tokens)
    if tokens.ids is None:
        return tokens.weights.to(table.weight.dtype) @ table.weight[: tokens.weights.shape[-1]]
    ids, weights = (part.flatten(0, 1) for part in (tokens.ids, tokens.weights.to(table.weight.dtype)))
    bags = nn.functional.embedding_bag(ids, table.weight, per_sample_weights=weights, mode="sum")
    return bags.view(*tokens.weights.shape[:2], -1)


def columns_and_positions(
    embedded: Tensor, positions: Tensor | None, kv_cache: KVCache | None
) -> tuple[Tensor, Tensor]:
    """Columns (indices in the padded row) and positions (indices in the sequence) of a forward's L tokens, [B or 1, L]
    each; without padding and cache both are 0..L-1. `embedded` [B, L, D]: the tokens' embeddings; `positions` [B, L]:
    positions that the caller gives (None: equal to the columns); `kv_cache`: the cache, whose `span` has the columns.
    """
    start = 0 if kv_cache is None else kv_cache.span.start
    order = torch.arange(start, start + embedded.shape[1], device=embedded.device)[None]
    return order, order if positions is None else positions
