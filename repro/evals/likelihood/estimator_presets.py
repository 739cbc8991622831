"""Estimators by name: literals with their source; `NAME:field=value` derives one, as with samplers.

estimator("levels")                 what a diffusion model's multiple choice is scored by unless somebody says else
estimator("llada_mc:draws=1024,batch=32")
estimator("llada_mc+guided:scale=0.5")   under classifier-free guidance
"""

from __future__ import annotations

import re
from typing import Any

from repro.core import parts
from repro.core.errors import nearest
from repro.evals.likelihood.estimators import ElboT, LladaMC, LladaRound, Subsets
from repro.evals.likelihood.guided import GuidedLikelihood
from repro.evals.likelihood.levels import Levels
from repro.evals.likelihood.likelihood import Estimator
from repro.evals.likelihood.orders import Confidence, Duel, NextToken

ESTIMATORS: dict[str, Estimator] = {
    "subsets": Subsets(longest=10),  # 1,023 forwards at most
    "levels": Levels(draws=128),  # as many forwards as LLaDA's draws
    "llada_mc": LladaMC(
        draws=128, batch=16
    ),  # LLaDA eval_llada.py: mc_num 128; rounding corrected (docs/method.md#llada-likelihood)
    "llada_round": LladaRound(
        draws=128, batch=16
    ),  # LLaDA get_log_likelihood.py as published (docs/method.md#llada-likelihood)
    "elbo_t": ElboT(draws=1024, batch=64, eps=1e-3),  # Duo and SMDM harness: 1,024 draws of t
    "duel": Duel(order="low_confidence"),  # DUEL, arXiv 2603.01367
    "confidence": Confidence(),  # iLLaDA, arXiv 2606.25331
    "next_token": NextToken(),
}
GUIDANCE = 0.5
"""LLaDA's scale for GPQA, ARC-C, HellaSwag and PIQA (docs/method.md#llada-likelihood)."""
DEFAULT = {"absorbing": "levels", "uniform": "elbo_t", "left_to_right": "next_token"}
"""What a process's likelihoods are estimated by where nobody chooses."""


def estimator(name: str) -> Estimator:
    """The estimator of `NAME` or `NAME:field=value,...`, perhaps with `+guided:scale=...` behind it; ValueError names
    the nearest name or pin."""
    base, *guidance = re.split(r"\+(?=[a-z_])", name)
    base, pins = _pins(base)
    if base not in ESTIMATORS:
        raise ValueError(f"no estimator {base!r}; {nearest(base, ESTIMATORS)}")
    found = parts.derive(ESTIMATORS[base], pins)
    for shape, pins in map(_pins, guidance):
        if shape != "guided":
            raise ValueError(f"estimator {name!r}: no shape {shape!r}; an estimator takes 'guided' only")
        found = parts.derive(GuidedLikelihood(scale=GUIDANCE, rule=found), pins)
    return found


def _pins(text: str) -> tuple[str, dict[str, Any]]:
    """Name and pins of `NAME:field=value,...`."""
    base, _, overrides = text.partition(":")
    return base, parts.parse_overrides(overrides.split(",")) if overrides else {}
