"""Presets: what a person asks for by name. Each is a literal with its source; `PRESET:field=value` derives one.

python -m repro.evals --samplers list            all of them
low_confidence:temperature=1.0                   a derived one, named so in every table
"""

from __future__ import annotations

from repro import parts, registry
from repro.parts import nearest
from repro.samplers.ancestral import Ancestral
from repro.samplers.autoregressive import Autoregressive
from repro.samplers.ordered import Entropy, LowConfidence, Margin, Random
from repro.samplers.sampler import Sampler
from repro.samplers.threshold import Threshold

PRESETS: dict[str, Sampler] = {
    "low_confidence": LowConfidence(temperature=0.0),  # LLaDA generate.py and EVAL.md: T = 0 (spec B.4, B.6)
    "random": Random(temperature=0.0),  # LLaDA generate.py, remasking='random' (spec B.4)
    "margin": Margin(temperature=0.0),  # Dream, alg topk_margin, T = 0 (spec E.3)
    "entropy": Entropy(temperature=0.0),  # Dream and Open-dLLM, alg entropy, T = 0 (spec E.3)
    "threshold_0.9": Threshold(threshold=0.9, temperature=0.0),  # Fast-dLLM README, GSM8K scripts (spec E.5)
    "ancestral": Ancestral(),  # MDLM (spec C), Duo (spec D.6), to s = 0 with no removal step
    "greedy": Autoregressive(temperature=0.0),  # argmax decoding
    "sample": Autoregressive(temperature=1.0),  # spec F: Gumbel-max over the whole vocabulary
}


def preset(name: str) -> Sampler:
    """The sampler of `NAME` or `NAME:field=value,field=value`; ValueError names the nearest preset or pin."""
    base, _, overrides = name.partition(":")
    if base not in PRESETS:
        raise ValueError(
            f"no preset {base!r}; {nearest(base, PRESETS)} (python -m repro.evals --samplers list)"
        )
    pins = parts.parse_overrides(overrides.split(",")) if overrides else {}
    return parts.derive(PRESETS[base], pins)


def describe(sampler: Sampler) -> str:
    """A sampler's pins in one line, for listings."""
    pins = ", ".join(f"{name}={value}" for name, value in parts.leaves(sampler).items() if name)
    return f"{registry.part_name(type(sampler))}({pins})"
