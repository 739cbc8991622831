"""Right and wrong samplers and losses: the stored table, and a share of them certified again."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers.certified import EXAMPLES, SMALL, example, failing

from repro import certify
from repro.certify import foreign, loss, rows
from repro.certify.space import NoisyLogits, Space, tiny
from repro.results import certificates

# --- controls -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", ["wrong", "right"])
def test_the_stored_controls_are_those_of_today(group):
    """Each wrong one is seen by a test; 30 right ones of 10 families stand."""
    stored = certificates.read_controls(certificates.FOLDER)[group]
    functions = {
        (kind, family, call.__name__, call.__doc__.splitlines()[0])
        for kind, file in (("sampler", "samplers"), ("loss", "losses"))
        for family, calls in foreign.load(f"{EXAMPLES / group}_{file}.py:FAMILIES").items()
        for call in calls
    }
    assert {(row["kind"], row["family"], row["name"], row["what"]) for row in stored} == functions
    assert all(bool(row["refused_by"]) == (group == "wrong") for row in stored)
    assert len(stored) >= 30
    assert group == "wrong" or len({row["family"] for row in stored}) >= 10


def test_a_right_control_that_is_refused_is_an_error(monkeypatch, tmp_path):
    from scripts import controls

    monkeypatch.setattr(controls, "FOLDER", tmp_path)

    def found(refused_by):
        monkeypatch.setattr(controls, "certified", lambda *control: row | {"name": control[-1]})
        row = {"kind": "sampler", "family": "draws", "what": "W.", "refused_by": refused_by}
        return [controls.main([name]) for name in ("twice", "gumbel")], row | {"name": "gumbel"}

    (wrong, right), row = found([])
    assert (wrong, right) == (1, 0)
    assert "none: stands" in certificates.controls_tables({"wrong": [], "right": [row]})["controls.md"]
    (wrong, right), row = found(["law at 4 steps, uniform"])
    assert (wrong, right) == (0, 1)
    stored = certificates.read_controls(tmp_path)  # the run of the one left that of the other
    assert [row["name"] for group in ("wrong", "right") for row in stored[group]] == ["twice", "gumbel"]
    table = certificates.controls_tables({"wrong": [], "right": [row]})
    assert "| law" in table["controls.md"] and "W.,law at 4 steps" in table["controls.csv"].replace('"', "")


QUICK = replace(
    SMALL, rows=2_000, last_rows=5_000, call_rows=2_500, steps=(1, 16), spoiled_rows=100, loss_repeats=100
)


@pytest.mark.parametrize(
    "name", ["gumbel", "first_hitting", "quotas", "posterior_means", "rewrite", "greedy", "columns_first"]
)
def test_right_samplers_stand(name):
    noise = "uniform" if name == "posterior_means" else "absorbing"
    assert failing(f"right_samplers:{name}", noise, QUICK) == []


@pytest.mark.parametrize(
    "name", ["stratified", "window_and_tail", "any_order", "uniform_steps", "symmetric_kl"]
)
def test_right_losses_stand(name):
    found = certify(foreign.load(f"{EXAMPLES / 'right_losses.py'}:{name}"), effort=QUICK)
    assert found.stands, found.text()


def test_only_unclear_sums_of_random_losses_are_drawn_again():
    bound, exact = example("right_losses:one_time"), example("right_losses:all_subsets")
    of = {errors: loss._unclear(bound, 1 + errors * 0.01, 0.01) for errors in (-3, 1, 3, 5, 7, 50)}
    assert [errors for errors, unclear in of.items() if unclear] == [3, 5]
    assert loss._unclear(replace(bound, claims="law"), 0.97, 0.01) and not loss._unclear(exact, 1.03, 0.01)


def test_listed_conditionals_are_those_of_each_row():
    """Conditionals from a table over all noisy sentences equal Bayes' rule for each row; results are fresh memory."""
    space = Space("uniform", tiny(3), "x0_mean", NoisyLogits(0.5))
    ids = torch.tensor([[0, 1, 2], [2, 2, 0], [0, 1, 2]])
    listed = space.denoise(ids, 0.3)
    listed[0] = 0
    by_row = space.denoise(ids, torch.tensor([0.3, 0.3, 0.6], dtype=torch.float64))
    assert (space.denoise(ids, 0.3)[:2] - by_row[:2]).abs().max() < 1e-12
    assert (space.denoise(ids, 0.6)[2] - by_row[2]).abs().max() < 1e-12 < (by_row[0] - by_row[2]).abs().max()


def test_independent_rows_of_rare_classes_are_not_refused():
    """A pair of two rare classes that happens once decided the chi-square of pairs: 37 of these 40 were refused."""
    chances = torch.tensor([0.9, 0.08, *[0.02 / 7] * 7], dtype=torch.float64)
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        draws = torch.multinomial(chances, 10 * 500, True, generator=generator).view(10, 500)
        check = rows._neighbours("absorbing", list(3 * draws), 8, 27)
        assert check.stands, check.says
    apart = torch.cat([draws[:, :250], draws[:, :250]], 1)
    check = rows._neighbours("absorbing", list(3 * apart), 8, 27)
    assert not check.stands and "half a call apart" in check.says


WRONG = {
    "antithetic": "neighbours, 1 step",
    "systematic": "spread of calls, 1 step",
    "seed_halved": "seeds",
    "few_steps": "law at 16 steps",
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_rows_are_seen(name):
    assert any(
        check.startswith(WRONG[name])
        for check in failing(f"wrong_samplers:{name}", effort=replace(SMALL, row_calls=40))
    )


@pytest.mark.parametrize("name", ["block_means", "clamped_weight", "batch_mean"])
def test_defects_of_four_tokens_and_of_batches_are_seen(name):
    read = example(f"wrong_losses:{name}")
    wanted = "batches" if name == "batch_mean" else "bound, absorbing, 4 tokens, exact denoiser"
    failed = [check.name for check in loss.certify_loss(read, SMALL).checks if not check.stands]
    assert any(check.startswith(wanted) for check in failed)
