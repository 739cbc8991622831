"""Presets: what a person asks for by name. Each is a literal with its source; `PRESET:field=value` derives one.

python -m repro.evals --samplers list            all of them
low_confidence:temperature=1.0                   a derived one, named so in every table
low_confidence+guided:scale=1.0+nucleus:p=0.9    a rule under shapes, which act from left to right
"""

from __future__ import annotations

import re
from typing import TypeVar

from repro import parts, registry
from repro.parts import Part, nearest
from repro.samplers.ancestral import Ancestral, Origin
from repro.samplers.autoregressive import Autoregressive
from repro.samplers.corrector import Anywhere, Corrected, Doubtful
from repro.samplers.entropy_bound import EntropyBound
from repro.samplers.hitting import FirstHitting
from repro.samplers.ordered import Entropy, LowConfidence, Margin, Random
from repro.samplers.psi import ConstantSigma, MaxCapped, MaxRescaled, Psi, PurePosterior
from repro.samplers.remdm import ForwardBackward, RemdmCap, RemdmConf, RemdmLoop, RemdmRescale
from repro.samplers.renoise import Renoise
from repro.samplers.sampler import Sampler
from repro.samplers.shapes import (
    Banned,
    Distrusted,
    DreamQuotas,
    Guided,
    Nucleus,
    OrderTemperature,
    RoundedQuotas,
    Shape,
    Shaped,
    Tempered,
    TopK,
    TopP,
)
from repro.samplers.tail import DrawnRemoval, GreedyRemoval, Tail
from repro.samplers.threshold import Factor, Threshold
from repro.samplers.times import HeldTimes, LinearTimes

P = TypeVar("P", bound=Part)

PRESETS: dict[str, Sampler] = {
    "low_confidence": LowConfidence(temperature=0.0),  # LLaDA generate.py and EVAL.md: T = 0 (spec B.4, B.6)
    "random": Random(temperature=0.0),  # LLaDA generate.py, remasking='random' (spec B.4)
    "margin": Margin(temperature=0.0),  # Dream, alg topk_margin, T = 0 (spec E.3)
    "entropy": Entropy(temperature=0.0),  # Dream and Open-dLLM, alg entropy, T = 0 (spec E.3)
    "threshold_0.9": Threshold(threshold=0.9, temperature=0.0),  # Fast-dLLM README, GSM8K scripts (spec E.5)
    "factor_1": Factor(factor=1.0, temperature=0.0),  # Fast-dLLM, theorem 1 holds up to 1 (spec E.5)
    "entropy_bound_0.1": EntropyBound(gamma=0.1, proxy="entropy", temperature=1.0),  # UNI-D2 (spec E.4)
    "origin": Origin(end=1e-3),  # Dream, alg origin, eps 1e-3 (spec E.3)
    "first_hitting": FirstHitting(),  # BD3-LM, first_hitting=True (spec E.6)
    "remdm_cap": RemdmCap(eta=0.008),  # ReMDM, eta .008; its scripts add +nucleus:p=0.9 (spec E.1)
    "remdm_rescale": RemdmRescale(eta=0.015),  # ReMDM, eta .015; its scripts add +nucleus:p=0.9 (spec E.1)
    "remdm_conf": RemdmConf(),  # ReMDM; its scripts add +nucleus:p=0.9 (spec E.1)
    "remdm_loop": RemdmLoop(eta=0.02, t_on=0.55, t_off=0.05, alpha_on=0.9),  # ReMDM, p .9 too (spec E.1)
    "forward_backward": ForwardBackward(),  # ReMDM, forward-backward, +nucleus:p=0.9 (spec E.1)
    "ancestral": Ancestral(),  # MDLM (spec C), Duo (spec D.6), to s = 0 with no removal step
    "drawn_tail": Tail(  # Duo's loop as it is: 1 to 1e-5, then noise_removal=ancestral, N + 1 forwards (spec D.6)
        rule=Ancestral(), times=LinearTimes(end=1e-5), removal=DrawnRemoval()
    ),
    "greedy_tail": Tail(  # Duo, noise_removal=greedy (spec D.6); MDLM's own loop ends so too (spec C)
        rule=Ancestral(), times=LinearTimes(end=1e-5), removal=GreedyRemoval()
    ),
    "psi_cap": Tail(  # Duo, scripts/psi_samplers/owt/*_max_capped_remdm.sh, which add +top_p:p=0.9 (spec D.6)
        rule=Psi(
            high=MaxCapped(eta=0.01),
            middle=MaxCapped(eta=0.01),
            low=MaxCapped(eta=0.01),
            high_frac=0.0,
            middle_frac=0.0,
        ),
        times=LinearTimes(end=1e-5),
        removal=DrawnRemoval(),
    ),
    "psi_rescale": Tail(  # Duo, scripts/psi_samplers/owt/*_max_rescale_eta.sh, which add +top_p:p=0.9 (spec D.6)
        rule=Psi(
            high=MaxRescaled(eta=0.05),
            middle=MaxRescaled(eta=0.05),
            low=MaxRescaled(eta=0.05),
            high_frac=0.0,
            middle_frac=0.0,
        ),
        times=LinearTimes(end=1e-5),
        removal=DrawnRemoval(),
    ),
    "psi_loop": Tail(  # Duo, scripts/psi_samplers/owt/*_loop_remdm.sh, which add +top_p:p=0.95; held at alpha .9
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
    "corrector": Corrected(  # arXiv 2605.22765, positions chosen blindly: exact (samplers/corrector.py)
        rule=Ancestral(), choice=Anywhere(), sweeps=1, count=1
    ),
    "corrector_margin": Corrected(  # arXiv 2605.22765 as in diffusers' DiscreteDDIMScheduler: lowest_log_margin, tau 1
        rule=Ancestral(), choice=Doubtful(temperature=1.0), sweeps=1, count=1
    ),
    "renoise": Renoise(  # DiffusionGemma's defaults in transformers 5.23, at most 48 steps a block of 256
        bound=0.1, hot=0.8, cold=0.4, stable=1, confident=0.005
    ),
    "greedy": Autoregressive(temperature=0.0),  # argmax decoding
    "sample": Autoregressive(temperature=1.0),  # spec F: Gumbel-max over the whole vocabulary
}


SHAPES: dict[str, Shape] = {
    "guided": Guided(scale=0.5),  # LLaDA's cfg_scale; .5 is best for GPQA and PIQA (spec B.4, B.5)
    "tempered": Tempered(temperature=0.7),  # HF's order, before top_k and top_p; the value is ours
    "top_k": TopK(k=50),  # HF's default, dLLM's Dream sampler (peers 1.4)
    "nucleus": Nucleus(p=0.9),  # ReMDM and BD3 scripts, the crossing id left out (spec E.2)
    "top_p": TopP(p=0.95),  # HF, Dream and Duo, the crossing id kept (spec E.2); .95 in Dream's examples
    "no_eos": Banned(ids="eos"),  # LLaDA, logits_eos_inf (spec B.4)
    "eos_last": Distrusted(ids="eos"),  # LLaDA, confidence_eos_eot_inf; add its EoT by number (spec B.4)
    "order_temperature": OrderTemperature(alg_temp=0.1),  # Dream, alg_temp (spec E.3); the value is ours
    "dream_quotas": DreamQuotas(end=1e-3),  # Dream, eps 1e-3 (spec E.3)
    "rounded_quotas": RoundedQuotas(),  # dLLM (spec E.7)
}


def preset(name: str) -> Sampler:
    """The sampler of `RULE+SHAPE+...`, each a name or `NAME:field=value,field=value`; the first shape acts first.

    Raises ValueError naming the nearest preset, shape or pin, and for a shape that changes nothing in the rule.
    """
    base, *shapes = re.split(r"\+(?=[a-z_])", name)
    found = _derived(base, PRESETS, "preset")
    for shape in reversed([_derived(text, SHAPES, "shape") for text in shapes]):
        found = Shaped(shape=shape, rule=found)
    return found


def _derived(text: str, table: dict[str, P], kind: str) -> P:
    base, _, overrides = text.partition(":")
    if base not in table:
        raise ValueError(
            f"no {kind} {base!r}; {nearest(base, table)} (python -m repro.evals --samplers list)"
        )
    pins = parts.parse_overrides(split_pins(overrides)) if overrides else {}
    return parts.derive(table[base], pins)


def split_pins(text: str, between: str = ",") -> list[str]:
    """Pieces separated by any character of `between` outside brackets."""
    return re.split(rf"[{between}](?![^\[]*\])", text)


def describe(sampler: Part) -> str:
    """A sampler's or a shape's pins in one line, for listings."""
    pins = ", ".join(f"{name}={value}" for name, value in parts.leaves(sampler).items() if name)
    return f"{registry.part_name(type(sampler))}({pins})"
