"""Decoding of our samplers beside LLaDA's and Fast-dLLM's own loops, token for token on one network at temperature 0.

The peers call a network as transformers does; `Network` gives them ours, with logits at every position.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from benchmarks.decoding import llada_loop
from benchmarks.forwards import forwards_alone
from benchmarks.nets import Sizes, llama
from benchmarks.row import Compared, against

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from repro.models.denoiser import Denoiser
    from repro.samplers.decoded import Decoded
    from repro.samplers.plan import Cache


@dataclass(frozen=True)
class Case:
    """Sizes of one comparison: vocabulary, prompt, generated tokens (one per step), block, and the network."""

    ids: int
    prompt: int
    length: int
    block: int
    width: int = 512
    layers: int = 8
    ffn: int = 1376
    heads: int = 8

    def denoiser(self) -> Denoiser:
        """A bidirectional Llama with random weights whose mask id is `ids`."""
        from repro.processes.absorbing import Absorbing

        sizes = Sizes(ids=self.ids, mask=self.ids, bos=None, length=self.prompt + self.length)
        return llama(sizes, Absorbing(), self.width, self.layers, self.ffn, self.heads)

    def prompt_ids(self) -> list[int]:
        """The prompt, drawn uniformly: [P]."""
        from repro.core import rng

        return (rng.uniform(rng.keys(0, rng.SENTENCE, 0, 0), self.prompt) * self.ids).long().tolist()

    def name(self) -> str:
        """The sizes as text."""
        return f"V={self.ids // 1000}k, prompt {self.prompt}, block {self.block}, gen {self.length}, batch 1"


LLADA = {Case(32_000, 64, 32, 16): 1.6, Case(126_464, 64, 16, 16): 2.5}
"""Cases against LLaDA's `generate` -> target of the ratio."""
FAST = Case(32_000, 64, 32, 16)
"""The case of Fast-dLLM's loops."""
LONG = Case(32_000, 256, 64, 32)
"""The case of Fast-dLLM's loops with a cache on a longer text, with the block length of that project."""


class Network:
    """A denoiser as the peers call it: `network(ids).logits` [B, L, V], with keys and values of earlier columns where
    `past_key_values` is given (one (key, value) a layer, [B, H, S, D] each)."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser = denoiser

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.denoiser.home

    def __call__(
        self,
        ids: Tensor,
        attention_mask: None = None,
        past_key_values: list[Any] | None = None,
        use_cache: bool = False,
        replace_position: Tensor | None = None,
    ) -> SimpleNamespace:
        """Logits of `ids` [B, L]. With `replace_position` ([B, S] bool: the columns of `ids` in the cache) `ids`
        overwrite entries of the cache; else they come after the columns of `past_key_values`."""
        from repro.models.attention import Mask

        cache = _cache(ids, past_key_values, replace_position) if use_cache else None
        features = self.denoiser.encode(ids, t=None, attention=Mask(), kv_cache=cache)
        kept = None if cache is None else [cache.layers[layer] for layer in sorted(cache.layers)]
        return SimpleNamespace(logits=self.denoiser.logits(features), past_key_values=kept)


def _cache(ids: Tensor, past: list[Any] | None, replaced: Tensor | None) -> Any:
    """Our KV cache with the entries of `past`, and space for `ids` [B, L] unless they replace entries (`replaced`)."""
    from repro.core.lazy import torch
    from repro.models.attention import KVCache

    rows, new = ids.shape
    before = 0 if past is None else past[0][0].shape[2]
    added = new if replaced is None else 0
    start = before if replaced is None else int(replaced[0].long().argmax())
    cache = KVCache(rows, before + added)
    cache.span, cache.rows = slice(start, start + new), None
    for layer, (key, value) in enumerate(past or []):
        if added:
            key, value = (torch.nn.functional.pad(each, (0, 0, 0, added)) for each in (key, value))
        cache.layers[layer] = (key, value)
    return cache


def llada(generate: Callable[..., Tensor], case: Case, target: float, repeats: int) -> Compared:
    """Our decoding against LLaDA's `generate` (ML-GSAI/LLaDA@b7e6c35 generate.py:44-119); `llada_loop` runs as well."""
    denoiser, prompt = case.denoiser(), case.prompt_ids()

    def ours() -> Decoded:
        return _ours(denoiser, prompt, case, None)

    found = against(
        {
            "ours": ours,
            "theirs": lambda: generate(*_arguments(denoiser, prompt), **_settings(case)),
            "rewritten": lambda: llada_loop(denoiser, prompt, case.length, case.block, noisy=False),
            "network": forwards_alone(denoiser, ours),
        },
        repeats,
        ("theirs", "rewritten"),
    )
    ids = found.results["theirs"][0, case.prompt :]
    agreement, equal = tokens(found.results["ours"].ids[0], ids)
    loop, same = tokens(found.results["rewritten"], ids)
    share = found.seconds["rewritten"] / found.seconds["theirs"]
    agreement += f"; our rewritten loop: {loop}, {share:.2f} of its seconds; {found.bound()}"
    return Compared(found.row(f"generate.py, {case.name()}", target, agreement), equal and same)


def fast_dllm(
    modules: dict[str, Any], repeats: int, case: Case = FAST, longer: Case = LONG
) -> Iterator[Compared]:
    """Our decoding, exact and with approximate caches, against Fast-dLLM's three loops (NVlabs/Fast-dLLM@24cc59e
    llada/generate.py:57-222); equal means equal tokens and numbers of forwards. The loops with a cache also run on
    `longer`."""
    from repro.samplers.plan import DualCache, PrefixCache

    loops: dict[str, tuple[Cache | None, float]] = {
        "generate": (None, 1.6),
        "generate_with_prefix_cache": (PrefixCache(refresh=None), 1.5),
        "generate_with_dual_cache": (DualCache(refresh=None), 1.3),
    }
    for name in loops:
        yield _fast_loop(modules, name, case, *loops[name], repeats)
    for name in list(loops)[1:]:
        yield _fast_loop(modules, name, longer, *loops[name], repeats)


def _fast_loop(
    modules: dict[str, Any], name: str, case: Case, cache: Cache | None, target: float, repeats: int
) -> Compared:
    """The row of one of Fast-dLLM's loops against our decoding with the same cache."""
    denoiser, prompt = case.denoiser(), case.prompt_ids()
    loop = getattr(modules["llada/generate.py"], name)

    def ours() -> Decoded:
        return _ours(denoiser, prompt, case, cache)

    found = against(
        {
            "ours": ours,
            "theirs": lambda: loop(*_arguments(denoiser, prompt), **_settings(case)),
            "network": forwards_alone(denoiser, ours),
        },
        repeats,
    )
    ids, forwards = found.results["theirs"]
    decoded = found.results["ours"]
    agreement, equal = tokens(decoded.ids[0], ids[0, case.prompt :])
    own = int(decoded.cost.forwards.item())
    agreement += f"; {own} and {forwards} forwards; {found.bound()}"
    return Compared(found.row(f"{name}, {case.name()}", target, agreement), equal and own == forwards)


def _arguments(denoiser: Denoiser, prompt: list[int]) -> tuple[Network, Tensor]:
    from repro.core.lazy import torch

    return Network(denoiser), torch.tensor([prompt])


def _settings(case: Case) -> dict[str, int]:
    return {"steps": case.length, "gen_length": case.length, "block_length": case.block, "mask_id": case.ids}


def _ours(denoiser: Denoiser, prompt: list[int], case: Case, cache: Cache | None) -> Decoded:
    from repro.processes.absorbing import Absorbing
    from repro.samplers.decode import decode
    from repro.samplers.plan import ServedPlan
    from repro.samplers.presets import preset

    plan = ServedPlan(
        gen_length=case.length, block_length=case.block, steps=case.length, cache=cache, stop=()
    )
    return decode(denoiser, Absorbing(), preset("low_confidence"), plan, [prompt], seed=0, names=[0])


def tokens(mine: Tensor, theirs: Tensor) -> tuple[str, bool]:
    """The share of equal tokens and the first that differs, as text; whether all are equal."""
    same = mine == theirs
    text = f"{same.double().mean().item():.0%} of tokens equal"
    if same.all():
        return text, True
    return f"{text}, the first that differs is number {int(same.long().argmin()) + 1}", False
