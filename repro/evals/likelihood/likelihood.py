"""Log-likelihood of a continuation given a prompt: the interface of the estimators and what they share.

    denoiser = BatchedDenoiser(model.denoiser, model.recipe.process, batch=64)
    levels.score(denoiser, requests, seed=0)                     -> one Likelihood per request

Every value is a *sum* over the continuation's tokens in nats, never a mean. Under absorbing noise most estimators are
drawn from the all-subsets bound

    log p(x | prompt) >= - sum over masked sets S of f(S) / (|S| C(L, |S|)),   f(S) = sum over S of -log p(x_i | rest)

(docs/method.md#llada-objective, docs/method.md#llada-likelihood; LLaDA, arXiv 2502.09992, Eq. 6). A *sampling design*
states which masked sets are forwarded and how the bound is estimated from their losses. Designs of many requests share
forwards: inputs of one length form a batch, equal inputs are forwarded once, the head runs at masked positions only,
and prompts stay clean. Draws are keyed by (seed, purpose, row), so results do not depend on batch size or order.

Symbols: B rows, T columns (prompt and continuation), P prompt tokens, L continuation tokens, n masked sets.
"""

from __future__ import annotations

import hashlib
import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from repro.core import registry
from repro.core.lazy import torch
from repro.core.parts import Part
from repro.core.stats import two_sided
from repro.evals.likelihood.batched import BatchedDenoiser, ScoredInputs, token_logp
from repro.processes.absorbing import mask_id
from repro.processes.process import Process

if TYPE_CHECKING:
    from torch import Tensor

    from repro.models.denoiser import Denoiser

MAX_INPUTS = 1 << 13
"""Limit on the masked inputs built at once. No result depends on it."""


@dataclass(frozen=True)
class LikelihoodRequest:
    """A `continuation` [L] to score after a `prompt` [P], which is all that the network reads before it, BOS included;
    `row` keys the request's random draws. ValueError for an empty continuation."""

    prompt: tuple[int, ...]
    continuation: tuple[int, ...]
    row: int

    def __post_init__(self) -> None:
        if not self.continuation:
            raise ValueError("an empty continuation has no likelihood; give it at least one token")

    @classmethod
    def of(cls, prompt: Sequence[int], continuation: Sequence[int]) -> LikelihoodRequest:
        """A request whose `row` is a hash of its content, so that equal requests have equal draws in every run."""
        content = hashlib.sha256(repr((tuple(prompt), tuple(continuation))).encode()).digest()
        return cls(tuple(prompt), tuple(continuation), int.from_bytes(content[:7], "big"))

    @property
    def ids(self) -> tuple[int, ...]:
        """Prompt and continuation, [T]."""
        return self.prompt + self.continuation


@dataclass(frozen=True)
class Likelihood:
    """Log-likelihood `value` in nats (a sum), its Monte Carlo standard error `se` (0: nothing was drawn, None: unknown)
    with its `degrees` of freedom, and the `forwards` that the request needs on its own."""

    value: float
    se: float | None
    degrees: float | None
    forwards: int
    greedy: bool | None = None
    """Whether every token is the network's argmax; None where the estimator's forwards do not show it."""

    def interval(self, level: float) -> tuple[float, float]:
        """Student's interval for the expectation at a confidence level; ValueError without a standard error."""
        if self.se is None:
            raise ValueError("one pass has no standard error; ask for two passes or more")
        half = 0.0 if self.degrees is None else two_sided(level, self.degrees) * self.se
        return self.value - half, self.value + half


def score_by_length(
    requests: Sequence[LikelihoodRequest],
    size: Callable[[int], int],
    score: Callable[[list[LikelihoodRequest]], Sequence[Likelihood]],
) -> list[Likelihood]:
    """One likelihood per request, in their order. `score` gets requests of one total length, equal prompts side by
    side, that need at most MAX_INPUTS inputs together; `size(L)` inputs each."""
    likelihoods: dict[int, Likelihood] = {}
    for group in _by_length(requests, size):
        scored = score([requests[index] for index in group])
        likelihoods.update(zip(group, scored, strict=True))
    return [likelihoods[index] for index in range(len(requests))]


def _by_length(requests: Sequence[LikelihoodRequest], size: Callable[[int], int]) -> Iterator[list[int]]:
    order = sorted(range(len(requests)), key=lambda i: (len(requests[i].ids), requests[i].ids))
    group: list[int] = []
    total = 0
    for index in order:
        more = size(len(requests[index].continuation))
        if group and (total + more > MAX_INPUTS or len(requests[index].ids) != len(requests[group[0]].ids)):
            yield group
            group, total = [], 0
        group.append(index)
        total += more
    if group:
        yield group


# --- sampling designs ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SamplingDesign:
    """Masked sets [n, L] bool of one continuation and the diffusion time `t` [n] of each.

    `estimate` turns their losses per position [n, L] (0 where nothing is masked) into (log-likelihood, standard error,
    degrees of freedom).
    """

    masked: Tensor
    t: Tensor
    estimate: Callable[[Tensor], tuple[float, float | None, float | None]]


class Estimator(Part):
    """Kind: how a log-likelihood is estimated, and what kind of number results."""

    processes: ClassVar[frozenset[str]]
    """Registered names of the processes that it is for."""
    score_is: ClassVar[
        Literal["exact", "bound", "biased bound", "exact under its order", "score", "guided score"]
    ]
    """`bound`: an unbiased estimate of a lower bound on log p; `score`: ranks answers, and is no likelihood."""

    def check(self, process: Process) -> None:
        """Raise ValueError with the reason if the estimator does not apply to `process`."""
        noise = registry.part_name(type(process))
        if noise not in self.processes:
            own = registry.part_name(type(self))
            raise ValueError(
                f"estimator {own!r} is for {' or '.join(sorted(self.processes))} models, not {noise}"
            )

    def batched(self, denoiser: Denoiser, process: Process, batch: int) -> BatchedDenoiser:
        """The denoiser as `score` needs it, with at most `batch` rows in a forward."""
        return BatchedDenoiser(denoiser, process, batch)

    @abstractmethod
    def max_forwards(self, length: int) -> int:
        """Upper bound of the forwards for a continuation of `length` tokens."""

    def inputs(self, length: int) -> int:
        """Upper bound of the inputs that are built at once for a continuation of `length` tokens."""
        return self.max_forwards(length)

    def score(
        self, denoiser: BatchedDenoiser, requests: Sequence[LikelihoodRequest], seed: int
    ) -> list[Likelihood]:
        """One likelihood per request, in their order; `denoiser` comes from `self.batched`. ValueError for a process
        or a request that the estimator does not apply to."""
        self.check(denoiser.process)
        return score_by_length(requests, self.inputs, lambda group: self.score_group(denoiser, group, seed))

    @abstractmethod
    def score_group(
        self, denoiser: BatchedDenoiser, requests: list[LikelihoodRequest], seed: int
    ) -> list[Likelihood]:
        """`score` for requests of one total length."""


class Masked(Estimator):
    """Kind: an estimator that forwards masked sets fixed in advance."""

    processes = frozenset({"absorbing"})

    @abstractmethod
    def design(self, length: int, row: int, seed: int) -> SamplingDesign:
        """The masked sets for a continuation of `length` tokens; ValueError for a length that is not supported."""

    def score_group(
        self, denoiser: BatchedDenoiser, requests: list[LikelihoodRequest], seed: int
    ) -> list[Likelihood]:
        designs = [self.design(len(r.continuation), r.row, seed) for r in requests]
        losses = position_losses(denoiser, requests, designs)
        return [
            Likelihood(*design.estimate(own), denoiser.distinct(design))
            for design, own in zip(designs, losses, strict=True)
        ]


def position_losses(
    denoiser: BatchedDenoiser, requests: Sequence[LikelihoodRequest], designs: Sequence[SamplingDesign]
) -> list[Tensor]:
    """Losses per position -log p(x_i | rest), [n, L] float64 for each of the requests, all of one total length."""
    mask = mask_id(denoiser.vocabulary)
    all_ids, all_masked, all_prompt = [], [], []
    for request, design in zip(requests, designs, strict=True):
        if mask in request.ids:
            raise ValueError(f"a request holds the mask id {mask}; remove it from prompt and continuation")
        masked = torch.nn.functional.pad(design.masked, (len(request.prompt), 0))
        all_ids.append(torch.tensor(request.ids).expand(len(masked), -1))
        all_masked.append(masked)
        all_prompt.append((torch.arange(masked.shape[1]) < len(request.prompt)).expand_as(masked))
    target, masked, prompt = torch.cat(all_ids), torch.cat(all_masked), torch.cat(all_prompt)
    t = torch.cat([design.t for design in designs]).double()
    nonempty = masked.any(1)  # an empty set needs no forward and has no loss
    losses = torch.zeros(masked.shape, dtype=torch.float64)
    if nonempty.any():
        masked_ids = target.masked_fill(masked, mask)
        inputs = ScoredInputs(*(value[nonempty] for value in (masked_ids, masked, target, t, prompt)))
        losses[masked] = -denoiser.read(inputs, token_logp)[:, 0]
    parts = losses.split([len(design.masked) for design in designs])
    return [part[:, len(r.prompt) :] for part, r in zip(parts, requests, strict=True)]


def pass_error(values: Tensor) -> tuple[float | None, float | None]:
    """Standard error of the mean of independent passes [R] and its degrees of freedom; (None, None) for one pass
    (docs/method.md#statistics)."""
    count = len(values)
    if count < 2:
        return None, None
    return float(values.std()) / math.sqrt(count), float(count - 1)
