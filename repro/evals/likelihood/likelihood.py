"""Log-likelihood of a continuation given a prompt: the estimators' contract, and the forwards that they share.

    network = Network(model.denoiser, model.recipe.process, batch=64)
    levels.score(network, requests, seed=0)                      -> one Likelihood a request

Every value is a *sum* over the continuation's tokens, in nats, never a mean. Under absorbing noise the bound

    log p(x | prompt) >= - sum over masked sets S of f(S) / (|S| C(L, |S|)),   f(S) = sum over S of -log p(x_i | rest)

is what most estimators draw from (docs/method.md#llada-objective; Nie et al. 2025, Eq. 6). A *design* says which
masked sets are forwarded and how their losses are weighed. Designs of many requests share forwards: inputs of one
length form a batch, equal inputs are forwarded once, the head is computed at masked positions only, prompts stay
clean. Draws are keyed by (seed, purpose, row), so neither batch nor order enters.

Symbols: B rows, T columns (prompt and continuation), P prompt and L continuation tokens, n masked sets, V ids.
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
from repro.evals.likelihood.network import Inputs, Network, token_logp
from repro.processes.process import Process

if TYPE_CHECKING:
    from torch import Tensor

    from repro.models.denoiser import Denoiser

INPUTS = 1 << 13
"""Masked inputs laid out at once; no result depends on it."""


@dataclass(frozen=True)
class Request:
    """What is scored: `continuation` [L] after `prompt` [P] (all that the network reads in front, BOS included)."""

    prompt: tuple[int, ...]
    continuation: tuple[int, ...]
    row: int
    """Name of its stream of draws."""

    def __post_init__(self) -> None:
        if not self.continuation:
            raise ValueError("an empty continuation has no likelihood; give it at least one token")

    @classmethod
    def of(cls, prompt: Sequence[int], continuation: Sequence[int]) -> Request:
        """A request named by its content, so that it draws alike wherever and whenever it is asked."""
        content = hashlib.sha256(repr((tuple(prompt), tuple(continuation))).encode()).digest()
        return cls(tuple(prompt), tuple(continuation), int.from_bytes(content[:7], "big"))

    @property
    def ids(self) -> tuple[int, ...]:
        return self.prompt + self.continuation


@dataclass(frozen=True)
class Likelihood:
    """Log-likelihood `value` in nats (a sum), its Monte Carlo standard error (0: nothing was drawn, None: unknown) with
    its degrees of freedom, and the forwards that the request needs on its own."""

    value: float
    se: float | None
    degrees: float | None
    forwards: int
    greedy: bool | None = None
    """Whether every token is the network's argmax, where the estimator's own forwards say so."""

    def interval(self, level: float) -> tuple[float, float]:
        """Student's interval for the expectation; ValueError without a standard error."""
        if self.se is None:
            raise ValueError("one pass has no standard error; ask for two passes or more")
        half = 0.0 if self.degrees is None else two_sided(level, self.degrees) * self.se
        return self.value - half, self.value + half


def by_length(requests: Sequence[Request], size: Callable[[Request], int]) -> Iterator[list[int]]:
    """Indices of requests of one length and at most INPUTS inputs (`size` of each), equal prompts side by side."""
    order = sorted(range(len(requests)), key=lambda i: (len(requests[i].ids), requests[i].ids))
    some: list[int] = []
    total = 0
    for index in order:
        more = size(requests[index])
        if some and (total + more > INPUTS or len(requests[index].ids) != len(requests[some[0]].ids)):
            yield some
            some, total = [], 0
        some.append(index)
        total += more
    if some:
        yield some


# --- designs ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Design:
    """Masked sets [n, L] of one continuation and the diffusion time [n] of each.

    `weigh` turns their per-position losses [n, L] (0 where nothing is masked) into (log-likelihood, standard error,
    degrees of freedom).
    """

    masked: Tensor
    t: Tensor
    weigh: Callable[[Tensor], tuple[float, float | None, float | None]]


class Estimator(Part):
    """Kind: how a log-likelihood is estimated, and what the number is."""

    processes: ClassVar[frozenset[str]]
    """Names of the processes that it is for."""
    score_is: ClassVar[
        Literal["exact", "bound", "biased bound", "exact under its order", "score", "guided score"]
    ]
    """`bound`: an unbiased estimate of a lower bound on log p; `score`: ranks answers, and is no likelihood."""

    def check(self, process: Process) -> None:
        """Raise ValueError with the reason when it is not for that process."""
        noise = registry.part_name(type(process))
        if noise not in self.processes:
            mine = registry.part_name(type(self))
            raise ValueError(
                f"estimator {mine!r} is for {' or '.join(sorted(self.processes))} models, not {noise}"
            )

    def network(self, denoiser: Denoiser, process: Process, batch: int) -> Network:
        """The network as its conditionals are read."""
        return Network(denoiser, process, batch)

    @abstractmethod
    def most(self, length: int) -> int:
        """Upper bound of the forwards of a continuation of `length` tokens."""

    @abstractmethod
    def score(self, network: Network, requests: Sequence[Request], seed: int) -> list[Likelihood]:
        """One likelihood a request, in their order; `network` as `self.network` makes it."""


class Masked(Estimator):
    """Kind: an estimator that forwards masked sets fixed in advance."""

    processes = frozenset({"absorbing"})

    @abstractmethod
    def design(self, length: int, row: int, seed: int) -> Design:
        """The masked sets of a continuation of `length` tokens; ValueError when they cannot be had."""

    def score(self, network: Network, requests: Sequence[Request], seed: int) -> list[Likelihood]:
        self.check(network.process)
        return score_designs(network, requests, self.most, lambda length, row: self.design(length, row, seed))


def score_designs(
    network: Network,
    requests: Sequence[Request],
    most: Callable[[int], int],
    design: Callable[[int, int], Design],
) -> list[Likelihood]:
    """Forward and weigh a design a request: `design(L, row)` has at most `most(L)` masked sets."""
    found: dict[int, Likelihood] = {}
    for some in by_length(requests, lambda request: most(len(request.continuation))):
        chosen = [requests[index] for index in some]
        designs = [design(len(r.continuation), r.row) for r in chosen]
        for index, plan, losses in zip(some, designs, losses_of(network, chosen, designs), strict=True):
            found[index] = Likelihood(*plan.weigh(losses), network.distinct(plan))
    return [found[index] for index in range(len(requests))]


def losses_of(network: Network, requests: Sequence[Request], designs: Sequence[Design]) -> list[Tensor]:
    """Per-position losses -log p(x_i | rest), [n, L] float64 each, of requests of one total length."""
    from repro.processes.absorbing import mask_id

    mask = mask_id(network.vocabulary)
    ids, where, times, given = [], [], [], []
    for request, design in zip(requests, designs, strict=True):
        assert mask not in request.ids, "a request holds the mask id"
        at = torch.nn.functional.pad(design.masked, (len(request.prompt), 0))
        ids.append(torch.tensor(request.ids).expand(len(at), -1))
        where.append(at)
        times.append(design.t)
        given.append((torch.arange(at.shape[1]) < len(request.prompt)).expand_as(at))
    target, masked, t = torch.cat(ids), torch.cat(where), torch.cat(times).double()
    some = masked.any(1)  # an empty set costs no forward and loses nothing
    losses = torch.zeros(masked.shape, dtype=torch.float64)
    if some.any():
        noisy = target[some].masked_fill(masked[some], mask)
        inputs = Inputs(noisy, masked[some], target[some], t[some], torch.cat(given)[some])
        logp = network.read(inputs, token_logp)
        losses[masked] = -logp[:, 0]
    parts = losses.split([len(design.masked) for design in designs])
    return [part[:, len(r.prompt) :] for part, r in zip(parts, requests, strict=True)]


def pass_error(values: Tensor) -> tuple[float | None, float | None]:
    """Standard error of the mean of independent passes [R] and its degrees of freedom; (None, None) for one pass."""
    count = len(values)
    if count < 2:
        return None, None
    return float(values.std()) / math.sqrt(count), float(count - 1)
