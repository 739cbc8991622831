"""Discrete consistency distillation: the law of the path, the loss, and a teacher that is part of a run's state
(docs/method.md#duo-hyperparameters)."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path

import pytest
import torch
from helpers.toy import curve, toy

from repro.core import parts, rng
from repro.models.denoiser import Head
from repro.models.fused_head import fused_loss
from repro.objectives import dcd
from repro.objectives.dcd import Dcd, path, reverse_kl, reverse_kl_gradient
from repro.objectives.noise import GammaWindow
from repro.objectives.objective import Batch, GlobalBatch
from repro.processes import gaussian
from repro.processes.prediction import HandDerived
from repro.recipes.command import select
from repro.recipes.scale import by_name
from repro.training import checkpoint as checkpoints
from repro.training import teacher as teaching
from repro.training.loop import train, train_alone
from repro.training.recipe import ReleasedTeacher
from repro.training.teacher import FILE


@pytest.fixture(autouse=True)
def runs(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path_factory.getbasetemp() / "runs"))


# --- the path -----------------------------------------------------------------------------------------------


def pairs(count: int, gammas: tuple[float, float], rows: int, length: int) -> tuple[torch.Tensor, ...]:
    x0 = torch.zeros(rows, length, dtype=torch.long)
    levels = tuple(torch.full((rows,), gamma, dtype=torch.float64) for gamma in gammas)
    z_t, z_s = path(x0, levels, rng.keys(0, rng.NOISE, 0, torch.arange(rows)), count)
    return z_t.flatten(), z_s.flatten()


def law_by_quadrature(count: int, gammas: tuple[float, float]) -> list[list[float]]:
    """P(z_t, z_s) over (clean, other) x (clean, other), integrated over y, the largest other coordinate."""
    y = torch.linspace(-12, 12, 40_001, dtype=torch.float64)
    cdf = ((count - 1) * torch.special.log_ndtr(y)).exp()
    weight = cdf.diff()
    middle = (y[1:] + y[:-1]) / 2
    clean = [1 - torch.special.ndtr(middle - math.exp(-gamma / 2)) for gamma in gammas]
    t, s = ((weight * c).sum().item() for c in clean)
    both = (weight * torch.minimum(*clean)).sum().item()  # one own coordinate decides at both levels
    return [[both, t - both], [s - both, 1 - t - s + both]]


@pytest.mark.parametrize("count", [2, 5, 50_258])
def test_a_path_has_the_law_of_one_noise_at_two_levels(count):
    """Marginals are T(A) (docs/method.md#transformation-operator), pairs those of the integral; a clean id stays clean
    as the signal grows."""
    gammas, draws = (-2.0, -2.5), 200 * 2000
    z_t, z_s = pairs(count, gammas, 200, 2000)
    law = law_by_quadrature(count, gammas)
    assert law[0][1] == pytest.approx(0, abs=1e-12), "clean at t, hence clean at s"
    found = [
        [((z_t == 0) & (z_s == 0)), ((z_t == 0) & (z_s != 0))],
        [(z_t != 0) & (z_s == 0), (z_t != 0) & (z_s != 0)],
    ]
    for i in range(2):
        for j in range(2):
            p = law[i][j]
            error = 4 * math.sqrt(max(p * (1 - p), 1e-12) / draws)
            assert found[i][j].double().mean().item() == pytest.approx(p, abs=error + 1e-9)
    for gamma, z in zip(gammas, (z_t, z_s), strict=True):
        level = gaussian.transform(torch.tensor(gamma), count)[0].item()
        p = level + (1 - level) / count
        assert (z == 0).double().mean().item() == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / draws))
    noisy = (z_t != 0) & (z_s != 0)
    assert torch.equal(z_t[noisy], z_s[noisy]), "the other id is the same at every level"


def test_the_other_id_is_uniform():
    z_t, _ = pairs(5, (0.0, -0.5), 100, 2000)
    counts = torch.bincount(z_t[z_t != 0], minlength=5)[1:].double()
    assert (counts / counts.sum() - 0.25).abs().max().item() < 4 * math.sqrt(
        0.25 * 0.75 / counts.sum().item()
    )


def test_a_path_has_the_law_of_dense_draws():
    """It agrees with the argmax of A onehot + s eps at both levels with one eps, K = 7, within four standard errors."""
    gammas, count, rows = (-1.0, -1.7), 7, 100_000
    eps = rng.normal(rng.keys(1, rng.NOISE, 0, torch.arange(rows)), 1, count)
    x0 = torch.zeros(rows, 1, dtype=torch.long)
    dense = [
        gaussian.relax(x0, torch.full((rows,), gamma, dtype=torch.float64), eps, count).argmax(-1)[:, 0]
        for gamma in gammas
    ]
    sparse = pairs(count, gammas, rows, 1)
    for a in (True, False):
        for b in (True, False):
            one, two = (
                (((z[0] == 0) == a) & ((z[1] == 0) == b)).double().mean().item() for z in (dense, sparse)
            )
            assert one == pytest.approx(two, abs=4 * math.sqrt(2 * max(one * (1 - one), 1e-9) / rows) + 1e-9)


def test_ids_of_a_path_agree_as_delta_goes_to_zero():
    """P(z_t != z_s) at V = 2000, t = .6 of the window [-4, -1]: .0037, .025, .104 at 1/512, 1/64, 1/16
    (docs/method.md#oracle-33). With independent noise, a likely mistake, it exceeds one half at any delta."""
    for delta, seen in {1 / 512: 0.0037, 1 / 64: 0.025, 1 / 16: 0.104, 0.0: 0.0}.items():
        gammas = (-4 + 3 * 0.6, -4 + 3 * (0.6 - delta))
        z_t, z_s = pairs(2000, gammas, 100, 2000)
        found, exact = (z_t != z_s).double().mean().item(), law_by_quadrature(2000, gammas)[1][0]
        assert found == pytest.approx(exact, abs=4 * math.sqrt(exact / 200_000))
        assert exact == pytest.approx(seen, abs=5 * math.sqrt(max(seen, 1e-12) / 20_000)), (
            "the published values come from 20,000 draws"
        )
    z_t, _ = pairs(2000, (-2.2, -2.2), 100, 2000)
    apart = path(
        torch.zeros(100, 2000, dtype=torch.long),
        (torch.full((100,), -2.2, dtype=torch.float64),),
        rng.keys(1, rng.NOISE, 0, torch.arange(100)),
        2000,
    )[0].flatten()
    assert (z_t != apart).double().mean().item() > 0.5


# --- the loss -----------------------------------------------------------------------------------------------


def heads(seed: int, count: int, width: int) -> tuple[torch.Tensor, Head]:
    u = rng.normal(rng.keys(seed, rng.INIT, 0, torch.arange(2)), 64 * 32)
    features = u[0, : 17 * width].view(17, width).clone()
    weight = u[1, : count * width].view(count, width).clone()
    bias = u[0, -count:].clone()
    return features, Head(weight, bias, torch.zeros(count, dtype=torch.bool))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_fused_divergence_is_the_dense_one(dtype, monkeypatch):
    """Value and gradients of features, weight and bias agree to 1e-5 (1e-10 in float64), and the teacher's logits too
    are computed for at most four tokens at a time."""
    monkeypatch.setattr("repro.models.fused_head.CHUNK", 61 * 8)
    monkeypatch.setattr("repro.models.fused_head.BLOCK", 61 * 4)
    sizes, teacher_logp = [], dcd._teacher_logp
    monkeypatch.setattr(dcd, "_teacher_logp", lambda x, head: sizes.append(len(x)) or teacher_logp(x, head))
    tolerance = 1e-10 if dtype == torch.float64 else 1e-5
    (features, head), (target, other) = heads(0, 61, 8), heads(1, 61, 5)
    features, weight, bias = (t.to(dtype).requires_grad_() for t in (features, head.weight, head.bias))
    other = Head(other.weight.to(dtype), other.bias.to(dtype), other.forbidden)
    target = target.to(dtype)
    share = rng.uniform(rng.keys(2, rng.INIT, 0, 0), 17).to(dtype)

    logp = (features @ weight.T + bias).log_softmax(-1)
    logq = (target @ other.weight.T + other.bias).log_softmax(-1)
    dense = (share * torch.nn.functional.kl_div(logq, logp, log_target=True, reduction="none").sum(-1)).sum()
    wanted = torch.autograd.grad(dense, (features, weight, bias))

    from functools import partial

    loss = HandDerived(partial(reverse_kl, head=other), partial(reverse_kl_gradient, head=other))
    for form in (loss, loss.loss):
        sizes.clear()
        value, terms = fused_loss(features, Head(weight, bias, head.forbidden), form, share, target)
        assert terms.shape == (17,) and (terms >= 0).all()
        assert sum(sizes) == 17 and max(sizes) <= 4
        assert value.item() == pytest.approx(dense.item(), rel=tolerance)
        for found, gradient in zip(torch.autograd.grad(value, (features, weight, bias)), wanted, strict=True):
            torch.testing.assert_close(found, gradient, atol=tolerance, rtol=tolerance)


def a_batch(recipe, rows: int = 16) -> Batch:
    from repro.models.attention import Mask

    drawn = parts.derive(recipe.data, {"rows": rows, "heldout": 1}).build()["train"]
    ids = torch.from_numpy(drawn.ids.astype("int64"))
    return Batch(
        ids=ids,
        candidates=torch.ones_like(ids, dtype=torch.bool),
        attention=Mask(),
        index=torch.arange(rows),
        step=0,
        seed=0,
        vocabulary=recipe.data.vocabulary(),
        step_examples=torch.arange(rows),
        step_candidates=torch.full((rows,), ids.shape[1]),
    )


class Still(Dcd):
    """DCD with delta = 0."""

    def delta(self, step: int) -> float:
        return 0.0


def test_the_loss_of_a_student_equal_to_its_teacher_is_zero_at_delta_zero():
    """Exactly 0 (docs/method.md#oracle-33), but not for another delta or another student."""
    recipe = by_name("duo_owt@nano")
    network, other = recipe.network(0).eval(), recipe.network(1).eval()
    for each in (network, other):  # heads and modulations start at zero, and then all networks agree
        for name, parameter in each.named_parameters():
            key = rng.keys(id(each) % 7, rng.INIT, 1, hash(name) % 1000)
            parameter.data += 0.05 * rng.normal(key, *parameter.shape).float()
    pins = {
        "window": GammaWindow(low=-4.0, high=-1.0),
        "grid": 8,
        "round": 10,
        "eps": 1e-3,
        "group": GlobalBatch(),
    }
    batch, process = a_batch(recipe), recipe.process
    still, moving = Still(**pins), Dcd(**pins)
    assert still.distil(network, network, process, batch).value.item() == 0.0
    assert moving.distil(network, network, process, batch).value.item() > 1e-4
    assert still.distil(network, other, process, batch).value.item() > 1e-4


def test_delta_doubles_every_round():
    objective = by_name("duo_owt_distilled").objective
    assert [objective.delta(step) * 512 for step in (0, 9_999, 10_000, 20_000, 30_000, 49_999)] == [
        1,
        1,
        2,
        4,
        8,
        16,
    ]
    assert objective.delta(10**6) == 1.0
    assert [step for step in range(0, 50_000, 5_000) if objective.renews(step)] == [
        10_000,
        20_000,
        30_000,
        40_000,
    ]


# --- the teacher --------------------------------------------------------------------------------------------


def tensors(out: Path, file: str) -> dict[str, torch.Tensor]:
    return dict(checkpoints.open_checkpoint(out).tensors(file))


def test_a_run_starts_from_its_teacher_and_renews_it(tmp_path):
    """Rounds of 4 steps: after 4 steps the teacher becomes the raw student of step 4 (not its average)."""
    recipe = toy("duo_owt_distilled", "checkpoint_every=1")
    start = teaching.teacher(recipe, recipe.network(3), torch.device("cpu"), None, train_alone)
    train(recipe, seed=3, out=tmp_path / "four", stop=4, resume=False)
    teacher, student = (tensors(tmp_path / "four", file) for file in (FILE, "model.safetensors"))
    assert all(torch.equal(teacher[name], weight) for name, weight in start.named_parameters())
    assert any(not torch.equal(teacher[name], student[name]) for name in student)
    with pytest.MonkeyPatch.context() as patch:  # a resumed run fetches no teacher
        patch.setattr("repro.training.teacher._weights", lambda recipe: pytest.fail("fetched"))
        train(recipe, seed=3, out=tmp_path / "four", stop=5, resume=True)
    renewed = tensors(tmp_path / "four", FILE)
    assert all(torch.equal(renewed[name], student[name]) for name in student)
    assert [row["delta"] * 16 for row in curve(tmp_path / "four")] == [1, 1, 1, 1, 2]


def test_a_teacher_is_trained_once(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path))
    recipe = toy("duo_owt_distilled")
    student = recipe.network(0)
    first = teaching.teacher(recipe, student, torch.device("cpu"), None, train_alone)
    (folder,) = (tmp_path / "teachers").iterdir()
    assert checkpoints.open_checkpoint(folder).step == recipe.teacher.steps == 20
    monkeypatch.setattr("repro.training.loop.Training.advance", lambda self: pytest.fail("trained again"))
    again = teaching.teacher(recipe, recipe.network(1), torch.device("cpu"), None, train_alone)
    for one, two, own in zip(first.parameters(), again.parameters(), student.parameters(), strict=True):
        assert torch.equal(one, two) and torch.equal(one, own) and not one.requires_grad
    assert not first.training


@pytest.mark.parametrize(
    ("name", "pins", "line"),
    [
        (
            "duo_owt_distilled",
            ["teacher=null"],
            "objective 'dcd' is a distillation, but teacher is null; give a teacher",
        ),
        (
            "duo_owt",
            ['teacher={"part": "released_teacher", "source": "x", "revision": "UNRESOLVED"}'],
            "objective 'duo_elbo' does not read a teacher; set teacher=null",
        ),
        ("duo_owt_distilled", ["objective.round=0"], "round=0 is too small; give 1 or more"),
    ],
)
def test_recipes_that_do_not_fit_a_teacher_are_refused(name, pins, line):
    with pytest.raises(ValueError, match=re.escape(line)):
        select(by_name(name), "nano", pins)


def test_a_teacher_of_another_shape_is_refused(tmp_path):
    recipe = toy("duo_owt_distilled", "backbone.backbone.width=48")
    with pytest.raises(ValueError, match=r"has shape \(34, 32\), expected \(34, 48\)"):
        train(recipe, seed=0, out=tmp_path, stop=1, resume=False)


def test_a_missing_released_teacher_is_a_one_line_error(tmp_path):
    missing = ReleasedTeacher(source="./nowhere", revision="UNRESOLVED")
    recipe = dataclasses.replace(toy("duo_owt_distilled"), teacher=missing)
    with pytest.raises(ValueError, match=r"no file or folder '\./nowhere'"):
        train(recipe, seed=0, out=tmp_path, stop=1, resume=False)


def test_the_divergence_is_precise_for_networks_that_nearly_agree():
    """Float32 against float64 at KL = 5e-7, and finite if the student excludes the teacher's prediction."""
    (features, head), count = heads(0, 61, 8), 61
    logits = (features @ head.weight.T + head.bias).double()
    near = logits + 1e-3 * torch.sin(torch.arange(count).double())
    exact = (near.log_softmax(-1).exp() * (near.log_softmax(-1) - logits.log_softmax(-1))).sum(-1)
    same = Head(torch.eye(count), None, torch.zeros(count, dtype=torch.bool))
    found = reverse_kl(near.float(), logits.float(), same).double()
    torch.testing.assert_close(found, exact, rtol=1e-2, atol=0)
    p, q = near.float().log_softmax(-1), logits.float().log_softmax(-1)
    plain = (p.exp() * (p - q)).sum(-1).double()
    assert (plain / exact - 1).abs().max() > 5 * (found / exact - 1).abs().max(), "the plain sum loses more"
    one, other = torch.zeros(1, 3), torch.zeros(1, 3)
    one[0, 0], other[0, 1] = 200.0, 200.0
    three = Head(torch.eye(3), None, torch.zeros(3, dtype=torch.bool))
    assert reverse_kl(one, other, three).item() == pytest.approx(200.0)
    assert torch.isfinite(reverse_kl_gradient(one, other, three)).all() and torch.isfinite(one).all()
