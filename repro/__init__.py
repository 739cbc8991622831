"""repro: a reproducible-paper benchmark suite for diffusion language models.

>>> from repro import certify, load, sample, score
>>> model = load("oracle:mdlm@nano")
>>> texts = sample(model, n=4)
>>> records = score(model, samplers=["ancestral"], tasks=["law"], samples=100)
>>> print(certify(my_sampler).text())
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from repro.certify import certify
    from repro.evals.request import score
    from repro.model import load
    from repro.sample import sample

__all__ = ["certify", "load", "sample", "score"]

_WHERE = {
    "certify": "repro.certify",
    "load": "repro.model",
    "sample": "repro.sample",
    "score": "repro.evals.request",
}


def __getattr__(name: str):
    if name not in _WHERE:
        raise AttributeError(f"module 'repro' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(_WHERE[name]), name)
