"""The log-likelihood of given sentences under a sampler, by replaying its steps with their tokens.

A rule that chooses positions independently of the tokens drawn there can be replayed on a sentence x: each drawn token
is replaced by that of x, and the log-probabilities of these tokens are added up. If nothing else is drawn, the sum is
log q(x) (DUEL, arXiv 2603.01367). If the order is drawn too, it is log q(x, order), whose mean over orders is a lower
bound. For x from the law, E[log p(x) - log q] is KL(law || sampler), or the path KL, an upper bound of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from repro.certify.long import strong, true_rows
from repro.certify.space import HmmSource, Space
from repro.core import rng
from repro.core.lazy import torch
from repro.processes.bayes import plug_in
from repro.samplers.decoder import Decoder

if TYPE_CHECKING:
    from torch import Tensor

    from repro.samplers.draws import Draw, Stream


class Replayed(NamedTuple):
    """Log-likelihood of sentences under a sampler, in nats: `logq` [n] is log q(x) if `exact`, else log q(x, order)."""

    logq: Tensor
    exact: bool


class Replay:
    """A source of draws for a sampler: in place of random tokens it returns those of x [n, L], and adds up their
    log-probabilities in `logq` [n]. Other draws, such as those of positions, are pseudo-random and make `exact` False.
    `names`: for each of the n rows a number, which with the step seeds its pseudo-random draws."""

    def __init__(self, x: Tensor, names: Sequence[int]) -> None:
        self.x, self.names = x, torch.tensor(list(names))
        self.logq = torch.zeros(len(x), dtype=torch.float64)
        self.exact, self.step = True, -1

    def __call__(
        self, probabilities: Tensor, purpose: int, rows: Tensor, positions: Tensor, index: int
    ) -> Tensor:
        if purpose != rng.TOKEN:
            return self._stream()(probabilities, purpose, rows, positions, index)
        token = self.x[rows, positions]
        chance = probabilities.gather(1, token[:, None])[:, 0] / probabilities.sum(-1)
        self.logq = self.logq.index_add(0, rows, chance.log())
        return token

    def uniform(self, purpose: int, rows: Tensor, positions: Tensor, index: int) -> Tensor:
        return self._stream().uniform(purpose, rows, positions, index)

    def ahead(self, rows: Tensor, steps: Tensor) -> Draw:
        raise ValueError(
            "the likelihood of a sentence is computed step by step; give a sampler without lookahead"
        )

    def _stream(self) -> Stream:
        from repro.samplers.draws import Stream

        self.exact = False
        return Stream(0, self.names, self.step)


def replay(decoder: Decoder, x: Tensor) -> Replayed | None:
    """The log-likelihood of sentences x [n, L] under the sampler of `decoder` (n rows without prompts), by replaying
    the sampler's steps with the tokens of x; None if the text after the last step is not x."""
    draw = Replay(x, range(len(x)))
    ids = decoder.begin(draw, decoder.ids)
    memory = decoder.sampler.start(ids)
    for number, at in enumerate(decoder.schedule()):
        if decoder.decided(ids, at.block).all():
            continue
        draw.step = number
        after = decoder.advance(ids, memory, at, draw)
        ids, memory = after.ids, after.memory
    return Replayed(draw.logq, draw.exact) if torch.equal(ids, x) else None


def uniform_path(steps: int, rows: int) -> Tensor:
    """log p(path) - log q(path) of `rows` true paths of uniform noise on the oracle language `strong`, [rows] in nats.

    A path is a sentence at every noise level, from clean to pure noise, in `steps` equal steps of time. p is the joint
    reverse step, p(xs | xt) = p(xs) q(xt | xs) / p(xt), with p(xs) and p(xt) by the HMM's forward algorithm; q is the
    product of the marginals of p.
    """
    hmm = strong()
    x = true_rows(rows)
    space = Space("uniform", HmmSource(hmm), "leave_one_out")
    keys = rng.keys(0, rng.CORRUPT, 1, torch.arange(rows))
    lost = torch.zeros(rows, dtype=torch.float64)
    sooner, before = x, hmm.log_likelihood(x)
    for i in reversed(range(steps)):
        t, s = 1 - i / steps, 1 - (i + 1) / steps
        alpha_t, alpha_s = (torch.full((rows,), 1 - time, dtype=torch.float64) for time in (t, s))
        intact = (1 - t) / (1 - s)
        u = rng.uniform(rng.fold(keys, i), 2, *x.shape[1:])
        later = torch.where(u[:, 0] < intact, sooner, (u[:, 1] * hmm.vocab_size).long())
        after = hmm.log_evidence(hmm.uniform_evidence(later, alpha_t))
        forward = (intact * (later == sooner).double() + (1 - intact) / hmm.vocab_size).log().sum(1)
        loo = space.denoise(later, t)
        flat = [a[:, None].expand(x.shape).reshape(-1) for a in (alpha_t, alpha_s)]
        law = plug_in(loo.reshape(-1, hmm.vocab_size), later.reshape(-1), *flat).view(loo.shape)
        apart = law.gather(2, sooner[..., None])[..., 0].log().sum(1)
        lost += before + forward - after - apart
        sooner, before = later, after
    return lost
