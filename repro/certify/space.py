"""Spaces: laws of sentences with known conditionals, in the form that tested samplers and losses receive (`space`).

    space.noise        "absorbing" or "uniform"
    space.vocab        number of tokens V; ids are 0..V - 1
    space.mask         id of [MASK] (= V) under absorbing noise, None under uniform noise
    space.length       tokens of a sentence, L
    space.denoise(ids, t) -> probabilities [n, L, V] float64, ids [n, L], t in [0, 1] a number or [n]

Time runs from t = 1, pure noise, to t = 0; a token is intact with probability alpha(t) = 1 - t. What `denoise`
returns is declared by the tested function as its attribute `meaning`: `x0_mean`, E[x0 | xt], or `leave_one_out`,
p(x0_l | xt without l) (docs/method.md#uniform-samplers); under absorbing noise both coincide. Some tests use
deliberately wrong ("spoiled") denoisers: mixed with unigrams, with noise on the logits, or raised to a power.

Symbols: n rows, L positions, V tokens, S sentences.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from repro.core import rng
from repro.core.lazy import torch
from repro.processes.bayes import x0_mean

if TYPE_CHECKING:
    from torch import Tensor

    from repro.data.hmm import Hmm
    from repro.processes.prediction import Meaning

Noise = Literal["absorbing", "uniform"]
CHUNK = 1 << 16
"""Rows that Bayes' rule is computed for at once; no result depends on it."""
LISTED, LEVELS = 1_000, 1_000
"""Largest number of noisy sentences for which one table per noise level holds the conditionals of all, and largest
number of tables that are kept."""


class Source(Protocol):
    """Protocol of a known law of sentences of `length` tokens from a vocabulary of `vocab`: a class gives the
    conditionals of its law under both noises (`leave_one_out`), and the frequencies of its tokens (`unigram`)."""

    vocab: int
    length: int

    def leave_one_out(self, noise: Noise, ids: Tensor, alpha: Tensor) -> Tensor:
        """Leave-one-out conditionals p(x_l | ids without l), [n, L, V], of noisy ids [n, L] whose tokens are intact
        with probability alpha [n]."""
        ...

    def unigram(self) -> Tensor:
        """Frequency of each token, [V]."""
        ...


class Spoil(Protocol):
    """A deliberate error of a denoiser: a function from exact conditionals to wrong ones."""

    def __call__(self, loo: Tensor, ids: Tensor, unigram: Tensor) -> Tensor:
        """Wrong conditionals [n, L, V] of noisy ids [n, L], from the exact leave-one-out ones `loo` [n, L, V] and the
        unigram frequencies [V]."""
        ...


class Space:
    """What a tested sampler or loss receives: a noise and a denoiser (`denoise`) with the conditionals of the law
    `source`, which `spoil` may make wrong; `meaning`: what the denoiser's output estimates, `x0_mean` or
    `leave_one_out` (see the module).

    `symbols`: number of ids in noisy sentences; `reads`: which of the attributes `noise` and `mask` the tested function
    has read so far.
    """

    def __init__(self, noise: Noise, source: Source, meaning: Meaning, spoil: Spoil | None = None) -> None:
        self._noise: Noise = noise
        self._source, self._meaning, self._spoil = source, meaning, spoil
        self.vocab, self.length = source.vocab, source.length
        self.symbols = source.vocab + (noise == "absorbing")
        self.reads: set[str] = set()
        self._table = functools.lru_cache(LEVELS)(self._list)

    @property
    def noise(self) -> Noise:
        self.reads.add("noise")
        return self._noise

    @property
    def mask(self) -> int | None:
        self.reads.add("mask")
        return self.vocab if self._noise == "absorbing" else None

    def denoise(self, ids: Tensor, t: Tensor | float) -> Tensor:
        """A denoiser's probabilities [n, L, V] for noisy ids [n, L] at time t, a number or [n]; ValueError for invalid
        input."""
        ids, alpha = self._read(ids, t)
        if self._noise == "absorbing":  # no conditional of masked sentences depends on the level
            alpha = torch.zeros_like(alpha)
        if self.symbols**self.length > LISTED or not bool((alpha == alpha[:1]).all()):
            return self._denoise(ids, alpha)
        return self._table(alpha[0].item() if len(alpha) else 0.0)[code(ids, self.symbols)]

    def _list(self, alpha: float) -> Tensor:
        """The denoiser's probabilities for all noisy sentences, in the order of `words`, [symbols^L, L, V]; `alpha`:
        probability that a token is intact."""
        states = words(self.symbols, self.length)
        return self._denoise(states, torch.full((len(states),), alpha, dtype=torch.float64))

    def _denoise(self, ids: Tensor, alpha: Tensor) -> Tensor:
        loo = self._source.leave_one_out(self._noise, ids, alpha)
        if self._spoil is not None:
            loo = self._spoil(loo, ids, self._source.unigram())
        if self._noise == "absorbing":
            known = ids < self.vocab
            if known.any():
                loo = loo.clone()
                loo[known] = torch.nn.functional.one_hot(ids[known], self.vocab).double()
            return loo
        if self._meaning == "leave_one_out":
            return loo
        flat = alpha[:, None].expand(ids.shape).reshape(-1)
        return x0_mean(loo.reshape(-1, self.vocab), ids.reshape(-1), flat).view(loo.shape)

    def _read(self, ids: Tensor, t: Tensor | float) -> tuple[Tensor, Tensor]:
        ids = torch.as_tensor(ids)
        time = torch.as_tensor(t, dtype=torch.float64)
        if ids.ndim != 2 or ids.shape[1] != self.length or ids.is_floating_point():
            raise ValueError(f"denoise takes integer ids [n, {self.length}], got {describe(ids)}")
        if time.ndim and tuple(time.shape) != (len(ids),):
            raise ValueError(f"denoise takes t as a number or [n], got {describe(time)}")
        outside = ~((time >= 0) & (time <= 1))
        if outside.any():
            raise ValueError(
                f"denoise takes t in [0, 1], 1 being pure noise, got {float(time[outside][0]):g}"
            )
        low, high = map(int, ids.aminmax()) if len(ids) else (0, 0)
        if low < 0 or high >= self.symbols:
            raise ValueError(f"denoise takes ids 0 to {self.symbols - 1}, got {low} to {high}")
        return ids.long(), (1 - time).expand(len(ids))


def describe(tensor: Tensor) -> str:
    """Type and shape of a tensor, such as `int64 [3, 2]`."""
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


# --- laws ---------------------------------------------------------------------------------------------------


class Enumerated:
    """An explicit law of all V^L sentences: their probabilities `law` [S], and conditionals by Bayes' rule."""

    def __init__(self, law: Tensor, vocab: int, length: int) -> None:
        assert law.shape == (vocab**length,) and (law > 0).all() and abs(law.sum().item() - 1) < 1e-12
        self.law, self.vocab, self.length = law, vocab, length
        self.sentences = words(vocab, length)
        self._one_hot = torch.nn.functional.one_hot(self.sentences, vocab).double()

    @property
    def entropy(self) -> float:
        """Entropy of the law, nats per sentence."""
        return -(self.law * self.law.log()).sum().item()

    def unigram(self) -> Tensor:
        return torch.einsum("s,slv->v", self.law, self._one_hot) / self.length

    def cell(self, ids: Tensor) -> Tensor:
        """Index [n] of each sentence `ids` [n, L] among all sentences of the law (`sentences`)."""
        return code(ids, self.vocab)

    def leave_one_out(self, noise: Noise, ids: Tensor, alpha: Tensor) -> Tensor:
        parts = zip(ids.split(CHUNK), alpha.split(CHUNK), strict=True)
        return torch.cat([self._bayes(noise, *part) for part in parts])

    def _bayes(self, noise: Noise, ids: Tensor, alpha: Tensor) -> Tensor:
        """Distribution of each clean token given the noisy tokens at the other positions, [n, L, V], for noisy ids
        [n, L] whose tokens are intact with probability alpha [n]."""
        seen = self.channel(noise, ids, alpha)[:, torch.arange(self.length), self.sentences]  # [n, S, L]
        found = []
        for place in range(self.length):
            others = [other for other in range(self.length) if other != place]
            found.append((self.law * seen[:, :, others].prod(-1)) @ self._one_hot[:, place])
        joint = torch.stack(found, 1)
        return joint / joint.sum(-1, keepdim=True)

    def channel(self, noise: Noise, ids: Tensor, alpha: Tensor) -> Tensor:
        """Likelihood q(ids_l | x_l = v) of each clean token v at each position l, up to a factor that does not depend
        on v, [n, L, V], for noisy ids [n, L] whose tokens are intact with probability alpha [n]."""
        shown = torch.nn.functional.one_hot(ids, self.vocab + 1)[..., : self.vocab].double()
        if noise == "absorbing":
            return torch.where((ids == self.vocab)[..., None], 1.0, shown)
        alpha = alpha[:, None, None]
        return alpha * shown + (1 - alpha) / self.vocab


class HmmSource:
    """The law of sentences of a hidden Markov model (`hmm`), whose conditionals are computed exactly although there are
    too many sentences to enumerate."""

    def __init__(self, hmm: Hmm) -> None:
        self.hmm, self.vocab, self.length = hmm, hmm.vocab_size, hmm.length

    def unigram(self) -> Tensor:
        return self.hmm.unigram()

    def leave_one_out(self, noise: Noise, ids: Tensor, alpha: Tensor) -> Tensor:
        if noise == "uniform":
            return self.hmm.leave_one_out_uniform(ids, alpha)
        return self.hmm.leave_one_out(self.hmm.absorbing_evidence(ids, self.vocab))


class RareTokens:
    """A law of sentences of one token, id 0 or one of `rare` ids of probability `chance` each, which shows whether a
    sampler draws improbable tokens (docs/method.md#oracle-34)."""

    length = 1

    def __init__(self, rare: int, chance: float) -> None:
        self.vocab = rare + 1
        self.mass = rare * chance
        self.law = torch.full((self.vocab,), chance, dtype=torch.float64)
        self.law[0] = 1 - self.mass

    def unigram(self) -> Tensor:
        return self.law

    def leave_one_out(self, noise: Noise, ids: Tensor, alpha: Tensor) -> Tensor:
        return self.law.repeat(len(ids), 1, 1)


class RandomConditionals:
    """A denoiser with independent random token probabilities for each noisy sentence; no joint distribution has these
    conditionals."""

    def __init__(self, vocab: int, length: int, seed: int) -> None:
        self.vocab, self.length, self.seed = vocab, length, seed

    def unigram(self) -> Tensor:
        raise AssertionError(
            "random conditionals belong to no law, so they have no unigram frequencies; leave out `spoil`"
        )

    def leave_one_out(self, noise: Noise, ids: Tensor, alpha: Tensor) -> Tensor:
        symbols = self.vocab + 1
        keys = rng.keys(self.seed, rng.INIT, 0, torch.arange(symbols**self.length))
        return rng.normal(keys, self.length, self.vocab).softmax(-1)[code(ids, symbols)]


def words(symbols: int, length: int) -> Tensor:
    """All words of `length` symbols, each from 0 to `symbols` - 1, in lexicographic order, [symbols^length, length]."""
    return torch.tensor(list(itertools.product(range(symbols), repeat=length)))


def code(ids: Tensor, symbols: int) -> Tensor:
    """Index of each word `ids` [n, L] in the lexicographic order of all words of L symbols (`words`), [n]."""
    return ids @ symbols ** torch.arange(ids.shape[1] - 1, -1, -1)


@functools.lru_cache
def tiny(length: int) -> Enumerated:
    """The law that certificates enumerate: all sentences of `length` tokens from a vocabulary of 3, with fixed random
    probabilities and strong dependence between positions."""
    keys = rng.keys(0, rng.LANGUAGE, 3, length)
    law = (1.2 * rng.normal(keys, 3**length)).softmax(-1)
    return Enumerated(law, 3, length)


# --- wrong denoisers ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class UnigramMixture:
    """A `Spoil` that gives (1 - weight) x exact conditional + weight x unigram frequency, as an undertrained network
    might."""

    weight: float

    def __call__(self, loo: Tensor, ids: Tensor, unigram: Tensor) -> Tensor:
        return (1 - self.weight) * loo + self.weight * unigram


@dataclass(frozen=True)
class NoisyLogits:
    """A `Spoil` that adds normal noise of standard deviation `deviation` to the logits of the exact conditionals; the
    noise at a position is a fixed function of the tokens at the other positions."""

    deviation: float

    def __call__(self, loo: Tensor, ids: Tensor, unigram: Tensor) -> Tensor:
        length = ids.shape[1]
        keys = rng.keys(0, rng.NOISE, 0, torch.arange(length)).expand(len(ids), -1)
        for place in range(length):
            own = torch.arange(length) == place
            keys = rng.fold(keys, torch.where(own, 0, ids[:, place, None] + 1))
        return (loo.clamp_min(1e-300).log() + self.deviation * rng.normal(keys, loo.shape[-1])).softmax(-1)


@dataclass(frozen=True)
class PoweredConditionals:
    """A `Spoil` that raises the exact conditionals to the power `beta` and normalises them: sharper than exact if beta
    is above 1, flatter if below."""

    beta: float

    def __call__(self, loo: Tensor, ids: Tensor, unigram: Tensor) -> Tensor:
        return (self.beta * loo.clamp_min(1e-300).log()).softmax(-1)


def total_variation(one: Tensor, other: Tensor) -> float:
    """Total variation distance of two laws, given as the probabilities of the same outcomes: half the sum of absolute
    differences."""
    return (one - other).abs().sum().item() / 2
