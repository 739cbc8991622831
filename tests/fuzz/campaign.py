"""All fuzz cases, and their run."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from fuzz import arguments, files
from fuzz.machine import Case, Outcome, execute, fault

MODULES = (
    *(
        "torch",
        "transformers",
        "tokenizers",
        "safetensors.torch",
        "pandas",
        "tabulate",
        "datasets",
        "jinja2",
        "yaml",
    ),
    *("lm_eval.tasks", "lm_eval.api.registry", "scipy.stats", "accelerate", "rich.console"),
    *(
        "repro.sample",
        "repro.evals.__main__",
        "repro.evals.request",
        "repro.evals.listing",
        "repro.checkpoint",
    ),
    *("repro.evals.lm.task_files", "repro.evals.text_quality.external_samples", "repro.training.loop"),
    *(
        "repro.report",
        "repro.verify",
        "repro.results.__main__",
        "repro.certify.__main__",
        "repro.hub.convert",
    ),
    *(
        "repro.recipes.command",
        "repro.recipes.scale",
        "repro.evals.published.parity",
        "repro.training.compare",
    ),
    *("repro.evals.planning.plan", "repro.evals.published.suite_group", "repro.hub.release"),
)
"""Imported before the cases are forked, so that each does not import them again."""


def preload() -> None:
    for name in MODULES:
        importlib.import_module(name)
    from repro.core import registry

    for path in (*registry.PARTS.values(), *registry.LAYOUTS.values()):
        registry.resolve(path)


def cases(worlds: Path) -> list[Case]:
    """Every case, in a fixed order; `worlds`: folder written by `fuzz.worlds.build`."""
    return [*files.cases(worlds), *arguments.cases()]


def run(cases: Iterable[Case], worlds: Path, scratch: Path) -> Iterator[tuple[Case, Outcome, str | None]]:
    """Each case with its outcome, and what is wrong with it (None: nothing)."""
    plain: dict[tuple[str, Sequence[str]], str | None] = {}
    for case in cases:
        key = case.world, case.argv
        if case.world and key not in plain:
            sound = execute(Case("", "", case.world, case.argv, ()), worlds, scratch)
            plain[key] = sound.out if sound.code in (0, 1) else None
        outcome = execute(case, worlds, scratch)
        yield case, outcome, fault(case, outcome, plain.get(key))
