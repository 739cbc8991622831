"""Suites: tasks that are run together and the settings of each, read from evals/suites/NAME.toml.

A task that generates text runs with every sampler preset at every number of tokens per step, or exactly as its
`[[plans]]` entries say: published settings differ by task in block length, steps, KV cache and sampler. --samplers,
--tokens-per-step, --block-length and --cache each replace one field in every entry. `protocols` names perplexity
protocols of evals/corpora.toml, which are run as further tasks.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from msgspec import Struct

from repro.core import parts, rng
from repro.core.errors import nearest
from repro.core.files import ROOT
from repro.core.reading import convert, read_toml
from repro.evals.perplexity.corpora import protocol
from repro.evals.task import Task
from repro.samplers.plan import cache
from repro.samplers.presets import PRESETS, preset

SUITES = ROOT / "evals" / "suites"
TokensPerStep = float | str
"""Number of tokens decoded per step, or "all" (all tokens of a block in one step)."""


class Plans(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[plans]]` entry of a suite: `task` runs with each of `presets` at each of `steps`.

    `steps`: numbers of decoding steps, none for adaptive samplers; `block_length`: tokens per block, 0 for one block of
    the whole length; `cache`: KV cache, such as "prefix" or "dual", "" for none.
    """

    task: str
    presets: list[str]
    steps: list[int] = []
    block_length: int = 0
    cache: str = ""


class _File(Struct, frozen=True, kw_only=True):
    """Content of evals/suites/NAME.toml; fields as in `Suite`, except that each of `tasks` is a dictionary of a task's
    kind (`part`) and settings; `protocols`: names of perplexity protocols, which are further tasks."""

    tasks: list[dict[str, Any]]
    protocols: list[str] = []
    tokens_per_step: list[TokensPerStep] = []
    presets: dict[str, list[str]] = {}
    plans: list[Plans] = []


@dataclass(frozen=True)
class Suite:
    """Content of evals/suites/NAME.toml: `tasks`, `tokens_per_step` at which they are run, `presets` (task -> sampler
    presets that are run without `--samplers`; default: every preset), and `plans` (tasks with published settings)."""

    name: str
    tokens_per_step: list[TokensPerStep]
    tasks: list[Task]
    presets: dict[str, list[str]]
    plans: list[Plans]

    def ways(self, task: str) -> list[Plans]:
        """The `[[plans]]` entries of a task; if the suite has none for it, one entry with the presets that the suite
        gives to the task (default: every preset)."""
        given = [each for each in self.plans if each.task == task]
        return given or [Plans(task=task, presets=self.presets.get(task, list(PRESETS)))]


def check_lists(
    samplers: Sequence[str] | None, rates: Sequence[TokensPerStep] | None, seeds: Sequence[int]
) -> None:
    """Raise ValueError for a list that is empty, for a number of tokens per step (`rates`) that is neither "all" nor
    positive and finite, and for a seed that is negative or too large."""
    for name, given in {"samplers": samplers, "tokens_per_step": rates, "seeds": seeds}.items():
        if given is not None and not given:
            raise ValueError(f"{name} is empty; give one or more")
    for rate in rates or ():
        if rate != "all" and not (isinstance(rate, int | float) and 0 < rate < math.inf):
            raise ValueError(f"tokens_per_step={rate!r} is no rate; give a positive number, or 'all'")
    rng.check_seeds(*seeds)


def read_suite(name: str) -> Suite:
    """The suite of evals/suites/NAME.toml; ValueError for an unknown suite, and for a wrong field of the file."""
    path = SUITES / f"{name}.toml"
    if not path.is_file():
        raise ValueError(f"no suite {name!r}; {nearest(name, [p.stem for p in SUITES.glob('*.toml')])}")
    data = read_toml(path, dict)
    for odd in sorted(data.keys() - set(_File.__struct_fields__)):
        raise ValueError(f"{path}: unknown field {odd!r}; {nearest(odd, _File.__struct_fields__)}")
    found = convert(data, _File, str(path), "correct it")
    try:
        tasks = [parts.read(task, Task) for task in found.tasks]
        tasks += [protocol(each) for each in found.protocols]
        suite = Suite(name, found.tokens_per_step, tasks, found.presets, found.plans)
        _check(suite)
        return suite
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _check(suite: Suite) -> None:
    """Raise ValueError if [presets] or [[plans]] name a task that the suite lacks or an unknown sampler or cache, if a
    task has both, if a plan lacks steps or gives them to an adaptive sampler, or if tokens_per_step is missing though a
    task without plans generates text."""
    names = [task.name for task in suite.tasks]
    generating = [task.name for task in suite.tasks if task.generates]
    planned = {each.task for each in suite.plans}
    for task in sorted(suite.presets.keys() - set(names)):
        raise ValueError(f"[presets] names {task!r}, which is no task of this suite; {nearest(task, names)}")
    for task in sorted(planned - set(generating)):
        raise ValueError(
            f"[[plans]] names {task!r}, which is no task of this suite that generates text; {nearest(task, generating)}"
        )
    for task in sorted(planned & suite.presets.keys()):
        raise ValueError(f"task {task!r} has both plans and presets; give one of them")
    for name in itertools.chain(*suite.presets.values(), *(each.presets for each in suite.plans)):
        preset(name)
    for each in suite.plans:
        adaptive = [p for p in each.presets if preset(p).capabilities.plan == "adaptive"]
        if each.steps and adaptive:
            raise ValueError(
                f"[[plans]] of task {each.task!r}: sampler {adaptive[0]} is adaptive and takes no steps; omit `steps`"
            )
        if not each.steps and len(adaptive) < len(each.presets):
            raise ValueError(f"[[plans]] of task {each.task!r} lacks steps; give a list of numbers of steps")
        if each.cache:
            cache(each.cache)
    if not suite.tokens_per_step and set(generating) - planned:
        raise ValueError("field 'tokens_per_step' is missing; give a list such as [1, 2, 4]")
