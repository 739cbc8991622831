"""Likelihood estimators that follow the chain rule along an order of the positions, and a check of whether greedy
decoding produces a continuation.

    next_token    left to right, by a causal model, in one forward pass: exact
    duel          one masked position per forward pass, chosen by the model's prediction and never by the scored tokens:
                  the exact likelihood of the sampler that decodes in that order at temperature 1 (DUEL, arXiv
                  2603.01367)
    confidence    one masked position per forward pass, the one whose scored token has the largest probability: a score
                  for multiple choice

`confidence` is our reading of the confidence-based scoring of iLLaDA (arXiv 2606.25331), whose code is not published.
Its order depends on the scored tokens, so the probabilities of all continuations do not sum to 1: it ranks them, but is
not a likelihood.

Symbols: N scored positions, m rows of logits, V vocabulary size, T tokens of prompt and continuation, L
tokens of the continuation.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal

from repro.core.lazy import torch
from repro.core.parts import part
from repro.evals.likelihood.batched import BatchedDenoiser, Readout, ScoredInputs, token_logp
from repro.evals.likelihood.likelihood import (
    Estimator,
    Likelihood,
    LikelihoodRequest,
    score_by_length,
    score_groups,
)
from repro.processes.absorbing import mask_id
from repro.samplers.ordered import margin, negative_entropy
from repro.samplers.sampler import log_normaliser

if TYPE_CHECKING:
    from torch import Tensor

Order = Literal["left_to_right", "low_confidence", "margin", "entropy"]
"""Order in which masked positions are revealed. `low_confidence` (LLaDA's name, since low confidence is remasked): the
largest probability first; `margin`: the largest gap between the two largest probabilities first; `entropy`: the lowest
entropy first."""


def token_and_best(logits: Tensor, row: Tensor, target: Tensor) -> Tensor:
    """For each of N positions, [N, 2]: log-probability of its target token, and 1 if the target is the argmax, else 0.

    `logits` [m, V]: those of position i are `logits[row[i]]`, its target id is `target[i]`.
    """
    best = (logits.argmax(-1)[row] == target).double()
    return torch.cat([token_logp(logits, row, target), best[:, None]], 1)


def _with_priority(order: Order, logits: Tensor, row: Tensor, target: Tensor) -> Tensor:
    """For each of N positions, [N, 3]: log-probability of its target token, 1 if the target is the argmax, else 0, and
    its priority under `order` (the position of the largest is revealed first). The priority follows from the network's
    prediction alone, whatever the target, and is the float64 score of the sampler of that name. `logits` [m, V]: those
    of position i are `logits[row[i]]`, its target id is `target[i]`."""
    if order == "left_to_right":
        priority = torch.zeros(len(logits), dtype=torch.float64, device=logits.device)
    elif order == "low_confidence":
        priority = (logits.amax(-1).double() - log_normaliser(logits)).exp()
    else:
        priority = margin(logits) if order == "margin" else negative_entropy(logits)
    return torch.cat([token_and_best(logits, row, target), priority[row][:, None]], 1)


MAX_PADDING = 0.25
"""Maximum number of padded columns in a causal forward pass, as a share of the ids that its rows hold."""


@part
class NextToken(Estimator):
    """The exact log-likelihood under a causal model by the chain rule: one forward pass per request scores every token
    of the continuation. ValueError for an empty prompt.

    Requests of similar lengths share a forward pass, the shorter ones padded on the right: a causal network reads no
    column to the right of the one that it predicts from.
    """

    processes = frozenset({"left_to_right"})
    score_is = "exact"

    def max_forwards(self, length: int) -> int:
        return 1

    def score(
        self, denoiser: BatchedDenoiser, requests: Sequence[LikelihoodRequest], seed: int
    ) -> list[Likelihood]:
        self.check(denoiser.process)
        groups = _similar_lengths(requests, denoiser.batch)
        return score_groups(requests, groups, lambda group: self.score_group(denoiser, group, seed))

    def score_group(
        self, denoiser: BatchedDenoiser, requests: list[LikelihoodRequest], seed: int
    ) -> list[Likelihood]:
        lengths = torch.tensor([len(request.ids) for request in requests])[:, None]
        ids = torch.zeros(len(requests), int(lengths.max()), dtype=torch.int64)
        for row, request in zip(ids, requests, strict=True):
            row[: len(request.ids)] = torch.tensor(request.ids)
        starts = torch.tensor([len(request.prompt) for request in requests])[:, None]
        if (starts == 0).any():
            raise ValueError(
                "a left-to-right model cannot score the first token of an empty prompt; begin the prompt with BOS"
            )
        columns = torch.arange(ids.shape[1])
        scored = (columns[1:] >= starts) & (columns[1:] < lengths)
        t = torch.zeros(len(ids), dtype=torch.float64)
        read = ids.masked_fill(columns >= lengths - 1, 0)[
            :, :-1
        ]  # without last tokens, so that equal inputs are equal
        inputs = ScoredInputs(read, scored, ids[:, 1:], t, columns[:-1] < starts)
        values = denoiser.read(inputs, token_and_best).split(scored.sum(1).tolist())
        return [Likelihood(float(v[:, 0].sum()), 0.0, None, 1, bool(v[:, 1].all())) for v in values]


def _similar_lengths(requests: Sequence[LikelihoodRequest], batch: int) -> Iterator[list[int]]:
    """Indices of the requests in groups of similar lengths, one group per forward pass of a causal network. A request's
    input is all its ids but the last; a group has at most `batch` distinct inputs, and at most a quarter as many padded
    columns as ids (MAX_PADDING)."""
    order = sorted(range(len(requests)), key=lambda i: (len(requests[i].ids), requests[i].ids))
    group: list[int] = []
    inputs = ids = 0
    for index in order:
        own = requests[index].ids[:-1]
        if group and own == requests[group[-1]].ids[:-1]:
            group.append(index)
            continue
        if inputs == batch or (inputs + 1) * len(own) > (1 + MAX_PADDING) * (ids + len(own)):
            yield group
            group, inputs, ids = [], 0, 0
        group.append(index)
        inputs, ids = inputs + 1, ids + len(own)
    if group:
        yield group


class _Revealing(Estimator):
    """Base class of estimators that reveal masked positions one per forward pass, in an order of priority, and sum the
    log-probabilities of the revealed tokens (chain rule). A subclass supplies the priorities (`readout`); of equal ones
    the leftmost position goes first."""

    processes = frozenset({"absorbing"})

    @abstractmethod
    def readout(self, logits: Tensor, row: Tensor, target: Tensor) -> Tensor:
        """For each of N masked positions, [N, 3]: log-probability of its target token, 1 if the target is the argmax,
        else 0, and the position's priority (the largest is revealed first). `logits` [m, V]: those of position i are
        `logits[row[i]]`, its target id is `target[i]`."""

    def max_forwards(self, length: int) -> int:
        return length

    def inputs(self, length: int) -> int:
        return 1

    def score_group(
        self, denoiser: BatchedDenoiser, requests: list[LikelihoodRequest], seed: int
    ) -> list[Likelihood]:
        return _reveal(denoiser, requests, self.readout, stop=False)


@part
class Duel(_Revealing):
    """The exact log-likelihood under the sampler that unmasks one position per step, chosen by `order`, and draws its
    token at temperature 1 (DUEL, arXiv 2603.01367)."""

    order: Order
    score_is = "exact under its order"

    def readout(self, logits: Tensor, row: Tensor, target: Tensor) -> Tensor:
        return _with_priority(self.order, logits, row, target)


@part
class Confidence(_Revealing):
    """Sum of log p of the continuation's tokens, revealed one per forward pass: each time the one that has the largest
    probability among those still masked (arXiv 2606.25331). A score, not a likelihood."""

    score_is = "score"

    def readout(self, logits: Tensor, row: Tensor, target: Tensor) -> Tensor:
        priority = logits[row, target].double() - log_normaliser(logits)[row]
        return torch.cat([token_and_best(logits, row, target), priority[:, None]], 1)


def greedy(denoiser: BatchedDenoiser, requests: Sequence[LikelihoodRequest]) -> list[Likelihood]:
    """Check, per request, whether decoding at temperature 0 (one token per step, the most confident first) produces the
    continuation.

    The answer is the field `greedy` of each returned likelihood. A request is not forwarded any further once a token
    differs from the argmax, so the field `value` is then no full sum, but that up to this token. The check is LLaDA's
    `suffix_greedy_prediction` (`ML-GSAI/LLaDA@b7e6c35 eval_llada.py:173-194`); for absorbing noise only.
    """
    readout = partial(_with_priority, "low_confidence")
    return score_by_length(
        requests, lambda length: 1, lambda group: _reveal(denoiser, group, readout, stop=True)
    )


def _reveal(
    denoiser: BatchedDenoiser, requests: list[LikelihoodRequest], readout: Readout, stop: bool
) -> list[Likelihood]:
    """One likelihood per request, from revealing its continuation one token per forward pass, the position with the
    largest priority first; `readout` returns [N, 3] for N masked positions: log-probability of the target token, 1 if
    that is the argmax, else 0, and the priority.

    With `stop`, a request ends at its first token that is not the argmax, which is enough to know that greedy decoding
    does not produce the continuation; its `value` is then the sum so far. The requests must have one total length.
    """
    mask = mask_id(denoiser.vocabulary)
    target = torch.tensor([request.ids for request in requests])
    lengths = torch.tensor([len(request.continuation) for request in requests])
    hidden = torch.arange(target.shape[1]) >= (target.shape[1] - lengths)[:, None]
    prompt = ~hidden
    value = torch.zeros(len(target), dtype=torch.float64)
    best = torch.ones(len(target), dtype=torch.bool)
    forwards = torch.zeros(len(target), dtype=torch.int64)
    while True:
        rows = (hidden.any(1) & (best | (not stop))).nonzero()[:, 0]
        if len(rows) == 0:
            break
        masked = hidden[rows]
        t = masked.sum(1).double() / lengths[rows]
        ids = target[rows].masked_fill(masked, mask)
        found = denoiser.read(ScoredInputs(ids, masked, target[rows], t, prompt[rows]), readout)
        values = torch.full((*masked.shape, 3), -torch.inf, dtype=torch.float64)
        values[masked] = found
        # an impossible token has priority -inf, and still comes before positions that are not masked
        priority = values[..., 2].clamp_min(-1e300).masked_fill(~masked, -torch.inf)
        chosen = priority.sort(dim=1, descending=True, stable=True).indices[:, 0]
        logp, is_best, _ = values[torch.arange(len(rows)), chosen].unbind(1)
        value[rows] += logp
        best[rows] &= is_best == 1
        forwards[rows] += denoiser.cost
        hidden[rows, chosen] = False
    each = zip(value.tolist(), forwards.tolist(), best.tolist(), strict=True)
    return [Likelihood(v, 0.0, None, f, g) for v, f, g in each]
