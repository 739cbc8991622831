"""Training losses: closed forms against direct sums, minimisers, the reference script's masks, split batches.

Symbols: V ids, z logits, p = softmax(z), x label, c = -ln(floor).
"""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from helpers.spaces import Words, chi_square, llama, predict
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional

from repro.core import parts, registry, rng
from repro.models.attention import Mask
from repro.objectives.masked_ce import Fresh, MaskedCE, Static
from repro.objectives.noise import Window
from repro.objectives.objective import Batch, Distillation, GlobalBatch, RowGroup
from repro.objectives.sym_kl import closed_form, script_form
from repro.processes.absorbing import Absorbing
from repro.processes.process import cross_entropy
from repro.processes.uniform import Uniform, integrand
from repro.recipes.scale import by_name
from repro.training.recipe import Recipe

FLOOR = 1e-8
C = -math.log(FLOOR)
SIZES = pytest.mark.parametrize("size", [7, 1000, 50_368])


def random_logits(rows: int, size: int) -> tuple[Tensor, Tensor]:
    """Logits with gradients, from nearly uniform to nearly certain of a wrong id, and labels."""
    scale = torch.linspace(0.1, 9, rows, dtype=torch.float64)[:, None]
    z = scale * rng.normal(rng.keys(0, rng.INIT, 0, torch.arange(rows)), size)
    return z.requires_grad_(), torch.arange(rows) % size


def gradient(value: Tensor, z: Tensor) -> Tensor:
    return torch.autograd.grad(value.sum(), z)[0]


# --- the symmetric KL ---------------------------------------------------------------------------------------


@SIZES
def test_closed_form_is_both_divergences_summed(size):
    """sum_i h (ln h - ln p) + sum_i p (ln p - ln h), ln 0 floored: value and gradient (docs/method.md#symmetric-kl,
    docs/method.md#oracle-20)."""
    z, x = random_logits(12, size)
    logp = z.log_softmax(-1)
    floored = -C * (1 - functional.one_hot(x, size).double())
    dense = -logp.gather(1, x[:, None])[:, 0] + (logp.exp() * (logp - floored)).sum(-1)
    closed = closed_form(z, x, FLOOR)[0]
    assert ((closed - dense).abs() / (1 + dense.abs())).max() < 1e-12
    assert (gradient(closed, z) - gradient(dense, z)).abs().max() < 1e-12


@SIZES
def test_script_form_is_the_script(size):
    """F.kl_div with `log_target=True` applied to probabilities, less its constant c (V - 1)
    (docs/method.md#symmetric-kl, docs/method.md#oracle-21).

    In float64 the script's ln(1 + floor) at the label is not 0; the term e^p ln(1 + floor) is added back.
    """
    z, x = random_logits(12, size)
    logp = z.log_softmax(-1)
    h = functional.one_hot(x, size).double()
    p_x = logp.exp().gather(1, x[:, None])[:, 0]
    reverse = functional.kl_div((h + FLOOR).log(), logp.exp(), reduction="none", log_target=True).sum(-1)
    forward = functional.kl_div(logp, h, reduction="none").sum(-1)
    literal = forward + reverse - C * (size - 1) + p_x.exp() * math.log1p(FLOOR)
    ours = script_form(z, x, FLOOR)[0]
    assert ((ours - literal).abs() / literal.abs()).max() < 1e-9
    assert (gradient(ours, z) - gradient(literal, z)).abs().max() < 1e-9


def test_script_form_is_precise_in_float32():
    """The subtracted constant, 927,794 at V = 50,368, would leave float32 steps of .0625
    (docs/method.md#symmetric-kl)."""
    z, x = random_logits(12, 50_368)
    assert (script_form(z.float(), x, FLOOR)[0] - script_form(z, x, FLOOR)[0]).abs().max() < 1e-4


def test_script_form_at_known_points():
    """e, 1 + c and e (1 + c) - c: certain of the label, spread, certain of a wrong id (docs/method.md#symmetric-kl)."""
    size, big = 50_368, 400.0
    z = torch.zeros(3, size, dtype=torch.float64)
    z[0, 0] = z[2, 1] = big
    z[1, 0] = -big
    x = torch.zeros(3, dtype=torch.int64)
    reverse = script_form(z, x, FLOOR)[0] - cross_entropy(z, x)
    known = torch.tensor([math.e, 1 + C, math.e * (1 + C) - C], dtype=torch.float64)
    assert (reverse - known).abs().max() < 1e-3


@pytest.mark.parametrize(
    ("loss", "minimiser"),
    [
        (lambda z, x: closed_form(z, x, FLOOR)[0], 0.850),
        (lambda z, x: script_form(z, x, FLOOR)[0], 0.653),
        (cross_entropy, 0.600),
    ],
    ids=["closed", "script", "cross_entropy"],
)
def test_only_cross_entropy_is_a_proper_score(loss, minimiser):
    """With labels (.6, .4), the symmetric losses are minimal above p = .6 (docs/method.md#symmetric-kl)."""
    labels = torch.arange(2)

    def expected(logit: float) -> float:
        z = torch.tensor([[logit, 0.0]], dtype=torch.float64).expand(2, 2)
        return (torch.tensor([0.6, 0.4], dtype=torch.float64) @ loss(z, labels)).item()

    best = minimize_scalar(expected, bounds=(-3, 5), method="bounded", options={"xatol": 1e-9}).x
    assert abs(1 / (1 + math.exp(-best)) - minimiser) < 6e-4


# --- a uniform prediction -----------------------------------------------------------------------------------


def test_a_uniform_prediction_costs_log_v_at_each_masked_token():
    """A head of zeros is uniform over the V clean ids; [MASK] and [BOS] get no mass (docs/method.md#oracle-22)."""
    process, words = Absorbing(), Words(size=11, length=6)
    network = llama("bidirectional", process, words)
    network.head().weight.data.zero_()
    x = torch.arange(12).view(2, 6) % 11
    noisy = x.masked_fill(torch.tensor([[1, 0, 1, 0, 0, 1], [0, 0, 0, 1, 0, 0]]).bool(), 11)
    everywhere, t = torch.ones_like(x).bool(), torch.full((2,), 0.5)
    nll = process.nll(predict(network)(noisy, t), x, noisy, t, everywhere, words.vocabulary())
    assert (nll - 2 * math.log(11) * torch.tensor([3, 1])).abs().max() < 1e-5


def test_a_uniform_prediction_costs_log_k_under_uniform_noise():
    """The integrand's closed forms at x_theta = 1/K, and their integral over t, ln K (docs/method.md#duo-nelbo,
    docs/method.md#oracle-22)."""
    count, process = 1000, Uniform(alpha_end=0.0, eps=0.0)
    nodes, weights = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(60))
    t = (20 * nodes).sigmoid()  # log-odds, for both ends are steep
    alpha, slope = process.alpha(t), -torch.ones_like(t)
    kappa = (1 - alpha) / (count * alpha + 1 - alpha)
    scale = -slope / (count * alpha)
    same = scale * (count - count / (count * alpha + 1 - alpha) + (count - 1) * kappa * kappa.log())
    other = scale * (count - count / (1 - alpha) - kappa.log() / kappa)
    flat = torch.full((len(t), count), 1 / count, dtype=torch.float64)
    x = torch.zeros(len(t), dtype=torch.int64)
    for z, form in ((x, same), (x + 3, other)):
        assert ((integrand(flat, x, z, alpha, slope) - form).abs() / form).max() < 1e-9
    intact = alpha + (1 - alpha) / count
    assert (
        abs((weights * 20 * t * (1 - t) * (intact * same + (1 - intact) * other)).sum() - math.log(count))
        < 1e-4
    )


# --- masks of the reference script --------------------------------------------------------------------------


def a_batch(candidates: Tensor, step: int = 0, examples: Tensor | None = None, size: int = 11) -> Batch:
    """A whole step as one batch with random ids and `candidates` [R, L]."""
    rows, length = candidates.shape
    ids = (rng.uniform(rng.keys(0, rng.SENTENCE, 0, torch.arange(rows)), length) * size).long()
    return Batch(
        ids=ids,
        candidates=candidates,
        attention=Mask(),
        index=torch.arange(rows),
        step=step,
        seed=0,
        vocabulary=Words(size=size, length=length).vocabulary(),
        step_examples=torch.arange(rows) if examples is None else examples,
        step_candidates=candidates.sum(1),
    )


def masked_ce(masks: Static | Fresh, low: float = 0.15, high: float = 0.99) -> MaskedCE:
    return MaskedCE(rate=Window(low=low, high=high), masks=masks, group=GlobalBatch())


def ragged(rows: int, length: int) -> Tensor:
    """Random candidates [rows, length], at least one a row."""
    candidates = rng.uniform(rng.keys(1, rng.CORRUPT, 0, torch.arange(rows)), length) < 0.5
    candidates[:, length // 2] = True
    return candidates


@pytest.mark.parametrize(
    ("answer", "fraction"), [(1, 1.0), (2, 0.5), (5, 0.478), (10, 0.519), (50, 0.560), (200, 0.567)]
)
def test_mask_counts_follow_the_reference_script(answer, fraction, monkeypatch):
    """n = max(int(n_cand u), 1), u uniform on (.15, .99): truncation masks short answers less
    (docs/method.md#masked-script)."""
    cells = 2000
    grid = (torch.arange(cells, dtype=torch.float64) + 0.5) / cells
    monkeypatch.setattr(rng, "uniform", lambda keys, *shape: grid)
    batch = dataclasses.replace(
        a_batch(torch.ones(2, 4).bool()),
        step_examples=torch.arange(cells),
        step_candidates=torch.full((cells,), answer),
    )
    counts = masked_ce(Static()).counts(batch)
    literal = [max(int(answer * u), 1) for u in (0.15 + 0.84 * grid).tolist()]
    assert counts.tolist() == literal
    assert abs(counts.double().mean().item() / answer - fraction) < 1e-3


def test_only_candidates_are_masked():
    batch = a_batch(ragged(300, 20))
    for masks in (Static(), Fresh()):
        loss = masked_ce(masks)
        chosen = loss.chosen(batch)
        assert not (chosen & ~batch.candidates).any()
        assert torch.equal(chosen.sum(1), loss.counts(batch))


def test_masks_are_uniform_subsets():
    """3 of 6 candidates: 20 subsets, chi-square over 20,000 rows (false alarm 1e-6)."""
    candidates = torch.tensor([1, 0, 1, 1, 0, 1, 1, 1]).bool().expand(20_000, 8)
    chosen = masked_ce(Fresh(), 0.5, 0.5).chosen(a_batch(candidates))[:, candidates[0]]
    codes = (chosen.long() * 2 ** torch.arange(6)).sum(1)
    subsets = torch.tensor([sum(2**i for i in s) for s in itertools.combinations(range(6), 3)])
    counts = torch.bincount(codes, minlength=64)[subsets].double()
    assert counts.sum() == 20_000 and chi_square(counts, torch.full((20,), 1 / 20)) > 1e-6


def test_static_masks_depend_on_the_example_and_fresh_ones_on_the_step():
    """datasets.map masks once: an example has the same masks in any step and row (docs/method.md#masked-script)."""
    candidates, names = ragged(40, 20), torch.arange(40)
    here, later = a_batch(candidates, 0, names), a_batch(candidates.flip(0), 7, names.flip(0))
    assert torch.equal(masked_ce(Static()).chosen(here), masked_ce(Static()).chosen(later).flip(0))
    fresh = masked_ce(Fresh())
    again = a_batch(candidates, 7, names)
    assert (fresh.chosen(here) != fresh.chosen(again)).any(1).float().mean() > 0.9
    assert torch.equal(fresh.chosen(here), fresh.chosen(here))


def test_masked_ce_is_the_usual_cross_entropy():
    """torch's cross-entropy with label -100 at unmasked positions (docs/method.md#masked-script)."""
    process = Absorbing()
    batch = a_batch(ragged(16, 12))
    network = llama("bidirectional", process, Words(size=11, length=12))
    loss = MaskedCE(rate=Window(low=0.15, high=0.99), masks=Static(), group=RowGroup(rows=16))
    masked = loss.chosen(batch)
    features = network.encode(batch.ids.masked_fill(masked, 11), t=None, attention=Mask())
    labels = batch.ids.masked_fill(~masked, -100)
    literal = functional.cross_entropy(
        network.head().logits(features).float().flatten(0, 1), labels.flatten(), ignore_index=-100
    )
    assert loss(network, process, batch).value.item() == pytest.approx(literal.item(), rel=1e-6)


# --- noise levels -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 7, 32, 512])
def test_low_discrepancy_draws_one_time_in_each_stratum(count):
    """Exactly one t in each [i/n, (i+1)/n), different in each step (docs/method.md#oracle-32)."""
    drawn = [rng.low_discrepancy(0, rng.TIME, step, torch.arange(count), count) for step in range(50)]
    for t in drawn:
        assert torch.equal((t * count).floor().sort().values, torch.arange(count).double())
    within = torch.stack([t * count % 1 for t in drawn])
    assert within.std(0).min() > 0.2 and (within.mean() - 0.5).abs() < 0.15


# --- logs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("process", [Absorbing(), Uniform(alpha_end=1e-3, eps=1e-3)], ids=["mask", "uniform"])
def test_p_flip_agrees_with_the_marginal(process):
    """P(xt != x0) = 1 - q(xt = x0 | x0); uniform noise may draw the clean token again
    (docs/method.md#uniform-process)."""
    vocabulary, x, t = (
        Words(size=11, length=3).vocabulary(),
        torch.arange(6).view(2, 3),
        torch.tensor([0.2, 0.9]),
    )
    same = process.marginal(x, t, vocabulary).gather(2, x[..., None])[..., 0]
    assert (process.p_flip(t, vocabulary)[:, None] - (1 - same)).abs().max() < 1e-12


@pytest.mark.parametrize("name", ["duo", "duo_script"])
def test_logs_of_a_uniform_prediction(name):
    """A head of zeros gives p_x = 1/K and entropy ln K in every row (docs/method.md#script-departures, last line)."""
    recipe = parts.derive(by_name(f"{name}@nano"), {"data.rows": ROWS, "data.heldout": 1})
    network, batch = recipe.network(0), the_step(recipe, 0)
    network.head().weight.data.zero_()
    logs = recipe.objective(network, recipe.process, batch).logs
    count = batch.vocabulary.size
    assert logs["p_true"].item() / ROWS == pytest.approx(1 / count, rel=1e-6)
    assert logs["entropy"].item() / ROWS == pytest.approx(math.log(count), rel=1e-6)


# --- one loss, however a step is split ----------------------------------------------------------------------

RECIPES = tuple(registry.RECIPES)
ROWS = 32


def the_step(recipe: Recipe, step: int) -> Batch:
    """A step of 32 rows of the oracle language, scored up to different lengths."""
    rows = recipe.data.build()["train"]
    ids = torch.from_numpy(rows.ids[:ROWS].astype(np.int64))
    length = torch.arange(ROWS) % 24 + 8
    candidates = torch.arange(ids.shape[1]) < length[:, None]
    return Batch(
        ids=ids,
        candidates=candidates,
        attention=Mask(),
        index=torch.arange(ROWS),
        step=step,
        seed=3,
        vocabulary=recipe.data.vocabulary(),
        step_examples=torch.from_numpy(rows.example[:ROWS]),
        step_candidates=candidates.sum(1),
        step_where=candidates,
    )


def microbatch(whole: Batch, rows: slice) -> Batch:
    return dataclasses.replace(
        whole, ids=whole.ids[rows], candidates=whole.candidates[rows], index=whole.index[rows]
    )


@pytest.mark.parametrize(("name", "step"), [*((name, 0) for name in RECIPES), ("duo_nelbo", 10**6)], ids=str)
def test_any_split_of_a_step_gives_one_loss(name, step):
    """32 rows at once, 16 twice or 8 four times: summed loss, logs and gradient norm agree to 1e-5."""
    recipe = parts.derive(by_name(f"{name}@nano"), {"data.rows": ROWS, "data.heldout": 1})
    if "objective.group.rows" in parts.leaves(recipe):
        recipe = parts.derive(recipe, {"objective.group.rows": 12})  # two whole groups and a short one
    whole = the_step(recipe, step)
    network, teacher = recipe.network(0), recipe.network(1).eval()
    for number, parameter in enumerate(teacher.parameters()):  # a DiT's head starts at zero
        parameter.data += 0.1 * rng.normal(rng.keys(0, rng.INIT, 1, number), *parameter.shape).float()
    seen = []
    for size in (32, 16, 8):
        network.zero_grad()
        sums: dict[str, float] = {}
        for start in range(0, ROWS, size):
            some = microbatch(whole, slice(start, start + size))
            if isinstance(recipe.objective, Distillation):
                loss = recipe.objective.distil(network, teacher, recipe.process, some)
            else:
                loss = recipe.objective(network, recipe.process, some)
            loss.value.backward()
            parts_of_it = {"loss": loss.value, "nll": loss.nll, "tokens": torch.tensor(loss.tokens)}
            for key, value in (parts_of_it | loss.logs).items():
                sums[key] = sums.get(key, 0.0) + float(value.detach())
        gradients = [p.grad.double().norm() for p in network.parameters() if p.grad is not None]
        seen.append(sums | {"norm": torch.stack(gradients).norm().item()})
    assert seen[0]["norm"] > 0
    for other in seen[1:]:
        assert other == {key: pytest.approx(value, rel=1e-5) for key, value in seen[0].items()}
