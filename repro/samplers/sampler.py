"""The interface of a sampler (an update rule): the state that a step receives, and what a sampler declares.

A sampler is a configurable component (`repro.core.parts`) with one essential method, `step(state) -> ids`: it reads a
prediction that is computed on demand, draws through `state.draw`, and returns the next ids. A sampler with memory
between steps initialises a tensor [B, M] in `start` and replaces it by assigning `state.memory`. The decoding loop
(`repro.samplers.decode`) does everything else: prompts, blocks, steps, cost.

Shapes: B rows of the batch, L columns (left padding, prompt, generated tokens), N positions (True entries of a [B, L]
mask, in row-major order), V vocabulary size, M numbers per row that a sampler remembers between steps.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from repro.core import rng
from repro.core.lazy import torch
from repro.core.parts import Part
from repro.processes.process import Process

if TYPE_CHECKING:
    from torch import Tensor

    from repro.models.prediction import Prediction
    from repro.samplers.draws import Draw


Claim = Literal["law", "mode", "biased"]
"""What a sampler claims about the distribution of its outputs when the denoiser is exact. "law": it is the model's
distribution, in the limit of many steps or with one position per step. "mode": it favours likely sentences, on purpose
(greedy). "biased": neither of these, since its rule itself changes the distribution."""


def claim_at(temperature: float) -> Claim:
    """What a sampler claims about its output distribution (see `Claim`) at the token temperature `temperature`, if it
    draws from the model's distribution at temperature 1: "law" at 1, "mode" at 0, else "biased"."""
    return "mode" if temperature == 0 else "law" if temperature == 1 else "biased"


@dataclass(frozen=True)
class Capabilities:
    """What a sampler supports (families of noise, kind of plan, settings of logits processors), and what its steps do:
    whether they change committed tokens, choose positions by the tokens drawn there, or take several states at once.
    The decoding loop and the tests of its output distribution (`repro.certify`) read these properties."""

    processes: frozenset[str]
    """Families of noise (`Process.noise`) that it decodes: "absorbing", "uniform", "left_to_right"."""
    plan: Literal["quota", "steps", "adaptive"]
    """"quota": it commits a planned number of positions per step; "steps": it takes any number of steps; "adaptive":
    it takes no number of steps, and the number of forward passes depends on the text."""
    revises: frozenset[str]
    """Families of noise under which it may change a committed token."""
    looks_at_draws: bool
    """Whether the choice of positions depends on the tokens drawn there. If not, the sampler is exact for an exact
    denoiser and one position per step; if so, it is biased even then."""
    follows: frozenset[Setting] = frozenset()
    """Optional settings of `State` that it uses (see `Setting`); a logits processor that changes another one cannot be
    combined with it (ValueError)."""
    looks_ahead: bool = False
    """Whether one forward pass takes several states of a row, its present ids and guesses of later ones
    (`repro.samplers.lookahead`); approximate KV caches and logits processors around it do not support that."""


Setting = Literal["quota", "order", "confidence"]
"""What a logits processor may set in the state: "quota", the number of positions per step (`state.quota`); "order", how
scores become a choice of positions (`state.best`); "confidence", the score itself (`state.confidence`)."""


@dataclass
class State:
    """The input of one step of a sampler, for B rows and L columns: the ids, the positions that are still undecided,
    the times before and after the step, the network's prediction, and the sampler's memory. Its methods draw at random,
    choose positions, and write tokens into a copy of the ids."""

    ids: Tensor
    """[B, L] ids: prompt and committed tokens, and the mask id (or noise) elsewhere."""
    active: Tensor
    """[B, L] bool: positions of the current block."""
    undecided: Tensor
    """[B, L] bool: active positions without a final token (absorbing noise: masked ones; uniform noise: all)."""
    t: Tensor
    s: Tensor
    """[B] float64 in [0, 1]: time t of the ids, and time s < t after the step; each block runs from 1 to 0."""
    quota: int
    """Number of positions per row that a sampler with plan "quota" commits at this step."""
    step: int
    steps: int
    """Number of this step within its block, from 0, and number of steps of the block."""
    process: Process
    prediction: Prediction
    """The network's prediction for the ids at time t; each row's forward pass runs when the row is first read."""
    memory: Tensor | None
    """[B, M] float64: what the sampler remembers between steps (M numbers per row); the step assigns the memory for the
    next one."""
    _draw: Draw
    _pad: Tensor
    _forward: Callable[[Tensor, Tensor], Prediction]
    prompt: Tensor | None = None
    """[B, L] bool: positions before the generated ones; None if there is no prompt."""
    order_temperature: float = 0.0
    """If above 0, `best` draws positions from softmax(score / order_temperature) instead of ranking them."""
    distrusted: tuple[int, ...] = ()
    """Ids whose confidence is set to 0, so that they are committed last."""
    _later: Callable[[Tensor, Tensor, Prediction | None], State] | None = None

    def forward(self, ids: Tensor, t: Tensor) -> Prediction:
        """A further network prediction within this step, for other ids [B, L] at time t [B]; its forward passes are
        added to the cost. For `ids` themselves, whose prediction was not read, it takes the place of that prediction.
        """
        return self._forward(ids, t)

    def later(self, ids: Tensor, step: Tensor, prediction: Prediction | None = None) -> State:
        """The sampler's state after further steps, for guesses of the ids that these steps will write: m guesses for
        each of the B rows, `ids` [m B, L], first the first guess for all rows, then the second, and so on.

        `step` [m B]: number of steps of the block taken until these ids; draws from the returned state are those of the
        step that follows them. `prediction`: the prediction for these ids (None: one forward pass of the network for
        all of them, whose cost replaces that of the pass for the present ids).
        """
        assert self._later is not None
        return self._later(ids, step, prediction)

    def draw(self, probabilities: Tensor, purpose: int, where: Tensor, index: int = 0) -> Tensor:
        """One categorical draw per True entry of `where` [B, L] bool: [N] int64, from probabilities [N, C] float64 of N
        draws with C outcomes each.

        `purpose` (a constant of `repro.core.rng`) and `index` separate the draws of a step at the same position. Raises
        ValueError for probabilities that are NaN.
        """
        assert probabilities.dtype == torch.float64, (
            "draws need float64: lower precision loses rare tokens (docs/method.md#oracle-34)"
        )
        rows, columns = where.nonzero(as_tuple=True)
        return _possible(
            self._draw(probabilities, purpose, rows, columns - self._pad[rows], index), probabilities
        )

    def uniform(self, purpose: int, index: int = 0) -> Tensor:
        """One uniform draw in (0, 1) per row, [B] float64; `purpose` (a constant of `repro.core.rng`) and `index`
        separate the draws of a step.

        The exact distribution of a sampler that uses such draws cannot be enumerated (`repro.samplers.law`).
        """
        rows = torch.arange(len(self.ids), device=self.ids.device)
        return self._draw.uniform(purpose, rows, torch.zeros_like(rows), index)

    def draw_position(self, among: Tensor, index: int) -> Tensor:
        """One column drawn per row, [B] int64; 0 for a row without a candidate.

        `among` [B, L]: bool, candidates with equal probability; or float64, unnormalised probabilities. `index`
        separates the draws of a step.
        """
        rows = among.any(1).nonzero()[:, 0]
        chosen = torch.zeros(len(among), dtype=torch.int64, device=among.device)
        start, weights = torch.zeros_like(rows), among[rows].double()
        chosen[rows] = _possible(self._draw(weights, rng.POSITION, rows, start, index), weights)
        return chosen

    def tokens(self, logits: Tensor, temperature: float, where: Tensor) -> Tensor:
        """Tokens [N] for the N True entries of `where` [B, L], from logits [N, V] over V ids: the argmax at temperature
        0, else draws from softmax(logits / temperature) in float64. ValueError if a position has no finite highest
        logit."""
        if temperature == 0:
            return most_probable(logits)
        scaled = logits.double() / temperature
        return self.draw((scaled - scaled.amax(-1, keepdim=True)).exp_(), rng.TOKEN, where)

    def confidence(self, logits: Tensor, tokens: Tensor) -> Tensor:
        """Log-probability [N] float64 of tokens [N] under logits [N, V]; the ids in the field `distrusted`, which are
        to be committed last, are left out of the softmax and get -inf."""
        own = logits.gather(1, tokens[:, None])[:, 0].double()
        gone = torch.zeros(logits.shape[1], dtype=torch.bool, device=logits.device)
        gone[list(self.distrusted)] = True
        return torch.where(gone[tokens], -torch.inf, own - log_normaliser(logits, gone))

    def surest(self, logits: Tensor, where: Tensor, count: int) -> Tensor:
        """The positions whose most probable token has the highest probability, [B, L] bool: `count` of the N True
        entries of each row of `where` [B, L] bool, from their logits [N, V]. The fields `distrusted` and
        `order_temperature` change the choice as they do in `confidence` and `best`, and ties are broken as in `best`.

        The result is the same as with probabilities in float64. Computing them takes a quarter of the time of the
        output layer, so that is done only where the logits' own precision leaves a doubt.
        """
        if self.order_temperature == 0 and count >= int(where.sum(1).max()):
            return where
        peak = _log_peaks(logits)
        if self.order_temperature > 0 or self.distrusted or count < 1 or not peak.isfinite().all():
            return self.best(self.confidence(logits, logits.argmax(-1)).exp(), where, count)
        full = torch.full(where.shape, -torch.inf, dtype=peak.dtype, device=where.device)
        full[where] = peak
        least = full.topk(count, -1).values[:, -1:]
        sure = full > least + DOUBT
        # not by the distance from `least`, whose rounding could leave a position out of both
        doubtful = where & ~sure & (full >= least - DOUBT)
        places = count - sure.sum(1, keepdim=True)
        if (doubtful.sum(1, keepdim=True) <= places).all():
            return sure | doubtful
        some = logits[doubtful[where]]
        return sure | self.best(self.confidence(some, some.argmax(-1)).exp(), doubtful, places)

    def best(self, score: Tensor, where: Tensor, count: int | Tensor) -> Tensor:
        """The positions with the highest scores, [B, L] bool: `count` of the True entries of each row of `where`.

        `score` [N]: score of each True entry of `where` [B, L] bool; of equal scores the position further left is
        taken. `count`: an int, or a number per row, [B, 1]. If `order_temperature` is above 0, positions are instead
        drawn without replacement from softmax(score / order_temperature) (Dream's alg_temp;
        docs/method.md#dream-rules); ValueError if `count` is then a tensor.
        """
        full = torch.full(where.shape, -torch.inf, dtype=torch.float64, device=where.device)
        full[where] = score.double().clamp_min(LEAST)
        if self.order_temperature == 0:
            rank = full.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
            return where & (rank < count)
        if not isinstance(count, int):
            raise ValueError(
                f"order_temperature={self.order_temperature} needs a fixed number of positions per step, which this"
                " sampler chooses itself; leave out +order_temperature"
            )
        left = where
        for index in range(min(count, int(where.sum(1).max()))):
            scaled = full.masked_fill(~left, -torch.inf) / self.order_temperature
            weights = (scaled - scaled.amax(-1, keepdim=True)).exp().masked_fill(~left, 0.0)
            column = self.draw_position(weights, index)
            left = left.scatter(1, column[:, None], False)
        return where & ~left

    def commit(self, where: Tensor, tokens: Tensor) -> Tensor:
        """A copy of the ids [B, L] with `tokens` [N] written at the N True entries of `where` [B, L] bool."""
        ids = self.ids.clone()
        ids[where] = tokens
        return ids


def log_normaliser(logits: Tensor, gone: Tensor | None = None) -> Tensor:
    """Log of the sum of exp(logits) of each of N positions, [N] float64, from logits [N, V]; `gone` [V] bool: ids left
    out of the sum (None: none). In float32 all probabilities above 1 - 6e-8 would be equal."""
    found = []
    for some in logits.split(ROWS):
        wide = some.double()
        found.append((wide if gone is None else wide.masked_fill(gone, -torch.inf)).logsumexp(-1))
    return torch.cat(found) if found else logits.new_zeros(0, dtype=torch.float64)


def most_probable(values: Tensor) -> Tensor:
    """Id [N] with the highest of the logits or probabilities `values` [N, V] of each of N positions, the lowest of
    equal ones. ValueError if a position's highest value is NaN or infinite."""
    ids = values.argmax(-1)
    if not values.gather(1, ids[:, None]).isfinite().all():
        raise ValueError(UNUSABLE)
    return ids


def _possible(drawn: Tensor, probabilities: Tensor) -> Tensor:
    """The draws `drawn` [N] from `probabilities` [N, C]; ValueError if any has no outcome, because its probabilities
    are NaN (`repro.core.rng.choose`)."""
    if (drawn == probabilities.shape[-1]).any():
        raise ValueError(UNUSABLE)
    return drawn


def _log_peaks(logits: Tensor) -> Tensor:
    """Log-probability [N] of the most probable token under logits [N, V], in the precision of the logits; computed in
    blocks of rows that stay in a CPU's cache."""
    from repro.models.chunks import BLOCK, BLOCK_ACCELERATOR

    size = max(1, (BLOCK if logits.device.type == "cpu" else BLOCK_ACCELERATOR) // logits.shape[1])
    found = [-(some - some.amax(-1, keepdim=True)).exp_().sum(-1).log_() for some in logits.split(size)]
    return torch.cat(found)


class Preset(NamedTuple):
    """A name for settings of a sampler or logits processor, which a user can choose on the command line."""

    name: str
    settings: dict[str, Any]
    """Values of all fields of the class, by name."""
    source: str
    """What the preset does and where its values are from, in at most 105 characters."""
    paper: str | None
    """arXiv number of the paper that describes the method, with an entry in evals/papers.toml; None if no paper
    describes it."""


UNUSABLE = (
    "the network's output is NaN or infinite at a position to be decided, or a logits processor forbids all ids there;"
    " use a checkpoint with finite weights, or a processor that leaves an id"
)
"""Error of an output from which no id can be chosen."""

ROWS = 256
"""Positions whose logits are widened to float64 at once: 260 MB at 126,000 ids. No result depends on it."""

DOUBT = 1e-4
"""If two log-probabilities in float32 differ by more than this, they have the same order in float64: ten times the
rounding error of a sum over 126,000 ids."""

LEAST = -1e300
"""Lowest score of a position that may be chosen (log-probability -inf); positions that may not be chosen have -inf."""


class Sampler(Part):
    """Base class of samplers: update rules that turn the state of a decoding step into the next ids."""

    presets: ClassVar[tuple[Preset, ...]] = ()
    """Settings of the sampler that have a name; `repro.samplers.presets` collects them from all registered classes."""

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What the sampler supports: families of noise, whether a number of steps can be planned, whether it changes
        committed tokens, ... (the fields of `Capabilities`); most samplers define it as a class constant."""

    @property
    def innermost(self) -> Sampler:
        """The sampler itself, without its logits processors."""
        return self

    @abstractmethod
    def claim(self) -> Claim:
        """What the sampler claims about its output distribution for an exact denoiser: "law" (it is the model's
        distribution), "mode" (likely sentences are favoured on purpose) or "biased" (neither; see `Claim`)."""

    def time(self, step: int, steps: int) -> float:
        """Diffusion time in [0, 1] (1: pure noise) after `step` of the `steps` steps of a block.

        The time falls from 1 to 0, or to a time above 0 for a sampler that then removes the remaining noise itself.
        """
        return 1 - step / steps

    def start(self, ids: Tensor) -> Tensor | None:
        """The memory [B, M] before the first step, for ids [B, L] at time t = 1; None for a sampler without memory."""
        return None

    @abstractmethod
    def step(self, state: State) -> Tensor:
        """The ids [B, L] after the step described by `state`."""
