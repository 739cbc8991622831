"""Certificates of the suite's own samplers: the exact output law of every preset, and its error on longer sentences.

    python -m repro.certify --presets all            # every preset -> results/certificates/NAME.json

On 27 sentences (3 tokens, 3 positions) the law of a sampler's output is computed exactly, by following every outcome of
each draw in the decoding loop, under the exact denoiser and under wrong ones. A sampler (rule) *converges* if on 9
sentences its distance to the law keeps falling up to 512 steps. For the oracle language `strong` (sentences of 32
tokens) a certificate holds the squared bigram distance and the path KL (`repro.certify.reference`). Presets at
temperature 0 are certified at temperature 1 as well.
"""

from __future__ import annotations

import functools
import math
import platform
from importlib.metadata import version
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, cast, get_args

from repro.certify.long import strong, true_rows
from repro.certify.oracle import CausalOracle, OracleDenoiser, oracle_denoiser
from repro.certify.reference import ancestral
from repro.certify.replay import replay, uniform_path
from repro.certify.sampler import LENGTH, SPOILED
from repro.certify.space import (
    Enumerated,
    HmmSource,
    Noise,
    NoisyLogits,
    Spoil,
    UnigramMixture,
    tiny,
    total_variation,
)
from repro.core import parts
from repro.core.lazy import torch
from repro.evals.tasks.law import bigram_distance
from repro.processes.left_to_right import LeftToRight
from repro.samplers.ancestral import Ancestral
from repro.samplers.decode import decode
from repro.samplers.decoder import Decoder
from repro.samplers.law import law
from repro.samplers.lookahead import Lookahead
from repro.samplers.plan import Plan
from repro.samplers.presets import PRESETS, preset
from repro.samplers.sampler import Sampler

if TYPE_CHECKING:
    from torch import Tensor

EXACT = 1e-9
FALLS = 1.5
"""Least factor by which a converging distance falls when the number of steps N doubles: an error of order 1/N gives 2,
a constant error 1."""
STEPS = (1, 2, 3, 6, 12, 24)
SPOILED_STEPS = (1, 3, 12)
MEMORY_STEPS = 6
"""Largest number of steps at which a sampler with memory is certified on 27 sentences, since it has many states."""
DOUBLED = (64, 128, 256, 512)
LONG_STEPS = (1, 2, 4, 8, 16, 32, 64)
LONG_ORACLES: dict[str, Spoil | None] = {
    "exact": None,
    "mixed 0.1": UnigramMixture(0.1),
    "noisy 0.5": NoisyLogits(0.5),
}
ROWS = 500
PATHS = 300

LOOKED_AHEAD = (
    *(f"{name}:temperature=1.0" for name in ("low_confidence", "random", "margin", "entropy")),
    "sample",
)
"""Samplers that are certified with lookahead as well."""

Number = dict[str, Any]
"""The fields of a `_Statistic`."""


class _Statistic(NamedTuple):
    """One measured number of a sampler preset on a small language (`space`), as certificates store it: its `value` and
    standard error `se`; for comparison `true`, this number for equally many sentences drawn from the language itself,
    and `best`, this number for ancestral sampling; `excess`, mean -log p of the preset's sentences minus the entropy of
    the language, in nats. None: not computed."""

    noise: str
    oracle: str
    statistic: str
    space: str
    steps: int | None
    tokens_per_step: float | None
    value: float
    se: float | None = None
    true: float | None = None
    best: float | None = None
    excess: float | None = None


def names() -> list[str]:
    """Names of all samplers that are certified: every preset, presets at temperature 0 also at temperature 1, and five
    of these samplers (LOOKED_AHEAD) also with lookahead."""
    found = []
    for name, rule in PRESETS.items():
        found.append(name)
        if parts.leaves(rule).get("temperature") == 0:
            found.append(f"{name}:temperature=1.0")
    return [*found, *(f"{name}+lookahead" for name in LOOKED_AHEAD)]


NOISE_FLOOR = 1e-12
"""Smaller statistics are stored as 0: they are rounding errors of float64 sums, which differ between processors."""


def _rounded(number: Number) -> Number:
    """One entry of a certificate's `numbers` with its floats rounded to six significant digits, as tables print them,
    so that every processor stores the same."""
    return {
        key: (0.0 if abs(value) < NOISE_FLOOR else float(f"{value:.6g}"))
        if isinstance(value, float)
        else value
        for key, value in number.items()
    }


def certify_preset(name: str) -> dict[str, Any]:
    """Test whether a preset draws from the distribution that it claims. Returns the certificate as it is stored in
    results/certificates: `verdicts` (one for each noise that the sampler decodes) and `numbers` (distances from the
    true distribution)."""
    rule = preset(name)
    numbers: list[Number] = []
    verdicts: list[dict[str, Any]] = []
    with torch.no_grad():
        for noise in sorted(rule.capabilities.processes):
            found, verdict = certify_rule(rule, noise)
            numbers += found
            verdicts.append(verdict)
            if noise != "left_to_right":
                numbers += _long(rule, noise) + _paths(rule, noise)
    return {
        "preset": name,
        "part": parts.canonical(rule),
        "digest": parts.digest(rule),
        "claim": rule.claim(),
        "plan": rule.capabilities.plan,
        "verdicts": verdicts,
        "numbers": [_rounded(number) for number in numbers],
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            "versions": {package: version(package) for package in ("dlm-repro", "torch")},
        },
    }


def certify_rule(rule: Sampler, noise: str) -> tuple[list[Number], dict[str, Any]]:
    """Certify a sampler (`rule`) under one noise, on enumerated sentences: the total variation of its exact output law
    from the true law, for each number of steps and denoiser (the exact one, and wrong ones); and the verdict on its
    claim."""
    numbers = []
    has_memory = rule.start(torch.zeros(1, LENGTH, dtype=torch.int64)) is not None
    for oracle, spoil in {"exact": None, **SPOILED}.items():
        ladder = STEPS if spoil is None else SPOILED_STEPS
        some = tuple(n for n in ladder if n <= MEMORY_STEPS) if has_memory else ladder
        for steps in _steps(rule, some, LENGTH):
            numbers.append(_listed(rule, noise, tiny(LENGTH), oracle, spoil, steps))
        if noise == "left_to_right":
            break
    finest = [n for n in numbers if n["oracle"] == "exact"][-1]
    if isinstance(rule, Lookahead):
        return numbers, _verdict_ahead(rule, noise)
    if rule.capabilities.plan == "steps" and rule.claim() == "law" and finest["value"] > EXACT:
        doubled = [_listed(rule, noise, tiny(2), "exact", None, steps) for steps in DOUBLED]
        return numbers + doubled, _converges(noise, doubled)
    return numbers, _verdict_at(rule, noise, finest)


def _steps(rule: Sampler, ladder: tuple[int, ...], length: int) -> list[int | None]:
    """Those numbers of steps in `ladder` in which a sampler (`rule`) can decode sentences of `length` tokens; [None]
    for an adaptive sampler, and [length] for a left-to-right one."""
    if rule.capabilities.plan == "adaptive":
        return [None]
    if "left_to_right" in rule.capabilities.processes:
        return [length]
    return [n for n in ladder if n <= length or rule.capabilities.plan == "steps"]


def output_law(
    rule: Sampler, noise: str, source: Enumerated, spoil: Spoil | None, steps: int | None
) -> Tensor:
    """The exact distribution [S] of the output of a sampler (`rule`) over the S sentences of `source` under `noise`,
    after `steps` steps (None: adaptive sampler), with a denoiser made wrong by `spoil` (None: the exact one)."""
    plan = Plan(gen_length=source.length, block_length=source.length, steps=steps)
    if noise == "left_to_right":
        listed = law(CausalOracle(source), LeftToRight(), rule, plan)
    else:
        denoiser = _oracle(noise, source, spoil)
        listed = law(denoiser, denoiser.process, rule, plan)
    found = torch.zeros_like(source.law)
    found[source.cell(torch.tensor(list(listed)))] = torch.tensor(list(listed.values()), dtype=torch.float64)
    return found


def _oracle(noise: str, source: Enumerated | HmmSource, spoil: Spoil | None) -> OracleDenoiser:
    if noise not in get_args(Noise):
        raise ValueError(
            f"there is no exact denoiser for {noise} noise, only for {' and '.join(get_args(Noise))}; add it to"
            " repro/certify/space.py and oracle.py, or leave that noise out of the sampler's `capabilities`"
        )
    return oracle_denoiser(cast("Noise", noise), source, spoil)


def _listed(
    rule: Sampler, noise: str, source: Enumerated, oracle: str, spoil: Spoil | None, steps: int | None
) -> Number:
    found = output_law(rule, noise, source, spoil, steps)
    forwards = float(steps) if steps is not None else _forwards(rule, noise, source, spoil)
    diffusion = noise != "left_to_right" and steps is not None
    best = ancestral(source, _oracle(noise, source, None).space.noise, steps).law if diffusion else None
    return _Statistic(
        noise,
        oracle,
        "total variation",
        f"{len(source.law)} sentences",
        steps,
        source.length / forwards,
        total_variation(found, source.law),
        best=None if best is None or oracle != "exact" else total_variation(best, source.law),
        excess=(found * -source.law.log()).sum().item() - source.entropy,
    )._asdict()


def _forwards(rule: Sampler, noise: str, source: Enumerated, spoil: Spoil | None) -> float:
    """Mean forward passes per sentence of an adaptive sampler (`rule`), measured on 2,000 sentences. A sampler with
    lookahead counts as the same sampler without it: one pass per token."""
    if rule.capabilities.looks_ahead:
        return float(source.length)
    denoiser = _oracle(noise, source, spoil)
    plan = Plan(gen_length=source.length, block_length=source.length, steps=None)
    decoded = decode(denoiser, denoiser.process, rule, plan, [[]] * 2_000, seed=0, names=range(2_000))
    return decoded.cost.forwards.double().mean().item()


# --- verdicts -----------------------------------------------------------------------------------------------


def _converges(noise: str, doubled: list[Number]) -> dict[str, Any]:
    """The verdict on a sampler that claims the law. `doubled`: the total variation of its output law from the true law
    at 64, 128, 256 and 512 steps. Each must be at most 1/1.5 (FALLS) of the one before, or the last must be zero up to
    rounding."""
    far = [number["value"] for number in doubled]
    ratios = [sooner / later for sooner, later in pairwise(far)]
    if far[-1] <= EXACT:
        return _verdict(noise, "exact", True, "the law itself")
    if min(ratios) < FALLS:
        says = f"stuck: total variation {far[-2]:.2g} at {DOUBLED[-2]} steps, {far[-1]:.2g} at {DOUBLED[-1]}"
        return _verdict(noise, "stuck", False, says)
    order = math.log2(ratios[-1])
    return _verdict(
        noise, "converges", True, f"converges as N^-{order:.2f}, {far[-1]:.2g} at {DOUBLED[-1]} steps"
    )


def _verdict_at(rule: Sampler, noise: str, finest: Number) -> dict[str, Any]:
    """The verdict on a sampler (`rule`) from `finest`, numbers at its largest number of steps: the total variation of
    its output law from the true law, and its mean -log p minus the entropy. Not for samplers that claim the law and
    only approach it with more steps: `_converges` judges these."""
    far, nll = finest["value"], finest["excess"]
    match rule.claim():
        case "law":
            exact = far <= EXACT
            how = "one position at a time" if rule.capabilities.plan == "quota" else "as it goes"
            says = f"exact {how}" if exact else f"total variation {far:.2g} {how}"
            return _verdict(noise, "exact" if exact else "stuck", exact, says)
        case "mode":
            side = "below" if nll <= 0 else "above"
            says = f"its texts' mean -log p is {abs(nll):.2f} nats {side} that of true samples"
            return _verdict(noise, "modes", nll <= 0, says)
        case "biased":
            says = f"biased by construction: total variation {far:.2g}"
            return _verdict(
                noise, "biased", True, says if far > EXACT else "claims no law; no bias shows here"
            )


def _verdict_ahead(rule: Lookahead, noise: str) -> dict[str, Any]:
    """The verdict on a sampler with lookahead: with the exact denoiser and with wrong ones, its output law must be that
    of the sampler without lookahead at one position per step."""
    source, far = tiny(LENGTH), 0.0
    for spoil in (None, *SPOILED.values()) if noise != "left_to_right" else (None,):
        laws = [
            output_law(rule, noise, source, spoil, None),
            output_law(rule.rule, noise, source, spoil, LENGTH),
        ]
        far = max(far, total_variation(*laws))
    says = "the law of its rule one position at a time"
    return _verdict(
        noise, "lossless", far <= EXACT, says if far <= EXACT else f"total variation {far:.2g} from {says}"
    )


def _verdict(noise: str, kind: str, stands: bool, says: str) -> dict[str, Any]:
    return {"noise": noise, "kind": kind, "stands": stands, "says": says}


# --- longer sentences ---------------------------------------------------------------------------------------


@functools.lru_cache
def _true_bigram() -> float:
    return bigram_distance(true_rows(ROWS), strong().bigram())[0]


def _long(rule: Sampler, noise: str) -> list[Number]:
    """Squared bigram distances of the samples of a sampler (`rule`) from the oracle language `strong`, at each number
    of steps, with the exact denoiser and with two wrong ones (LONG_ORACLES)."""
    hmm, found = strong(), []
    for oracle, spoil in LONG_ORACLES.items():
        for steps in _steps(rule, LONG_STEPS, hmm.length):
            denoiser = _oracle(noise, HmmSource(hmm), spoil)
            plan = Plan(gen_length=hmm.length, block_length=hmm.length, steps=steps)
            decoded = decode(denoiser, denoiser.process, rule, plan, [[]] * ROWS, seed=0, names=range(ROWS))
            value, se = bigram_distance(decoded.ids, hmm.bigram())
            realised = steps is None and not rule.capabilities.looks_ahead
            forwards = (
                decoded.cost.forwards.double().mean().item() if realised else float(steps or hmm.length)
            )
            tokens, true = hmm.length / forwards, _true_bigram()
            number = _Statistic(
                noise, oracle, "bigram distance squared", "strong", steps, tokens, value, se, true
            )
            found.append(number._asdict())
    return found


def _paths(rule: Sampler, noise: str) -> list[Number]:
    """KL(law || sampler) on the oracle language `strong` in nats per token, at each number of steps. Where it cannot be
    computed, its upper bound, the path KL: the sum over steps of KL(true reverse step || the sampler's step). Empty for
    samplers whose likelihood of a given sentence cannot be computed by replaying their steps
    (`repro.certify.replay`)."""
    hmm, found = strong(), []
    ours = isinstance(rule, Ancestral) and noise == "uniform"
    of = rule.capabilities
    if not ours and (noise in of.revises or of.looks_at_draws or of.looks_ahead):
        return []
    x = true_rows(PATHS)
    for steps in _steps(rule, LONG_STEPS, hmm.length):
        if noise == "uniform":
            assert steps is not None
            lost, exact = uniform_path(steps, PATHS), False
        else:
            denoiser = _oracle(noise, HmmSource(hmm), None)
            plan = Plan(gen_length=hmm.length, block_length=hmm.length, steps=steps)
            replayed = replay(Decoder(denoiser, denoiser.process, rule, plan, [[]] * PATHS), x)
            if replayed is None:
                return []
            lost, exact = hmm.log_likelihood(x) - replayed.logq, replayed.exact
        per_token = lost / hmm.length
        name = "KL (replay)" if exact else "path KL"
        tokens = hmm.length / steps if steps is not None else None
        mean, se = per_token.mean().item(), per_token.std().item() / PATHS**0.5
        found.append(_Statistic(noise, "exact", name, "strong", steps, tokens, mean, se)._asdict())
    return found
