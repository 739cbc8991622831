"""The fused head: losses and gradients equal those of dense logits in every precision, without a tensor of N x V.

V ids, N tokens, in chunks that do not divide N; "dense" is the same loss on all logits at once, through autograd.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from helpers.spaces import Words, llama, modernbert, predict
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from repro.core import rng
from repro.models import fused_head
from repro.models.attention import Mask
from repro.models.denoiser import Head
from repro.models.fused_head import fused_loss
from repro.objectives.sym_kl import (
    ce_form,
    ce_gradient,
    closed_form,
    closed_gradient,
    script_form,
    script_gradient,
)
from repro.processes.absorbing import Absorbing, weighted_ce
from repro.processes.prediction import HandDerived, TokenLoss
from repro.processes.process import cross_entropy
from repro.processes.uniform import Uniform, token_loss, token_nll

V, D, N = 29, 8, 23
SPECIAL = 2
"""The last ids are forbidden in losses that support forbidden ids."""

Case = tuple[TokenLoss | HandDerived, Callable[[Head], Head], bool]
"""A loss, its objective's transformation of the head, and whether it also takes a noisy id and a noise level."""

CASES: dict[str, Case] = {
    "cross_entropy": (cross_entropy, lambda head: head, False),
    "cross_entropy_forbidden": (cross_entropy, Head.clean, False),
    "closed_form": (partial(closed_form, floor=1e-8), lambda head: head.first(V - SPECIAL), False),
    "script_form": (partial(script_form, floor=1e-8), lambda head: head.first(V - SPECIAL), False),
    "absorbing_nelbo": (
        lambda logits, x, z, alpha, slope: weighted_ce(logits, x, alpha),
        Head.clean,
        True,
    ),
    "uniform_nelbo": (partial(token_nll, vocab_size=V - SPECIAL, meaning="leave_one_out"), Head.clean, True),
    "uniform_nelbo_of_a_mean": (
        partial(token_nll, vocab_size=V - SPECIAL, meaning="x0_mean"),
        Head.clean,
        True,
    ),
}
for name, by_hand in {"closed_form": closed_gradient, "script_form": script_gradient}.items():
    defined, head, more = CASES[name]
    CASES[f"{name}_by_hand"] = HandDerived(defined, partial(by_hand, floor=1e-8)), head, more
CASES["uniform_nelbo_by_hand"] = (token_loss(V - SPECIAL, "leave_one_out"), *CASES["uniform_nelbo"][1:])
CASES["ce_form_by_hand"] = HandDerived(ce_form, ce_gradient), *CASES["closed_form"][1:]
EVERY = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Five tokens a chunk, two a block."""
    monkeypatch.setattr(fused_head, "CHUNK", 5 * V)
    monkeypatch.setattr(fused_head, "BLOCK", 2 * V)


def draw(name: int, *shape: int, seed: int = 0) -> Tensor:
    return rng.normal(rng.keys(seed, rng.INIT, 1, name), *shape)


def operands(dtype: torch.dtype, count: int = N, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Features [N, D], weight [V, D] and bias [V] with gradients."""
    drawn = (draw(1, count, D, seed=seed), draw(2, V, D, seed=seed), draw(3, V, seed=seed))
    x, w, b = (values.to(dtype).requires_grad_() for values in drawn)
    return x, w, b


def head_of(weight: Tensor, bias: Tensor | None) -> Head:
    return Head(weight, bias, torch.arange(V) >= V - SPECIAL)


def given(case: Case, count: int = N) -> list[Tensor]:
    """Labels; for a NELBO also noisy ids (half of them the label), alpha and slope."""
    index = torch.arange(count)
    x = index * 7 % (V - SPECIAL)
    z = torch.where(index % 2 == 0, x, (x + 3) % (V - SPECIAL))
    alpha = torch.linspace(0.1, 0.9, count, dtype=torch.float64)
    return [x, z, alpha, -torch.ones_like(alpha)] if case[2] else [x]


def weights(count: int = N) -> Tensor:
    """Unequal weights, one of them 0."""
    return torch.arange(count, dtype=torch.float64) / 100


def definition(case: Case) -> TokenLoss:
    return case[0].loss if isinstance(case[0], HandDerived) else case[0]


def dense(case: Case, x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
    """The weighted sum from all logits at once."""
    logits = case[1](head_of(w, b)).logits(x)
    terms = definition(case)(
        logits.to(torch.promote_types(logits.dtype, torch.float32)), *given(case, len(x))
    )
    return (weights(len(x)) * (terms if terms.ndim == 1 else terms[0])).sum()


def fused(case: Case, x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
    loss, head, _ = case
    return fused_loss(x, head(head_of(w, b)), loss, weights(len(x)), *given(case, len(x)))[0]


def gradients(value: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(3 * value, inputs)


def off(found: Tensor, wanted: Tensor) -> float:
    """Largest error over the largest entry."""
    return ((found.double() - wanted.double()).abs().max() / wanted.abs().max()).item()


# --- the same numbers ---------------------------------------------------------------------------------------


@EVERY
def test_float32_is_the_dense_loss(case):
    """Value and every gradient to 1e-6 of the largest entry."""
    inputs = operands(torch.float32)
    ours, theirs = fused(case, *inputs), dense(case, *inputs)
    assert off(ours, theirs) < 1e-6
    for mine, reference in zip(gradients(ours, *inputs), gradients(theirs, *inputs), strict=True):
        assert off(mine, reference) < 1e-6


@EVERY
def test_gradients_are_derivatives(case):
    """Central differences in float64."""
    assert torch.autograd.gradcheck(partial(fused, case), operands(torch.float64, 7))


@EVERY
@pytest.mark.parametrize("autocast", [True, False], ids=["autocast", "bf16_weights"])
def test_bf16_is_no_worse_than_dense_bf16(case, autocast):
    """Root mean square errors against float64 over 12 draws: at most 1.5 times those of dense."""
    kind = torch.float32 if autocast else torch.bfloat16
    errors = torch.zeros(2, 3, dtype=torch.float64)
    for seed in range(12):
        rounded = [t.detach().to(kind).requires_grad_() for t in operands(torch.float64, seed=seed)]
        exact = [t.detach().double().requires_grad_() for t in rounded]
        truth = gradients(dense(case, *exact), *exact)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            for row, side in enumerate((fused, dense)):
                found = gradients(side(case, *rounded), *rounded)
                assert all(grad.dtype == kind for grad in found)
                errors[row] += torch.stack(
                    [((g.double() - true) ** 2).sum() for g, true in zip(found, truth, strict=True)]
                )
    ours, theirs = errors.sqrt()
    assert (ours < 1.5 * theirs).all(), f"features, weight, bias: fused {ours}, dense {theirs}"


def test_the_bound_of_uniform_noise_by_hand_rounds_as_autograd():
    """Both compute in float64, so float32 gradients are equal but for a few ties, and runs are those of autograd."""
    count = 1000
    logits, x = (3 * draw(5, N, count)).float(), torch.arange(N) * 31
    z = torch.where(torch.arange(N) % 2 == 0, x, (x + 3) % count)
    alpha = torch.linspace(0.01, 0.99, N, dtype=torch.float64)
    loss = token_loss(count, "leave_one_out")
    assert isinstance(loss, HandDerived)
    leaf = logits.clone().requires_grad_()
    wanted = loss(leaf, x, z, alpha, -alpha)
    (gradient,) = torch.autograd.grad(wanted.sum(), leaf)
    assert torch.allclose(loss.differentiate(logits, x, z, alpha, -alpha), wanted, rtol=1e-13, atol=0)
    assert (logits != gradient).double().mean() < 1e-3 and off(logits, gradient) < 1e-6


def test_many_bf16_chunks_do_not_shrink_the_gradient():
    """600 chunks: a sum in bf16 would stop growing (docs/method.md#masked-script, consequence 3)."""
    exact = [t.detach().bfloat16().double().requires_grad_() for t in operands(torch.float64, 3000)]
    rounded = [t.detach().bfloat16().requires_grad_() for t in exact]
    case = CASES["cross_entropy"]
    truth = gradients(dense(case, *exact), *exact)[1]
    ours, theirs = (gradients(side(case, *rounded), *rounded)[1] for side in (fused, dense))
    assert (ours - truth).norm() < 1.5 * (theirs - truth).norm()


@EVERY
@pytest.mark.parametrize("count", [0, 1, 5, 11])
def test_any_number_of_tokens(case, count):
    """No token, one, a whole chunk, two chunks and a rest; without a bias."""
    x, w, _ = operands(torch.float64, count)
    ours, theirs = fused(case, x, w, None), dense(case, x, w, None)
    assert abs(ours - theirs) < 1e-12
    for mine, reference in zip(gradients(ours, x, w), gradients(theirs, x, w), strict=True):
        assert mine.shape == reference.shape and torch.allclose(mine, reference, atol=1e-12)


@EVERY
def test_terms_are_those_of_the_loss(case):
    """Token by token, with gradients and without."""
    x, w, b = operands(torch.float64)
    loss, head, _ = case
    made = head(head_of(w, b))
    wanted = definition(case)(made.logits(x), *given(case))
    value, terms = fused_loss(x, made, loss, weights(), *given(case))
    with torch.no_grad():
        quiet, same = fused_loss(x, made, loss, weights(), *given(case))
    assert not terms.requires_grad and not quiet.requires_grad
    assert torch.allclose(terms, wanted, atol=1e-12) and torch.allclose(same, wanted, atol=1e-12)
    assert abs(value - quiet) < 1e-12


def test_moments_are_those_of_the_prediction():
    """Both symmetric forms also return cross-entropy, p_x and entropy (docs/method.md#script-departures, last line)."""
    z, x = draw(4, N, V).double(), torch.arange(N) % V
    law = torch.distributions.Categorical(logits=z)
    for form in (closed_form, script_form):
        _, ce, p_x, entropy = form(z, x, 1e-8)
        assert torch.allclose(ce, -law.log_prob(x)) and torch.allclose(p_x, law.log_prob(x).exp())
        assert torch.allclose(entropy, law.entropy())


# --- the head -----------------------------------------------------------------------------------------------


def test_a_clean_head_forbids_through_its_bias():
    x, w, b = operands(torch.float32)
    for bias in (b, None):
        head = head_of(w, bias)
        assert torch.equal(head.clean().logits(x), head.logits(x).masked_fill(head.forbidden, -torch.inf))


def test_tied_embeddings_get_both_gradients():
    """The gradients of the embedding and of the head add up in ModernBERT, which ties them."""
    process, words = Absorbing(), Words(size=V - SPECIAL, length=6)
    network = modernbert(process, words)
    ids = torch.arange(12).view(2, 6)
    table = network.head().weight
    assert any(parameter is table for parameter in network.network.model.embeddings.parameters())
    features = network.encode(ids, t=None, attention=Mask()).flatten(0, 1)
    ours = fused(CASES["cross_entropy"], features, table, network.head().bias)
    theirs = dense(CASES["cross_entropy"], features, table, network.head().bias)
    found, wanted = (torch.autograd.grad(v, table, retain_graph=True)[0] for v in (ours, theirs))
    assert off(found, wanted) < 3e-6  # 1.2e-6 with AVX2


def test_a_sharded_head_is_refused():
    class Sharded(torch.Tensor):
        placements = ()

    with pytest.raises(ValueError, match="DTensor; compute the loss inside ForwardWrapper"):
        fused_loss(draw(1, N, D), head_of(draw(2, V, D).as_subclass(Sharded), None), cross_entropy, weights())


# --- memory -------------------------------------------------------------------------------------------------


class Largest(TorchDispatchMode):
    """Records the size of the largest tensor that any operation returned, in elements."""

    entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        made = out if isinstance(out, tuple | list) else (out,)
        self.entries = max(self.entries, *(t.numel() for t in made if isinstance(t, Tensor)), 0)
        return out


@EVERY
def test_no_tensor_of_all_logits(case):
    """1,000 tokens: no tensor of forward and backward is larger than features or head; dense makes N x V."""
    inputs = operands(torch.float32, 1000)
    largest = {}
    for side in (fused, dense):
        with Largest() as seen:
            gradients(side(case, *inputs), *inputs)
        largest[side] = seen.entries
    assert largest[dense] >= 1000 * (V - SPECIAL)
    assert largest[fused] <= 1000 * D


@pytest.mark.parametrize(
    "process", [Absorbing(), Uniform(alpha_end=1e-3, eps=1e-3)], ids=["absorbing", "uniform"]
)
def test_training_and_held_out_bound_share_their_integrand(process):
    """`Prediction.weighted_loss` of the terms that a process scores is its nll, with the rows' weights."""
    words = Words(size=V - SPECIAL, length=6)
    vocabulary, network = words.vocabulary(), llama("bidirectional", process, words)
    x, t = torch.arange(12).view(2, 6), torch.tensor([0.3, 0.8], dtype=torch.float64)
    candidates = torch.arange(6) < torch.tensor([[6], [4]])
    xt = process.corrupt(x, t, rng.keys(0, rng.CORRUPT, 0, torch.arange(2)), candidates, vocabulary)
    prediction, row = predict(network)(xt, t), torch.tensor([0.25, 2.0], dtype=torch.float64)
    where, loss, each = process.scored(network.meaning, x, xt, t, candidates, vocabulary)
    value, _ = prediction.weighted_loss(loss, where, row[where.nonzero()[:, 0]], *each)
    nll = process.nll(prediction, x, xt, t, candidates, vocabulary)
    assert value.item() == pytest.approx((row * nll).sum().item(), rel=1e-6)
