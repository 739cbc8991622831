"""The interface of an update rule: the state that it is given, and what it declares about itself.

A sampler is a part with one essential method, `step(state) -> ids`: it reads a lazy prediction, draws through
`state.draw`, and returns the next ids. A rule with memory between steps initialises a tensor [B, M] in `start` and
replaces it by assigning `state.memory`. The decoding loop (`repro.samplers.decode`) does everything else: prompts,
blocks, plan, cost.

Shapes: B rows, L columns (left-padded prompt and generation), N positions (True entries of a [B, L] mask, in row-major
order), V ids, M numbers of memory.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from repro.core import rng
from repro.core.lazy import torch
from repro.core.parts import Part
from repro.processes.process import Process

if TYPE_CHECKING:
    from torch import Tensor

    from repro.models.prediction import Prediction
    from repro.samplers.draws import Draw


Claim = Literal["law", "mode", "biased"]
"""What a rule's outputs follow when the denoiser is exact. "law": the model's distribution, in the limit of many steps
or one position at a time. "mode": likely sentences, on purpose (greedy). "biased": neither, by construction."""


def claim_at(temperature: float) -> Claim:
    """The claim of a rule that differs from the law by its token temperature alone."""
    return "mode" if temperature == 0 else "law" if temperature == 1 else "biased"


@dataclass(frozen=True)
class Capabilities:
    """What a rule supports and how it behaves."""

    processes: frozenset[str]
    """Registered names of the processes that it decodes."""
    plan: Literal["quota", "steps", "adaptive"]
    """"quota": it commits a planned number of positions per step; "steps": it takes any number of steps; "adaptive":
    it takes no number of steps, and the number of forwards depends on the text."""
    revises: frozenset[str]
    """The processes under which it may change a committed token."""
    looks_at_draws: bool
    """Whether the choice of positions depends on the tokens drawn there. With an exact denoiser and one position per
    step, a rule that does not look is exact; one that looks is biased."""
    follows: frozenset[Setting] = frozenset()
    """The optional settings of a state that it respects; logits processors that set others are refused."""


Setting = Literal["quota", "order", "confidence"]
"""What a logits processor may set in the state: "quota", the number of positions per step (`state.quota`); "order", how
scores become a choice of positions (`state.best`); "confidence", the score itself (`state.confidence`)."""


@dataclass
class State:
    """The input of one step of a rule."""

    ids: Tensor
    """[B, L] ids: prompt and committed tokens, and the mask id (or noise) elsewhere."""
    active: Tensor
    """[B, L] bool: positions of the current block."""
    undecided: Tensor
    """[B, L] bool: active positions without a final token (absorbing noise: masked ones; uniform noise: all)."""
    t: Tensor
    s: Tensor
    """[B] float64 in [0, 1]: time of the ids, and the time to step to; each block runs from 1 to 0."""
    quota: int
    """Number of positions that a rule with a quota commits at this step."""
    step: int
    steps: int
    """Number of this step within its block, from 0, and number of steps of the block."""
    process: Process
    prediction: Prediction
    """The network's prediction for the ids at time t; rows are forwarded when they are first read."""
    memory: Tensor | None
    """[B, M] float64: the rule's memory; the rule assigns the next one."""
    _draw: Draw
    _pad: Tensor
    _forward: Callable[[Tensor, Tensor], Prediction]
    prompt: Tensor | None = None
    """[B, L] bool: positions before the generated ones; None where there is no prompt."""
    order_temperature: float = 0.0
    """Above 0, `best` draws positions by their scores instead of ranking them."""
    distrusted: tuple[int, ...] = ()
    """Ids whose confidence counts as 0."""

    def forward(self, ids: Tensor, t: Tensor) -> Prediction:
        """A further prediction within this step, for other ids [B, L] at time t [B]; its forwards count as well."""
        return self._forward(ids, t)

    def draw(self, probabilities: Tensor, purpose: int, where: Tensor, index: int = 0) -> Tensor:
        """One categorical draw for each True entry of `where` [B, L], from probabilities [N, C] float64: [N].

        `purpose` (of `repro.core.rng`) and `index` tell a step's draws at the same position apart.
        """
        assert probabilities.dtype == torch.float64, (
            "draws need float64: lower precision loses rare tokens (docs/method.md#oracle-34)"
        )
        rows, columns = where.nonzero(as_tuple=True)
        return self._draw(probabilities, purpose, rows, columns - self._pad[rows], index)

    def uniform(self, purpose: int, index: int = 0) -> Tensor:
        """One uniform draw per row, in (0, 1), [B] float64. A rule that uses it has no enumerable law."""
        rows = torch.arange(len(self.ids), device=self.ids.device)
        return self._draw.uniform(purpose, rows, torch.zeros_like(rows), index)

    def draw_position(self, among: Tensor, index: int) -> Tensor:
        """Draw one column per row of `among` [B, L], uniformly if bool, else by weight; 0 where a row has none: [B]."""
        rows = among.any(1).nonzero()[:, 0]
        chosen = torch.zeros(len(among), dtype=torch.int64, device=among.device)
        start = torch.zeros_like(rows)
        chosen[rows] = self._draw(among[rows].double(), rng.POSITION, rows, start, index)
        return chosen

    def tokens(self, logits: Tensor, temperature: float, where: Tensor) -> Tensor:
        """Tokens [N] at `where` from logits [N, V]: argmax at temperature 0, else float64 draws of
        softmax(logits / temperature)."""
        if temperature == 0:
            return logits.argmax(-1)
        scaled = logits.double() / temperature
        return self.draw((scaled - scaled.amax(-1, keepdim=True)).exp_(), rng.TOKEN, where)

    def confidence(self, logits: Tensor, tokens: Tensor) -> Tensor:
        """Log-probability of tokens [N] under logits [N, V]; distrusted ids are left out of the softmax, with -inf."""
        if not self.distrusted:
            return logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(-1)
        gone = torch.zeros(logits.shape[1], dtype=torch.bool, device=logits.device)
        gone[list(self.distrusted)] = True
        trusted = logits.masked_fill(gone, -torch.inf)
        logp = trusted.gather(1, tokens[:, None])[:, 0] - trusted.logsumexp(-1)
        return torch.where(gone[tokens], -torch.inf, logp)

    def best(self, score: Tensor, where: Tensor, count: int | Tensor) -> Tensor:
        """The `count` highest-scoring True entries of each row of `where` [B, L], ties to the left: [B, L] bool.

        `score` [N]. With an order temperature, entries are drawn without replacement from softmax(score / temperature)
        instead (Dream's alg_temp; docs/method.md#dream-rules).
        """
        full = torch.full(where.shape, -torch.inf, dtype=torch.float64, device=where.device)
        full[where] = score.double().clamp_min(LEAST)
        if self.order_temperature == 0:
            rank = full.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
            return where & (rank < count)
        assert isinstance(count, int), "an order temperature needs a fixed number of positions"
        left = where
        for index in range(min(count, int(where.sum(1).max()))):
            scaled = full.masked_fill(~left, -torch.inf) / self.order_temperature
            weights = (scaled - scaled.amax(-1, keepdim=True)).exp().masked_fill(~left, 0.0)
            column = self.draw_position(weights, index)
            left = left.scatter(1, column[:, None], False)
        return where & ~left

    def commit(self, where: Tensor, tokens: Tensor) -> Tensor:
        """The ids with `tokens` [N] written at `where` [B, L]."""
        ids = self.ids.clone()
        ids[where] = tokens
        return ids


LEAST = -1e300
"""Lowest score of a position that may be chosen (log-probability -inf); positions that may not be chosen have -inf."""


class Sampler(Part):
    """Kind: an update rule, which turns a state into the next ids."""

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What it supports; most rules define it as a class constant."""

    @property
    def innermost(self) -> Sampler:
        """The rule itself, without its logits processors."""
        return self

    @abstractmethod
    def claim(self) -> Claim:
        """What its outputs follow when the denoiser is exact."""

    def time(self, step: int, steps: int) -> float:
        """Time in [0, 1] after `step` of a block's `steps`: from 1 to 0, or to a later time if the rule itself removes
        the remaining noise."""
        return 1 - step / steps

    def start(self, ids: Tensor) -> Tensor | None:
        """The memory [B, M] before the first step, for ids [B, L] at t = 1; None for a rule without memory."""
        return None

    @abstractmethod
    def step(self, state: State) -> Tensor:
        """The next ids [B, L]."""
