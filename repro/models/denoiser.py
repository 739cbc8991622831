"""The denoiser contract: what objectives, samplers and the held-out bound may ask of a network.

    features = denoiser.encode(tokens, t=t, attention=mask)     [B, L, D]
    weight, bias, forbidden = denoiser.head()                   [V, D], [V] or None, [V] bool
    logits = denoiser.logits(features)                          [..., V], forbidden ids at -inf

Nobody pays for logits that nobody reads, and a fused loss has what it needs. `meaning` says what the output is:
`x0_mean`, E[x0 | xt] (what cross-entropy trains), or `leave_one_out`, p(x0_l | xt without l) (the optimum of Duo's
NELBO, docs/method.md#uniform-samplers); uniform noise must know, for absorbing noise the two coincide.

`ForwardWrapper` is the one door into a network: DDP and sharded engines see every call because every call is
`wrapped(work)` with `work(denoiser)`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from repro.core import rng
from repro.models.attention import KVCache, Mask
from repro.models.backbone import Role

T = TypeVar("T")


class Soft(NamedTuple):
    """Soft tokens: `weights` [B, L, K] of the tokens `ids` [B, L, K], or of all V ids in order when `ids` is None."""

    ids: Tensor | None
    weights: Tensor


class Head(NamedTuple):
    """Output layer: weight [V, D], bias [V] or None, forbidden [V] bool (ids that never stand for a clean token)."""

    weight: Tensor
    bias: Tensor | None
    forbidden: Tensor

    def logits(self, features: Tensor) -> Tensor:
        """Features [..., D] -> logits [..., V] with nothing forbidden (what a loss that knows no mask id sees)."""
        flat = features.reshape(-1, features.shape[-1])
        # A matrix product of few rows takes another kernel and differs by 2e-5; 16 rows at least keep batches alike.
        short = 0 if flat.requires_grad else -len(flat) % 16
        padded = torch.nn.functional.pad(flat, (0, 0, 0, short)) if short else flat
        logits = torch.nn.functional.linear(padded, self.weight, self.bias)[: len(flat)]
        return logits.view(*features.shape[:-1], len(self.weight))

    def first(self, count: int) -> Head:
        """The head over the ids 0..count - 1 alone."""
        bias = None if self.bias is None else self.bias[:count]
        return Head(self.weight[:count], bias, self.forbidden[:count])

    def clean(self) -> Head:
        """The same head with forbidden ids at -inf: in its bias, which costs no pass over logits."""
        bias = self.weight.new_zeros(len(self.weight)) if self.bias is None else self.bias
        return self._replace(bias=bias.masked_fill(self.forbidden, -torch.inf))


class Denoiser(nn.Module, ABC):
    """A network with a vocabulary and a meaning. Subclasses give `encode` and `head`."""

    forbidden: Tensor
    time_conditioned: bool = False  # whether `encode` reads t
    supports_kv_cache: bool = True  # whether `encode` takes slots
    quantised: str | None = None  # what the matrices of its layers are kept in, where that is no float
    halo: int = 0  # columns before those that are asked for that a forward beside kept ones must carry
    required_block_size: int | None = None  # length of the only blocks that it can decode; None: any
    has_dropout: bool = False  # whether a training forward drops by the keys that `begin` was given

    def __init__(self, role: Role) -> None:
        super().__init__()
        self.vocabulary = role.vocabulary
        self.meaning = role.meaning
        forbidden = torch.zeros(self.vocabulary.total, dtype=torch.bool)
        forbidden[list(role.forbidden)] = True
        self.register_buffer("forbidden", forbidden, persistent=False)

    @property
    def device(self) -> torch.device:
        return self.forbidden.device

    @property
    def home(self) -> torch.device:
        """Where ids, times and draws live: the network's device, or the CPU where that knows no float64 (mps)."""
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
        """Features [B, L, D] of `tokens` [B, L] ids or soft tokens.

        `t` [B] or [B, L] diffusion time (None: not given to the network); `positions` [B, L] index of each token in
        its sequence (None: 0..L-1); `slots` where keys and values go in a cache.
        """

    def begin(self, keys: Tensor) -> None:
        """A training step is about to forward rows whose dropout draws by `keys` [B]; most networks drop nothing."""

    @abstractmethod
    def head(self) -> Head: ...

    def layers(self) -> list[nn.Module]:
        """The layers that an engine may shard, recompute or compile one by one; none holds the head."""
        return []

    def logits(self, features: Tensor) -> Tensor:
        """Features [..., D] -> logits [..., V] with forbidden ids at -inf, in the features' precision."""
        return self.raw_logits(features).masked_fill(self.head().forbidden, -torch.inf)

    def raw_logits(self, features: Tensor) -> Tensor:
        """The same with nothing forbidden: what the authors' network returns."""
        return self.head().logits(features)


class SelfConditioned(Denoiser):
    """A network that also reads a signal made of its own last prediction; zeros where there is none."""

    @abstractmethod
    def signal(self, logits: Tensor) -> Tensor:
        """What is kept of the last prediction: logits [N, V] -> [N, S]."""

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
        """`encode` given the signal [B, L, S] of the last prediction, or None."""

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
    """The one door: `wrapped(work)` runs `work(denoiser)` inside the module's forward, where engines can see it."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, work: Callable[[Denoiser], T]) -> T:
        return work(self.denoiser)


def take(network: Denoiser, weights: Mapping[str, Tensor]) -> None:
    """Copy another network's weights by name; ValueError names a tensor that one of them lacks, or of another shape."""
    own = dict(network.named_parameters())
    odd = sorted(own.keys() ^ weights.keys())
    if odd:
        raise ValueError(f"tensor {odd[0]!r} stands in only one of the two networks; their backbones differ")
    with torch.no_grad():
        for name, parameter in own.items():
            given, here = tuple(weights[name].shape), tuple(parameter.shape)
            if given != here:
                raise ValueError(
                    f"tensor {name!r} has shape {given} where it comes from, {here} here; data or backbones differ"
                )
            parameter.copy_(weights[name])


def initialise(module: nn.Module, seed: int, deviation: float) -> None:
    """Fill weights by the suite's own stream: N(0, deviation^2) for matrices, 1 for norms, 0 for biases.

    A parameter's draw depends on seed and name alone (`stream`). On the meta device there is nothing to fill.
    """
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.is_meta:
                continue
            if parameter.ndim >= 2:
                parameter.copy_(deviation * rng.normal(stream(seed, name), *parameter.shape))
            elif name.endswith("bias"):
                parameter.zero_()
            else:
                parameter.fill_(1.0)


def stream(seed: int, name: str) -> Tensor:
    """The key of a parameter's draw, (seed, INIT, name), so that it depends on no order, device or dtype."""
    import hashlib

    return rng.keys(seed, rng.INIT, 0, int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big"))


def embed(table: nn.Embedding, tokens: Tensor | Soft) -> Tensor:
    """Embedding of ids [B, L], or the weighted mean embedding of soft tokens (docs/method.md#uniform-script), [B, L,
    D]."""
    if not isinstance(tokens, Soft):
        return table(tokens)
    if tokens.ids is None:
        return tokens.weights.to(table.weight.dtype) @ table.weight[: tokens.weights.shape[-1]]
    ids, weights = (part.flatten(0, 1) for part in (tokens.ids, tokens.weights.to(table.weight.dtype)))
    bags = nn.functional.embedding_bag(ids, table.weight, per_sample_weights=weights, mode="sum")
    return bags.view(*tokens.weights.shape[:2], -1)


def places(embedded: Tensor, positions: Tensor | None, kv_cache: KVCache | None) -> tuple[Tensor, Tensor]:
    """Columns and positions of a forward, [B or 1, L] each; without padding or cache both are 0..L-1."""
    start = 0 if kv_cache is None else kv_cache.span.start
    order = torch.arange(start, start + embedded.shape[1], device=embedded.device)[None]
    return order, order if positions is None else positions
