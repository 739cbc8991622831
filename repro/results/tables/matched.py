"""Samplers compared at equal entropy: differences of log gen_ppl between temperature sweeps, with bootstrap intervals.

    sweeps(records)                        per sampler: entropy and log gen_ppl at each temperature, with resamples
    differences(sweeps(records), real)     every pair of sweeps that is compared, at one entropy

gen_ppl is the perplexity of generated text under a causal language model, log gen_ppl its nats per token; entropy is
that of the tokens of one sample, in nats, averaged over samples. A sweep is one sampler of one checkpoint at several
temperatures; a panel is one suite at one scale of the recipe. A lower temperature lowers both gen_ppl and entropy, so a
difference at equal settings is not meaningful (arXiv 2604.02718). Between the temperatures of a sweep log gen_ppl is
interpolated linearly in entropy. Two sweeps are compared at the entropy of real text, or at the nearest entropy that
both reach; if their ranges do not overlap they are not compared. A resample draws rows of samples with replacement, the
same rows for every temperature and sampler (`repro.core.bootstrap`), and averages over train seeds. Only records with
the numbers of each sample are used (curves `nll`, `tokens`, `entropy`).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from repro.core import parts
from repro.core.bootstrap import band, resampled
from repro.core.stats import Interval, holm
from repro.results.record import Record
from repro.results.store import scale_of

GENERATED = ("quality", "generation_quality")
"""Names of the tasks whose samples a language model scores, in small-scale suites and in suites of published numbers.
"""
DRAWS = 1000
LEVEL = 0.95
CURVES = ("nll", "tokens", "entropy")
TEMPERATURE = re.compile(r"(\+tempered)?[:,]temperature=([0-9.]+)")


def line_of(preset: str) -> tuple[str, float]:
    """Name of a sampler preset without its temperature, and the temperature: `random:temperature=0.7` -> `random`, 0.7.
    If the name states no temperature, the sampler's default is returned (1 if the sampler has none)."""
    found = TEMPERATURE.search(preset)
    line = TEMPERATURE.sub("", preset)
    return line, float(found.group(2)) if found else _own_temperature(preset.partition(", ")[0])


@lru_cache
def _own_temperature(name: str) -> float:
    from repro.samplers import presets

    return float(parts.canonical(presets.preset(name)).get("temperature", 1.0))


def panel_of(suite: str, recipe: str) -> str:
    """Name of the panel of a record: its suite and the scale of its recipe. Suites score text differently, so their
    numbers are not compared."""
    return f"{scale_of(recipe) or 'full scale'} (suite {suite})"


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """One sampler of one checkpoint at k `temperatures`. `entropy` (of a sample's tokens) and `log_ppl` (log of
    gen_ppl, the perplexity of generated text), [1 + DRAWS, k] in nats: row 0 as measured, the others from DRAWS
    bootstrap resamples."""

    panel: str
    checkpoint: str
    sampler: str
    tokens_per_step: str
    temperatures: tuple[float, ...]
    entropy: np.ndarray
    log_ppl: np.ndarray

    @property
    def name(self) -> str:
        """Name of the sweep that tables print: checkpoint, sampler, tokens per step."""
        return f"{self.checkpoint.partition('@')[0]}, {self.sampler}, {self.tokens_per_step or 'adaptive'}"

    @property
    def reach(self) -> tuple[float, float]:
        """Smallest and largest measured entropy over the temperatures, in nats."""
        return float(self.entropy[0].min()), float(self.entropy[0].max())

    def at(self, entropy: float) -> np.ndarray:
        """log gen_ppl at a given entropy, [1 + DRAWS] in nats (measured, then resampled), by linear interpolation
        between temperatures; extrapolated linearly in resamples that do not reach the entropy."""
        order = np.argsort(self.entropy, axis=1, kind="stable")
        x, y = (np.take_along_axis(each, order, 1) for each in (self.entropy, self.log_ppl))
        right = np.clip((x < entropy).sum(1), 1, x.shape[1] - 1)[:, None]
        x0, x1, y0, y1 = (np.take_along_axis(e, right - s, 1)[:, 0] for e in (x, y) for s in (1, 0))
        return y0 + (y1 - y0) * (entropy - x0) / np.where(x1 > x0, x1 - x0, 1.0)

    def band(self, entropy: float) -> Interval:
        """95 % bootstrap interval of gen_ppl at a given entropy."""
        low, high = band(self.at(entropy)[1:], LEVEL)
        return Interval(float(np.exp(low)), float(np.exp(high)))


def sweeps(records: Iterable[Record]) -> list[Sweep]:
    """All sweeps (one sampler of one checkpoint at two or more temperatures) in the records of the tasks GENERATED, in
    a fixed order."""
    points: dict[tuple[str, str, str, str], dict[float, list[Record]]] = {}
    for record in records:
        if record.labels.task in GENERATED and set(CURVES) <= (record.answer.curve or {}).keys():
            labels = record.labels
            sampler, temperature = line_of(labels.preset or "")
            panel = panel_of(labels.suite, labels.recipe)
            key = (panel, labels.marked(labels.checkpoint), sampler, labels.tokens_per_step or "")
            points.setdefault(key, {}).setdefault(temperature, []).append(record)
    found = []
    for key, by_temperature in sorted(points.items()):
        if len(by_temperature) > 1:
            temperatures = tuple(sorted(by_temperature))
            numbers = [np.mean([_numbers(r) for r in _ordered(by_temperature[t])], 0) for t in temperatures]
            entropy, log_ppl = np.stack(numbers, -1)
            panel, checkpoint, sampler, tokens = key
            found.append(
                Sweep(
                    panel=panel,
                    checkpoint=checkpoint,
                    sampler=sampler,
                    tokens_per_step=tokens,
                    temperatures=temperatures,
                    entropy=entropy,
                    log_ppl=log_ppl,
                )
            )
    return found


def _ordered(records: Sequence[Record]) -> list[Record]:
    """Records sorted by the hash of their evaluation, so that rounding does not depend on the order of files."""
    return sorted(records, key=lambda record: record.id)


def _numbers(record: Record) -> np.ndarray:
    """Mean entropy and log gen_ppl of the samples of a record, [2, 1 + DRAWS] in nats: column 0 as measured, the others
    from DRAWS bootstrap resamples."""
    curve = record.answer.curve or {}
    drawn = np.array([curve[name] for name in CURVES])
    nll, tokens, entropy = np.einsum("cn,nd->cd", drawn, _times(drawn.shape[1]))
    return np.stack([entropy / drawn.shape[1], nll / tokens])


@lru_cache(maxsize=4)
def _times(count: int) -> np.ndarray:
    """How often each of `count` rows of samples occurs in each of DRAWS bootstrap resamples, [count, 1 + DRAWS], where
    column 0 is the samples as measured (each row once). With this matrix sums over resamples are matrix products."""
    times = np.ones((count, 1 + DRAWS))
    for column, rows in enumerate(resampled(count, DRAWS), start=1):
        times[:, column] = np.bincount(rows, minlength=count)
    return times


# --- differences --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Difference of two sweeps (a sweep: one sampler of one checkpoint at several temperatures) in generative
    perplexity (gen_ppl). `value`: log gen_ppl of sweep `a` minus that of sweep `b` at one `entropy`, with 95 %
    bootstrap `interval` and standard error `se`; all None if their ranges of entropy do not overlap. `p`: p-value of no
    difference, adjusted by Holm over all pairs."""

    panel: str
    a: str
    b: str
    entropy: float | None
    value: float | None
    interval: Interval | None
    se: float | None
    p: float | None


def differences(found: Sequence[Sweep], real: dict[str, float]) -> list[Difference]:
    """Differences of log gen_ppl (generative perplexity) for all pairs of `comparable` sweeps (one sampler of one
    checkpoint at several temperatures), each at the entropy of real text (`real`, by panel, which is a suite at one
    scale) or the nearest one that both reach. In a panel without real text the entropy is the middle of the range that
    both reach."""
    pairs = (pair for pair in itertools.combinations(found, 2) if comparable(*pair))
    made = [_difference(a, b, real.get(a.panel)) for a, b in pairs]
    known = [i for i, each in enumerate(made) if each.p is not None]
    for i, p in zip(known, holm([made[i].p or 0.0 for i in known]), strict=True):
        made[i] = replace(made[i], p=p)
    return made


def comparable(a: Sweep, b: Sweep) -> bool:
    """Whether two sweeps (one sampler of one checkpoint at several temperatures) are compared: both are of one panel
    (suite and scale), and they have equal tokens per step, or the same checkpoint and sampler, or one is autoregressive
    (always one token per step)."""
    ar = any(each.checkpoint.partition("@")[0] == "ar" for each in (a, b))
    one = (a.checkpoint, a.sampler) == (b.checkpoint, b.sampler)
    return a.panel == b.panel and (ar or one or a.tokens_per_step == b.tokens_per_step)


def _difference(a: Sweep, b: Sweep, real: float | None) -> Difference:
    from scipy.stats import norm

    low, high = max(a.reach[0], b.reach[0]), min(a.reach[1], b.reach[1])
    names = {"panel": a.panel, "a": a.name, "b": b.name}
    if low > high:
        return Difference(**names, entropy=None, value=None, interval=None, se=None, p=None)
    entropy = (low + high) / 2 if real is None else min(max(real, low), high)
    apart = a.at(entropy) - b.at(entropy)
    se = float(apart[1:].std(ddof=1))
    return Difference(
        **names,
        entropy=entropy,
        value=float(apart[0]),
        interval=band(apart[1:], LEVEL),
        se=se,
        p=float(2 * norm.sf(abs(apart[0]) / se)) if se > 0 else 1.0,
    )
