"""Certificates: whether a sampler draws from the law that it claims, or a loss bounds -log p; for anyone's code.

    python -m repro.certify FILE.py:NAME             # verdict, evidence, a paragraph for an appendix; --json
    python -m repro.certify --presets all            # the suite's own samplers: results/certificates
    python -m repro.certify --peer NAME=FOLDER       # other projects' samplers as they are (`peers`)
    >>> from repro import certify
    >>> print(certify(my_sampler).text())

Start reading at `foreign` (what code must look like), `space` (the laws that it is tested on) and `verdict`. `sampler`
and `loss` test foreign code, `presets` our own samplers; `oracle`, `reference`, `replay` and `long` are their tools.
Examples are in examples/certify. This package may import every other one of `repro` except the command modules; none
imports it. Exit code 0: the claim stands; 1: it does not; 2: bad input, or code that did not run to its end.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from repro.certify.space import Noise
    from repro.certify.verdict import Certificate, Effort, Told


def certify(
    function: Callable[..., Any],
    noise: Noise | None = None,
    effort: Effort | None = None,
    told: Told | None = None,
) -> Certificate:
    """Test whether a sampler draws from the law that it claims, or a loss bounds -log p; returns the certificate, which
    holds the verdict, the tests and the measured numbers. `function`: the sampler or loss, of a form that
    `repro.certify.foreign` describes. ValueError for an unknown signature, and if the function fails.

    `noise`: the noise to test under (None: those that the function declares, else those under which a trial call
    works); `effort`: sample sizes (None: `repro.certify.verdict.FULL`); `told`: function that is called with a line of
    text as each test begins, for example `print` (None: no such lines).
    """
    from repro.certify import foreign
    from repro.certify.verdict import FULL, Certificate, silent
    from repro.core.lazy import torch

    told = silent if told is None else told
    effort = FULL if effort is None else effort
    began = time.monotonic()
    read = foreign.read(function, noise, effort.seconds)
    with torch.no_grad():
        if read.kind == "sampler":
            from repro.certify.sampler import certify_sampler

            found = certify_sampler(read, effort, told)
        else:
            from repro.certify.loss import certify_loss

            found = certify_loss(read, effort, told)
    return Certificate(
        subject=read.name,
        kind=read.kind,
        claims=read.claims,
        meaning=read.meaning,
        **found._replace(notes=(*read.notes, *found.notes))._asdict(),
        seconds=time.monotonic() - began,
    )


class _Callable(ModuleType):
    """Class of the module `repro.certify`, which makes it callable: `from repro import certify` gives the module, and
    calling that calls the function `certify`."""

    def __call__(
        self,
        function: Callable[..., Any],
        noise: Noise | None = None,
        effort: Effort | None = None,
        told: Told | None = None,
    ) -> Certificate:
        return certify(function, noise, effort, told)


sys.modules[__name__].__class__ = _Callable
