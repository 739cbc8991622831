"""Decoding against LLaDA's published loop (docs/method.md#llada-sampling, docs/method.md#cost-sampling), exact and with
caches.

Weights are random: the share of equal tokens of a cache here does not predict that of a trained network (see the figure
`caches`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from benchmarks.nets import Sizes, llama
from benchmarks.row import Row, Timed, against, timed

if TYPE_CHECKING:
    from torch import Tensor

    from repro.models.denoiser import Denoiser
    from repro.samplers.decoded import Decoded
    from repro.samplers.plan import Cache

LENGTH, BLOCK = 128, 32
"""Generated tokens and block length; one token per step, batch 1 (as LLaDA and Fast-dLLM)."""


def small(repeats: int) -> list[Row]:
    """Rows of decoding at a vocabulary of 32k and a prompt of 64 tokens."""
    return _against(32_000, 64, repeats, exact=(2.0, 1.4), dual=4.0, prefix=None)


def wide(repeats: int) -> list[Row]:
    """Rows of decoding at LLaDA's vocabulary of 126k and a prompt of 128 tokens."""
    return _against(126_464, 128, repeats, exact=(5.0, 2.2), dual=None, prefix=None)


def cached(repeats: int) -> list[Row]:
    """Rows of decoding with caches at a vocabulary of 32k and a prompt of 256 tokens: the savings of a cache grow with
    the prompt."""
    return _against(32_000, 256, repeats, exact=None, dual=7.0, prefix=4.0)


def _against(
    vocab_size: int,
    prompt_length: int,
    repeats: int,
    exact: tuple[float, float] | None,
    dual: float | None,
    prefix: float | None,
) -> list[Row]:
    """Rows of our decoding, exact and cached, against LLaDA's loop. Targets of the ratio: `exact`, without a cache,
    against the loop with and without its float64 noise at T = 0; `dual` and `prefix`, with these caches (None: not
    measured)."""
    from repro.core import rng
    from repro.processes.absorbing import Absorbing
    from repro.samplers.decode import decode
    from repro.samplers.plan import DualCache, PrefixCache, ServedPlan
    from repro.samplers.presets import preset

    process, rule = Absorbing(), preset("low_confidence")
    sizes = Sizes(ids=vocab_size, mask=vocab_size, bos=None, length=prompt_length + LENGTH)
    denoiser = llama(sizes, process, width=512, layers=8, ffn=1376, heads=8)
    prompt = (rng.uniform(rng.keys(0, rng.SENTENCE, 0, 0), prompt_length) * vocab_size).long().tolist()

    def ours(cache: Cache | None) -> Callable[[], Decoded]:
        plan = ServedPlan(gen_length=LENGTH, block_length=BLOCK, steps=LENGTH, cache=cache, stop=())
        return lambda: decode(denoiser, process, rule, plan, [prompt], seed=0, names=[0])

    sides: dict[str, Callable[[], object]] = {
        "llada": lambda: llada_loop(denoiser, prompt, LENGTH, BLOCK, noisy=True)
    }
    wanted: list[tuple[str, str, str, float]] = []
    where = f"V={vocab_size // 1000}k, prompt {prompt_length}, block {BLOCK}, gen {LENGTH}, batch 1"
    if exact is not None:
        sides["ours"] = ours(None)
        sides["quiet"] = lambda: llada_loop(denoiser, prompt, LENGTH, BLOCK, noisy=False)
        wanted.append((f"decoding, {where}", "ours", "llada", exact[0]))
        wanted.append((f"decoding, {where}, opponent without its float64 noise", "ours", "quiet", exact[1]))
    for name, cache, target in (
        ("dual cache", DualCache(refresh=None), dual),
        ("prefix cache", PrefixCache(refresh=None), prefix),
    ):
        if target is not None:
            sides[name] = ours(cache)
            wanted.append((f"{name}, {where}", name, "llada", target))
    others = [name for name in ("llada", "quiet") if name in sides]
    found = against(sides, repeats, others)
    return [_row(name, found, mine, theirs, target) for name, mine, theirs, target in wanted]


def _row(name: str, found: Timed, mine: str, theirs: str, target: float) -> Row:
    decoded, ids = found.results[mine], found.results[theirs]
    equal = (decoded.ids[0] == ids).double().mean().item()
    cost = decoded.cost
    agreement = (
        f"{equal:.0%} of tokens equal; {cost.forwards.item()} forwards,"
        f" {cost.token_forwards.item():,} token-forwards"
    )
    return found.row(name, target, agreement, mine, theirs)


def llada_loop(denoiser: Denoiser, prompt: list[int], length: int, block: int, noisy: bool) -> Tensor:
    """LLaDA's loop (docs/method.md#llada-sampling) at temperature 0, one token per step: the `length` ids after the
    prompt, from logits and softmax of the whole row. `noisy`: with the float64 noise that its code computed at T = 0
    until March 2025 (ML-GSAI/LLaDA@d5634da returns before it)."""
    from repro.core.lazy import torch
    from repro.models.attention import Mask

    mask = denoiser.vocabulary.mask
    assert mask is not None
    ids = torch.tensor([[*prompt, *[mask] * length]])
    with torch.no_grad():
        for first in range(len(prompt), len(prompt) + length, block):
            for _ in range(block):
                masked = ids == mask
                logits = denoiser.head().logits(denoiser.encode(ids, t=None, attention=Mask()))
                logits[..., mask] = -torch.inf
                scores = logits
                if noisy:
                    scores = logits.double()
                    scores = scores.exp() / (-torch.rand_like(scores).log()) ** 0.0
                token = scores.argmax(-1)
                confidence = logits.softmax(-1).gather(-1, token[..., None])[..., 0]
                confidence[:, first + block :] = -torch.inf
                confidence = torch.where(masked, confidence, -torch.inf)
                best = confidence[0].topk(1).indices
                ids[0, best] = token[0, best]
    return ids[0, len(prompt) :]


def autoregressive(repeats: int) -> list[Row]:
    """Row of decoding with a causal network of the same size and its exact KV cache, against recomputing the prefix for
    each token (docs/method.md#ar-baseline)."""
    from repro.core import rng
    from repro.core.lazy import torch
    from repro.models.attention import Mask
    from repro.processes.left_to_right import LeftToRight
    from repro.samplers.decode import decode
    from repro.samplers.plan import Plan
    from repro.samplers.presets import preset

    vocab_size, process = 32_000, LeftToRight()
    sizes = Sizes(ids=vocab_size, mask=None, bos=vocab_size, length=65 + LENGTH)
    denoiser = llama(sizes, process, width=512, layers=8, ffn=1376, heads=8)
    prompt = (rng.uniform(rng.keys(0, rng.SENTENCE, 0, 0), 64) * vocab_size).long().tolist()
    plan = Plan(gen_length=LENGTH, block_length=LENGTH, steps=LENGTH)

    def recomputed() -> Tensor:
        ids = torch.tensor([[vocab_size, *prompt]])
        with torch.no_grad():
            for _ in range(LENGTH):
                features = denoiser.encode(ids, t=None, attention=Mask())
                ids = torch.cat([ids, denoiser.logits(features)[:, -1:].argmax(-1)], 1)
        return ids[0, 1 + len(prompt) :]

    def ours() -> Decoded:
        return decode(denoiser, process, preset("greedy"), plan, [prompt], seed=0, names=[0])

    found = timed({"ours": ours, "recomputed": recomputed}, repeats)
    name = f"autoregression, V=32k, prompt 64, gen {LENGTH}, batch 1, exact cache"
    return [_row(name, found, "ours", "recomputed", 1.0)]
