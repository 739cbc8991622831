"""All fuzz cases, and their run."""

from __future__ import annotations

import gc
import hashlib
import importlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from fuzz import adapters, arguments, code, crossings, files, gguf_files, judges, peers, servers, stored
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
    from repro.evals.lm.task_index import standard_tasks

    standard_tasks()
    for path in (*registry.PARTS.values(), *registry.LAYOUTS.values()):
        registry.resolve(path)
    gc.collect()
    gc.freeze()  # a collection in a forked process would copy every page


MOST = 150
"""Cases of an area; of more, those whose names have the smallest digests."""
SLOW = {"task YAML": 90, "environment": 60, "corpora": 40, "certify": 120, "GGUF": 400}
"""Area -> the same, of areas whose cases take a second and more, and of one with many settings."""
FEW = {
    "task YAML": 5,
    "judge folder": 5,
    "corpora": 2,
    "samples": 5,
    "resume": 1,
    "environment": 2,
    "resealed records": 5,
    "certificates": 5,
    "chat template": 8,
    "certify": 1,
    "peers": 3,
    "replies": 5,
    "reply bytes": 4,
    "crossed records": 2,
    "factors": 3,
    "page": 2,
    "adapters": 3,
    "stored peers": 3,
}
"""Area -> cases that `make test` runs, of areas with slow ones; of the other areas it runs `SHARE` each."""
SHARE = 11


MADE = (files, gguf_files, stored, judges, code, adapters, crossings, servers, peers)
"""Modules with cases."""


def cases(worlds: Path, most: int = MOST) -> list[Case]:
    """The cases in a fixed order, at most `most` of an area; `worlds`: folder written by `fuzz.worlds.build`."""
    areas: dict[str, list[Case]] = {}
    made = (module.cases(worlds) for module in MADE)
    for case in (*itertools.chain(*made), *arguments.cases()):
        areas.setdefault(case.area, []).append(case)
    return [c for name, area in areas.items() for c in sorted(area, key=_digest)[: SLOW.get(name, most)]]


def few(every: Sequence[Case]) -> list[Case]:
    """The first cases of each area: those that `make test` runs."""
    found: dict[str, list[Case]] = {}
    for case in every:
        chosen = found.setdefault(case.area, [])
        if len(chosen) < FEW.get(case.area, 1 if case.area.startswith("flags of") else SHARE):
            chosen.append(case)
    return [case for area in found.values() for case in area]


def _digest(case: Case) -> str:
    return hashlib.sha256(repr((case.what, case.world, case.argv)).encode()).hexdigest()


def run(cases: Iterable[Case], worlds: Path, scratch: Path) -> Iterator[tuple[Case, Outcome, str | None]]:
    """Each case with its outcome, and what is wrong with it (None: nothing)."""
    plain: dict[tuple[str, Sequence[str]], str | None] = {}
    for case in cases:
        outcome = execute(case, worlds, scratch)
        key = case.world, case.argv
        # the unspoilt world, whose command does all its work, is needed to judge a success alone
        if case.world and outcome.code in (0, 1) and not case.valid and key not in plain:
            sound = execute(Case("", "", case.world, case.argv, ()), worlds, scratch)
            plain[key] = sound.out if sound.code in (0, 1) else None
        yield case, outcome, fault(case, outcome, plain.get(key))
