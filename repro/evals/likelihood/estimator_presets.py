"""Likelihood estimators by name, with their sources; `NAME:field=value` is the estimator NAME with a field changed.

estimator("levels")                      the default for models of absorbing noise
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
from repro.processes.process import Process

ESTIMATORS: dict[str, Estimator] = {
    "subsets": Subsets(longest=10),  # 1,023 forwards at most
    "levels": Levels(draws=128),  # as many forwards as LLaDA's draws
    # mc_num of LLaDA's eval_llada.py; rounding corrected (docs/method.md#llada-likelihood)
    "llada_mc": LladaMC(draws=128, batch=16),
    # LLaDA's get_log_likelihood.py as published (docs/method.md#llada-likelihood)
    "llada_round": LladaRound(draws=128, batch=16),
    "elbo_t": ElboT(draws=1024, batch=64, eps=1e-3),  # harness of Duo and SMDM: 1,024 draws of t
    "duel": Duel(order="low_confidence"),  # DUEL, arXiv 2603.01367
    "confidence": Confidence(),  # iLLaDA, arXiv 2606.25331
    "next_token": NextToken(),
}
PAPERS = {
    "llada_mc": "2502.09992",
    "llada_round": "2502.09992",
    "elbo_t": "2410.18514",
    "duel": "2603.01367",
    "confidence": "2606.25331",
}
"""Estimator -> arXiv number of the paper that describes it (evals/papers.toml); the others are from no paper."""
GUIDANCE = 0.5
"""Default guidance scale: LLaDA's for GPQA, ARC-C, HellaSwag and PIQA (docs/method.md#llada-likelihood)."""
DEFAULT = {"absorbing": "levels", "uniform": "elbo_t", "left_to_right": "next_token"}
"""Family of noise (`Process.noise`) -> name of its default likelihood estimator."""


def default(process: Process) -> str:
    """Name of the default likelihood estimator for models of a noise process (`levels`, `elbo_t` or `next_token`);
    ValueError for a family of noise that has none."""
    if process.noise not in DEFAULT:
        raise ValueError(
            f"{process.noise} noise has no default likelihood estimator; name one with --estimator"
            " (`python -m repro.evals list estimators`)"
        )
    return DEFAULT[process.noise]


def estimator(name: str) -> Estimator:
    """The likelihood estimator that `name` describes: `NAME` of `ESTIMATORS`, or `NAME:field=value,...` with fields
    changed, optionally followed by `+guided` or `+guided:scale=...`. ValueError for an unknown name or field suggests
    the most similar known one."""
    base, *additions = re.split(r"\+(?=[a-z_])", name)
    base, pins = _pins(base)
    if base not in ESTIMATORS:
        raise ValueError(f"no likelihood estimator {base!r}; {nearest(base, ESTIMATORS)}")
    result = parts.derive(ESTIMATORS[base], pins)
    for addition, pins in map(_pins, additions):
        if addition != "guided":
            raise ValueError(
                f"estimator {name!r}: '+{addition}' is unknown; after '+' an estimator takes 'guided' only"
            )
        result = parts.derive(GuidedLikelihood(scale=GUIDANCE, rule=result), pins)
    return result


def _pins(text: str) -> tuple[str, dict[str, Any]]:
    """Name of an estimator and the fields to change in it (field -> value), from the text `NAME:field=value,...`."""
    base, _, overrides = text.partition(":")
    return base, parts.parse_overrides(overrides.split(",")) if overrides else {}
