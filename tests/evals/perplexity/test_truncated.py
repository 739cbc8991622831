"""The published form of a bound, without its prior and tail terms, beside the whole bound."""

import math

import numpy as np
import pytest
import torch

from repro.core import parts, rng
from repro.data.corpus import Rows, Vocabulary, prepared
from repro.evals.perplexity.corpora import protocol, protocols
from repro.evals.perplexity.perplexity import HeldoutBound, TruncatedBound
from repro.evals.task import Ask
from repro.evals.work_queue import SerialQueue
from repro.model import load
from repro.models.denoiser import ForwardWrapper
from repro.objectives.bound import EPS, reading, row_nll, truncated
from repro.processes.absorbing import Absorbing
from repro.processes.uniform import Uniform

PINS = {"rows": 512, "skip_rows": 512, "passes": 8}


@pytest.mark.parametrize("name", ["oracle:duo_nelbo@nano", "oracle:mdlm@nano"])
def test_the_truncated_form_estimates_the_integral_alone(name):
    """For an exact denoiser it differs from the whole bound by the draws and by about .001 nats, which is less."""
    model = load(name)
    found = {}
    for kind in (HeldoutBound, TruncatedBound):
        ask = Ask(sampler=None, plan=None, seed=0, limit=None)
        found |= kind(name="x", **PINS).shared(model, ask, SerialQueue(None)).metrics
    full, short = found["nll_bound"], found["nll_truncated"]
    assert abs(short[0] - full[0]) < 0.002 + 4 * math.hypot(full[1], short[1])
    assert found["ppl_bound"][:2] == pytest.approx((math.exp(full[0]), math.exp(full[0]) * full[1]))
    assert TruncatedBound(name="x", **PINS).skip(load("oracle:mdlm@nano")) is None


@pytest.mark.filterwarnings("error")
def test_one_row_has_values_without_standard_errors():
    """As `--limit 1` asks: nothing is warned of, and no error is claimed."""
    ask = Ask(sampler=None, plan=None, seed=0, limit=1)
    found = (
        HeldoutBound(name="x", **PINS)
        .shared(load("oracle:mdlm@nano"), ask, SerialQueue(None))
        .data()["metrics"]
    )
    assert set(found) == {"nll_bound", "ppl_bound", "nll_exact", "gap"}
    assert all(each["se"] is None and each["n"] == 1 for each in found.values())


def test_a_bound_is_the_truncated_form_with_prior_and_tail():
    """Uniform noise, the same draws: bound = (1 - eps) x truncated + tail + prior, row by row."""
    model = load("oracle:duo_nelbo@nano")
    process, vocabulary = model.recipe.process, model.data.vocabulary()
    ids = torch.from_numpy(np.asarray(prepared(model.data).heldout.ids[:8]).astype(np.int64))
    where, keys = torch.ones_like(ids, dtype=torch.bool), rng.keys(0, rng.BOUND, 0, torch.arange(8))
    u = (torch.arange(8, dtype=torch.float64) + 0.5) / 8
    predict = reading(model.denoiser, process, ids, where, vocabulary, keys)
    with torch.no_grad():
        whole = process.bound(predict, ids, where, vocabulary, u, keys)
        short = truncated(process, predict, ids, where, vocabulary, u, rng.fold(keys, 0))
        rest = process.tail(predict, ids, where, vocabulary, keys) + process.prior_term(where, vocabulary)
    assert torch.allclose(whole, (1 - EPS) * short + rest, atol=1e-9) and (rest > 0).all()


@pytest.mark.parametrize("process", [Absorbing(), Uniform(alpha_end=1e-3, eps=1e-3)])
def test_filler_is_noised_at_the_time_of_the_text(process, monkeypatch):
    """At the t at which the network is called, not at that of a number of masked tokens (of 3: 1/4, 1/2 or 3/4)."""
    read = {}

    def record(denoiser, noisy, t, attention):
        for each, row in zip(t.tolist(), noisy, strict=True):
            read[each] = row
        return Flat()

    class Flat:
        meaning = "leave_one_out"

        def logits(self, where):
            return torch.zeros(int(where.sum()), 5)

    monkeypatch.setattr("repro.objectives.bound.Prediction", record)
    words = Vocabulary(size=4, total=5, mask=4, bos=None, eos=None, pad=None, filler=3)
    ids = np.array([[0, 1, 2, *[3] * 997]] * 64)
    rows = Rows(ids, ids != 3, np.arange(64))
    network = ForwardWrapper(load("oracle:mdlm@nano").denoiser)
    row_nll(network, process, words, rows, slice(0, 64), passes=1, seed=0, batch=16, form="truncated")
    times = torch.tensor(list(read), dtype=torch.float64)
    changed = (torch.stack(list(read.values()))[:, 3:] != 3).double().mean(1)
    assert len(times) == 64 and (changed - process.p_flip(times, words)).abs().max() < 0.08


def test_names_of_published_protocols_have_a_truncated_form():
    for name, full in protocols().items():
        short = protocol(f"{name}.truncated")
        assert short.name == f"{name}.truncated" and short.documents == full.documents
        assert (
            "without prior and tail" in short.protocol()["estimator"] and short.protocol() != full.protocol()
        )
        assert parts.canonical(short)["part"] == "truncated_perplexity"
    with pytest.raises(ValueError, match=r"no perplexity protocol 'owt.wraped.truncated'"):
        protocol("owt.wraped.truncated")
