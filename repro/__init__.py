"""repro: a reproducible-paper benchmark suite for diffusion language models.

>>> from repro import certify, load, sample, score, stream
>>> model = load("oracle:mdlm@nano")
>>> texts = sample(model, n=4)
>>> steps = list(stream(model))
>>> results = score(model, samplers="ancestral", tasks="law", samples=100)
>>> print(results.table())
>>> print(certify(my_sampler).text())

A model may be given as what `load` returns, as a folder, or by name. A wrong value raises ValueError, an unknown
argument TypeError, each with one sentence that names it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from repro.certify import certify
    from repro.evals.results import Results
    from repro.evals.scoring import score
    from repro.model import load
    from repro.sample import sample, stream

__all__ = ["Results", "certify", "load", "sample", "score", "stream"]

_WHERE = {
    "Results": "repro.evals.results",
    "certify": "repro.certify",
    "load": "repro.model",
    "sample": "repro.sample",
    "score": "repro.evals.scoring",
    "stream": "repro.sample",
}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str):
    if name not in _WHERE:
        raise AttributeError(f"module 'repro' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(_WHERE[name]), name)
