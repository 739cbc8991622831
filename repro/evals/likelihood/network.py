"""The forwards that likelihood estimators share: a denoiser read at masked positions, equal inputs forwarded once.

    network.read(Inputs(ids, where, target, t, prompt), token_logp)     [N, 1]

Symbols: n inputs, b of them a batch, T columns (prompt and continuation), N positions read, V ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from repro.core.lazy import torch
from repro.processes.process import Process

if TYPE_CHECKING:
    from torch import Tensor

    from repro.evals.likelihood.likelihood import Design
    from repro.models.denoiser import Denoiser

LOGITS = 1 << 25
"""Logits held at once."""


class Inputs(NamedTuple):
    """Inputs of one length: ids [n, T] as the network reads them, `where` [n, T] its output is read, target [n, T] the
    token in question there, t [n], `prompt` [n, T] what was given."""

    ids: Tensor
    where: Tensor
    target: Tensor
    t: Tensor
    prompt: Tensor


Look = Callable[["Tensor", "Tensor", "Tensor"], "Tensor"]
"""(logp [m, V], row of logp [N], target [N]) -> [N, C] float64: what is kept of each position."""


def token_logp(logp: Tensor, row: Tensor, target: Tensor) -> Tensor:
    """[N, 1]: log-probability of the token in question."""
    return logp[row, target].double()[:, None]


Heard = Callable[[slice], "Tensor"]
"""Logits [m, V] of a stretch of the positions asked for, in row-major order."""


class Network:
    """A denoiser as estimators use it; `batch` rows a forward at most. `forwards` counts rows that were forwarded."""

    cost: ClassVar[int] = 1
    """Forwards that an input takes."""

    def __init__(self, denoiser: Denoiser, process: Process, batch: int) -> None:
        self.denoiser, self.process, self.batch = denoiser, process, batch
        self.vocabulary = denoiser.vocabulary
        self.device = denoiser.home
        self.forwards = 0

    def read(self, inputs: Inputs, look: Look) -> Tensor:
        """What `look` keeps at the N True entries of `where`, in row-major order: [N, C] on the CPU."""
        ids, where, target, t, prompt = (value.to(self.device) for value in inputs)
        seen = self.seen(ids, prompt)
        timed = t.view(torch.int64)[:, None] if self.denoiser.time_conditioned else ids[:, :0]
        _, group = torch.unique(torch.cat([seen, timed], 1), dim=0, return_inverse=True)
        first = torch.full((int(group.max()) + 1,), len(ids), device=self.device)
        first = first.scatter_reduce(0, group, torch.arange(len(ids), device=self.device), "amin")
        asked = torch.zeros(len(first), where.shape[1], dtype=torch.int64, device=self.device)
        asked = asked.index_add(0, group, where.long()) > 0
        rows, columns = where.nonzero(as_tuple=True)
        group, target = group[rows], target[where]
        order = group.argsort(stable=True)  # positions by the forward that answers them
        ends = [0, *group.bincount(minlength=len(first)).cumsum(0).tolist()]
        found: list[Tensor] = []
        for some in batches(len(first), self.batch):
            mine = order[ends[some.start] : ends[some.stop]]
            at = (group[mine] - some.start, columns[mine])
            found.append(self._batch(seen[first[some]], t[first[some]], asked[some], at, target[mine], look))
        self.forwards += self.cost * len(first)
        kept = torch.cat(found)
        return torch.empty_like(kept).index_copy(0, order, kept).cpu()

    def distinct(self, design: Design) -> int:
        """Forwards that a design needs by itself: its different sets (at different times, for a net that is told)."""
        some = design.masked.any(1)
        t = (
            design.t[some].double().view(torch.int64)[:, None]
            if self.denoiser.time_conditioned
            else design.t[some, None][:, :0]
        )
        return self.cost * len(torch.unique(torch.cat([design.masked[some].long(), t.long()], 1), dim=0))

    def seen(self, ids: Tensor, prompt: Tensor) -> Tensor:
        """All that is forwarded of an input, [n, T * cost]: inputs that agree in it are forwarded once."""
        return ids

    def heard(self, seen: Tensor, t: Tensor, asked: Tensor) -> Heard:
        """Forward `seen` [b, T * cost] for its positions `asked` [b, T]."""
        from repro.models.attention import Mask
        from repro.models.prediction import Prediction

        features = Prediction(self.denoiser, seen, t, Mask()).features(asked)
        return lambda some: self.denoiser.logits(features[some]).to(self.device)

    def _batch(
        self,
        seen: Tensor,
        t: Tensor,
        asked: Tensor,
        at: tuple[Tensor, Tensor],
        target: Tensor,
        look: Look,
    ) -> Tensor:
        """One batch of distinct inputs [b, T * cost], read at the pairs `at` of (row, column): [N, C]."""
        with torch.no_grad():
            heard = self.heard(seen, t, asked)
            place = (asked.flatten().cumsum(0) - 1).view(asked.shape)[at]
            size = max(1, LOGITS // self.vocabulary.total)
            found: list[Tensor] = []
            order: list[Tensor] = []
            for start in range(0, int(asked.sum()), size):
                logits = heard(slice(start, start + size))
                wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
                mine = ((place >= start) & (place < start + size)).nonzero()[:, 0]
                found.append(look(wide.log_softmax(-1), place[mine] - start, target[mine]))
                order.append(mine)
        kept = torch.cat(found)
        return torch.empty_like(kept).index_copy(0, torch.cat(order), kept)


def batches(count: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, count)) for start in range(0, count, size))
