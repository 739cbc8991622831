"""Networks written out after their papers' equations, on weights under their authors' names.

    dit(weights, ids, heads, sigma)         Duo's and MDLM's diffusion transformer; sigma None: the causal one
    dit_weights(...)                        random weights in that layout

Symbols: B rows, L tokens, D width, H heads, E = D / H, C condition, V ids.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

Weights = dict[str, Tensor]


def normal(seed: int, shapes: dict[str, tuple[int, ...]], deviation: float) -> Weights:
    """N(0, deviation^2); about 1 for weights of norms."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, shape in shapes.items():
        draw = deviation * torch.randn(shape, generator=generator)
        found[name] = draw + 1 if "norm" in name or "ln_f" in name else draw
    return found


def dit_weights(
    layers: int, width: int, condition: int, vocabulary: int, frequencies: int = 256, seed: int = 0
) -> Weights:
    """Duo's names (s-sahoo/duo models/dit.py); `condition` 0 makes the causal network."""
    d, c = width, condition
    shapes: dict[str, tuple[int, ...]] = {"vocab_embed.embedding": (vocabulary, d)}
    if c:
        shapes |= {"sigma_map.mlp.0.weight": (c, frequencies), "sigma_map.mlp.0.bias": (c,)}
        shapes |= {"sigma_map.mlp.2.weight": (c, c), "sigma_map.mlp.2.bias": (c,)}
    for i in range(layers):
        block = {
            "norm1.weight": (d,),
            "attn_qkv.weight": (3 * d, d),
            "attn_out.weight": (d, d),
            "norm2.weight": (d,),
            "mlp.0.weight": (4 * d, d),
            "mlp.0.bias": (4 * d,),
            "mlp.2.weight": (d, 4 * d),
            "mlp.2.bias": (d,),
        }
        if c:
            block |= {"adaLN_modulation.weight": (6 * d, c), "adaLN_modulation.bias": (6 * d,)}
        shapes |= {f"blocks.{i}.{name}": shape for name, shape in block.items()}
    shapes |= {"output_layer.norm_final.weight": (d,)}
    shapes |= {"output_layer.linear.weight": (vocabulary, d), "output_layer.linear.bias": (vocabulary,)}
    if c:
        shapes |= {"output_layer.adaLN_modulation.weight": (2 * d, c)}
        shapes |= {"output_layer.adaLN_modulation.bias": (2 * d,)}
    found = normal(seed, {f"backbone.{name}": shape for name, shape in shapes.items()}, 0.2)
    rates = 10_000.0 ** (-torch.arange(0, 8, 2) / 8)
    return found | {"backbone.rotary_emb.inv_freq": rates}


def turned(x: Tensor, base: float) -> Tensor:
    """Rotary positions on [B, H, L, E] as complex numbers (Su et al. 2021), feature k paired with k + E/2."""
    length, half = x.shape[2], x.shape[3] // 2
    rates = torch.tensor([base ** (-k / half) for k in range(half)])
    turn = torch.polar(torch.ones(length, half), torch.arange(length)[:, None] * rates)
    pairs = torch.complex(x[..., :half], x[..., half:]) * turn
    return torch.cat([pairs.real, pairs.imag], -1)


def attention(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    """[B, H, L, E] -> [B, L, H E]."""
    score = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    if causal:
        score = score.masked_fill(torch.ones(score.shape[-2:]).triu(1).bool(), -math.inf)
    return (score.softmax(-1) @ v).transpose(1, 2).flatten(2)


def layer_norm(x: Tensor, weight: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight


def gelu_tanh(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def dit(weights: Weights, ids: Tensor, heads: int, sigma: Tensor | None) -> Tensor:
    """Logits [B, L, V] of ids [B, L] at noise levels sigma [B]."""
    w = {name.removeprefix("backbone."): tensor for name, tensor in weights.items()}
    x = w["vocab_embed.embedding"][ids]
    c = None
    if sigma is not None:
        half = w["sigma_map.mlp.0.weight"].shape[1] // 2
        rates = torch.tensor([10_000.0 ** (-k / half) for k in range(half)])
        waves = torch.cat([torch.cos(sigma[:, None] * rates), torch.sin(sigma[:, None] * rates)], -1)
        hidden = silu(waves @ w["sigma_map.mlp.0.weight"].T + w["sigma_map.mlp.0.bias"])
        c = silu(hidden @ w["sigma_map.mlp.2.weight"].T + w["sigma_map.mlp.2.bias"])

    def modulation(name: str, parts: int) -> list[Tensor]:
        if c is None:
            return [torch.zeros(1), torch.zeros(1), torch.ones(1)] * 2
        found = c @ w[f"{name}.adaLN_modulation.weight"].T + w[f"{name}.adaLN_modulation.bias"]
        return list(found[:, None].chunk(parts, -1))

    i = 0
    while f"blocks.{i}.norm1.weight" in w:
        b = f"blocks.{i}"
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation(b, 6)
        h = layer_norm(x, w[f"{b}.norm1.weight"]) * (1 + scale1) + shift1
        q, k, v = (h @ part.T for part in w[f"{b}.attn_qkv.weight"].chunk(3))
        q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (q, k, v))
        seen = attention(turned(q, 10_000.0), turned(k, 10_000.0), v, sigma is None)
        x = x + gate1 * (seen @ w[f"{b}.attn_out.weight"].T)
        h = layer_norm(x, w[f"{b}.norm2.weight"]) * (1 + scale2) + shift2
        h = gelu_tanh(h @ w[f"{b}.mlp.0.weight"].T + w[f"{b}.mlp.0.bias"])
        x = x + gate2 * (h @ w[f"{b}.mlp.2.weight"].T + w[f"{b}.mlp.2.bias"])
        i += 1
    x = layer_norm(x, w["output_layer.norm_final.weight"])
    shift, scale = modulation("output_layer", 2)[:2]
    x = x * (1 + scale) + shift
    return x @ w["output_layer.linear.weight"].T + w["output_layer.linear.bias"]
