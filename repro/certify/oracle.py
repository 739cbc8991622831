"""Denoisers with the exact (or deliberately wrong) conditionals of a known law of sentences (`repro.certify.space`),
with which the suite's own samplers decode."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from repro.certify.space import Enumerated, Noise, Source, Space, Spoil, code
from repro.data.corpus import Data, Vocabulary
from repro.models.attention import KVCache, Mask
from repro.models.denoiser import Denoiser, Head, Soft
from repro.models.oracle_network import FLOOR
from repro.processes.absorbing import Absorbing
from repro.processes.left_to_right import LeftToRight
from repro.processes.prediction import Role
from repro.processes.uniform import Uniform


@dataclass(frozen=True)
class Sentences(Data):
    """Stand-in for a corpus that holds no text, only the sizes from which an exact denoiser is built: a vocabulary of
    `size` tokens, [MASK] and [BOS], and rows of `length` tokens."""

    size: int
    length: int

    def vocabulary(self) -> Vocabulary:
        size = self.size
        return Vocabulary(size=size, total=size + 2, mask=size, bos=size + 1, eos=None, pad=None)

    def row_length(self) -> int:
        return self.length


def process_of(noise: Noise) -> Absorbing | Uniform:
    """The noise process with alpha(t) = 1 - t, as in `repro.certify.space.Space` (uniform noise: alpha(1) = 1e-9)."""
    return Absorbing() if noise == "absorbing" else Uniform(alpha_end=1e-9, eps=1e-3)


class OracleDenoiser(Denoiser):
    """Denoiser whose outputs are the conditionals of a space (`repro.certify.space.Space`): features are
    log-probabilities [B, L, V + 2] of tokens, [MASK] and [BOS], and the head is the identity. The denoiser reads the
    time under uniform noise alone, where the conditionals depend on the time."""

    def __init__(self, space: Space) -> None:
        words, self.process = Sentences(space.vocab, space.length), process_of(space.noise)
        super().__init__(Role(words, self.process.forbidden(words.vocabulary()), "leave_one_out"))
        self.space, self.time_conditioned = space, space.noise == "uniform"

    def encode(
        self,
        tokens: Tensor | Soft,
        *,
        t: Tensor | None,
        attention: Mask,
        positions: Tensor | None = None,
        kv_cache: KVCache | None = None,
    ) -> Tensor:
        assert not isinstance(tokens, Soft)
        # a single block, so that every column is at the same time
        time = t.reshape(len(tokens), -1)[:, -1] if t is not None else 0.5
        return _features(self.space.denoise(tokens, time), self.vocabulary.total)

    def head(self) -> Head:
        return Head(torch.eye(self.vocabulary.total, dtype=torch.float64), None, self.forbidden)


def oracle_denoiser(noise: Noise, source: Source, spoil: Spoil | None = None) -> OracleDenoiser:
    """The denoiser with the leave-one-out conditionals of the law `source` under a noise, made wrong by `spoil` if
    given."""
    return OracleDenoiser(Space(noise, source, "leave_one_out", spoil))


class CausalOracle(Denoiser):
    """The exact left-to-right model of an enumerated law: outputs are the distribution of each next token given the
    tokens before it. Ids begin with [BOS]."""

    def __init__(self, source: Enumerated) -> None:
        words = Sentences(source.vocab, source.length)
        super().__init__(Role(words, LeftToRight().forbidden(words.vocabulary()), "x0_mean"))
        self.source = source

    def encode(
        self,
        tokens: Tensor | Soft,
        *,
        t: Tensor | None,
        attention: Mask,
        positions: Tensor | None = None,
        kv_cache: KVCache | None = None,
    ) -> Tensor:
        assert not isinstance(tokens, Soft) and int(tokens[0, 0]) == self.vocabulary.bos
        return torch.stack([self._next(tokens[:, 1 : 1 + n]) for n in range(tokens.shape[1])], 1)

    def _next(self, prefix: Tensor) -> Tensor:
        """Features [B, V + 2] (log-probabilities) for the token after the prefix [B, n]."""
        before, vocab = prefix.shape[1], self.source.vocab
        table = self.source.law.view(vocab**before, vocab, -1).sum(-1)
        law = table[code(prefix, vocab)] if before else table.expand(len(prefix), -1)
        return _features(law / law.sum(-1, keepdim=True), self.vocabulary.total)

    def head(self) -> Head:
        return Head(torch.eye(self.vocabulary.total, dtype=torch.float64), None, self.forbidden)


def _features(probabilities: Tensor, total: int) -> Tensor:
    """Log-probabilities [..., total] from probabilities [..., V]: at least -80 (FLOOR, in place of minus infinity), and
    -80 for the ids after the V tokens."""
    logp = probabilities.log().clamp_min(FLOOR)
    return torch.nn.functional.pad(logp, (0, total - logp.shape[-1]), value=FLOOR)
