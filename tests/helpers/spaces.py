"""Spaces so small that every law can be enumerated, and denoisers with known outputs.

    SPACE                       3 tokens, 2 positions: the law of a hidden Markov model
    exact(space, process)       exact conditionals, by Bayes over all sentences
    stranger(space, process)    random conditionals that belong to no joint law
    InBlocks(...)               either of them behind the interface of a network that reads blocks
    llama(...), modernbert()    tiny networks with large random weights, so that decisions have clear margins

Symbols: n rows, L positions, V tokens, S = V^L sentences; x clean and z noisy tokens.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from repro.core import rng
from repro.core.parts import part
from repro.data.corpus import Data, Vocabulary
from repro.data.hmm import Hmm
from repro.models.attention import Copies, KVCache, Mask
from repro.models.denoiser import Denoiser, Head, Soft
from repro.models.llama import Llama
from repro.models.modernbert import ModernBert
from repro.models.prediction import Prediction
from repro.processes.prediction import Meaning, Role
from repro.processes.process import Process, diffusion

Law = dict[tuple[int, ...], float]
Answer = Callable[[Tensor, Tensor], Tensor]
"""(noisy ids [n, L], t [n]) -> probabilities [n, L, V]."""


@part
class Words(Data):
    """A data source with sizes only; [MASK] and [BOS] are the two ids after the tokens."""

    size: int
    length: int

    def vocabulary(self) -> Vocabulary:
        return Vocabulary(
            size=self.size, total=self.size + 2, mask=self.size, bos=self.size + 1, eos=None, pad=None
        )

    def row_length(self) -> int:
        return self.length


@dataclass(frozen=True)
class Space:
    """A law [S] float64 over all sentences of `length` tokens of a vocabulary of `size`, in lexicographic order."""

    law: Tensor
    size: int
    length: int

    @property
    def words(self) -> Words:
        return Words(size=self.size, length=self.length)

    @property
    def sentences(self) -> Tensor:
        """All sentences, [S, L]."""
        return torch.tensor(list(itertools.product(range(self.size), repeat=self.length)))

    @property
    def entropy(self) -> float:
        return -(self.law * self.law.log()).sum().item()

    def as_law(self) -> Law:
        return dict(zip(map(tuple, self.sentences.tolist()), self.law.tolist(), strict=True))

    def independent(self) -> Law:
        """The product of the positions' marginals."""
        marginals = torch.stack([self.law @ self.one_hot()[:, place] for place in range(self.length)])
        places = torch.arange(self.length)
        return {tuple(x): marginals[places, x].prod().item() for x in self.sentences.tolist()}

    def one_hot(self) -> Tensor:
        """All sentences as one-hot vectors, [S, L, V] float64."""
        return torch.nn.functional.one_hot(self.sentences, self.size).double()

    def conditionals(self, channel: Tensor, own: bool) -> Tensor:
        """p(x_l | z) [n, L, V] by Bayes over all sentences, from channel [n, L, V] = q(z_l | x_l = v).

        Without `own`, the condition leaves out z_l.
        """
        seen = channel[:, torch.arange(self.length), self.sentences]
        found = []
        for place in range(self.length):
            others = [other for other in range(self.length) if own or other != place]
            found.append((self.law * seen[:, :, others].prod(-1)) @ self.one_hot()[:, place])
        joint = torch.stack(found, 1)
        return joint / joint.sum(-1, keepdim=True)


def hidden_markov() -> Hmm:
    """A hidden Markov model of three states that prefer one token each and seldom persist."""
    states = torch.tensor([[0.1, 0.7, 0.2], [0.25, 0.05, 0.7], [0.6, 0.3, 0.1]], dtype=torch.float64)
    tokens = torch.tensor([[0.85, 0.1, 0.05], [0.1, 0.8, 0.1], [0.02, 0.08, 0.9]], dtype=torch.float64)
    return Hmm(torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), states, tokens, 2)


def random_space(size: int, length: int) -> Space:
    """A fixed random law in which every sentence is possible."""
    weights = rng.uniform(rng.keys(0, rng.LANGUAGE, size, length), size**length) + 0.02
    return Space(weights / weights.sum(), size, length)


def _hmm_space() -> Space:
    hmm = hidden_markov()
    sentences = torch.tensor(list(itertools.product(range(3), repeat=2)))
    return Space(hmm.log_likelihood(sentences).exp(), 3, 2)


SPACE = _hmm_space()


# --- denoisers ----------------------------------------------------------------------------------------------


class Known(Denoiser):
    """A denoiser with output `answer(z, t)`; features are log-probabilities, and the head is the identity."""

    time_conditioned = True

    def __init__(self, words: Data, process: Process, meaning: Meaning, answer: Answer) -> None:
        super().__init__(Role(words, process.forbidden(words.vocabulary()), meaning))
        self.answer = answer

    def encode(
        self,
        tokens: Tensor | Soft,
        *,
        t: Tensor | None,
        attention: Mask,
        positions: Tensor | None = None,
        kv_cache: KVCache | None = None,
    ) -> Tensor:
        assert t is not None and not isinstance(tokens, Soft)
        # -inf times a 0 of the head would be NaN; 1e-300 is as good as 0
        logp = self.answer(tokens, t).double().clamp_min(1e-300).log()
        return torch.nn.functional.pad(logp, (0, self.vocabulary.total - logp.shape[-1]))

    def head(self) -> Head:
        return Head(torch.eye(self.vocabulary.total, dtype=torch.float64), None, self.forbidden)


class InBlocks(Denoiser):
    """A denoiser with output `answer(z, t)` that reads [noisy; clean] under the mask `Copies`, as networks that decode
    in blocks of `block` tokens do: a block sees its noisy tokens and the clean blocks before it, and masks after it."""

    def __init__(self, words: Data, process: Process, block: int, answer: Answer) -> None:
        super().__init__(Role(words, process.forbidden(words.vocabulary()), "leave_one_out"))
        self.answer, self.required_block_size = answer, block

    def encode(
        self,
        tokens: Tensor | Soft,
        *,
        t: Tensor | None,
        attention: Mask,
        positions: Tensor | None = None,
        kv_cache: KVCache | None = None,
    ) -> Tensor:
        assert not isinstance(tokens, Soft) and isinstance(attention, Copies)
        assert attention.block == self.required_block_size and self.vocabulary.mask is not None
        noisy, clean = tokens.chunk(2, 1)
        block = torch.arange(noisy.shape[1]) // attention.block
        found = []
        for place in range(noisy.shape[1]):
            row = torch.where(block < block[place], clean, noisy)
            row = row.masked_fill(block > block[place], self.vocabulary.mask)
            found.append(self.answer(row, torch.zeros(len(row)))[:, place])
        logp = torch.stack(found, 1).double().clamp_min(1e-300).log()
        logp = torch.nn.functional.pad(logp, (0, self.vocabulary.total - logp.shape[-1]))
        return torch.cat([logp, torch.full_like(logp, torch.nan)], 1)

    def head(self) -> Head:
        return Head(torch.eye(self.vocabulary.total, dtype=torch.float64), None, self.forbidden)


def channel(space: Space, process: Process, ids: Tensor, t: Tensor) -> Tensor:
    """q(z_l | x_l = v), up to a factor that depends on z alone, [n, L, V]; noise that does not mask is uniform."""
    if process.masks:
        known = torch.nn.functional.one_hot(ids, space.size + 1)[..., : space.size].double()
        return torch.where((ids == space.size)[..., None], 1.0, known)
    alpha = diffusion(process).alpha(t.double()).reshape(len(ids), -1, 1)
    return alpha * torch.nn.functional.one_hot(ids, space.size) + (1 - alpha) / space.size


def exact(space: Space, process: Process, meaning: Meaning = "leave_one_out") -> Known:
    """The exact denoiser of a space, with either output meaning."""
    own = meaning == "x0_mean"
    return Known(
        space.words,
        process,
        meaning,
        lambda ids, t: space.conditionals(channel(space, process, ids, t), own),
    )


def stranger(space: Space, process: Process, seed: int = 0, meaning: Meaning = "leave_one_out") -> Known:
    """A fixed random distribution for each noisy sentence and position, consistent with no joint law."""

    def answer(ids: Tensor, t: Tensor) -> Tensor:
        code = (ids * (space.size + 1) ** torch.arange(ids.shape[1])).sum(1)
        keys = rng.keys(seed, rng.INIT, 0, code)
        return rng.normal(keys, ids.shape[1], space.size).softmax(-1)

    return Known(space.words, process, meaning, answer)


def predict(denoiser: Denoiser) -> Callable[[Tensor, Tensor], Prediction]:
    return lambda ids, t: Prediction(denoiser, ids, t, Mask())


def llama(
    attention: Literal["causal", "bidirectional"], process: Process, words: Words, seed: int = 0
) -> Denoiser:
    pins = Llama(
        layers=2,
        width=32,
        heads=4,
        kv_heads=2,
        ffn=48,
        attention=attention,
        rope_base=10_000.0,
        norm_eps=1e-5,
        learned_positions=words.length,
        tied=False,
        init_deviation=0.4,
    )
    return pins.module(Role(words, process.forbidden(words.vocabulary()), "x0_mean"), seed).eval()


def modernbert(process: Process, words: Words, seed: int = 0) -> Denoiser:
    pins = ModernBert(
        layers=3,
        width=32,
        heads=4,
        ffn=48,
        global_every=3,
        window=8,
        rope_base_global=160_000.0,
        rope_base_local=10_000.0,
        norm_eps=1e-5,
        max_positions=64,
        attend_pads=False,
        init_deviation=0.4,
        weights=None,
        revision=None,
    )
    return pins.module(Role(words, process.forbidden(words.vocabulary()), "x0_mean"), seed).eval()


# --- laws ---------------------------------------------------------------------------------------------------


def total_variation(one: Law, other: Law) -> float:
    return sum(abs(one.get(x, 0.0) - other.get(x, 0.0)) for x in {*one, *other}) / 2


def chi_square(counts: Tensor, law: Tensor) -> float:
    """P-value of observed counts [C] under a law [C]; 0 if an outcome of probability 0 occurred."""
    from scipy.stats import chi2

    possible = law > 1e-12
    if counts[~possible].any():
        return 0.0
    expected = law[possible] * counts.sum()
    statistic = ((counts[possible] - expected) ** 2 / expected).sum().item()
    return float(chi2.sf(statistic, int(possible.sum()) - 1))
