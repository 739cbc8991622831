"""What an update rule is given and what it declares.

A sampler is a part with one method, `step(state) -> ids`: it reads a lazy prediction, draws through `state.draw`, and
returns the next ids. What it must remember from step to step is its memory, a tensor [B, M] that it begins with
`start` and replaces by assigning `state.memory`. The decoding loop (`repro.samplers.decode`) owns everything else:
prompts, blocks, plan, cost.

Shapes: B rows, L columns (prompt and generation, left-padded), N positions, V ids, M numbers to remember a row.
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
"""What a rule's outputs follow, given an exact denoiser: the model's law (in the limit of many steps, or one position
at a time), likely sentences by intent (greedy), or neither by construction."""


def claim_at(temperature: float) -> Claim:
    """The claim of a rule whose only departure from the law is the temperature of its tokens."""
    return "mode" if temperature == 0 else "law" if temperature == 1 else "biased"


@dataclass(frozen=True)
class Capabilities:
    """What a rule declares.

    `processes`: registered names of the noises it is for. `plan`: with "quota" it commits a planned number of
    positions a step, with "steps" any number of steps will do, "adaptive" means that the number of forwards is an
    outcome. `revises`: the noises under which it may change a committed token. `looks_at_draws`: which positions it
    commits depends on the tokens drawn there; a rule that does not look is exact one position at a time with an
    exact denoiser, one that looks is biased. `follows`: which of a state's settings it follows, beside the plan;
    a shape (`repro.samplers.logits_processors`) that sets another one is refused.
    """

    processes: frozenset[str]
    plan: Literal["quota", "steps", "adaptive"]
    revises: frozenset[str]
    looks_at_draws: bool
    follows: frozenset[Setting] = frozenset()


Setting = Literal["quota", "order", "confidence"]
"""`quota`: commits `state.quota` positions; `order`: chooses them by `state.best`; `confidence`: scores by
`state.confidence`."""


@dataclass
class State:
    """One step of decoding, as a rule sees it."""

    ids: Tensor
    """[B, L] ids: prompt, committed tokens, and the mask id (or noise) elsewhere."""
    active: Tensor
    """[B, L] bool: positions of the current block."""
    open: Tensor
    """[B, L] bool: active positions that are still undecided (absorbing: masked; uniform: all)."""
    t: Tensor
    s: Tensor
    """[B] float64: time of the ids, and the time to step to (within the block)."""
    quota: int
    """Positions that a fixed-quota rule commits at this step."""
    step: int
    steps: int
    """Number of this step within its block, from 0, and the block's steps."""
    process: Process
    prediction: Prediction
    """What the network says of the ids at time t; nothing is forwarded before it is asked."""
    memory: Tensor | None
    """[B, M] float64 of the rule's own; a rule that keeps one assigns the next."""
    _draw: Draw
    _pad: Tensor
    _forward: Callable[[Tensor, Tensor], Prediction]
    prompt: Tensor | None = None
    """[B, L] bool: positions of the prompt; None: there is none."""
    order_temperature: float = 0.0
    """Above 0 `best` draws positions by their scores instead of ranking them."""
    distrusted: tuple[int, ...] = ()
    """Ids whose confidence is 0."""

    def forward(self, ids: Tensor, t: Tensor) -> Prediction:
        """A further prediction within this step: of other ids [B, L] at time t [B]; it is counted like the first."""
        return self._forward(ids, t)

    def draw(self, probabilities: Tensor, purpose: int, where: Tensor, index: int = 0) -> Tensor:
        """One categorical outcome for each True entry of `where` [B, L], from probabilities [N, C] float64: [N]."""
        assert probabilities.dtype == torch.float64, (
            "rare tokens are lost in less than float64 (docs/method.md#oracle-34)"
        )
        rows, columns = where.nonzero(as_tuple=True)
        return self._draw(probabilities, purpose, rows, columns - self._pad[rows], index)

    def uniform(self, purpose: int, index: int = 0) -> Tensor:
        """One uniform draw a row, in (0, 1), [B] float64; it has no list of outcomes, so no law is enumerated."""
        rows = torch.arange(len(self.ids), device=self.ids.device)
        return self._draw.uniform(purpose, rows, torch.zeros_like(rows), index)

    def draw_position(self, among: Tensor, index: int) -> Tensor:
        """One column a row of `among` [B, L], uniformly where True or by weight (rows without any: column 0): [B]."""
        rows = among.any(1).nonzero()[:, 0]
        chosen = torch.zeros(len(among), dtype=torch.int64, device=among.device)
        start = torch.zeros_like(rows)
        chosen[rows] = self._draw(among[rows].double(), rng.POSITION, rows, start, index)
        return chosen

    def tokens(self, logits: Tensor, temperature: float, where: Tensor) -> Tensor:
        """Argmax at temperature 0, else a float64 draw of softmax(logits / temperature): logits [N, V] -> [N]."""
        if temperature == 0:
            return logits.argmax(-1)
        scaled = logits.double() / temperature
        return self.draw((scaled - scaled.amax(-1, keepdim=True)).exp_(), rng.TOKEN, where)

    def confidence(self, logits: Tensor, tokens: Tensor) -> Tensor:
        """Log-probability of the written tokens [N] under logits [N, V], distrusted ids taken out of the softmax."""
        if not self.distrusted:
            return logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(-1)
        gone = torch.zeros(logits.shape[1], dtype=torch.bool, device=logits.device)
        gone[list(self.distrusted)] = True
        trusted = logits.masked_fill(gone, -torch.inf)
        logp = trusted.gather(1, tokens[:, None])[:, 0] - trusted.logsumexp(-1)
        return torch.where(gone[tokens], -torch.inf, logp)

    def best(self, score: Tensor, where: Tensor, count: int | Tensor) -> Tensor:
        """The `count` highest-scoring True entries of each row of `where`, ties to the left: [B, L] bool.

        With an order temperature they are drawn one after the other ~ softmax(score / temperature) (Dream's alg_temp).
        """
        full = torch.full(where.shape, -torch.inf, dtype=torch.float64, device=where.device)
        full[where] = score.double().clamp_min(LEAST)
        if self.order_temperature == 0:
            rank = full.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
            return where & (rank < count)
        assert isinstance(count, int), "positions are drawn by a quota"
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
"""Score of a position that no confidence speaks for: below every score, above what may not be chosen at all."""


class Sampler(Part):
    """Kind: an update rule."""

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What it declares; most rules write it as a constant of the class."""

    @property
    def innermost(self) -> Sampler:
        """The rule itself, under whatever shapes it."""
        return self

    @abstractmethod
    def claim(self) -> Claim:
        """What its outputs follow."""

    def time(self, step: int, steps: int) -> float:
        """Time in [0, 1] when `step` of the block's `steps` are done: 1 at first, and 0 at last unless the rule itself
        removes what noise is left."""
        return 1 - step / steps

    def start(self, ids: Tensor) -> Tensor | None:
        """The memory before the first step, given the ids [B, L] at t = 1; None: a rule without memory."""
        return None

    @abstractmethod
    def step(self, state: State) -> Tensor:
        """The next ids [B, L]."""
