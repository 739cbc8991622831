"""KV caches and stop ids, against independent implementations of Fast-dLLM's loop and of a tiny Llama.

The Llama below stores each layer's keys and values before rotation, as the published loop does
(docs/method.md#fast-dllm), and uses none of our KV cache, masks or attention function.
"""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from helpers.decodings import ABSORBING, BLOCK, CAUSAL, LENGTH, PROMPTS, TOY
from helpers.spaces import llama, modernbert
from torch import Tensor

from repro.core import parts
from repro.models.attention import Mask
from repro.models.prediction import CachedPrediction, DecodingCache
from repro.processes.uniform import Uniform
from repro.samplers.autoregressive import Autoregressive
from repro.samplers.decode import decode, steps
from repro.samplers.ordered import LowConfidence, Random
from repro.samplers.plan import Cache, DualCache, Plan, PrefixCache, ServedPlan
from repro.samplers.presets import preset
from repro.samplers.threshold import Threshold

MASK = TOY.size
UNIFORM = Uniform(alpha_end=1e-3, eps=1e-3)


def served(cache: Cache | None, steps: int | None = LENGTH, stop: tuple[int, ...] = ()) -> ServedPlan:
    return ServedPlan(gen_length=LENGTH, block_length=BLOCK, steps=steps, cache=cache, stop=stop)


# --- the published loops ------------------------------------------------------------------------------------
class ByHand:
    """Forward pass of the tiny Llama; `store` holds each layer's keys and values of all columns."""

    def __init__(self, network) -> None:
        self.network = network
        self.model = network.network.model
        self.store: list[tuple[Tensor, Tensor]] = []

    def rotated(self, x: Tensor, places: Tensor) -> Tensor:
        half = x.shape[-1] // 2
        angle = places[:, None] * 10_000.0 ** (-torch.arange(half) / half)
        cos, sin = (torch.cat([f(angle)] * 2, -1) for f in (torch.cos, torch.sin))
        return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin

    def logits(self, ids: Tensor, first: int, last: int, fresh: bool) -> Tensor:
        """Logits of columns first..last of one row; `fresh`: nothing is cached yet."""
        here = torch.arange(first, last)
        h = self.model.embed_tokens.weight[ids[first:last]] + self.network.place.weight[here]
        for number, layer in enumerate(self.model.layers):
            x = self.norm(h, layer.input_layernorm)
            attention = layer.self_attn
            q, k, v = ((x @ p.weight.T).view(len(here), -1, 8) for p in
                       (attention.q_proj, attention.k_proj, attention.v_proj))  # fmt: skip
            if fresh:
                self.store[number:] = [(k, v)]
            else:
                for cached, new in zip(self.store[number], (k, v), strict=True):
                    cached[first:last] = new
            keys, values = (cached.repeat_interleave(2, 1) for cached in self.store[number])
            scores = torch.einsum(
                "qhd,khd->hqk",
                self.rotated(q.transpose(0, 1), here).transpose(0, 1),
                self.rotated(keys.transpose(0, 1), torch.arange(len(keys))).transpose(0, 1),
            )
            mixed = torch.einsum("hqk,khd->qhd", (scores / 8**0.5).softmax(-1), values)
            h = h + mixed.reshape(len(here), -1) @ attention.o_proj.weight.T
            x = self.norm(h, layer.post_attention_layernorm)
            gate, up, down = layer.mlp.gate_proj.weight, layer.mlp.up_proj.weight, layer.mlp.down_proj.weight
            h = h + (torch.nn.functional.silu(x @ gate.T) * (x @ up.T)) @ down.T
        out = self.norm(h, self.model.norm) @ self.network.network.lm_head.weight.T
        out[:, MASK:] = -torch.inf
        return out

    def norm(self, h: Tensor, layer) -> Tensor:
        return h * (h * h).mean(-1, keepdim=True).add(1e-5).rsqrt() * layer.weight


def published(
    network, prompt: list[int], cache: Cache, per_step: int, threshold: float | None
) -> tuple[list[int], int, int, int]:
    """Fast-dLLM's loop of one row (docs/method.md#fast-dllm), which stops a block before an unneeded forward: ids,
    forwards, full forwards, token-forwards."""
    by_hand, start = ByHand(network), len(prompt)
    x = torch.tensor([*prompt, *[MASK] * LENGTH])
    forwards = full = tokens = 0
    for first in range(start, start + LENGTH, BLOCK):
        last, since = first + BLOCK, None
        while (x[first:last] == MASK).any():
            renew = since is None or (cache.refresh is not None and since >= cache.refresh)
            begin = 0 if renew else first
            stop = last if isinstance(cache, DualCache) and not renew else len(x)
            since = 0 if renew else since + 1
            said = by_hand.logits(x, begin, stop, renew)[first - begin : last - begin]
            forwards, full, tokens = forwards + 1, full + renew, tokens + stop - begin
            sure, token = said.softmax(-1).max(-1)
            sure = torch.where(x[first:last] == MASK, sure, -1.0)
            if threshold is None:
                chosen = sure.topk(min(per_step, int((sure > 0).sum()))).indices
            else:
                passes = sure >= threshold
                passes[sure.argmax()] = True
                chosen = passes.nonzero()[:, 0]
            x[first + chosen] = token[chosen]
    return x[start:].tolist(), forwards, full, tokens


@pytest.mark.parametrize("refresh", [None, 1, 2])
@pytest.mark.parametrize("cache", [PrefixCache, DualCache])
@pytest.mark.parametrize(("per_step", "threshold"), [(1, None), (2, None), (None, 0.5)])
@torch.no_grad()
def test_cached_decoding_is_the_published_loop(cache, refresh, per_step, threshold):
    """Equal tokens, forwards, refreshes and token-forwards, alone and in a batch of unequal prompts."""
    network = llama("bidirectional", ABSORBING, TOY, 3)
    policy = cache(refresh=refresh)
    rule = (
        LowConfidence(temperature=0.0)
        if threshold is None
        else Threshold(threshold=threshold, temperature=0.0)
    )
    made = served(policy, None if per_step is None else LENGTH // per_step)
    together = decode(network, ABSORBING, rule, made, PROMPTS, seed=0, names=range(3))
    for row, prompt in enumerate(PROMPTS):
        ids, forwards, full, tokens = published(network, prompt, policy, per_step, threshold)
        alone = decode(network, ABSORBING, rule, made, [prompt], seed=0, names=[row])
        assert alone.ids[0].tolist() == ids == together.ids[row].tolist()
        cost = alone.cost
        assert (cost.forwards.item(), cost.refreshes.item()) == (forwards, full)
        assert cost.token_forwards.item() == tokens == together.cost.token_forwards[row]
        assert together.cost.forwards[row] == forwards and together.cost.refreshes[row] == full


@pytest.mark.parametrize("cache", [PrefixCache(refresh=2), DualCache(refresh=2)], ids=str)
def test_the_cost_of_a_row_without_a_prompt_is_that_of_the_row_alone(cache):
    """All counts, refreshes included: in a batch with longer prompts the row's padding is not forwarded."""
    network, rule = llama("bidirectional", ABSORBING, TOY, 3), preset("low_confidence")
    prompts = [[], *PROMPTS]
    together = decode(network, ABSORBING, rule, served(cache), prompts, seed=0, names=range(4)).cost
    for row, prompt in enumerate(prompts):
        alone = decode(network, ABSORBING, rule, served(cache), [prompt], seed=0, names=[row]).cost
        for count in fields(alone):
            assert getattr(alone, count.name).item() == getattr(together, count.name)[row], count.name


def test_a_cache_is_an_approximation():
    """Caches change some tokens, so the test above does tell cached and uncached loops apart."""
    network, rule = llama("bidirectional", ABSORBING, TOY, 3), LowConfidence(temperature=0.0)
    made = [decode(network, ABSORBING, rule, served(c), PROMPTS, seed=0, names=range(3)).ids for c in
            (None, PrefixCache(refresh=None), DualCache(refresh=None))]  # fmt: skip
    assert not torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])


@pytest.mark.parametrize(
    "make", [lambda: llama("bidirectional", ABSORBING, TOY), lambda: modernbert(ABSORBING, TOY)]
)
@pytest.mark.parametrize("reach", ["onward", "block"])
@torch.no_grad()
def test_a_cache_just_renewed_changes_nothing(make, reach):
    """Right after a refresh the block's logits equal those of a full forward; once a token has changed they do not,
    until the next refresh (docs/method.md#oracle-28)."""
    network = make()
    ids = torch.tensor([[3, 1, 4, 1, *[MASK] * 8], [5, 9, 2, 6, *[MASK] * 8]])
    window, cache = slice(4, 8), DecodingCache(2, 12, reach, None, torch.device("cpu"))
    where = torch.zeros_like(ids, dtype=torch.bool)
    where[:, window] = True
    places = torch.arange(12).expand(2, -1)

    def cached(ids: Tensor) -> Tensor:
        return CachedPrediction(network, ids, torch.ones(2, 12), Mask(), places, cache, window).logits(where)

    def whole(ids: Tensor) -> Tensor:
        return network.logits(network.encode(ids, t=None, attention=Mask()))[where]

    torch.testing.assert_close(cached(ids), whole(ids), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(cached(ids), whole(ids), atol=1e-4, rtol=1e-4)
    ids[:, 5] = 7
    assert (cached(ids) - whole(ids))[:, : TOY.size].abs().max() > 0.01
    cache.begin_block()
    torch.testing.assert_close(cached(ids), whole(ids), atol=1e-5, rtol=1e-5)


# --- stop ids -----------------------------------------------------------------------------------------------
def cut(row: list[int], stop: int) -> list[int]:
    """A row with everything after its first `stop` replaced by that id."""
    end = row.index(stop) if stop in row else len(row)
    return row[:end] + [stop] * (len(row) - end)


@pytest.mark.parametrize("stop", range(TOY.size))
def test_autoregression_ends_at_a_stop_id(stop):
    """The text is that without stop ids, cut; a finished row costs no more forwards, and other rows do not change."""
    network, rule = llama("causal", CAUSAL, TOY, 5), Autoregressive(temperature=1.0)
    whole = Plan(gen_length=LENGTH, block_length=LENGTH, steps=LENGTH)
    until = ServedPlan(gen_length=LENGTH, block_length=LENGTH, steps=LENGTH, cache=None, stop=(stop,))
    free = decode(network, CAUSAL, rule, whole, PROMPTS, seed=1, names=range(3))
    ended = decode(network, CAUSAL, rule, until, PROMPTS, seed=1, names=range(3))
    for row, full in enumerate(free.ids.tolist()):
        assert ended.ids[row].tolist() == cut(full, stop)
        before = full.index(stop) if stop in full else LENGTH
        assert ended.useful[row] == before and ended.cost.forwards[row] == min(before + 1, LENGTH)


@pytest.mark.parametrize("cache", [None, DualCache(refresh=None)], ids=str)
@pytest.mark.parametrize("rule", [LowConfidence(temperature=0.0), Random(temperature=1.0)], ids=str)
def test_a_masked_row_finishes_once_all_before_is_decided(rule, cache):
    """Rows equal those without stop ids, cut at the first one, and rows that finish early cost less."""
    network, saved = llama("bidirectional", ABSORBING, TOY, 1), 0
    free = decode(network, ABSORBING, rule, served(cache), PROMPTS, seed=1, names=range(3))
    for stop in range(TOY.size):
        ended = decode(network, ABSORBING, rule, served(cache, stop=(stop,)), PROMPTS, seed=1, names=range(3))
        assert ended.ids.tolist() == [cut(row, stop) for row in free.ids.tolist()]
        assert (ended.cost.forwards <= free.cost.forwards).all()
        saved += int((free.cost.forwards - ended.cost.forwards).sum())
    assert saved > 20


@pytest.mark.parametrize(
    ("process", "name"),
    [
        (UNIFORM, "ancestral"),
        (UNIFORM, "corrector"),
        (UNIFORM, "renoise"),
        (ABSORBING, "remdm_rescale:eta=0.5"),
        (ABSORBING, "psi_rescale:rule.low.eta=1.0"),
    ],
)
def test_a_stop_id_that_may_still_change_ends_no_row(process, name):
    """Under samplers that change committed tokens a row ends with its block: rows equal those without stop ids, cut.

    Before, noise equal to a stop id at the first position of a block ended the row with an empty text.
    """
    network, rule, made = llama("bidirectional", process, TOY, 1), preset(name), served(None)
    prompts, ended = PROMPTS * 6, 0
    free = decode(network, process, rule, made, prompts, seed=2, names=range(len(prompts)))
    for stop in range(0, TOY.size, 3):
        until = served(None, stop=(stop,))
        found = decode(network, process, rule, until, prompts, seed=2, names=range(len(prompts)))
        assert found.ids.tolist() == [cut(row, stop) for row in free.ids.tolist()]
        ended += int((found.cost.forwards < free.cost.forwards).sum())
    assert ended > 0, "rows with a stop id in an early block take no forward for later ones"


def test_invalid_caches_are_refused():
    network = llama("causal", CAUSAL, TOY)
    cases = [
        (
            CAUSAL,
            Autoregressive(temperature=0.0),
            DualCache(refresh=None),
            "leave out the cache 'dual_cache'",
        ),
        (ABSORBING, LowConfidence(temperature=0.0), PrefixCache(refresh=0), "refresh=0 is no number"),
    ]
    for process, rule, cache, message in cases:
        with pytest.raises(ValueError, match=message):
            decode(network, process, rule, served(cache), PROMPTS, seed=0, names=range(3))


def test_served_plans_are_parts_of_the_question():
    made = served(DualCache(refresh=4), stop=(1,))
    assert parts.read(parts.canonical(made), Plan) == made
    assert parts.canonical(made) != parts.canonical(served(None, stop=(1,)))


@pytest.mark.parametrize("cache", [PrefixCache, DualCache])
def test_guidance_has_a_cache_of_its_own(cache):
    """Conditional and unconditional forwards see different prompts, so they must not share a KV cache."""
    network, rule = llama("bidirectional", ABSORBING, TOY, 3), preset("low_confidence+guided:scale=1.0")
    made = served(cache(refresh=None))
    together = decode(network, ABSORBING, rule, made, PROMPTS, seed=0, names=range(3))
    for row, prompt in enumerate(PROMPTS):
        alone = decode(network, ABSORBING, rule, made, [prompt], seed=0, names=[row])
        assert (
            alone.ids[0].tolist()
            == together.ids[row].tolist()
            == guided_by_hand(network, prompt, made.cache_policy())
        )
    cost = together.cost
    assert cost.forwards.tolist() == [2 * LENGTH] * 3 and cost.further.tolist() == [LENGTH] * 3
    assert cost.refreshes.tolist() == [2 * LENGTH // BLOCK] * 3


@torch.no_grad()
def guided_by_hand(network, prompt: list[int], cache: Cache) -> list[int]:
    """One token per step by un + 2 (cond - un), each with keys and values of its own."""
    conditional, unconditional, start = ByHand(network), ByHand(network), len(prompt)
    x = torch.tensor([*prompt, *[MASK] * LENGTH])
    for first in range(start, start + LENGTH, BLOCK):
        for step in range(BLOCK):
            begin = 0 if step == 0 else first
            stop = first + BLOCK if isinstance(cache, DualCache) and step else len(x)
            masked = torch.cat([torch.full((start,), MASK), x[start:]])
            cond, un = (
                side.logits(ids, begin, stop, step == 0)[first - begin : first - begin + BLOCK, :MASK]
                for side, ids in ((conditional, x), (unconditional, masked))
            )
            sure, token = (un + 2 * (cond - un)).softmax(-1).max(-1)
            best = torch.where(x[first : first + BLOCK] == MASK, sure, -1.0).argmax()
            x[first + best] = token[best]
    return x[start:].tolist()


# --- what a watched decode changes --------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["remdm_cap:eta=0.4", "forward_backward", "drawn_tail"])
@pytest.mark.parametrize("cache", [None, PrefixCache(refresh=2), DualCache(refresh=1)], ids=str)
def test_to_watch_a_decode_changes_nothing(name, cache):
    """With confidence (`--watch`, `--trace`, `stream`) a step takes no further forward, so that tokens and cost stay.

    Before, a row that only masked tokens again was forwarded for their probability, which aged its KV cache.
    """
    network, rule, made = llama("bidirectional", ABSORBING, TOY, 1), preset(name), served(cache, 2 * LENGTH)
    prompts = PROMPTS * 4
    plain = decode(network, ABSORBING, rule, made, prompts, seed=3, names=range(len(prompts)))
    frames = steps(
        network, ABSORBING, rule, made, prompts, seed=3, names=range(len(prompts)), confidence=True
    )
    decoder, frame = list(frames)[-1]
    assert torch.equal(frame.ids[:, decoder.start :], plain.ids)
    for count in fields(plain.cost):
        assert torch.equal(getattr(frame.cost, count.name), getattr(plain.cost, count.name)), count.name
