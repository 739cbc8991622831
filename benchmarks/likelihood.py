"""Likelihoods of continuations: seconds for the same draws, and squared error at equal numbers of forward passes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.nets import Sizes, llama
from benchmarks.row import Row, against
from repro.evals.likelihood.batched import BatchedDenoiser
from repro.evals.likelihood.estimators import LladaMC, Subsets
from repro.evals.likelihood.levels import Levels
from repro.evals.likelihood.likelihood import Estimator, LikelihoodRequest

if TYPE_CHECKING:
    from repro.models.denoiser import Denoiser

DRAWN = LladaMC(draws=128, batch=16)
LENGTHS = (5, 8, 15)
"""Lengths of the continuations in `same_draws`, in tokens, after a prompt of 20."""
BUDGETS = {5: (16, 3.0), 8: (32, 1.8), 12: (64, 1.3)}
"""Continuation length -> (forward passes, target of the ratio of squared errors)."""
REQUESTS, SEEDS, PROMPT = 16, 24, 8


def same_draws(repeats: int) -> list[Row]:
    """128 draws per continuation at a vocabulary of 32k, batched over requests, without duplicate inputs and with
    logits at masked positions only, against LLaDA's loop (`ML-GSAI/LLaDA@b7e6c35 get_log_likelihood.py:47-77`) on the
    same masks."""
    from repro.core import rng
    from repro.processes.absorbing import Absorbing

    process = Absorbing()
    denoiser = llama(
        Sizes(ids=32_000, mask=32_000, bos=None, length=64), process, width=512, layers=8, ffn=1376, heads=8
    )
    requests = []
    for row, length in enumerate(LENGTHS):
        ids = (rng.uniform(rng.keys(0, rng.SENTENCE, 0, row), 20 + length) * 32_000).long().tolist()
        requests.append(LikelihoodRequest(tuple(ids[:20]), tuple(ids[20:]), row))

    def ours() -> list[float]:
        network = BatchedDenoiser(denoiser, process, 64)
        return [found.value for found in DRAWN.score(network, requests, seed=0)]

    def theirs() -> list[float]:
        return [_loop(denoiser, request) for request in requests]

    found = against({"ours": ours, "theirs": theirs}, repeats)
    off = max(abs(a - b) for a, b in zip(found.results["ours"], found.results["theirs"], strict=True))
    name = f"likelihood, V=32k, prompt 20, continuations of {', '.join(map(str, LENGTHS))}, 128 draws each"
    return [found.row(name, 2.0, f"nats differ by {off:.1e}")]


def _loop(denoiser: Denoiser, request: LikelihoodRequest) -> float:
    """LLaDA's loop for one request: one forward pass per batch of draws, logits at every position
    (docs/method.md#llada-likelihood)."""
    from repro.core.lazy import torch
    from repro.models.attention import Mask

    design = DRAWN.design(len(request.continuation), request.row, 0)
    ids = torch.tensor(request.ids).expand(DRAWN.batch, -1)
    losses = []
    with torch.no_grad():
        for masked in design.masked.split(DRAWN.batch):
            where = torch.nn.functional.pad(masked, (len(request.prompt), 0))
            noisy = ids.masked_fill(where, 32_000)
            logits = denoiser.logits(denoiser.encode(noisy, t=None, attention=Mask()))
            loss = torch.zeros(where.shape, dtype=torch.float64)
            loss[where] = torch.nn.functional.cross_entropy(
                logits[where], ids[where], reduction="none"
            ).double()
            losses.append(loss[:, len(request.prompt) :])
    return design.estimate(torch.cat(losses))[0]


def variance(repeats: int) -> list[Row]:
    """Mean squared error of `levels` against LLaDA's estimator (without its rounding error) at equal numbers of forward
    passes, under the exact conditionals of the language `strong`; the true value is the bound over all masked sets."""
    from repro.core import rng
    from repro.core.lazy import torch
    from repro.data.language import Language
    from repro.model import load

    model = load("oracle:mdlm@nano")
    assert isinstance(model.data, Language)
    keys = rng.keys(0, rng.SENTENCE, 2, torch.arange(REQUESTS))
    sentences = model.data.hmm().sample(keys).tolist()
    rows = []
    for length, (draws, target) in BUDGETS.items():
        requests = [
            LikelihoodRequest(tuple(x[:PROMPT]), tuple(x[PROMPT : PROMPT + length]), i)
            for i, x in enumerate(sentences)
        ]
        network = BatchedDenoiser(model.denoiser, model.recipe.process, 512)
        truth = [found.value for found in Subsets(longest=length).score(network, requests, seed=0)]

        def error(rule: Estimator, network=network, requests=requests, truth=truth) -> float:
            found = [rule.score(network, requests, seed) for seed in range(SEEDS)]
            squares = [(one.value - b) ** 2 for each in found for one, b in zip(each, truth, strict=True)]
            return sum(squares) / len(squares)

        ours, theirs = error(Levels(draws=draws)), error(LladaMC(draws=draws, batch=16))
        name = f"likelihood, squared error in nats^2, {length} tokens, {draws} forwards"
        rows.append(Row(name, ours, theirs, theirs / ours, target, "both unbiased"))
    return rows
