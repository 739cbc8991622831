"""Oracle languages: every conditional against enumeration of a small space, and the committed tables."""

from __future__ import annotations

import itertools
import json
import re

import pytest
import torch

from repro.core import parts, rng
from repro.data import language
from repro.data.hmm import Hmm
from repro.data.language import HELDOUT, Language, assemble, estimate_entropy

STATES, TOKENS, LENGTH, MASK = 4, 3, 3, 3
SEQUENCES = torch.tensor(list(itertools.product(range(TOKENS), repeat=LENGTH)))
NAMES = sorted(language.DRAWN)


def tiny() -> Hmm:
    """A model whose laws are all random and positive."""
    u = rng.uniform(rng.keys(3, rng.LANGUAGE, 0, torch.arange(STATES)), 3, STATES)
    normal = [law / law.sum(-1, keepdim=True) for law in (u[0, 2], u[:, 0], u[:, 1, :TOKENS])]
    return Hmm(normal[0], normal[1], normal[2], LENGTH)


def law(hmm: Hmm) -> torch.Tensor:
    """p(x) of every sequence, summed over every path of states."""
    total = torch.zeros(len(SEQUENCES), dtype=torch.float64)
    for path in itertools.product(range(STATES), repeat=LENGTH):
        p = (
            hmm.initial[path[0]]
            * torch.stack([hmm.transition[a, b] for a, b in itertools.pairwise(path)]).prod()
        )
        total += p * hmm.emission[list(path), SEQUENCES].prod(-1)
    return total


def by_enumeration(hmm: Hmm, channel: torch.Tensor, skip_own: bool) -> torch.Tensor:
    """p(x_l | z), or p(x_l | z_-l), [n, L, V] from channel [n, L, V] = q(z_l | x)."""
    found = torch.zeros(len(channel), LENGTH, TOKENS, dtype=torch.float64)
    for weight, x in zip(law(hmm), SEQUENCES, strict=True):
        seen = channel[:, torch.arange(LENGTH), x]
        for place in range(LENGTH):
            others = seen[:, [other for other in range(LENGTH) if other != place or not skip_own]]
            found[:, place, x[place]] += weight * others.prod(-1)
    return found / found.sum(-1, keepdim=True)


def load(name: str, rows: int = 512, heldout: int = 64, seed: int = 0) -> Language:
    digest = parts.sha256((language.FOLDER / f"{name}.json").read_text("utf-8"))
    return Language(table=name, table_sha256=digest, rows=rows, heldout=heldout, seed=seed)


# --- the mathematics ----------------------------------------------------------------------------------------


def test_likelihood_is_the_sum_over_paths_and_sums_to_one():
    hmm = tiny()
    p = hmm.log_likelihood(SEQUENCES).exp()
    torch.testing.assert_close(p, law(hmm), atol=1e-14, rtol=0)
    assert abs(p.sum() - 1) < 1e-12


def test_next_tokens_multiply_to_the_likelihood_and_are_causal():
    hmm = tiny()
    rows = hmm.next_token(SEQUENCES)
    chosen = rows.gather(-1, SEQUENCES[..., None])[..., 0]
    torch.testing.assert_close(chosen.log().sum(-1), hmm.log_likelihood(SEQUENCES), atol=1e-12, rtol=0)
    torch.testing.assert_close(rows[:, :2], hmm.next_token(SEQUENCES[:, :2]), atol=0, rtol=0)


def test_absorbing_posterior_is_bayes():
    hmm = tiny()
    z = torch.tensor(list(itertools.product(range(TOKENS + 1), repeat=LENGTH)))
    channel = (z[..., None] == torch.arange(TOKENS)) | (z[..., None] == MASK)
    exact = hmm.posterior_absorbing(z, MASK)
    torch.testing.assert_close(exact, by_enumeration(hmm, channel.double(), False), atol=1e-12, rtol=0)
    without = hmm.leave_one_out(hmm.absorbing_evidence(z, MASK))
    torch.testing.assert_close(without, by_enumeration(hmm, channel.double(), True), atol=1e-12, rtol=0)
    torch.testing.assert_close(without[z == MASK], exact[z == MASK], atol=0, rtol=0)


@pytest.mark.parametrize("levels", ["one a row", "one a position"])
def test_uniform_posterior_is_bayes(levels):
    hmm = tiny()
    shape = (len(SEQUENCES), 1 if levels == "one a row" else LENGTH)
    alpha = torch.linspace(0, 1, shape[0] * shape[1], dtype=torch.float64).reshape(shape).squeeze(-1)
    level = alpha.reshape(len(SEQUENCES), -1, 1)
    channel = level * (SEQUENCES[..., None] == torch.arange(TOKENS)) + (1 - level) / TOKENS
    exact, without = hmm.posterior_uniform(SEQUENCES, alpha), hmm.leave_one_out_uniform(SEQUENCES, alpha)
    torch.testing.assert_close(exact, by_enumeration(hmm, channel, False), atol=1e-12, rtol=0)
    torch.testing.assert_close(without, by_enumeration(hmm, channel, True), atol=1e-12, rtol=0)


def test_leave_one_out_is_recovered_from_the_mean_and_gives_the_marginalised_posterior():
    """loo is proportional to p(x | z) / q(z | x), and its plug-in is exact (docs/method.md#oracle-11)."""
    hmm = load("strong").hmm()
    z = hmm.sample(rng.keys(1, rng.SENTENCE, 0, torch.arange(16)))
    size = hmm.vocab_size
    for a_t, a_s in ((0.05, 0.1), (0.3, 0.5), (0.6, 0.9), (0.8, 0.81), (0.01, 0.99)):
        alpha = torch.full((len(z),), a_t, dtype=torch.float64)
        mean, loo = hmm.posterior_uniform(z, alpha), hmm.leave_one_out_uniform(z, alpha)
        token = torch.nn.functional.one_hot(z, size).double()
        ratio = mean / (a_t * token + (1 - a_t) / size)
        torch.testing.assert_close(ratio / ratio.sum(-1, keepdim=True), loo, atol=1e-12, rtol=0)

        def posterior(x, a=a_t, b=a_s, z=token):
            """q(z_s | z_t, x) of docs/method.md#uniform-process for x [..., V], soft or hard."""
            r, own = a / b, (x * z).sum(-1, keepdim=True)
            top = size * a * own * z + (r - a) * z + (b - a) * x + (1 - r) * (1 - b) / size
            return top / (size * a * own + 1 - a)

        marginalised = torch.zeros_like(mean)
        for x in range(size):
            hard = torch.zeros(size, dtype=torch.float64)
            hard[x] = 1
            marginalised += mean[..., x : x + 1] * posterior(hard)
        torch.testing.assert_close(posterior(loo), marginalised, atol=1e-12, rtol=0)


def test_unigram_and_bigram_are_those_of_the_law():
    hmm = tiny()
    p, unigram = law(hmm), torch.zeros(TOKENS, dtype=torch.float64)
    bigram = torch.zeros(TOKENS, TOKENS, dtype=torch.float64)
    for weight, x in zip(p, SEQUENCES.tolist(), strict=True):
        for token in x:
            unigram[token] += weight / LENGTH
        for first, second in itertools.pairwise(x):
            bigram[first, second] += weight / (LENGTH - 1)
    torch.testing.assert_close(hmm.unigram(), unigram, atol=1e-13, rtol=0)
    torch.testing.assert_close(hmm.bigram(), bigram, atol=1e-13, rtol=0)


def test_impossible_sequences_have_likelihood_zero():
    certain = torch.eye(2, dtype=torch.float64)
    hmm = Hmm(certain[0], certain, certain, 4)
    ids = torch.tensor([[0, 0, 0, 0], [0, 1, 0, 0]])
    assert hmm.log_likelihood(ids).tolist() == [0.0, float("-inf")]
    assert hmm.leave_one_out(hmm.clean_evidence(ids)).isfinite().all()


def test_long_rows_do_not_underflow():
    hmm = load("strong").hmm()
    ids = hmm.sample(rng.keys(0, rng.SENTENCE, 0, torch.arange(2))).repeat(1, 100)
    assert hmm.log_likelihood(ids).isfinite().all() and hmm.log_likelihood(ids).max() < -745
    torch.testing.assert_close(
        hmm.leave_one_out(hmm.clean_evidence(ids)).sum(-1), torch.ones(ids.shape, dtype=torch.float64)
    )


# --- draws and tables ---------------------------------------------------------------------------------------


def test_samples_follow_the_law():
    """Chi-square over the 27 sequences, 2^16 draws; a correct sampler would fail for one key in 10^6."""
    from scipy.stats import chi2

    hmm, count = tiny(), 1 << 16
    drawn = hmm.sample(rng.keys(0, rng.SENTENCE, 0, torch.arange(count)))
    seen = torch.bincount(
        (drawn * TOKENS ** torch.arange(LENGTH - 1, -1, -1)).sum(-1), minlength=TOKENS**LENGTH
    )
    expected = count * law(hmm)
    assert ((seen - expected) ** 2 / expected).sum() < chi2.isf(1e-6, len(expected) - 1)


@pytest.mark.parametrize("name", NAMES)
def test_committed_table_is_what_is_drawn(name):
    text = (language.FOLDER / f"{name}.json").read_text("utf-8")
    committed = json.loads(text)
    assert text == language.render(language.DRAWN[name](), committed["entropy"], committed["entropy_se"])


@pytest.mark.parametrize("name", NAMES)
def test_committed_entropy_is_the_models(name):
    """An independent estimate from 2^12 sequences, within 5 standard errors (one seed in 10^6 would fail)."""
    data = load(name)
    mean, error = estimate_entropy(data.hmm(), seed=1, count=1 << 12)
    assert abs(mean - data.entropy()) < 5 * (error**2 + data.entropy_se() ** 2) ** 0.5
    assert data.entropy_se() < 2e-4


@pytest.mark.parametrize("name", NAMES)
def test_context_helps(name):
    """Entropy < bigram entropy rate < unigram entropy < ln V."""
    data = load(name)
    hmm = data.hmm()
    unigram, pairs = hmm.unigram(), hmm.bigram()
    bigram = -(pairs * (pairs / pairs.sum(1, keepdim=True)).log()).sum().item()
    levels = [
        data.entropy(),
        bigram,
        -(unigram * unigram.log()).sum().item(),
        torch.tensor(hmm.vocab_size).log().item(),
    ]
    assert all(lower + 0.1 < upper for lower, upper in itertools.pairwise(levels)), levels


def test_lexicon_spells_its_words():
    table = language.DRAWN["lexicon"]()
    clean = assemble(table | {"smoothing": 0.0})
    words = table["words"].split()
    assert sorted(map(len, words)) == sorted([2, 3, 4, 5] * 4) and len(set(words)) == 16
    text = load("lexicon").decode(
        clean.sample(rng.keys(0, rng.SENTENCE, 0, torch.arange(8))).flatten().tolist()
    )
    spelt = re.compile(f"({'|'.join(words)})*[a-p]{{0,4}}")
    assert all(spelt.fullmatch(text[row : row + 60]) for row in range(0, len(text), 60))


@pytest.mark.parametrize("name", NAMES)
def test_splits_are_disjoint_streams_that_size_does_not_change(name):
    few, many = load(name, rows=100, heldout=10).build(), load(name, rows=5000, heldout=20).build()
    assert (few["train"].ids == many["train"].ids[:100]).all()
    assert (few["heldout"].ids == many["heldout"].ids[:10]).all()
    assert many["train"].example.max() < HELDOUT <= many["heldout"].example.min()
    assert not {tuple(row) for row in many["train"].ids} & {tuple(row) for row in many["heldout"].ids}
    assert many["train"].candidates.all() and many["train"].ids.shape == (5000, load(name).row_length())
    assert (load(name, seed=1).build()["train"].ids != many["train"].ids[:512]).any()


@pytest.mark.parametrize("name", NAMES)
def test_text_reads_back(name):
    data = load(name)
    row = data.build()["heldout"].ids[0].tolist()
    assert data.encode(data.decode(row)) == row
    size = data.vocabulary().size
    assert data.decode([size, size + 1]) == "[MASK][BOS]" and data.vocabulary().total == size + 2


def test_errors_name_the_value_and_a_valid_one():
    data = load("strong")
    with pytest.raises(ValueError, match="no symbol '!'"):
        data.encode("AB!")
    with pytest.raises(ValueError, match="no id 34"):
        data.decode([34])
    with pytest.raises(ValueError, match="table_sha256='0'"):
        parts.derive(data, {"table_sha256": "0"}).vocabulary()
    with pytest.raises(ValueError, match="no language 'strng'; nearest is 'strong'"):
        parts.derive(data, {"table": "strng"}).vocabulary()
