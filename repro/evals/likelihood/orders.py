"""Likelihoods under an order: exact chain rules, one token a forward, and whether greedy decoding writes an answer.

    next_token    left to right, by a causal model: exact
    duel          one masked position at a time, chosen by what the model sees and never by the answer: the exact
                  likelihood of the sampler that decodes so at temperature 1 (DUEL, arXiv 2603.01367)
    confidence    the same, but the position whose *own* token is likeliest goes first: a score for multiple choice

`confidence` is our reading of the confidence-based scoring that iLLaDA announces (arXiv 2606.25331; its code is not
out). Its order looks at the answer, so the scores of all answers do not sum to 1: it ranks, and is no likelihood.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from repro.core.lazy import torch
from repro.core.parts import part
from repro.evals.likelihood.likelihood import Estimator, Likelihood, Request, by_length
from repro.evals.likelihood.network import Inputs, Look, Network
from repro.processes.absorbing import mask_id

if TYPE_CHECKING:
    from torch import Tensor

Order = Literal["left_to_right", "low_confidence", "margin", "entropy"]
"""`low_confidence` is LLaDA's name: the position of the largest probability first (the others are remasked)."""


def token_and_best(logp: Tensor, row: Tensor, target: Tensor) -> Tensor:
    """[N, 2]: log-probability of the token in question, and whether it is the argmax."""
    own = logp[row, target]
    return torch.stack([own.double(), (logp.argmax(-1)[row] == target).double()], 1)


def _with_confidence(order: Order, logp: Tensor, row: Tensor, target: Tensor) -> Tensor:
    """[N, 3]: as `token_and_best`, and how early the position comes (larger is earlier), whatever the token."""
    if order == "left_to_right":
        early = torch.zeros(len(logp), dtype=torch.float64, device=logp.device)
    elif order == "low_confidence":
        early = logp.max(-1).values.double()
    elif order == "margin":
        first, second = logp.double().exp().topk(2, dim=-1).values.unbind(-1)
        early = first - second
    else:
        p = logp.double().exp()
        early = (p * logp.double().clamp_min(-1e9)).sum(-1)
    return torch.cat([token_and_best(logp, row, target), early[row][:, None]], 1)


def _own_confidence(logp: Tensor, row: Tensor, target: Tensor) -> Tensor:
    """[N, 3]: the token's own probability says how early its position comes."""
    found = token_and_best(logp, row, target)
    return torch.cat([found, found[:, :1]], 1)


@part
class NextToken(Estimator):
    """The chain rule of a causal model: one forward a request, every token of the continuation at once."""

    processes = frozenset({"left_to_right"})
    score_is = "exact"

    def most(self, length: int) -> int:
        return 1

    def score(self, network: Network, requests: Sequence[Request], seed: int) -> list[Likelihood]:
        self.check(network.process)
        found: dict[int, Likelihood] = {}
        for some in by_length(requests, lambda request: 1):
            chosen = [requests[index] for index in some]
            rows = torch.tensor([request.ids for request in chosen])
            starts = torch.tensor([len(request.prompt) for request in chosen])
            if (starts == 0).any():
                raise ValueError("a left-to-right model needs a prompt of one token at least (BOS)")
            where = torch.arange(1, rows.shape[1]) >= starts[:, None]
            t = torch.zeros(len(rows), dtype=torch.float64)
            given = torch.arange(rows.shape[1] - 1) < starts[:, None]
            kept = network.read(Inputs(rows[:, :-1], where, rows[:, 1:], t, given), token_and_best)
            for index, values in zip(some, kept.split(where.sum(1).tolist()), strict=True):
                value, greedy = float(values[:, 0].sum()), bool(values[:, 1].all())
                found[index] = Likelihood(value, 0.0, None, 1, greedy)
        return [found[index] for index in range(len(requests))]


@part
class Duel(Estimator):
    """The chain rule along an order: L forwards. Ties go to the leftmost position."""

    order: Order
    processes = frozenset({"absorbing"})
    score_is = "exact under its order"

    def most(self, length: int) -> int:
        return length

    def score(self, network: Network, requests: Sequence[Request], seed: int) -> list[Likelihood]:
        self.check(network.process)
        return _revealed(network, requests, lambda *seen: _with_confidence(self.order, *seen), stop=False)


@part
class Confidence(Estimator):
    """Sum of log p of the answer's tokens, each revealed when it is the likeliest of those left: L forwards."""

    processes = frozenset({"absorbing"})
    score_is = "score"

    def most(self, length: int) -> int:
        return length

    def score(self, network: Network, requests: Sequence[Request], seed: int) -> list[Likelihood]:
        self.check(network.process)
        return _revealed(network, requests, _own_confidence, stop=False)


def greedy(network: Network, requests: Sequence[Request]) -> list[Likelihood]:
    """Does decoding at temperature 0, one token a step, the most confident first, write this continuation?

    The answer is `greedy` of each; a request that has failed is forwarded no further (its `value` is then no sum). What
    LLaDA's `suffix_greedy_prediction` asks, for absorbing noise only.
    """
    return _revealed(network, requests, lambda *seen: _with_confidence("low_confidence", *seen), stop=True)


def _revealed(network: Network, requests: Sequence[Request], look: Look, stop: bool) -> list[Likelihood]:
    """Reveal each continuation a token at a time, by the third value that `look` keeps; `stop` at the first token that
    is not the argmax."""
    found: dict[int, Likelihood] = {}
    for some in by_length(requests, lambda request: 1):
        chosen = [requests[index] for index in some]
        for index, likelihood in zip(some, _reveal(network, chosen, look, stop), strict=True):
            found[index] = likelihood
    return [found[index] for index in range(len(requests))]


def _reveal(network: Network, requests: Sequence[Request], look: Look, stop: bool) -> list[Likelihood]:
    """The same for requests of one total length."""
    mask = mask_id(network.vocabulary)
    target = torch.tensor([request.ids for request in requests])
    lengths = torch.tensor([len(request.continuation) for request in requests])
    hidden = torch.arange(target.shape[1]) >= (target.shape[1] - lengths)[:, None]
    given = ~hidden
    value = torch.zeros(len(target), dtype=torch.float64)
    best = torch.ones(len(target), dtype=torch.bool)
    forwards = torch.zeros(len(target), dtype=torch.int64)
    while True:
        rows = (hidden.any(1) & (best | (not stop))).nonzero()[:, 0]
        if len(rows) == 0:
            break
        where = hidden[rows]
        t = where.sum(1).double() / lengths[rows]
        ids = target[rows].masked_fill(where, mask)
        kept = network.read(Inputs(ids, where, target[rows], t, given[rows]), look)
        early = torch.full(where.shape, -torch.inf, dtype=torch.float64)
        early[where] = kept[:, 2]
        chosen = early.sort(dim=1, descending=True, stable=True).indices[:, 0]
        dense = torch.zeros(*where.shape, 2, dtype=torch.float64)
        dense[where] = kept[:, :2]
        step = dense[torch.arange(len(rows)), chosen]
        value[rows] += step[:, 0]
        best[rows] &= step[:, 1] == 1
        forwards[rows] += network.cost
        hidden[rows, chosen] = False
    each = zip(value.tolist(), forwards.tolist(), best.tolist(), strict=True)
    return [Likelihood(v, 0.0, None, f, g) for v, f, g in each]
