"""The diffusion transformer of MDLM, Duo and BD3-LM: backbones `dit`, `dit_causal` and `dit_blocks`
(docs/method.md#duo-hyperparameters).

    c = SiLU(MLP(cos, sin of sigma f_k))                    f_k = 10000^(-k / bands), [B or B, L, C]
    x = x + g1 Attention((1 + a1) LN(x) + b1)               (b1, a1, g1, b2, a2, g2) = W c + w, zero at the start
    x = x + g2 MLP((1 + a2) LN(x) + b2)
    features = (1 + a) LN(x) + b                            the head's weights are zero too: the first loss is ln V

c embeds the noise level sigma by cosines and sines at `bands` frequencies f_k (half of the backbone's `frequencies`
each). The causal network has no c, and neither has a block network with `condition` 0: their shifts and scales are 0
and their gates 1.
Norms, rotation and sinusoids are computed in float32 at least, whatever the precision around them.

Shapes: B rows, L tokens, H heads, D width, E = D / H features per head, C width of the noise level's embedding.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from repro.core import rng
from repro.models.attention import Copies, KVCache, Mask, View, attend
from repro.models.denoiser import Denoiser, Head, Soft, columns_and_positions, embed, parameter_key
from repro.models.dit import Dit, DitBlocks, DitCausal
from repro.models.dropout import drop
from repro.processes.prediction import Role

Pins = Dit | DitCausal | DitBlocks
LONGEST = 10_000.0
"""Upper limit of the sinusoids' periods in sigma, divided by 2 pi: the value of image models, which the papers' code
keeps."""


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


class Norm(nn.Module):
    """LayerNorm with a weight and no bias, computed in float32 at least."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        normed = nn.functional.layer_norm(_wide(x), x.shape[-1:], eps=self.eps)
        return (normed * self.weight).to(x.dtype)


class Level(nn.Module):
    """Embedding of the noise level by sinusoids and an MLP: sigma [B] or [B, L] -> [B, 1 or L, C], where C is
    `condition` and `frequencies` the number of sinusoids."""

    def __init__(self, frequencies: int, condition: int) -> None:
        super().__init__()
        self.bands = frequencies // 2
        self.first = nn.Linear(frequencies, condition)
        self.second = nn.Linear(condition, condition)

    def forward(self, sigma: Tensor) -> Tensor:
        sigma = sigma[:, None] if sigma.ndim == 1 else sigma
        steps = torch.arange(self.bands, dtype=torch.float32, device=sigma.device)
        angle = sigma.float()[..., None] * torch.exp(-math.log(LONGEST) / self.bands * steps)
        waves = torch.cat([angle.cos(), angle.sin()], -1).to(self.first.weight.dtype)
        embedded = self.second(nn.functional.silu(self.first(waves)))
        return nn.functional.silu(embedded)  # the papers' second SiLU


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Adaptive LayerNorm's modulation (1 + scale) x + shift of x [B, L, D]; shift and scale broadcast."""
    return x * (1 + scale) + shift


def angles(positions: Tensor, width: int, base: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine of the RoPE angles of `positions` [B or 1, L], float32 [B or 1, 1, L, E/2] each; E = `width`
    features per head, `base` the base of the frequencies."""
    rates = base ** (-torch.arange(0, width, 2, dtype=torch.float32, device=positions.device) / width)
    angle = positions[:, None, :, None].float() * rates
    return angle.cos(), angle.sin()


def rotate(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """x [B, H, L, E] rotated by RoPE with `turn`, the cosine and sine from `angles`; feature k is paired with k + E/2
    (Su et al. 2021, in GPT-NeoX's order)."""
    cos, sin = turn
    one, other = _wide(x).chunk(2, -1)
    return torch.cat([one * cos - other * sin, other * cos + one * sin], -1).to(x.dtype)


class Layer(nn.Module):
    """One transformer layer, attention and MLP, of a DiT with the hyperparameters `pins`. `condition`: width of the
    noise level's embedding (0: none); `layer_idx`: index of the layer; `rate`: dropout rate in training."""

    def __init__(self, pins: Pins, condition: int, layer_idx: int, rate: float) -> None:
        super().__init__()
        self.heads, self.layer_idx, self.rate = pins.heads, layer_idx, rate
        self.norm_attention, self.norm_mlp = (Norm(pins.width, pins.norm_eps) for _ in range(2))
        self.qkv = nn.Linear(pins.width, 3 * pins.width, bias=False)
        self.out = nn.Linear(pins.width, pins.width, bias=False)
        self.up = nn.Linear(pins.width, pins.ffn)
        self.down = nn.Linear(pins.ffn, pins.width)
        self.modulation = nn.Linear(condition, 6 * pins.width) if condition else None

    def forward(
        self,
        x: Tensor,
        c: Tensor | None,
        turn: tuple[Tensor, Tensor],
        view: View,
        keys: Tensor | None = None,
    ) -> Tensor:
        """Hidden states [B, L, D] after the layer, from those before it, x [B, L, D].

        `c`: embedding of the noise level (None: no modulation); `turn`: cosine and sine of RoPE; `view`: mask and KV
        cache; `keys` [B]: random keys of the rows' dropout (None: no dropout).
        """
        first, second = (None if keys is None else rng.fold(keys, 2 * self.layer_idx + k) for k in range(2))
        if self.modulation is None:
            x = x + drop(self._attend(self.norm_attention(x), turn, view), first, self.rate)
            return x + drop(self._mlp(self.norm_mlp(x)), second, self.rate)
        b1, a1, g1, b2, a2, g2 = self.modulation(c).chunk(6, -1)
        seen = self._attend(modulate(self.norm_attention(x), b1, a1), turn, view)
        x = x + g1 * drop(seen, first, self.rate)
        return x + g2 * drop(self._mlp(modulate(self.norm_mlp(x), b2, a2)), second, self.rate)

    def _attend(self, x: Tensor, turn: tuple[Tensor, Tensor], view: View) -> Tensor:
        """Self-attention output [B, L, D] of x [B, L, D]; `turn`: cosine and sine of RoPE; `view`: mask and KV
        cache."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        scaling = q.shape[-1] ** -0.5
        seen, _ = attend(
            self, rotate(q, turn), rotate(k, turn), v, None, scaling=scaling, dropout=0.0, view=view
        )
        return self.out(seen.flatten(2))

    def _mlp(self, x: Tensor) -> Tensor:
        return self.down(nn.functional.gelu(self.up(x), approximate="tanh"))


class DitDenoiser(Denoiser):
    """A DiT as a denoiser. Its features are those after the final norm and modulation, so that its output layer is one
    affine map."""

    def __init__(self, pins: Pins, role: Role, seed: int, rate: float = 0.0) -> None:
        super().__init__(role)
        self.pins = pins
        self.has_dropout = rate > 0
        self._keys: Tensor | None = None
        condition = 0 if isinstance(pins, DitCausal) else pins.condition
        self.time_conditioned = isinstance(pins, Dit) and pins.alpha_end is not None
        self.block = 1 if isinstance(pins, DitCausal) else None
        self.embedding = nn.Embedding(self.vocabulary.total, pins.width)
        self.level = (
            None if isinstance(pins, DitCausal) or not condition else Level(pins.frequencies, condition)
        )
        self.blocks = nn.ModuleList(Layer(pins, condition, i, rate) for i in range(pins.layers))
        self.norm = Norm(pins.width, pins.norm_eps)
        self.modulation = nn.Linear(condition, 2 * pins.width) if condition else None
        self.output = nn.Linear(pins.width, self.vocabulary.total)
        initialise_dit(self, seed)

    def encode(
        self,
        tokens: Tensor | Soft,
        *,
        t: Tensor | None,
        attention: Mask,
        positions: Tensor | None = None,
        kv_cache: KVCache | None = None,
    ) -> Tensor:
        if self.time_conditioned and t is None:
            raise ValueError(
                "backbone dit reads the noise level (its alpha_end is set), and this objective gives no time t; use an"
                " objective such as elbo or duo_elbo, or set backbone.alpha_end=null"
            )
        return self._read(tokens, t, attention.of_network(self.block), positions, kv_cache)

    def _read(
        self,
        tokens: Tensor | Soft,
        t: Tensor | None,
        attention: Mask,
        positions: Tensor | None,
        kv_cache: KVCache | None,
    ) -> Tensor:
        """Features [B, L, D] of `tokens` (ids [B, L] or soft tokens) under exactly the mask `attention`: the network's
        own causal or block mask is not added. `t`: diffusion time; `positions`: index of each token in its sequence;
        `kv_cache`: keys and values of earlier forwards; all as in `repro.models.denoiser.Denoiser.encode`."""
        x = embed(self.embedding, tokens)
        columns, where = columns_and_positions(x, positions, kv_cache)
        view = View(attention, columns, kv_cache)
        turn = angles(where, self.pins.width // self.pins.heads, self.pins.rope_base)
        c = None if self.level is None else self.level(self._sigma(x, t))
        keys = self._keys if self.training else None
        assert keys is None or len(keys) == len(x), (
            "set_dropout_keys takes one key per row of the next forward"
        )
        for block in self.blocks:
            x = block(x, c, turn, view) if keys is None else block(x, c, turn, view, keys)
        x = self.norm(x)
        if self.modulation is None:
            return x
        shift, scale = self.modulation(c).chunk(2, -1)
        return modulate(x, shift, scale)

    def set_dropout_keys(self, keys: Tensor) -> None:
        self._keys = keys if self.has_dropout else None

    def _sigma(self, x: Tensor, t: Tensor | None) -> Tensor:
        """Noise level sigma = -log alpha(t) at times `t`, of the shape of `t`; zeros [B], for the B rows of `x`, if the
        network does not read the time."""
        if not self.time_conditioned:
            return x.new_zeros(len(x))
        assert isinstance(self.pins, Dit) and self.pins.alpha_end is not None and t is not None
        return -torch.log1p(-(1 - self.pins.alpha_end) * t)

    def head(self) -> Head:
        return Head.of(self.output, self.forbidden)

    def layers(self) -> list[nn.Module]:
        return list(self.blocks)


class DitBlocksDenoiser(DitDenoiser):
    """BD3-LM's network; the block being decoded starts at the first column whose time is above 0.

    Decoding reads one copy of the row: finished blocks are clean, so a block sees what it saw in training, and keys and
    values of finished blocks are exact. Under the mask `Copies` the tokens are a noisy and a clean copy of the row, as
    in training, and all blocks are predicted in one forward. The number of tokens of a row before the block that is
    decoded must be a multiple of the block length, as in training; the decoding loop ensures this.
    """

    block_causal = True

    def __init__(self, pins: DitBlocks, role: Role, seed: int, rate: float = 0.0) -> None:
        super().__init__(pins, role, seed, rate)
        self.time_conditioned, self.required_block_size = True, pins.required_block_size()

    def encode(
        self,
        tokens: Tensor | Soft,
        *,
        t: Tensor | None,
        attention: Mask,
        positions: Tensor | None = None,
        kv_cache: KVCache | None = None,
    ) -> Tensor:
        if isinstance(attention, Copies):
            assert not isinstance(tokens, Soft)
            copies = attention.views + 1
            order = torch.arange(tokens.shape[1] // copies, device=self.device).repeat(copies)
            return self._read(tokens, None, attention, order[None] if positions is None else positions, None)
        if t is None or t.ndim == 1:
            raise ValueError(
                "backbone dit_blocks reads one noisy block after clean ones, not a row that is noisy throughout; give"
                " t [B, L], a time for each position"
            )
        first = self._first_noisy(t) + (0 if kv_cache is None else kv_cache.span.start)
        return self._read(
            tokens, None, Mask(attention.valid, self.required_block_size, first), positions, kv_cache
        )

    def _first_noisy(self, t: Tensor) -> int:
        """Column from which blocks are counted: the first whose time t [B, L] is above 0, or 0 if there is none. Raises
        ValueError if the blocks of two rows begin at columns that are not whole blocks apart, since all rows share one
        mask."""
        noisy = t > 0
        starts, size = noisy.long().argmax(1)[noisy.any(1)], self.required_block_size
        if not len(starts):
            return 0
        assert size is not None
        if ((starts - starts[0]) % size).any():
            raise ValueError(
                f"backbone dit_blocks: the noisy blocks of the rows begin at columns {starts.tolist()[:8]}, which are"
                f" not whole blocks of {size} apart; give prompts of equal length, or forward the rows one by one"
            )
        return int(starts[0])

    def _sigma(self, x: Tensor, t: Tensor | None) -> Tensor:
        return x.new_zeros(len(x))


def initialise_dit(denoiser: DitDenoiser, seed: int) -> None:
    """Initialise a DiT in place as in the papers, by random keys of `seed` and parameter name: U(-1/sqrt(n), 1/sqrt(n))
    in a layer of n inputs (torch's default for linear layers, biases included) and, with n = D, in the embedding; zeros
    in every modulation and in the output layer; ones in norms."""
    with torch.no_grad():
        for path, module in denoiser.named_modules():
            for name, parameter in module.named_parameters(recurse=False):
                if parameter.is_meta:
                    continue
                if isinstance(module, Norm):
                    parameter.fill_(1.0)
                elif path.endswith("modulation") or path == "output":
                    parameter.zero_()
                else:
                    inputs = module.weight.shape[1]
                    u = rng.uniform(parameter_key(seed, f"{path}.{name}"), *parameter.shape)
                    parameter.copy_((2 * u - 1) / math.sqrt(inputs))
