"""Samplers by name: presets, `PRESET:field=value` to change a preset, and `+NAME` to add a logits processor.

python -m repro.evals list samplers              lists all names
low_confidence:temperature=1.0                   a changed preset; tables show it under this name
low_confidence+guided:scale=1.0+nucleus:p=0.9    a sampler with two logits processors, which act from left to right
"""

from __future__ import annotations

import re
from typing import TypeVar

from repro.core import parts, registry
from repro.core.errors import nearest
from repro.core.parts import Part
from repro.samplers.ancestral import Ancestral, FirstHitting, Origin
from repro.samplers.autoregressive import Autoregressive
from repro.samplers.corrector import Anywhere, Corrected, Doubtful
from repro.samplers.logits_processors import (
    Banned,
    Distrusted,
    DreamQuotas,
    Guided,
    LogitsProcessor,
    Nucleus,
    OrderTemperature,
    ProcessedSampler,
    RoundedQuotas,
    Tempered,
    TopK,
    TopP,
)
from repro.samplers.ordered import Entropy, LowConfidence, Margin, Random
from repro.samplers.psi import ConstantSigma, Kappa, MaxCapped, MaxRescaled, Psi, PurePosterior
from repro.samplers.remdm import ForwardBackward, RemdmCap, RemdmConf, RemdmLoop, RemdmRescale
from repro.samplers.renoise import Renoise
from repro.samplers.sampler import Sampler
from repro.samplers.tail import DrawnRemoval, GreedyRemoval, HeldTimes, LinearTimes, Tail
from repro.samplers.threshold import EntropyBound, Factor, Threshold

P = TypeVar("P", bound=Part)


def _psi(kappa: Kappa) -> Tail:
    """Duo's psi sampler with the same schedule of kappa at all steps, and a drawn removal of the remaining noise."""
    rule = Psi(high=kappa, middle=kappa, low=kappa, high_frac=0.0, middle_frac=0.0)
    return Tail(rule=rule, times=LinearTimes(end=1e-5), removal=DrawnRemoval())


PRESETS: dict[str, Sampler] = {
    "low_confidence": LowConfidence(temperature=0.0),
    "random": Random(temperature=0.0),
    "margin": Margin(temperature=0.0),
    "entropy": Entropy(temperature=0.0),
    "threshold_0.9": Threshold(threshold=0.9, temperature=0.0),
    "factor_1": Factor(factor=1.0, temperature=0.0),
    "entropy_bound_0.1": EntropyBound(gamma=0.1, proxy="entropy", temperature=1.0),
    "origin": Origin(end=1e-3),
    "first_hitting": FirstHitting(),
    "remdm_cap": RemdmCap(eta=0.008),
    "remdm_rescale": RemdmRescale(eta=0.015),
    "remdm_conf": RemdmConf(),
    "remdm_loop": RemdmLoop(eta=0.02, t_on=0.55, t_off=0.05, alpha_on=0.9),
    "forward_backward": ForwardBackward(),
    "ancestral": Ancestral(),
    "drawn_tail": Tail(rule=Ancestral(), times=LinearTimes(end=1e-5), removal=DrawnRemoval()),
    "greedy_tail": Tail(rule=Ancestral(), times=LinearTimes(end=1e-5), removal=GreedyRemoval()),
    "psi_cap": _psi(MaxCapped(eta=0.01)),
    "psi_rescale": _psi(MaxRescaled(eta=0.05)),
    "psi_loop": Tail(
        rule=Psi(
            high=PurePosterior(),
            middle=ConstantSigma(eta=0.01),
            low=PurePosterior(),
            high_frac=0.45,
            middle_frac=0.5,
        ),
        times=HeldTimes(level=0.1, high=0.45, middle=0.5, end=1e-5),
        removal=DrawnRemoval(),
    ),
    "corrector": Corrected(rule=Ancestral(), choice=Anywhere(), sweeps=1, count=1),
    "corrector_margin": Corrected(rule=Ancestral(), choice=Doubtful(temperature=1.0), sweeps=1, count=1),
    "renoise": Renoise(bound=0.1, hot=0.8, cold=0.4, stable=1, confident=0.005),
    "greedy": Autoregressive(temperature=0.0),
    "sample": Autoregressive(temperature=1.0),
}


LOGITS_PROCESSORS: dict[str, LogitsProcessor] = {
    "guided": Guided(scale=0.5),
    "tempered": Tempered(temperature=0.7),
    "top_k": TopK(k=50),
    "nucleus": Nucleus(p=0.9),
    "top_p": TopP(p=0.95),
    "no_eos": Banned(ids="eos"),
    "eos_last": Distrusted(ids="eos"),
    "order_temperature": OrderTemperature(alg_temp=0.1),
    "dream_quotas": DreamQuotas(end=1e-3),
    "rounded_quotas": RoundedQuotas(),
}


SOURCES = {
    "low_confidence": "commits the most confident positions: LLaDA, generate.py, T = 0 (docs/method.md#llada-sampling)",
    "random": "commits random positions: LLaDA, generate.py, remasking='random' (docs/method.md#llada-sampling)",
    "margin": "commits by the gap between the two best tokens: Dream, alg topk_margin (docs/method.md#dream-rules)",
    "entropy": "commits by negative entropy: Dream and Open-dLLM, alg entropy (docs/method.md#dream-rules)",
    "threshold_0.9": "commits all positions above a confidence: Fast-dLLM, GSM8K scripts (docs/method.md#fast-dllm)",
    "factor_1": "commits as many as theorem 1 of Fast-dLLM allows; it holds up to factor 1 (docs/method.md#fast-dllm)",
    "entropy_bound_0.1": "commits within a joint entropy: nkalyanv99/UNI-D2@3f24657 (docs/method.md#entropy-bound)",
    "origin": "reveals each position by chance: Dream, alg origin, eps 1e-3 (docs/method.md#dream-rules)",
    "first_hitting": "one position at each hitting time: BD3-LM, first_hitting=True (docs/method.md#block-diffusion)",
    "remdm_cap": "ReMDM, eta .008; its scripts add +nucleus:p=0.9 (docs/method.md#remdm)",
    "remdm_rescale": "ReMDM, eta .015; its scripts add +nucleus:p=0.9 (docs/method.md#remdm)",
    "remdm_conf": "ReMDM by confidence; its scripts add +nucleus:p=0.9 (docs/method.md#remdm)",
    "remdm_loop": "ReMDM, loop at alpha .9; its scripts add +nucleus:p=0.9 (docs/method.md#remdm)",
    "forward_backward": "ReMDM's forward-backward sampler, +nucleus:p=0.9 (docs/method.md#remdm)",
    "ancestral": "reverse process to s = 0, no noise removal (docs/method.md#mdlm, docs/method.md#uniform-samplers)",
    "drawn_tail": "Duo's loop: 1 to 1e-5, noise_removal=ancestral, N + 1 forwards (docs/method.md#uniform-samplers)",
    "greedy_tail": "Duo, noise_removal=greedy; also how MDLM's loop ends (docs/method.md#uniform-samplers)",
    "psi_cap": "Duo, scripts/psi_samplers/owt/*_max_capped_remdm.sh, +top_p:p=0.9 (docs/method.md#uniform-samplers)",
    "psi_rescale": "Duo, scripts/psi_samplers/owt/*_max_rescale_eta.sh, +top_p:p=0.9 (docs/method.md#uniform-samplers)",
    "psi_loop": "Duo, scripts/psi_samplers/owt/*_loop_remdm.sh, +top_p:p=0.95 (docs/method.md#uniform-samplers)",
    "corrector": "leave-one-out corrector, arXiv 2605.22765, positions chosen independently of tokens: exact",
    "corrector_margin": "leave-one-out corrector as in diffusers' DiscreteDDIMScheduler: lowest_log_margin, tau 1",
    "renoise": "DiffusionGemma's defaults in transformers 5.23, at most 48 steps per block of 256",
    "greedy": "the most likely next token",
    "sample": "a draw of the next token over the whole vocabulary (docs/method.md#ar-baseline)",
    "guided": "LLaDA's cfg_scale; .5 is best for GPQA and PIQA (docs/method.md#llada-likelihood)",
    "tempered": "temperature before top_k and top_p, as in transformers; the value is ours",
    "top_k": "transformers' default, dLLM's Dream sampler (docs/method.md#peer-samplers)",
    "nucleus": "ReMDM's and BD3-LM's scripts: the token that crosses p is left out (docs/method.md#top-p)",
    "top_p": "transformers, Dream, Duo: the token that crosses p is kept; .95 is Dream's (docs/method.md#top-p)",
    "no_eos": "LLaDA, logits_eos_inf (docs/method.md#llada-sampling)",
    "eos_last": "LLaDA, confidence_eos_eot_inf; add its EoT by number (docs/method.md#llada-sampling)",
    "order_temperature": "Dream, alg_temp (docs/method.md#dream-rules); the value is ours",
    "dream_quotas": "Dream's quotas, eps 1e-3 (docs/method.md#dream-rules)",
    "rounded_quotas": "dLLM's quotas (docs/method.md#dllm-quotas)",
}
"""For each preset and logits processor, what it does and the source of its values."""


def preset(name: str) -> Sampler:
    """The sampler with the name `PRESET+PROCESSOR+...`, where preset and logits processors are each `NAME` or
    `NAME:field=value,field=value`, and the first processor acts first on the logits.

    Raises ValueError for an unknown preset, logits processor or field, with the most similar valid name, and for a
    logits processor that would change nothing in the sampler.
    """
    base, *names = re.split(r"\+(?=[a-z_])", name)
    found = _derived(base, PRESETS, "preset")
    for processor in reversed([_derived(text, LOGITS_PROCESSORS, "logits processor") for text in names]):
        found = ProcessedSampler(shape=processor, rule=found)
    return found


def _derived(text: str, table: dict[str, P], kind: str) -> P:
    base, _, overrides = text.partition(":")
    if base not in table:
        raise ValueError(
            f"there is no {kind} {base!r}; {nearest(base, table)} (`python -m repro.evals list samplers` lists all)"
        )
    pins = parts.parse_overrides(split_pins(overrides)) if overrides else {}
    return parts.derive(table[base], pins)


def split_pins(text: str, between: str = ",") -> list[str]:
    """The parts of a text such as "a=1,b=[2,3]", split at the characters of `between` outside square brackets."""
    return re.split(rf"[{between}](?![^\[]*\])", text)


def describe(sampler: Part) -> str:
    """Registered name and settings of a sampler or logits processor in one line, as `name(field=value, ...)`."""
    pins = ", ".join(f"{name}={value}" for name, value in parts.leaves(sampler).items() if name)
    return f"{registry.part_name(type(sampler))}({pins})"
