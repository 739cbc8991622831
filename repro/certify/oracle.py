"""A space behind the contract of denoisers, so that our own rules decode on it through our own loop."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from repro.certify.space import Enumerated, Noise, Source, Space, Spoil, code
from repro.data.corpus import Data, Vocabulary
from repro.models.attention import KVCache, Mask
from repro.models.backbone import Role
from repro.models.denoiser import Denoiser, Head, Soft
from repro.models.oracle_network import FLOOR
from repro.processes.absorbing import Absorbing
from repro.processes.left_to_right import LeftToRight
from repro.processes.process import Process
from repro.processes.uniform import Uniform


@dataclass(frozen=True)
class Sentences(Data):
    """A data source that is nothing but its sizes: V tokens, then [MASK] and [BOS]."""

    size: int
    length: int

    def vocabulary(self) -> Vocabulary:
        size = self.size
        return Vocabulary(size=size, total=size + 2, mask=size, bos=size + 1, eos=None, pad=None)

    def row_length(self) -> int:
        return self.length


def process_of(noise: Noise) -> Absorbing | Uniform:
    """The process whose alpha(t) is 1 - t, as spaces have it (uniform: up to 1e-9, where t = 1)."""
    return Absorbing() if noise == "absorbing" else Uniform(alpha_end=1e-9, eps=1e-3)


class Told(Denoiser):
    """Says what the space says; features are log-probabilities [B, L, V], the head is the identity.

    Under absorbing noise the time says nothing, and a rule may take that into account (`timed`).
    """

    def __init__(self, space: Space, process: Process) -> None:
        words = Sentences(space.vocab, space.length)
        super().__init__(Role(words, process.forbidden(words.vocabulary()), "leave_one_out"))
        self.space = space

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
        # one block: every column is at the same time
        time = t.reshape(len(tokens), -1)[:, -1] if t is not None else 0.5
        return _features(self.space.denoise(tokens, time), self.vocabulary.total)

    def head(self) -> Head:
        return Head(torch.eye(self.vocabulary.total, dtype=torch.float64), None, self.forbidden)


class Timed(Told):
    """The same under uniform noise, where the time matters."""

    time_conditioned = True


def tell(noise: Noise, source: Source, spoil: Spoil | None = None) -> Told:
    """The denoiser of a law under a noise, in the meaning `leave_one_out`."""
    space = Space(noise, source, "leave_one_out", spoil)
    return (Told if noise == "absorbing" else Timed)(space, process_of(noise))


class NextToken(Denoiser):
    """The exact causal model of a listed law, for rules that write from left to right; ids begin with [BOS]."""

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
        prefix = tokens[:, 1:]
        before, vocab = prefix.shape[1], self.source.vocab
        table = self.source.law.view(vocab**before, vocab, -1).sum(-1)
        law = table[code(prefix, vocab)] if before else table.expand(len(tokens), -1)
        features = _features(law / law.sum(-1, keepdim=True), self.vocabulary.total)
        return features[:, None].expand(-1, tokens.shape[1], -1)  # only the last column is ever asked for

    def head(self) -> Head:
        return Head(torch.eye(self.vocabulary.total, dtype=torch.float64), None, self.forbidden)


def _features(probabilities: Tensor, total: int) -> Tensor:
    """log p, finite, and the floor for ids beyond the tokens."""
    logp = probabilities.log().clamp_min(FLOOR)
    return torch.nn.functional.pad(logp, (0, total - logp.shape[-1]), value=FLOOR)
