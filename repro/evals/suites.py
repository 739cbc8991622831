"""A suite: the tasks that are asked together, the tokens per step to try, and the presets; evals/suites/NAME.toml."""

from __future__ import annotations

import itertools
import tomllib
from dataclasses import dataclass

from repro import parts
from repro.evals.task import Task
from repro.files import ROOT
from repro.parts import nearest
from repro.samplers.presets import preset

SUITES = ROOT / "evals" / "suites"
TokensPerStep = float | str
"""Planned tokens per step: a number, or "all" (one step)."""


@dataclass(frozen=True)
class Suite:
    """Tasks, the tokens per step to try, and what `--samplers all` means for a task that does not take every preset
    as it stands (generation at temperature 1, say); read from evals/suites/NAME.toml."""

    name: str
    tokens_per_step: list[TokensPerStep]
    tasks: list[Task]
    presets: dict[str, list[str]]


def read_suite(name: str) -> Suite:
    """Read a suite strictly; ValueError names the nearest suite, part or pin."""
    path = SUITES / f"{name}.toml"
    if not path.is_file():
        raise ValueError(f"no suite {name!r}; {nearest(name, [p.stem for p in SUITES.glob('*.toml')])}")
    fields = ["presets", "tasks", "tokens_per_step"]
    try:
        data = tomllib.loads(path.read_text("utf-8"))
        for odd in sorted(data.keys() - set(fields)):
            raise ValueError(f"unknown field {odd!r}; {nearest(odd, fields)}")
        tasks = [parts.read(task, Task) for task in data["tasks"]]
        named = data.get("presets", {})
        for task in sorted(named.keys() - {task.name for task in tasks}):
            raise ValueError(f"presets of unknown task {task!r}; {nearest(task, [t.name for t in tasks])}")
        for preset_name in itertools.chain.from_iterable(named.values()):
            preset(preset_name)
        return Suite(name, data["tokens_per_step"], tasks, named)
    except KeyError as error:
        raise ValueError(f"{path}: field {error} is missing") from None
    except (tomllib.TOMLDecodeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
