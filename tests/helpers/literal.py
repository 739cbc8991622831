"""Networks written out from their papers' equations, on random weights under their authors' tensor names.

    dit(weights, ids, heads, sigma)         Duo's and MDLM's diffusion transformer; sigma None: the causal one
    bd3(weights, noisy, clean, ...)         BD3-LM's, in blocks
    llada, dream, modernbert                and NAME_weights(...) for random weights of each

Symbols: B rows, L tokens, D width, H heads, E = D / H, C condition, V ids.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

Weights = dict[str, Tensor]


def normal(seed: int, shapes: dict[str, tuple[int, ...]], deviation: float) -> Weights:
    """Weights from N(0, deviation^2), and from N(1, deviation^2) for norms."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, shape in shapes.items():
        draw = deviation * torch.randn(shape, generator=generator)
        found[name] = draw + 1 if "norm" in name or "ln_f" in name else draw
    return found


def dit_weights(
    layers: int, width: int, condition: int, vocabulary: int, frequencies: int = 256, seed: int = 0
) -> Weights:
    """Weights under Duo's names (s-sahoo/duo models/dit.py); `condition` 0 gives the causal network."""
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


def turned(x: Tensor, base: float, copies: int = 1) -> Tensor:
    """Rotary positions on [B, H, L, E] as complex numbers (Su et al. 2021), feature k paired with k + E/2; the
    positions of each of the concatenated `copies` start from 0."""
    if copies > 1:
        return torch.cat([turned(part, base) for part in x.chunk(copies, 2)], 2)
    length, half = x.shape[2], x.shape[3] // 2
    rates = torch.tensor([base ** (-k / half) for k in range(half)])
    turn = torch.polar(torch.ones(length, half), torch.arange(length)[:, None] * rates)
    pairs = torch.complex(x[..., :half], x[..., half:]) * turn
    return torch.cat([pairs.real, pairs.imag], -1)


def attention(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None) -> Tensor:
    """[B, H, L, E] -> [B, L, H E]; `seen` [L, L] bool: the keys (columns) that a query (row) attends to."""
    score = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    if seen is not None:
        score = score.masked_fill(~seen, -math.inf)
    return (score.softmax(-1) @ v).transpose(1, 2).flatten(2)


def layer_norm(x: Tensor, weight: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight


def gelu_tanh(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def dit(weights: Weights, ids: Tensor, heads: int, sigma: Tensor | None) -> Tensor:
    """Logits [B, L, V] of ids [B, L] at noise levels sigma [B]; None for the causal network."""
    causal = torch.ones(ids.shape[1], ids.shape[1]).tril().bool()
    return _dit(weights, ids, heads, sigma, causal if sigma is None else None, copies=1)


def bd3(weights: Weights, noisy: Tensor, clean: Tensor, heads: int, block: int, modulated: bool) -> Tensor:
    """Logits [B, L, V] of every noisy block given the clean blocks before it, for rows [noisy; clean] (Arriola et al.
    2025, section 3.2)."""
    length = noisy.shape[1]
    seen = torch.zeros(2 * length, 2 * length, dtype=torch.bool)
    for start in range(0, length, block):
        end = min(start + block, length)
        seen[start:end, start:end] = True  # a noisy block: itself
        seen[start:end, length : length + start] = True  # and the clean ones before it
        seen[length + start : length + end, length : length + end] = (
            True  # a clean block: itself and those before
        )
    sigma = torch.zeros(len(noisy)) if modulated else None
    return _dit(weights, torch.cat([noisy, clean], 1), heads, sigma, seen, copies=2)[:, :length]


def _dit(
    weights: Weights, ids: Tensor, heads: int, sigma: Tensor | None, allowed: Tensor | None, copies: int
) -> Tensor:
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
        seen = attention(turned(q, 10_000.0, copies), turned(k, 10_000.0, copies), v, allowed)
        x = x + gate1 * (seen @ w[f"{b}.attn_out.weight"].T)
        h = layer_norm(x, w[f"{b}.norm2.weight"]) * (1 + scale2) + shift2
        h = gelu_tanh(h @ w[f"{b}.mlp.0.weight"].T + w[f"{b}.mlp.0.bias"])
        x = x + gate2 * (h @ w[f"{b}.mlp.2.weight"].T + w[f"{b}.mlp.2.bias"])
        i += 1
    x = layer_norm(x, w["output_layer.norm_final.weight"])
    shift, scale = modulation("output_layer", 2)[:2]
    x = x * (1 + scale) + shift
    return x @ w["output_layer.linear.weight"].T + w["output_layer.linear.bias"]


# --- Llama's block, under LLaDA's and Dream's names ---------------------------------------------------------


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight


def gated_block(
    x: Tensor,
    qkv: list[Tensor],
    out: Tensor,
    gate: Tensor,
    up: Tensor,
    down: Tensor,
    norms: tuple[Tensor, Tensor],
    biases: list[Tensor],
    heads: int,
    base: float,
    eps: float,
) -> Tensor:
    """Pre-norm bidirectional attention, then SwiGLU (Touvron et al. 2023); heads of k and v are repeated as needed."""
    h = rms_norm(x, norms[0], eps)
    width = x.shape[-1] // heads
    q, k, v = (h @ w.T + b for w, b in zip(qkv, biases, strict=True))
    q, k, v = (part.unflatten(-1, (-1, width)).transpose(1, 2) for part in (q, k, v))
    k, v = (part.repeat_interleave(heads // part.shape[1], 1) for part in (k, v))
    x = x + attention(turned(q, base), turned(k, base), v, None) @ out.T
    h = rms_norm(x, norms[1], eps)
    return x + (silu(h @ gate.T) * (h @ up.T)) @ down.T


def llada_weights(layers: int, width: int, kv_width: int, ffn: int, vocabulary: int) -> Weights:
    """Weights under the names of LLaDA's modeling_llada.py (its `llama` block)."""
    shapes: dict[str, tuple[int, ...]] = {"wte.weight": (vocabulary, width), "ln_f.weight": (width,)}
    for i in range(layers):
        block = {
            **{"q_proj": (width, width), "k_proj": (kv_width, width), "v_proj": (kv_width, width)},
            **{"attn_out": (width, width), "ff_proj": (ffn, width), "up_proj": (ffn, width)},
            **{"ff_out": (width, ffn), "attn_norm": (width,), "ff_norm": (width,)},
        }
        shapes |= {f"blocks.{i}.{name}.weight": shape for name, shape in block.items()}
    shapes["ff_out.weight"] = (vocabulary, width)
    return normal(1, {f"model.transformer.{name}": shape for name, shape in shapes.items()}, 0.2)


def llada(weights: Weights, ids: Tensor, layers: int, heads: int, base: float, eps: float) -> Tensor:
    """Logits [B, L, V]; `ff_proj` is the half that goes through SiLU, `up_proj` the other."""
    w = {name.removeprefix("model.transformer."): tensor for name, tensor in weights.items()}
    x = w["wte.weight"][ids]
    for i in range(layers):
        b = {name: w[f"blocks.{i}.{name}.weight"] for name in ("attn_out", "ff_proj", "up_proj", "ff_out")}
        x = gated_block(
            x,
            [w[f"blocks.{i}.{name}_proj.weight"] for name in "qkv"],
            b["attn_out"],
            b["ff_proj"],
            b["up_proj"],
            b["ff_out"],
            (w[f"blocks.{i}.attn_norm.weight"], w[f"blocks.{i}.ff_norm.weight"]),
            [torch.zeros(1)] * 3,
            heads,
            base,
            eps,
        )
    return rms_norm(x, w["ln_f.weight"], eps) @ w["ff_out.weight"].T


def dream_weights(layers: int, width: int, kv_width: int, ffn: int, vocabulary: int) -> Weights:
    """Weights under the names of Dream's modeling_dream.py, which are Qwen2's."""
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocabulary, width),
        "model.norm.weight": (width,),
        "lm_head.weight": (vocabulary, width),
    }
    for i in range(layers):
        block = {
            **{
                f"self_attn.{x}_proj.weight": (n, width)
                for x, n in zip("qkv", (width, kv_width, kv_width), strict=True)
            },
            **{
                f"self_attn.{x}_proj.bias": (n,)
                for x, n in zip("qkv", (width, kv_width, kv_width), strict=True)
            },
            "self_attn.o_proj.weight": (width, width),
            "mlp.gate_proj.weight": (ffn, width),
            "mlp.up_proj.weight": (ffn, width),
            "mlp.down_proj.weight": (width, ffn),
            "input_layernorm.weight": (width,),
            "post_attention_layernorm.weight": (width,),
        }
        shapes |= {f"model.layers.{i}.{name}": shape for name, shape in block.items()}
    return normal(2, shapes, 0.2)


def dream(weights: Weights, ids: Tensor, layers: int, heads: int, base: float, eps: float) -> Tensor:
    """Logits [B, L, V]: of position i those of the network at i - 1, of the first its own
    (docs/method.md#dream-rules)."""
    w = weights
    x = w["model.embed_tokens.weight"][ids]
    for i in range(layers):
        p = f"model.layers.{i}"
        x = gated_block(
            x,
            [w[f"{p}.self_attn.{name}_proj.weight"] for name in "qkv"],
            w[f"{p}.self_attn.o_proj.weight"],
            w[f"{p}.mlp.gate_proj.weight"],
            w[f"{p}.mlp.up_proj.weight"],
            w[f"{p}.mlp.down_proj.weight"],
            (w[f"{p}.input_layernorm.weight"], w[f"{p}.post_attention_layernorm.weight"]),
            [w[f"{p}.self_attn.{name}_proj.bias"] for name in "qkv"],
            heads,
            base,
            eps,
        )
    logits = rms_norm(x, w["model.norm.weight"], eps) @ w["lm_head.weight"].T
    return torch.cat([logits[:, :1], logits[:, :-1]], 1)


# --- ModernBERT, under transformers' names ------------------------------------------------------------------


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def modernbert_weights(layers: int, width: int, ffn: int, vocabulary: int) -> Weights:
    """Weights under transformers' names; the first layer's attention has no norm, since the embedding is normed."""
    shapes: dict[str, tuple[int, ...]] = {
        "model.embeddings.tok_embeddings.weight": (vocabulary, width),
        "model.embeddings.norm.weight": (width,),
        "model.final_norm.weight": (width,),
        "head.dense.weight": (width, width),
        "head.norm.weight": (width,),
        "decoder.bias": (vocabulary,),
    }
    for i in range(layers):
        block = {
            **{"attn.Wqkv": (3 * width, width), "attn.Wo": (width, width)},
            **{"mlp_norm": (width,), "mlp.Wi": (2 * ffn, width), "mlp.Wo": (width, ffn)},
            **({"attn_norm": (width,)} if i else {}),
        }
        shapes |= {f"model.layers.{i}.{name}.weight": shape for name, shape in block.items()}
    return normal(4, shapes, 0.2)


def modernbert(
    w: Weights, ids: Tensor, layers: int, heads: int, every: int, window: int, bases: tuple[float, float]
) -> Tensor:
    """Logits [B, L, V] (Warner et al. 2024, section 2.1): pre-norm without biases, GeGLU, tied decoder. Every
    `every`-th layer is global with rotation base `bases[0]`, the others have half a `window` to each side and base
    `bases[1]`."""
    table = w["model.embeddings.tok_embeddings.weight"]
    x = layer_norm(table[ids], w["model.embeddings.norm.weight"])
    order = torch.arange(ids.shape[1])
    near = (order[:, None] - order).abs() <= window // 2
    for i in range(layers):
        p = f"model.layers.{i}"
        h = layer_norm(x, w[f"{p}.attn_norm.weight"]) if i else x
        q, k, v = (
            (h @ part.T).unflatten(-1, (heads, -1)).transpose(1, 2)
            for part in w[f"{p}.attn.Wqkv.weight"].chunk(3)
        )
        local = i % every > 0
        base = bases[1] if local else bases[0]
        seen = attention(turned(q, base), turned(k, base), v, near if local else None)
        x = x + seen @ w[f"{p}.attn.Wo.weight"].T
        a, b = (layer_norm(x, w[f"{p}.mlp_norm.weight"]) @ w[f"{p}.mlp.Wi.weight"].T).chunk(2, -1)
        x = x + (gelu(a) * b) @ w[f"{p}.mlp.Wo.weight"].T
    x = layer_norm(x, w["model.final_norm.weight"])
    x = layer_norm(gelu(x @ w["head.dense.weight"].T), w["head.norm.weight"])
    return x @ table.T + w["decoder.bias"]
