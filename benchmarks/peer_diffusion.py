"""What the rows of Duo and MDLM share: network, training step and our sampling, beside the peers' own code.

Both sides use our DiT with the same weights; `backbone` gives it to a peer as its own class gives its network, with
logits at every position. A peer's object is made without its constructor, which needs a GPU and a tokenizer, with the
attributes that the constructor would set. Both sides draw their own noise, so losses, gradients and posteriors are
compared at the noise that the peer drew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from benchmarks.nets import Sizes, batch
from benchmarks.row import TOLERANCE, Compared, against, product_share
from repro.core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from repro.models.denoiser import Denoiser
    from repro.objectives.objective import Batch, Objective
    from repro.processes.process import Diffusion, Scored
    from repro.samplers.decoded import Decoded
    from repro.samplers.tail import Removal

EPS = 1e-3
"""alpha(1) and the lowest time of both peers (s-sahoo/duo@7c9b498 configs/config.yaml:56, configs/noise)."""


@dataclass(frozen=True)
class Case:
    """Sizes: `ids` tokens, rows and length of a training batch, rows and steps of sampling, and the DiT; texts that a
    judge reads, and its layers, width and heads (GPT-2's, as both papers have it)."""

    ids: int = 50_257
    rows: int = 8
    length: int = 128
    samples: int = 2
    steps: int = 8
    width: int = 256
    layers: int = 2
    heads: int = 4
    texts: int = 8
    judge: tuple[int, int, int] = (12, 768, 12)

    def name(self) -> str:
        """The sizes of the network and the rows' length as text."""
        return f"V={self.ids:,}, d={self.width}, {self.layers} layers, L={self.length}"

    def network(self, masked: bool) -> tuple[Denoiser, Batch]:
        """A DiT with random weights and a batch of random ids; `masked`: with a mask id after the others, and without
        reading the noise level (MDLM's), else reading it (Duo's)."""
        from repro.core import rng
        from repro.models.dit import Dit
        from repro.models.products import multiply_by_onednn
        from repro.processes.prediction import Role

        sizes = Sizes(ids=self.ids, mask=self.ids if masked else None, bos=None, length=self.length)
        dit = Dit(
            layers=self.layers,
            width=self.width,
            heads=self.heads,
            ffn=4 * self.width,
            condition=128,
            frequencies=256,
            alpha_end=None if masked else EPS,
            rope_base=10_000.0,
            norm_eps=1e-5,
        )
        denoiser = multiply_by_onednn(
            dit.module(Role(sizes, (self.ids,) if masked else (), "leave_one_out"), 0)
        )
        with torch.no_grad():  # a fresh DiT's output layer is zero
            for number, weight in enumerate(denoiser.parameters()):
                weight += 0.05 * rng.normal(rng.keys(0, rng.INIT, 2, number), *weight.shape)
        return denoiser, batch(sizes, self.rows)


class Seen(SimpleNamespace):
    """What a peer drew and gave to its network: `tokens` and times `t`; `forwards`: number of rows that the network has
    read so far."""

    forwards = 0


def backbone(denoiser: Denoiser, seen: Seen) -> Any:
    """A stand-in for the network of Duo and MDLM that calls `denoiser` and notes its inputs in `seen`: `backbone(x,
    sigma, ...)` gives logits [B, L, V], sigma = -log alpha.

    x: ids [B, L], or Duo's soft tokens, as logits [B, L, V] of their weights or as ids [B, L, k] with `weights`. Soft
    tokens are embedded as by s-sahoo/duo@7c9b498 models/dit.py:388-403.
    """
    from repro.models.attention import Mask
    from repro.models.denoiser import Soft

    class Backbone(torch.nn.Module):
        def forward(
            self, x: Tensor, sigma: Tensor, class_cond: None = None, weights: Tensor | None = None
        ) -> Tensor:
            tokens: Tensor | Soft = x
            if weights is not None:
                tokens = Soft(x, weights.float())
            elif x.ndim == 3:
                tokens = Soft(None, x.softmax(-1).float())
            seen.forwards += len(x)
            seen.tokens, seen.t = tokens, -torch.expm1(-sigma.double()) / (1 - EPS)
            t = seen.t if denoiser.time_conditioned else None
            return denoiser.head().logits(denoiser.encode(tokens, t=t, attention=Mask()))

    return Backbone()


def made(kind: Any) -> Any:
    """An object of a peer's class, a torch module, made without the class's constructor."""
    model = kind.__new__(kind)
    torch.nn.Module.__init__(model)
    return model


def training_row(
    name: str,
    target: float,
    repeats: int,
    ours: tuple[Denoiser, Diffusion, Batch],
    objective: Objective,
    theirs: Callable[[], Tensor],
    seen: Seen,
    scored: Callable[[], Scored],
) -> Compared:
    """The row of a training step, forward and backward: `objective` on `ours` (denoiser, process, batch) against the
    peer's loss `theirs`. They are compared at the noise that the peer drew, at which `scored` gives the terms of our
    loss."""
    from repro.models.attention import Mask
    from repro.models.prediction import Prediction

    denoiser, process, of = ours
    denoiser.train()

    def ours_at_theirs() -> Tensor:
        where, loss, each = scored()
        count = of.candidates.sum()
        weight = torch.ones(len(each[0]), dtype=torch.float64) / count
        return Prediction(denoiser, seen.tokens, seen.t, Mask()).weighted_loss(loss, where, weight, *each)[0]

    def trained(loss: Callable[[], Tensor]) -> tuple[float, list[Tensor]]:
        denoiser.zero_grad()
        value = loss()
        value.backward()
        return value.item(), [weight.grad for weight in denoiser.parameters() if weight.grad is not None]

    def mine() -> float:
        denoiser.zero_grad()
        value = objective(denoiser, process, of).value
        value.backward()
        return value.item()

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        value, gradients = trained(theirs)
        other, others = trained(ours_at_theirs)
        off = abs(other / value - 1)
        off_gradient = max(
            ((a - b).norm() / b.norm()).item() for a, b in zip(others, gradients, strict=True) if b.norm() > 0
        )
        found = against({"ours": mine, "theirs": lambda: trained(theirs)[0]}, repeats)
        share = product_share(mine)
    agreement = (
        f"at the peer's noise the loss differs by {off:.1e}, gradients by {off_gradient:.1e};"
        f" matrix products take {share:.0%} of our time"
    )
    return Compared(found.row(name, target, agreement), max(off, off_gradient) <= TOLERANCE)


def ancestral(case: Case, denoiser: Denoiser, process: Diffusion, removal: Removal) -> Callable[[], Decoded]:
    """Our ancestral sampling of a case as both peers have it: linear times down to 1e-5, then noise removal."""
    from repro.samplers.ancestral import Ancestral
    from repro.samplers.decode import decode
    from repro.samplers.plan import ServedPlan
    from repro.samplers.tail import LinearTimes, Tail

    denoiser.eval()
    sampler = Tail(rule=Ancestral(), times=LinearTimes(end=1e-5), removal=removal)
    plan = ServedPlan(gen_length=case.length, block_length=case.length, steps=case.steps, cache=None, stop=())
    prompts, names = [[]] * case.samples, range(case.samples)
    return lambda: decode(denoiser, process, sampler, plan, prompts, seed=0, names=names)
