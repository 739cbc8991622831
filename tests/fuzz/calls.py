"""Python functions as commands: each takes its arguments as JSON texts, and a ValueError is the one line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def _arguments(argv: Sequence[str]) -> tuple[list[Any], dict[str, Any]]:
    return json.loads(argv[0]), json.loads(argv[1])


def load(argv: Sequence[str]) -> int:
    from repro import load

    given, named = _arguments(argv)
    load(*given, **named)
    return 0


def sample(argv: Sequence[str]) -> int:
    from repro import load, sample

    given, named = _arguments(argv)
    print(sample(load(*given), **named))
    return 0


def score(argv: Sequence[str]) -> int:
    from repro import load, score

    given, named = _arguments(argv)
    score(load(*given), **named)
    return 0


def read(argv: Sequence[str]) -> int:
    """Read a file by one of the package's readers."""
    from repro.evals import suites
    from repro.evals.perplexity import catalogue as corpora
    from repro.evals.published import suite_group
    from repro.hub import catalogue
    from repro.results import reproduction

    kind, path = argv[0], Path(argv[1])
    if kind == "checkpoints":
        catalogue.read(path)
    elif kind == "corpora":
        corpora.read_catalogue(path)
    elif kind == "reproduction":
        reproduction.cells(path)
    elif kind == "suite":
        suites.SUITES = path.parent
        suites.read_suite(path.stem)
    elif kind == "group":
        suites.SUITES = path.parent
        suite_group.read_suite_group(path.stem)
    return 0
