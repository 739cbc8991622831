"""Wrapper of a denoiser for the likelihood estimators: forwards inputs in batches, each distinct input once, and
computes log-probabilities at chosen positions only.

    denoiser = BatchedDenoiser(model.denoiser, model.recipe.process, batch=64)
    denoiser.read(ScoredInputs(ids, scored, target, t, prompt), token_logp)     [N, 1]

Symbols: n inputs, b of them in a batch, T positions of an input (prompt and continuation), N scored positions of all
inputs together, C values per scored position, V vocabulary size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from repro.core.lazy import torch
from repro.processes.process import Process

if TYPE_CHECKING:
    from torch import Tensor

    from repro.models.denoiser import Denoiser

MAX_LOGITS = 1 << 25
"""Maximum number of logits held in memory at once. No result depends on it."""


class ScoredInputs(NamedTuple):
    """n network inputs of one length T: `ids` [n, T] that the network reads (masked ids included), `scored` [n, T] bool
    (True where a log-probability is wanted), `target` [n, T] the clean ids, `t` [n] the diffusion times, `prompt` [n,
    T] bool (True at the prompt)."""

    ids: Tensor
    scored: Tensor
    target: Tensor
    t: Tensor
    prompt: Tensor


Readout = Callable[["Tensor", "Tensor", "Tensor"], "Tensor"]
"""Function of (logits [m, V], float32 at least, row of these for each of N positions [N], target ids [N]) that returns
the C values wanted for each position, [N, C] float64."""


def token_logp(logits: Tensor, row: Tensor, target: Tensor) -> Tensor:
    """Log-probability of the target id of each of N positions, [N, 1] float64, from logits [m, V]: those of position i
    are `logits[row[i]]`, its target id is `target[i]`, with `row` [N] and `target` [N]."""
    return logits.log_softmax(-1)[row, target].double()[:, None]


class BatchedDenoiser:
    """A denoiser (network) of models with the noise process `process`, wrapped for scoring: it forwards at most `batch`
    distinct inputs at once. `forwards` counts the forward passes so far, each of one input: one per distinct input, or
    two under classifier-free guidance (`cost`)."""

    cost: ClassVar[int] = 1
    """Number of forward passes of the denoiser per input: 1, or 2 under classifier-free guidance."""

    def __init__(self, denoiser: Denoiser, process: Process, batch: int) -> None:
        self.denoiser, self.process, self.batch = denoiser, process, batch
        self.vocabulary = denoiser.vocabulary
        self.device = denoiser.home
        self.forwards = 0

    def read(self, inputs: ScoredInputs, readout: Readout) -> Tensor:
        """Forward the inputs, and return the C values that the function `readout` (`token_logp`, for instance) computes
        from the logits at each of the N True entries of `inputs.scored` [n, T], in row-major order: [N, C]
        on the CPU."""
        ids, scored, target, t, prompt = (value.to(self.device) for value in inputs)
        full = self.full_inputs(ids, prompt)
        time = t.view(torch.int64)[:, None] if self.denoiser.time_conditioned else ids[:, :0]
        _, group = torch.unique(torch.cat([full, time], 1), dim=0, return_inverse=True)
        first = torch.full((int(group.max()) + 1,), len(ids), device=self.device)
        first = first.scatter_reduce(0, group, torch.arange(len(ids), device=self.device), "amin")
        needed = torch.zeros(len(first), scored.shape[1], dtype=torch.int64, device=self.device)
        needed = needed.index_add(0, group, scored.long()) > 0
        rows, columns = scored.nonzero(as_tuple=True)
        group, target = group[rows], target[scored]
        order = group.argsort(stable=True)  # positions in the order of the forwards that they are read from
        ends = [0, *group.bincount(minlength=len(first)).cumsum(0).tolist()]
        values: list[Tensor] = []
        for batch in batches(len(first), self.batch):
            own = order[ends[batch.start] : ends[batch.stop]]
            at = (group[own] - batch.start, columns[own])
            chosen = first[batch]
            values.append(self._read_batch(full[chosen], t[chosen], needed[batch], at, target[own], readout))
        self.forwards += self.cost * len(first)
        return _unsorted(values, order).cpu()

    def distinct(self, masked: Tensor, t: Tensor) -> int:
        """Number of forward passes that k masked sets of the L tokens of a continuation need (`masked` [k, L] bool, at
        diffusion times `t` [k]), if no other continuation shares them: `cost` (2 under classifier-free guidance, else
        1) times the number of distinct nonempty sets, or of distinct pairs of set and diffusion time where the network
        is conditioned on time."""
        nonempty = masked.any(1)
        keys = masked[nonempty].long()
        if self.denoiser.time_conditioned:
            keys = torch.cat([keys, t[nonempty].double().view(torch.int64)[:, None]], 1)
        return self.cost * len(torch.unique(keys, dim=0))

    def full_inputs(self, ids: Tensor, prompt: Tensor) -> Tensor:
        """All ids that the network reads for each of n inputs, [n, T * cost]: the ids of its `cost` forward passes side
        by side (here one: `ids` [n, T] itself). Inputs with equal rows of this tensor are forwarded once. `prompt` [n,
        T] bool, True at the prompt, is needed under classifier-free guidance, whose second forward pass masks the
        prompt."""
        return ids

    def forward(self, full: Tensor, t: Tensor, needed: Tensor) -> Callable[[slice], Tensor]:
        """Forward b inputs, as `full_inputs` returns them (`full` [b, T * cost]), at diffusion times `t` [b]. Logits
        are wanted at the True entries of `needed` [b, T], numbered in row-major order; returns a function from a slice
        of these numbers to the logits of the slice's m entries, [m, V], float32 at least: arithmetic on logits in
        bfloat16, such as that of guidance, would round them by up to a quarter of a nat."""
        from repro.models.attention import Mask
        from repro.models.prediction import Prediction

        features = Prediction(self.denoiser, full, t, Mask()).features(needed)

        def logits_of(part: slice) -> Tensor:
            logits = self.denoiser.logits(features[part]).to(self.device)
            return logits.to(torch.promote_types(logits.dtype, torch.float32))

        return logits_of

    def _read_batch(
        self,
        full: Tensor,
        t: Tensor,
        needed: Tensor,
        at: tuple[Tensor, Tensor],
        target: Tensor,
        readout: Readout,
    ) -> Tensor:
        """Forward one batch of b distinct inputs, and return the C values that `readout` computes from the logits at N
        positions, [N, C]. `full` [b, T * cost]: the inputs as `full_inputs` returns them; `t`
        [b]: their diffusion times; `needed` [b, T] bool: True where logits are wanted; `at`: rows [N] and columns [N]
        of the positions; `target` [N]: their target ids."""
        with torch.no_grad():
            logits_of = self.forward(full, t, needed)
            place = (needed.flatten().cumsum(0) - 1).view(needed.shape)[at]
            size = max(1, MAX_LOGITS // self.vocabulary.total)
            values: list[Tensor] = []
            order: list[Tensor] = []
            for start in range(0, int(needed.sum()), size):
                logits = logits_of(slice(start, start + size))
                own = ((place >= start) & (place < start + size)).nonzero()[:, 0]
                values.append(readout(logits, place[own] - start, target[own]))
                order.append(own)
        return _unsorted(values, torch.cat(order))


def _unsorted(values: list[Tensor], order: Tensor) -> Tensor:
    """Values computed in another order, put back into the original one, [N, C]. Row i of the tensors `values`, each [.,
    C] and here joined along their rows, belongs at row `order[i]` of the result; `order` [N] is a permutation."""
    joined = torch.cat(values)
    return torch.empty_like(joined).index_copy(0, order, joined)


def batches(count: int, size: int) -> Iterator[slice]:
    """Consecutive slices of `size` elements (the last may be shorter) that together cover range(count)."""
    return (slice(start, min(start + size, count)) for start in range(0, count, size))
