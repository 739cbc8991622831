"""Functions of examples/certify, and efforts that are small enough for tests."""

from __future__ import annotations

from dataclasses import replace

from repro.certify import foreign, sampler
from repro.certify.verdict import FULL
from repro.core.files import ROOT

EXAMPLES = ROOT / "examples" / "certify"


SMALL = replace(
    FULL,
    rows=50_000,
    last_rows=50_000,
    steps=(1, 16, 64),
    spoiled_rows=500,
    spoiled_steps=2,
    long_rows=600,
    long_steps=(1, 32),
    row_calls=12,
    small_calls=80,
    loss_repeats=500,
    seconds=600.0,
)


def example(name: str, noise=None) -> foreign.Foreign:
    """The function `FILE:NAME` of examples/certify."""
    file, _, function = name.partition(":")
    return foreign.read(foreign.load(f"{EXAMPLES / file}.py:{function}"), noise, 600.0)


def failing(name: str, noise=None, effort=SMALL) -> list[str]:
    """Names of the checks on an enumerated space that fail."""
    read = example(name, noise)
    return [
        check.name for n in read.noises for check in sampler._listed(read, n, effort)[0] if not check.stands
    ]
