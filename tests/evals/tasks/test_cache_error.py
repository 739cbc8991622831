"""The task that measures approximate KV caches: its divergence, and the effect of the refresh interval."""

from __future__ import annotations

import math

import pytest
import torch
from helpers.toy import toy

from repro.core import parts
from repro.evals.task import Ask
from repro.evals.tasks.cache_error import CacheError, divergence
from repro.evals.work_queue import SerialQueue
from repro.model import load
from repro.training.loop import train

TASK = CacheError(name="caches", rows=8, block_length=8, refreshes=(1, 4))
ASK = Ask(None, None, 0, None)


def test_divergence_is_kullback_leibler():
    one, two = (
        torch.tensor([[0.5, 0.25, 0.25], [0.2, 0.3, 0.5]]),
        torch.tensor([[0.25, 0.5, 0.25], [0.2, 0.3, 0.5]]),
    )
    forbidden = torch.full((2, 1), -torch.inf)
    found = divergence(torch.cat([one.log(), forbidden], 1), torch.cat([two.log(), forbidden], 1))
    assert found.tolist() == pytest.approx([math.log(2) / 4, 0.0], abs=1e-7)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("caches")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("REPRO_RUNS", str(folder / "runs"))
        out = train(toy("mdlm"), seed=0, out=folder / "run", stop=None, resume=False)
        yield load(out)


def test_a_cache_has_less_error_with_more_refreshes(model):
    """More refreshes: less divergence, more tokens forwarded. The dual cache forwards less than the prefix cache."""
    found = TASK.answer(model, ASK).metrics
    for name in ("prefix", "dual"):
        kl = [found[f"{name}_{interval}_kl"][0] for interval in ("1", "4", "never")]
        share = [found[f"{name}_{interval}_tokens"][0] for interval in ("1", "4", "never")]
        assert 0 < kl[0] < kl[1] < kl[2] and 1 > share[0] > share[1] > share[2]
    assert found["dual_never_tokens"][0] < found["prefix_never_tokens"][0]
    again = TASK.shared(model, ASK, SerialQueue(batch=3)).metrics
    assert again.keys() == found.keys()
    for name, (value, error, count) in again.items():
        assert (value, error, count) == pytest.approx(found[name], rel=1e-5, abs=1e-6), name


def test_models_without_a_cache_are_skipped():
    assert TASK.skip(load("oracle:mdlm@nano")) == "the network of this model does not support a KV cache"
    assert "absorbing" in str(TASK.skip(load("oracle:duo@nano")))
    assert parts.read(parts.canonical(TASK), CacheError) == TASK
