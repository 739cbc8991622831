"""Which tasks are asked, and how they are put: a suite's own, lm-eval's names, anybody's YAML (`--tasks`).

named(["arc_easy", "my_tasks/capitals.yaml"], suite.name, suite.tasks, model)
Put("subsets;levels", shots=5, template=None).on(tasks, model)
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repro.core.errors import nearest
from repro.core.parts import canonical, derive
from repro.evals.likelihood.estimator_presets import DEFAULT, estimator
from repro.evals.likelihood.likelihood import Estimator
from repro.evals.lm.kept import config, keep
from repro.evals.lm.lm_tasks import STANDARD, LmGeneration, LmLikelihood, LmTask
from repro.evals.lm.prompts import Template, templated
from repro.evals.lm.wishes import length_asked
from repro.evals.perplexity.corpora import protocols
from repro.evals.task import Task
from repro.model import Model


def find(name: str, model: Model) -> list[Task]:
    """The tasks of an lm-eval name or a YAML file (a group gives its members), likelihoods by the process's default.

    Raises ValueError, in one line, for what is neither, and for what the model cannot be asked.
    """
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    if name.endswith((".yaml", ".yml")):
        if not Path(name).is_file():
            raise ValueError(f"no file {name!r}")
        source = keep(Path(name))
        manager, spec = TaskManager(include_defaults=False), config(source)
        if "task" not in spec or not isinstance(spec["task"], str):
            raise ValueError(f"{name} defines no single task (give it a line 'task: NAME')")
    else:
        source, manager, spec = STANDARD, TaskManager(), name
        if name not in manager.all_tasks:
            raise ValueError(f"lm-eval has no task {name!r}; {nearest(name, manager.all_tasks)}")
    with contextlib.redirect_stderr(io.StringIO()):  # bars of the data set's preparation
        loaded = manager.load(spec)["tasks"]
    return [_part(task, source, model) for task in loaded.values()]


def _part(task: Any, source: str, model: Model) -> Task:
    noise = canonical(model.recipe.process)["part"]
    common = {
        "name": task.config.task,
        "task": task.config.task,
        "source": source,
        "task_version": str(task.VERSION),
        "shots": None,
        "template": "chat" if templated(model) else "none",
        "overlong": "error",
    }
    if task.OUTPUT_TYPE != "generate_until":
        return LmLikelihood(**common, estimator=estimator(DEFAULT[noise]))
    asks = {name: value for name, value in (task.config.generation_kwargs or {}).items()}
    return LmGeneration(
        **common, length=length_asked(asks), policy="suite", asks=json.dumps(asks, sort_keys=True)
    )


@dataclass(frozen=True)
class Put:
    """How lm-eval's tasks are put where somebody says so: estimators by name, few-shot examples, template."""

    estimator: str | None
    """One, or several separated by ';': each task of likelihoods is then asked by each, and its name says by which."""
    shots: int | None
    template: Template | None

    def on(self, tasks: Sequence[Task], model: Model) -> list[Task]:
        """The tasks so put. ValueError for what would have no effect, and for a template that the model lacks."""
        rules = {} if self.estimator is None else {n: estimator(n) for n in self.estimator.split(";")}
        given: dict[str, Any] = {"shots": self.shots, "template": self.template}
        given = {name: value for name, value in given.items() if value is not None}
        if rules and not any(isinstance(task, LmLikelihood) for task in tasks):
            raise ValueError(f"estimator {self.estimator!r} given, but no task that is asked takes one")
        if given and not any(isinstance(task, LmTask) for task in tasks):
            raise ValueError(f"{next(iter(given))} given, but no task that is asked is one of lm-eval's")
        if self.template is not None and not templated(model):
            raise ValueError(
                "this model's data has no chat template, so there is none to choose; leave it out"
            )
        put = [derive(each, given) if given and isinstance(each, LmTask) else each for each in tasks]
        return [estimated for each in put for estimated in _by(each, rules)]


def _by(task: Task, rules: dict[str, Estimator]) -> list[Task]:
    """A task of likelihoods by each of `rules`; any other task as it is."""
    if not rules or not isinstance(task, LmLikelihood):
        return [task]
    names = {rule: f"{task.name} by {rule}" if len(rules) > 1 else task.name for rule in rules}
    return [derive(task, {"estimator": rules[rule], "name": name}) for rule, name in names.items()]


def named(names: Sequence[str], suite: str, known: Sequence[Task], model: Model) -> list[Task]:
    """What `--tasks` names: tasks of the suite (`known`), else protocols of evals/corpora.toml, else of lm-eval.

    A name that is nearly one of the suite's is taken for a slip, since lm-eval's own list takes seconds to read.
    """
    import difflib

    ours = {task.name: task for task in known}
    found = [task for name, task in ours.items() if name in names]
    for name in names:
        if name in ours:
            continue
        if name in protocols():
            found.append(protocols()[name])
            continue
        for several, whose in ((ours, f"in suite {suite!r}"), (protocols(), "among the protocols")):
            if not name.endswith((".yaml", ".yml")) and difflib.get_close_matches(
                name, list(several), n=1, cutoff=0.7
            ):
                raise ValueError(f"no task {name!r} {whose}; {nearest(name, several)}")
        found += find(name, model)
    twice = [task.name for i, task in enumerate(found) if task.name in [other.name for other in found[:i]]]
    if twice:
        raise ValueError(f"two tasks are called {twice[0]!r}; ask for them one at a time")
    return found
