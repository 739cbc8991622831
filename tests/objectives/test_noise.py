"""Noise levels of training rows, view scales, and cross-entropy on soft tokens."""

import pytest
import torch

from repro.core import parts
from repro.objectives.noise import LinearWindow, MatchedWindow, Window
from repro.objectives.sym_kl import RelaxedCE
from repro.objectives.view_scale import Kappa, KappaOfAlpha, NoViewScale
from repro.processes import gaussian
from repro.recipes.scale import by_name
from tests.objectives.test_objectives import ROWS, the_step

LOW, HIGH = 0.03, 0.15
T = torch.linspace(LOW, HIGH, 61, dtype=torch.float64)


@pytest.mark.parametrize("count", [2, 6, 32, 4000, 200_000])
def test_a_matched_window_leaves_as_many_tokens_intact(count):
    """T(A) with `count` ids equals T(1 - t) with 50,368 at every t of the window, not only at its ends."""
    gamma = MatchedWindow(low=LOW, high=HIGH, vocab_size=50_368).gamma(T, count)
    level = gaussian.transform(gamma, count)[0]
    full = gaussian.transform(Window(low=LOW, high=HIGH).gamma(T, 50_368), 50_368)[0]
    assert (level - full).abs().max() < 1e-12
    assert torch.equal(Window(low=LOW, high=HIGH).gamma(T, count), gaussian.gamma_of(1 - T))


@pytest.mark.parametrize("count", [2, 32, 50_368])
def test_a_linear_window_leaves_tokens_intact_with_weight_one_minus_t(count):
    t = torch.linspace(1e-3, 0.999, 61, dtype=torch.float64)
    gamma = LinearWindow(low=1e-3, high=0.999).gamma(t, count)
    assert (gaussian.transform(gamma, count)[0] - (1 - t)).abs().max() < 5e-11


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 0.9), (0.1, 1.0), (0.5, 0.5), (0.9, 0.1), (float("nan"), 0.9)]
)
def test_a_linear_window_without_a_finite_gamma_is_refused(low, high):
    with pytest.raises(ValueError, match="give 0 < low < high < 1"):
        LinearWindow(low=low, high=high)


def test_inversion_is_precise_beyond_float32():
    for level in (0.9, 0.5, 1e-3):
        gamma = torch.tensor(gaussian.invert(level, 32), dtype=torch.float64)
        assert gaussian.transform(gamma, 32)[0].item() == pytest.approx(level, rel=1e-11)


def test_view_scales():
    """Duo's kappa(a) = (1 - a) / (V a + 1 - a) at the Gaussian level a = 1 - t, at a = T(A), and no scale at all."""
    alpha, count = torch.tensor([0.4, 0.1, 0.0], dtype=torch.float64), 32
    t = torch.tensor([0.03, 0.1, 0.15], dtype=torch.float64)
    kappa = [(1 - a) / (count * a + 1 - a) for a in (0.97, 0.9, 0.85)]
    assert Kappa().scale(t, alpha, count).tolist() == pytest.approx(kappa, rel=1e-12)
    at_alpha = [0.6 / (12.8 + 0.6), 0.9 / (3.2 + 0.9), 1.0]
    assert KappaOfAlpha().scale(t, alpha, count).tolist() == pytest.approx(at_alpha, rel=1e-12)
    assert NoViewScale().scale(t, alpha, count).tolist() == [1, 1, 1]


def test_relaxed_cross_entropy_is_the_weighted_mean_of_the_cross_entropy():
    """With a head of zeros every token costs ln V, so the loss is ln V times the mean row weight, and equals its own
    cross-entropy without a view scale."""
    recipe = parts.derive(by_name("duo@nano"), {"data.rows": ROWS, "data.heldout": 1})
    given = recipe.objective
    network, batch = recipe.network(0), the_step(recipe, 0)
    network.head().weight.data.zero_()
    log_size = torch.tensor(float(batch.vocabulary.size)).log().item()
    for scale in (NoViewScale(), KappaOfAlpha()):
        objective = RelaxedCE(
            noise=given.noise,
            temperature=given.temperature,
            tokens=given.tokens,
            view_scale=scale,
            group=given.group,
        )
        found = objective(network, recipe.process, batch)
        assert found.nll.item() / found.tokens == pytest.approx(log_size, rel=1e-6)
        if isinstance(scale, NoViewScale):
            assert found.value.item() == pytest.approx(log_size, rel=1e-6)
        else:
            assert 0 < found.value.item() < log_size


def test_a_recipe_takes_the_new_parts_by_name():
    taken = parts.derive(by_name("duo@nano"), {"objective.view_scale": NoViewScale()})
    assert parts.canonical(taken)["objective"]["view_scale"]["part"] == "no_view_scale"


def test_a_note_says_which_levels_were_trained():
    """duo@nano trains alpha from .0056 to .41, llada@nano from .01 to .85, others all levels (records' labels)."""
    from repro.evals.runner import _untrained

    notes = {
        name: _untrained(by_name(f"{name}@nano")) for name in ("duo", "llada", "mdlm", "duo_nelbo", "ar")
    }
    assert notes.pop("duo") == "; alpha 0.0056 to 0.41 trained"
    assert notes.pop("llada") == "; alpha 0.01 to 0.85 trained"
    assert set(notes.values()) == {""}
