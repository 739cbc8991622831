"""Interface and shared code of the estimators of a continuation's log-likelihood given a prompt.

    levels = estimator("levels")                                 # an Estimator, by its name
    denoiser = levels.batched(model.denoiser, model.recipe.process, batch=64)
    levels.score(denoiser, requests, seed=0)                     # one Likelihood per LikelihoodRequest

Every value is a *sum* over the continuation's tokens in nats, never a mean. Under absorbing noise most estimators
estimate the all-subsets bound

    log p(x | prompt) >= - sum over masked sets S of f(S) / (|S| C(L, |S|)),
    f(S) = sum over the positions i in S of -log p(x_i | prompt and the tokens of x outside S)

(docs/method.md#llada-objective, docs/method.md#llada-likelihood; LLaDA, arXiv 2502.09992, Eq. 6). A *sampling design*
states which masked sets are forwarded and how the bound is estimated from their losses. Designs of many requests share
forward passes: inputs of one length form a batch, equal inputs are forwarded once, the head runs at masked positions
only, and prompt tokens are never masked. Random draws are keyed by (seed, purpose, row of the request), so results do
not depend on batch size or order.

Symbols: T tokens of prompt and continuation, P prompt tokens, L continuation tokens, S a masked set of |S| positions,
C(L, |S|) the number of such sets, n masked sets, R independent passes.
"""

from __future__ import annotations

import hashlib
import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from repro.core import parts
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
"""Maximum number of masked inputs built at once, to limit memory. No result depends on it."""


@dataclass(frozen=True)
class LikelihoodRequest:
    """Token ids of a `continuation` [L] whose log-likelihood is wanted, given those of a `prompt` [P]. The prompt holds
    everything that the network reads before the continuation, BOS included; the integer `row` is the key of the
    request's random draws. ValueError for an empty continuation."""

    prompt: tuple[int, ...]
    continuation: tuple[int, ...]
    row: int

    def __post_init__(self) -> None:
        if not self.continuation:
            raise ValueError("an empty continuation has no likelihood; give it at least one token")

    @classmethod
    def of(cls, prompt: Sequence[int], continuation: Sequence[int]) -> LikelihoodRequest:
        """The request of a prompt and a continuation, whose `row` is a hash of both, so that equal requests have equal
        random draws in every run."""
        content = hashlib.sha256(repr((tuple(prompt), tuple(continuation))).encode()).digest()
        return cls(tuple(prompt), tuple(continuation), int.from_bytes(content[:7], "big"))

    @property
    def ids(self) -> tuple[int, ...]:
        """Token ids of the prompt followed by those of the continuation, [T]."""
        return self.prompt + self.continuation


@dataclass(frozen=True)
class Likelihood:
    """Log-likelihood of a continuation: `value` in nats (a sum over its tokens), its Monte Carlo standard error `se`
    (0: exact, nothing was drawn; None: unknown) with its `degrees` of freedom, and `forwards`, the number of forward
    passes that the request would need alone, without inputs shared with other requests."""

    value: float
    se: float | None
    degrees: float | None
    forwards: int
    greedy: bool | None = None
    """Whether every token is the network's argmax; None where the estimator's forward passes do not show it."""

    def interval(self, level: float) -> tuple[float, float]:
        """(lower, upper) end, in nats, of the Student t confidence interval for the expected value at a confidence
        level such as 0.95; ValueError where the standard error is unknown."""
        if self.se is None:
            raise ValueError(
                "the likelihood is from one pass (one group of draws), so its standard error is unknown; set the"
                " estimator's draws to 2 * batch or more"
            )
        half = 0.0 if self.degrees is None else two_sided(level, self.degrees) * self.se
        return self.value - half, self.value + half


def score_by_length(
    requests: Sequence[LikelihoodRequest],
    size: Callable[[int], int],
    score: Callable[[list[LikelihoodRequest]], Sequence[Likelihood]],
) -> list[Likelihood]:
    """One likelihood per request, in the order of the requests, by calls of `score` with groups of them.

    The requests of a group have one total length (prompt and continuation) and are sorted by their ids, so that equal
    prompts are adjacent. A continuation of L tokens needs `size(L)` network inputs; those of a group are together at
    most 8,192 (MAX_INPUTS), unless the group has a single request.
    """
    return score_groups(requests, _by_length(requests, size), score)


def score_groups(
    requests: Sequence[LikelihoodRequest],
    groups: Iterable[list[int]],
    score: Callable[[list[LikelihoodRequest]], Sequence[Likelihood]],
) -> list[Likelihood]:
    """One likelihood per request, in the order of the requests, by one call of `score` with the requests of each group.
    `groups` are lists of indices of `requests`, which together hold every index once."""
    likelihoods: dict[int, Likelihood] = {}
    for group in groups:
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
    """The n masked sets of one continuation of L tokens, `masked` [n, L] bool, and the diffusion time `t` [n] at which
    each is forwarded.

    `estimate` maps the losses of the sets per position, [n, L] (-log p of a masked token in nats, 0 where not masked),
    to (log-likelihood in nats, its standard error or None, degrees of freedom or None).
    """

    masked: Tensor
    t: Tensor
    estimate: Callable[[Tensor], tuple[float, float | None, float | None]]


class Estimator(Part):
    """Base class of likelihood estimators. A subclass says how a log-likelihood is estimated (`score_group`), for which
    noise processes, and what the value is (exact, a bound, or only a score that ranks)."""

    processes: ClassVar[frozenset[str]]
    """Families of noise (`Process.noise`) whose models the estimator can score."""
    score_is: ClassVar[
        Literal["exact", "bound", "biased bound", "exact under its order", "score", "guided score"]
    ]
    """What the value is. `bound`: an unbiased estimate of a lower bound on log p; `exact under its order`: the
    likelihood of a sampler that decodes in that order; `score`: ranks the choices of an item, but is not a
    likelihood."""

    def check(self, process: Process) -> None:
        """Raise ValueError if the estimator cannot score models of the noise process `process`."""
        if process.noise not in self.processes:
            own, fits = parts.part_name(type(self)), " or ".join(sorted(self.processes))
            raise ValueError(
                f"estimator {own!r} is for {fits} models, not {process.noise}; choose one that fits"
                " (`python -m repro.evals list estimators`)"
            )
        if process.block_length() is not None:
            raise ValueError(
                "likelihood estimators mask a whole continuation at once, but this model reads it in blocks of"
                f" {process.block_length()} tokens; use --corpus or a perplexity task, which bound the likelihood of"
                " whole rows"
            )

    def batched(self, denoiser: Denoiser, process: Process, batch: int) -> BatchedDenoiser:
        """The denoiser (network) of a model with the noise process `process`, wrapped as `score` takes it, with at most
        `batch` distinct inputs per forward pass."""
        return BatchedDenoiser(denoiser, process, batch)

    @abstractmethod
    def max_forwards(self, length: int) -> int:
        """Upper bound on the number of forward passes (one row each) for a continuation of `length` tokens."""

    def inputs(self, length: int) -> int:
        """Upper bound on the number of network inputs that a continuation of `length` tokens needs at the same time:
        those of all its forward passes, or fewer where an estimator forwards them one after another."""
        return self.max_forwards(length)

    def score(
        self, denoiser: BatchedDenoiser, requests: Sequence[LikelihoodRequest], seed: int
    ) -> list[Likelihood]:
        """One likelihood per request, in the order of the requests; `denoiser` is a result of `self.batched`, `seed`
        that of the random draws. ValueError for a noise process or a request that the estimator cannot score."""
        self.check(denoiser.process)
        return score_by_length(requests, self.inputs, lambda group: self.score_group(denoiser, group, seed))

    @abstractmethod
    def score_group(
        self, denoiser: BatchedDenoiser, requests: list[LikelihoodRequest], seed: int
    ) -> list[Likelihood]:
        """One likelihood per request, in the order of the requests, as `score` returns them, for `requests` that all
        have one total length (prompt and continuation); `seed` is that of the random draws."""


class Masked(Estimator):
    """Base class of estimators whose masked sets are chosen before any forward pass. A subclass supplies these sets,
    and how the log-likelihood is estimated from their losses, as a sampling design (`design`)."""

    processes = frozenset({"absorbing"})

    @abstractmethod
    def design(self, length: int, row: int, seed: int) -> SamplingDesign:
        """The sampling design (masked sets, and how to estimate from their losses) for a continuation of `length`
        tokens; its random draws are keyed by the random seed `seed` and the request's integer `row`. ValueError for a
        length that the estimator does not support."""

    def score_group(
        self, denoiser: BatchedDenoiser, requests: list[LikelihoodRequest], seed: int
    ) -> list[Likelihood]:
        designs = [self.design(len(r.continuation), r.row, seed) for r in requests]
        losses = position_losses(denoiser, requests, designs)
        return [
            Likelihood(*design.estimate(own), denoiser.distinct(design.masked, design.t))
            for design, own in zip(designs, losses, strict=True)
        ]


def position_losses(
    denoiser: BatchedDenoiser, requests: Sequence[LikelihoodRequest], designs: Sequence[SamplingDesign]
) -> list[Tensor]:
    """Losses per position of the masked sets in each request's sampling design (`designs`, one per request): -log p(x_i
    | unmasked tokens) in nats, one [n, L] float64 per request, 0 at positions that are not masked. The requests must
    have one total length (prompt and continuation). ValueError if a request contains the mask id."""
    mask = mask_id(denoiser.vocabulary)
    all_ids, all_masked, all_prompt = [], [], []
    for request, design in zip(requests, designs, strict=True):
        if mask in request.ids:
            raise ValueError(
                f"a prompt or continuation to be scored holds the mask id {mask}; remove this id from the text"
            )
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
    """(Standard error of the mean of `values`, degrees of freedom R - 1); `values` [R] are the estimates of R
    independent passes (groups of draws). (None, None) for R = 1 (docs/method.md#statistics); (0, None) if one is
    infinite: the token of such a loss is impossible, so the bound is minus infinity, without error."""
    if values.isinf().any():
        return 0.0, None
    count = len(values)
    if count < 2:
        return None, None
    return float(values.std()) / math.sqrt(count), float(count - 1)
