"""Certificates: correct programs pass and wrong ones fail for the stated reason.

Foreign code is that of examples/certify. Random streams are keyed, so each test always gives the same result.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers.certified import EXAMPLES, SMALL, example, failing

from repro import certify
from repro.certify import foreign, loss, presets, sampler
from repro.certify.long import strong, true_rows
from repro.certify.oracle import oracle_denoiser
from repro.certify.reference import ancestral
from repro.certify.replay import replay, uniform_path
from repro.certify.space import HmmSource, NoisyLogits, Space, UnigramMixture, tiny, total_variation
from repro.certify.verdict import Certificate, Evidence
from repro.core import rng
from repro.samplers.ancestral import Ancestral
from repro.samplers.decoder import Decoder
from repro.samplers.ordered import Margin
from repro.samplers.plan import Plan

# --- spaces and references ----------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", ["absorbing", "uniform"])
def test_matrices_and_the_decoding_loop_give_one_law(noise):
    """The law of ancestral sampling by matrices equals that by enumeration of the decoding loop."""
    for steps in (1, 4):
        by_matrix = ancestral(tiny(3), noise, steps)
        by_loop = presets.output_law(Ancestral(), noise, tiny(3), None, steps)
        assert total_variation(by_matrix.law, by_loop) < 1e-8
        kl = (tiny(3).law * (tiny(3).law / by_matrix.law).log()).sum().item()
        assert kl <= by_matrix.path_kl + 1e-12
        assert (kl == pytest.approx(by_matrix.path_kl)) == (steps == 1)


@pytest.mark.parametrize("noise", ["absorbing", "uniform"])
def test_the_mean_follows_bayes_rule(noise):
    """x0_mean equals Bayes' rule over all sentences with the token's own channel, a check of the conversion."""
    source = tiny(2)
    states = torch.tensor([[0, 1], [2, 2]]) if noise == "uniform" else torch.tensor([[0, 3], [3, 3]])
    alpha = torch.full((2,), 0.4, dtype=torch.float64)
    seen = source.channel(noise, states, alpha)[:, torch.arange(2), source.sentences].prod(-1)
    joint = source.law * seen
    one_hot = torch.nn.functional.one_hot(source.sentences, 3).double()
    bayes = torch.einsum("ns,slv->nlv", joint / joint.sum(1, keepdim=True), one_hot)
    assert (Space(noise, source, "x0_mean").denoise(states, 0.6) - bayes).abs().max() < 1e-12
    loo = Space(noise, source, "leave_one_out").denoise(states, 0.6)
    assert (noise == "absorbing") == bool((loo - bayes).abs().max() < 1e-12)


def test_spoiled_denoisers_are_wrong_by_their_level():
    source, ids = tiny(3), torch.tensor([[3, 0, 3], [3, 3, 3]])
    exact = Space("absorbing", source, "x0_mean").denoise(ids, 0.5)
    wrong = [
        (Space("absorbing", source, "x0_mean", spoil).denoise(ids, 0.5) - exact).abs().max().item()
        for spoil in (
            UnigramMixture(0.0),
            UnigramMixture(0.1),
            UnigramMixture(0.2),
            NoisyLogits(0.0),
            NoisyLogits(0.5),
        )
    ]
    assert wrong[0] == 0 and wrong[2] == pytest.approx(2 * wrong[1])
    assert wrong[3] < 1e-12 < 0.01 < wrong[4]


def test_replay_gives_the_enumerated_law():
    """DUEL: exp(log q) of every sentence is its enumerated probability; a random order gives only a bound."""
    source, plan = tiny(3), Plan(gen_length=3, block_length=3, steps=2)
    denoiser = oracle_denoiser("absorbing", source)

    def of(rule):
        return replay(Decoder(denoiser, denoiser.process, rule, plan, [[]] * 27), source.sentences)

    with torch.no_grad():
        margin, drawn = of(Margin(temperature=1.0)), of(Ancestral())
        listed = presets.output_law(Margin(temperature=1.0), "absorbing", source, None, 2)
        assert margin is not None and margin.exact and total_variation(margin.logq.exp(), listed) < 1e-12
        assert drawn is not None and not drawn.exact
        assert of(Margin(temperature=0.0)) is None


def test_both_path_kls_agree_for_one_step():
    """With one step the path KL is the total correlation of the language under either noise."""
    x = true_rows(20)
    denoiser = oracle_denoiser("absorbing", HmmSource(strong()))
    plan = Plan(gen_length=32, block_length=32, steps=1)
    with torch.no_grad():
        replayed = replay(Decoder(denoiser, denoiser.process, Ancestral(), plan, [[]] * 20), x)
        assert replayed is not None
        absorbing = strong().log_likelihood(x) - replayed.logq
        assert (uniform_path(1, 20) - absorbing).abs().max() < 1e-9
        assert 0 < uniform_path(4, 20).mean() < 0.4 * absorbing.mean()


# --- the statistics of the verdict --------------------------------------------------------------------------


def counts_of(law: torch.Tensor, rows: int, trial: int) -> torch.Tensor:
    u = rng.uniform(rng.keys(trial, rng.TOKEN, 0, torch.arange(rows)))
    return torch.bincount(rng.choose(law.expand(rows, -1), u), minlength=len(law))


def test_a_converging_law_passes_and_the_stated_bias_is_seen():
    """The finite-step law of ancestral sampling never fails; one at the printed total variation nearly always does."""
    source = tiny(3)
    near = ancestral(source, "uniform", SMALL.steps[-1]).law
    assert total_variation(near, source.law) > 0.005

    def check(law, trial):
        counts = counts_of(law, SMALL.last_rows, trial)
        return sampler._law(source, "uniform", {16: counts, SMALL.steps[-1]: counts}, SMALL.steps[-1])

    passed = [check(near, trial) for trial in range(20)]
    assert all(found.stands for found in passed)
    seen = float(passed[0].minimum_detectable.split("of ")[1].split(" ")[0])
    # a bias proportional to the law is the hardest to detect at this total variation
    sign = torch.where(source.law.cumsum(0) < 0.5, 1.0, -1.0)
    up = source.law[sign > 0].sum()
    off = source.law * torch.where(sign > 0, 1 + seen / up, 1 - seen / (1 - up))
    assert total_variation(off, source.law) == pytest.approx(seen)
    assert sum(not check(off, trial).stands for trial in range(20)) >= 17
    half = source.law + (off - source.law) / 4
    assert sum(not check(half, trial).stands for trial in range(20)) <= 1


def test_a_mean_of_draws_is_corrected_for_jensen():
    """exp(-mean of few noisy draws) is too large on average; after the correction it is not."""
    law = tiny(2).law
    noise = 4 * rng.normal(rng.keys(0, rng.NOISE, 0, torch.arange(400)), 32, len(law))
    corrected, naive = [], []
    for trial in noise:
        by_call = -law.log() + trial
        means = loss.Means(by_call.mean(0), by_call)
        corrected.append(loss._sum(means)[0])
        naive.append((-means.mean).exp().sum().item())
    assert sum(naive) / 400 > 1.2 and abs(sum(corrected) / 400 - 1) < 0.06


# --- samplers -----------------------------------------------------------------------------------------------


def test_correct_samplers_pass():
    for name in ("ancestral:sample", "orders:random", "orders:greedy", "uniform:duo"):
        assert failing(name) == [], name


@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("uniform:duo_of_mean", "law at 64 steps, uniform"),
        ("orders:off_by_one", "law at 64 steps, absorbing"),
        ("orders:low_confidence", "law at 64 steps, absorbing"),
        ("orders:one_short", "noise left, absorbing"),
    ],
)
def test_wrong_samplers_fail(name, check):
    assert check in failing(name)


@pytest.mark.slow
def test_a_float32_race_draws_no_rare_token():
    """250 ids of 1e-8 (docs/method.md#oracle-34); on an enumerated space the same race passes."""
    few = replace(SMALL, rare_rows=4_800_000)
    assert failing("ancestral:single") == []
    with torch.no_grad():
        single = sampler._rare(example("ancestral:single"), "absorbing", few)
        double = sampler._rare(example("ancestral:sample"), "absorbing", few)
    assert not single.stands and "float32" in single.says
    assert double.stands


def test_rows_that_share_a_draw_or_a_seed_fail():
    def shared(space, n, steps, seed):
        """Every sentence of a call occurs 50 times."""
        ids = foreign.load(f"{EXAMPLES / 'ancestral.py'}:sample")(space, -(-n // 50), steps, seed)
        return ids.repeat_interleave(50, 0)[:n]

    def fixed_seed(space, n, steps, seed):
        return foreign.load(f"{EXAMPLES / 'ancestral.py'}:sample")(space, n, steps, 0)

    for function, check in (
        (shared, "spread of calls, 8 steps, absorbing"),
        (fixed_seed, "seeds, absorbing"),
    ):
        function.claims, function.meaning = "law", "x0_mean"
        read = foreign.read(function, "absorbing", 600.0)
        checks, _ = sampler._listed(read, "absorbing", replace(SMALL, steps=(1, 2, 16), call_rows=5_000))
        assert check in [check.name for check in checks if not check.stands]


def test_modes_must_be_likely():
    def flat(space, n, steps, seed):
        return torch.randint(space.vocab, (n, space.length), generator=torch.Generator().manual_seed(seed))

    flat.claims, flat.meaning = "mode", "x0_mean"
    checks, _ = sampler._listed(foreign.read(flat, "uniform", 600.0), "uniform", SMALL)
    assert [check.stands for check in checks] == [False]


def test_long_sentences_are_tested():
    """An error that only long sentences show: their last tokens are reversed."""
    from repro.certify.long import long_checks

    right = example("ancestral:sample")

    def backwards(space, n, steps, seed):
        ids = right.call(space, n, steps, seed)
        if space.length > 8:
            ids[:, -8:] = ids[:, -8:].flip(1)
        return ids

    with torch.no_grad():
        good, numbers = long_checks(right, "absorbing", SMALL, 4.0)
        bad, _ = long_checks(replace(right, call=backwards), "absorbing", SMALL, 4.0)
    assert all(check.stands for check in good) and not any(check.stands for check in bad)
    assert numbers[0].value > 100 * abs(numbers[0].true or 0)


def test_the_scheduler_of_diffusers():
    """It converges at temperature 1, and does not at its default, 0."""
    quick = replace(SMALL, rows=10_000, last_rows=10_000, spoiled_rows=100, steps=(4, 16, 64))
    far = {}
    for name in ("temperature_1", "default"):
        checks, evidence = sampler._listed(example(f"diffusers_ddim:{name}", "uniform"), "uniform", quick)
        far[name] = [e.value for e in evidence if e.oracle == "exact" and e.statistic == "total variation"]
        assert [check.stands for check in checks if check.name.startswith("law at 64")] == [
            name == "temperature_1"
        ]
    assert far["temperature_1"][0] > 2.5 * far["temperature_1"][1] and min(far["default"]) > 0.15


# --- losses -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "stands"),
    [
        ("masked_exact", True),
        ("masked_without_tail", False),
        ("dependent", False),
        ("masked", True),
        ("cut", False),
    ],
)
def test_losses(name, stands):
    found = certify(foreign.load(f"{EXAMPLES / 'losses.py'}:{name}"), effort=SMALL)
    assert found.stands == stands
    total = next(e.value for e in found.evidence if e.oracle == "exact")
    if name == "masked_exact":
        assert total == pytest.approx(1, abs=1e-6) and "proper" in found.notes[0]
    if name == "dependent":
        assert total > 1.4


def test_a_loss_may_stratify_its_times_over_a_call():
    """With one t per stratum in row order, unshuffled sentences would each get their own range of times."""

    def stratified(space, x0, seed):
        generator = torch.Generator().manual_seed(seed)
        t = (torch.arange(len(x0)) + torch.rand(1, dtype=torch.float64, generator=generator)) / len(x0)
        hidden = torch.rand(x0.shape, dtype=torch.float64, generator=generator) < t[:, None]
        p = space.denoise(x0.masked_fill(hidden, space.mask), t).gather(2, x0[:, :, None])[:, :, 0]
        return (-p.log() * hidden).sum(1) / t

    stratified.claims, stratified.meaning, stratified.draws = "bound", "x0_mean", "random"
    means = loss._means(foreign.read(stratified, None, 600.0), Space("absorbing", tiny(2), "x0_mean"), SMALL)
    error = means.by_call.std(0) / len(means.by_call) ** 0.5
    assert ((means.mean + tiny(2).law.log()).abs() < 5 * error).all() and error.max() < 0.2


def improper(space, x0, seed):
    """Rewards confidence: cross-entropy plus the entropy of the prediction (as docs/method.md#symmetric-kl)."""
    p = space.denoise(torch.full_like(x0, space.mask), 1.0)
    entropy = -torch.special.xlogy(p, p).sum(-1)
    return (entropy - p.gather(2, x0[..., None])[..., 0].log()).sum(1)


def test_an_improper_score_is_reported():
    improper.claims, improper.meaning, improper.draws = "mode", "x0_mean", "exact"
    found = certify(improper, effort=SMALL)
    assert found.stands and "improper, conditionals sharper" in found.notes[0]
    proper = foreign.load(f"{EXAMPLES / 'losses.py'}:masked_exact")
    fake = lambda space, x0, seed: proper(space, x0, seed)  # noqa: E731
    fake.claims, fake.meaning, fake.draws = "mode", "x0_mean", "exact"
    assert not certify(fake, effort=SMALL).stands


def test_a_likelihood_sums_to_one():
    def chain(space, x0, seed):
        nats = torch.zeros(len(x0), dtype=torch.float64)
        for place in range(space.length):
            hidden = torch.arange(space.length) >= place
            p = space.denoise(x0.masked_fill(hidden, space.mask), 0.5)[:, place]
            nats -= p.gather(1, x0[:, place : place + 1])[:, 0].log()
        return nats

    chain.claims, chain.meaning, chain.draws = "law", "x0_mean", "exact"
    assert certify(chain, effort=SMALL).stands
    half = lambda space, x0, seed: chain(space, x0, seed) + 0.01  # noqa: E731
    half.claims, half.meaning, half.draws = "law", "x0_mean", False
    assert not certify(half, effort=SMALL).stands


def test_a_printed_certificate_fits_80_columns():
    """Beside lines of text, which the command breaks; a table for each space and noise, without empty columns."""
    one = Evidence(
        statistic="bigram distance squared", space="strong", noise="absorbing", oracle="exact", steps=64,
        tokens_per_step=0.5, value=-7.4271e-06, true=3.7542e-07, best=None,
    )  # fmt: skip
    other = replace(
        one, statistic="total variation", space="27 sentences", oracle="noisy 0.25", best=0.0123456
    )
    made = Certificate(
        subject="f", kind="sampler", claims="law", meaning="x0_mean", checks=(), evidence=(one, other, one), notes=(),
        seconds=1.0,
    )  # fmt: skip
    text = made.text().rpartition("\n\n")[0]
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("strong, absorbing noise") == text.count("27 sentences, absorbing noise") == 1
    assert text.count("-7.427e-06") == 3 and text.count("ancestral") == 1 and "0.01235" in text


def test_every_test_of_a_sampler_is_named_as_it_begins():
    lines: list[str] = []
    few = replace(
        SMALL, rows=500, last_rows=500, steps=(1, 16), row_calls=6, small_calls=8, long_rows=0, rare_rows=500
    )
    certify(foreign.load(f"{EXAMPLES / 'ancestral.py'}:sample"), "absorbing", few, lines.append)
    assert [line.removeprefix("absorbing noise: ") for line in lines] == [
        "500 sentences, steps 1",
        "500 sentences, steps 16",
        *(f"500 sentences with a wrong denoiser ({name})" for name in sampler.SPOILED),
        "independence of the rows of a call",
        "rare tokens, up to 500 draws",
    ]
