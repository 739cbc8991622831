"""Resolve the command-line option `--tasks` (tasks of the suite, registered tasks, lm-eval's task names, YAML files),
and apply the options for lm-eval tasks (`--estimator`, `--shots`, `--template`).

tasks_by_name(["arc_easy", "my_tasks/capitals.yaml"], suite.name, suite.tasks, model)
TaskOptions("subsets;levels", shots=5, template=None).apply(tasks, model)
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import logging
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from repro.core import parts, registry
from repro.core.errors import misspelt, nearest
from repro.core.parts import derive
from repro.core.reading import silent
from repro.core.templates import Refused
from repro.evals.likelihood.estimator_presets import default, estimator
from repro.evals.likelihood.likelihood import Estimator
from repro.evals.lm.lm_tasks import STANDARD, LmGeneration, LmLikelihood, LmTask
from repro.evals.lm.overrides import requested_length
from repro.evals.lm.prompts import Template, has_chat_template
from repro.evals.lm.task_files import load_task_config, store_task
from repro.evals.lm.task_index import standard_tasks
from repro.evals.lm.task_templates import sandboxed
from repro.evals.perplexity.corpora import TRUNCATED, protocol, protocols
from repro.evals.suites import SUITES, read_suite
from repro.evals.task import Task
from repro.model import Model
from repro.samplers.presets import split_pins


def find_tasks(name: str, model: Model) -> list[Task]:
    """The tasks that `name` selects: an lm-eval task or group (then its members), or the path of a task's YAML file.
    Likelihood tasks get the default estimator of the model's noise process. ValueError for an unknown name, a missing
    file, and a YAML that does not define exactly one task."""
    source, tasks = load_tasks(name)
    return [_task_part(task, source, model) for task in tasks]


def load_tasks(name: str) -> tuple[str, list[Any]]:
    """(source, lm-eval's task objects) of an lm-eval task or group `name`, or of the YAML file with the path `name`.
    The source is "lm-eval", or the digest under which the YAML is stored (`store_task`).

    Raises ValueError for an unknown name, a missing file, and a YAML that does not define exactly one task.
    """
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    if name.endswith((".yaml", ".yml")):
        if not Path(name).is_file():
            raise ValueError(f"--tasks: no file {name!r}; give the path of the YAML file of an lm-eval task")
        source = store_task(Path(name))
        manager, spec = TaskManager(include_defaults=False), load_task_config(source)
        if "task" not in spec or not isinstance(spec["task"], str):
            raise ValueError(f"{name} defines no single task; give it a line 'task: NAME'")
        _check_metrics(name, spec)
    else:
        source, manager, spec = STANDARD, standard_tasks(), name
        if name not in manager.task_index:
            raise ValueError(f"neither this suite nor lm-eval has a task {name!r}; {_near(name)}")
    with sandboxed(name):
        with silent(), _built(name):  # hides progress bars of data sets
            loaded = manager.load(spec)["tasks"]
            if source != STANDARD:
                for task in loaded.values():
                    _read_one(task)
        if source != STANDARD:
            for task in loaded.values():
                _check_task(name, task)
    return source, list(loaded.values())


def _read_one(task: Any) -> None:
    """Render the templates of lm-eval's task object `task` for its first document, so that a template with an error
    fails before anything is decoded."""
    for document in itertools.islice(task.eval_docs, 1):
        task.doc_to_text(document), task.doc_to_target(document)
        if task.OUTPUT_TYPE == "multiple_choice" and not isinstance(task.doc_to_choice(document), list):
            raise TypeError("doc_to_choice does not give a list of choices")


@contextlib.contextmanager
def _built(name: str) -> Generator[None]:
    """Context in which any error that lm-eval raises while it builds the task `name` becomes a ValueError; only
    ConnectionError and `Refused` (of the sandbox that renders templates) pass unchanged."""
    try:
        yield
    except (ConnectionError, Refused):
        raise
    except Exception as error:  # lm-eval checks a YAML nowhere, so a wrong field fails anywhere in it
        said = " ".join(f"{type(error).__name__}: {error.__cause__ or error}".split())[:300]
        raise ValueError(
            f"lm-eval cannot build the task {name} ({said}); check in its YAML that the data files exist, and that"
            " doc_to_text, doc_to_choice and doc_to_target name fields that its documents have"
        ) from error


def _check_metrics(name: str, spec: dict[str, Any]) -> None:
    """Raise ValueError for a metric in `spec`, the configuration in the YAML file `name`, that lm-eval does not know;
    lm-eval itself would look for the metric on the Hub. Where a function of the task computes the metrics
    (`process_results`), their names are its own."""
    from lm_eval.api.registry import metric_registry

    if spec.get("process_results") is not None:
        return
    known = sorted(metric_registry.keys())
    for each in spec.get("metric_list") or ():
        metric = each.get("metric") if isinstance(each, dict) else each
        elsewhere = callable(metric) or (isinstance(each, dict) and each.get("hf_evaluate"))
        if not elsewhere and metric not in known:
            raise ValueError(f"{name}: lm-eval has no metric {metric!r}; {nearest(str(metric), known)}")


def _check_task(name: str, task: Any) -> None:
    """Raise ValueError for what lm-eval accepts in the YAML file `name` of its task object `task`: a negative number of
    few-shot examples, and a correct answer that is none of the choices (every answer would count as wrong)."""
    if (task.config.num_fewshot or 0) < 0:
        raise ValueError(f"{name}: num_fewshot is {task.config.num_fewshot}; give 0 or more")
    if task.OUTPUT_TYPE != "multiple_choice" or task.multiple_input:
        return
    for number, doc in enumerate(task.eval_docs):
        choices, target = task.doc_to_choice(doc), task.doc_to_target(doc)
        for each in target if isinstance(target, list) else [target]:
            fits = 0 <= each < len(choices) if isinstance(each, int) else each in choices
            if not fits:
                raise ValueError(
                    f"{name}: doc_to_target of document {number} gives {each!r}, which is none of its"
                    f" {len(choices)} choices; give an index from 0 or a choice's text"
                )


def common_settings(task: Any, source: str, template: Template) -> dict[str, Any]:
    """The fields, name -> value, that likelihood and generation tasks (`LmTask`) have in common, for lm-eval's task
    object `task`, its `source` ("lm-eval" or the digest of a stored YAML) and `template` ("chat" or "none"). The number
    of few-shot examples is the task's own, and a request that is too long will be an error."""
    return {
        "name": task.config.task,
        "task": task.config.task,
        "source": source,
        "task_version": str(task.VERSION),
        "shots": None,
        "template": template,
        "overlong": "error",
    }


def _task_part(task: Any, source: str, model: Model) -> Task:
    common = common_settings(task, source, "chat" if has_chat_template(model) else "none")
    if task.OUTPUT_TYPE != "generate_until":
        return LmLikelihood(**common, estimator=estimator(default(model.recipe.process)))
    arguments = dict(task.config.generation_kwargs or {})
    asks = json.dumps(arguments, sort_keys=True)
    return LmGeneration(**common, length=requested_length(arguments), policy="suite", asks=asks)


@dataclass(frozen=True)
class TaskOptions:
    """The command-line options for lm-eval tasks: likelihood estimators, number of few-shot examples (`shots`), chat
    template or none (`template`), and number of Monte Carlo draws of the estimators. None keeps each task's own
    setting."""

    estimator: str | None
    """Name of the likelihood estimator, or several names separated by ';': each likelihood task is then evaluated with
    each of them, and its name has the estimator added."""
    shots: int | None
    template: Template | None
    draws: int | None = None
    """Number of draws of the likelihood estimators."""

    def apply(self, tasks: Sequence[Task], model: Model) -> list[Task]:
        """The tasks with these options applied. ValueError for an option that none of the tasks takes, and for a
        template if the model's data has none."""
        rules = {} if self.estimator is None else {n: estimator(n) for n in self.estimator.split(";")}
        given: dict[str, Any] = {"shots": self.shots, "template": self.template}
        given = {name: value for name, value in given.items() if value is not None}
        if rules and not any(isinstance(task, LmLikelihood) for task in tasks):
            raise ValueError(
                f"estimator {self.estimator!r} given, but none of the selected tasks takes an estimator; leave it out"
            )
        if given and not any(isinstance(task, LmTask) for task in tasks):
            raise ValueError(
                f"{next(iter(given))} given, but none of the selected tasks is one of lm-eval's; leave it out"
            )
        if self.template is not None and not has_chat_template(model):
            raise ValueError(
                f"template={self.template!r}: this model's data has no chat template; leave the option out"
            )
        derived = [derive(task, given) if given and isinstance(task, LmTask) else task for task in tasks]
        found = [each for task in derived for each in _with_estimators(task, rules)]
        return found if self.draws is None else _with_draws(found, self.draws)


def _with_estimators(task: Task, rules: dict[str, Estimator]) -> list[Task]:
    """Copies of a likelihood task, one per estimator of `rules` (name -> estimator); of any other task a list with this
    task alone. Copies with several estimators are named "TASK by ESTIMATOR"."""
    if not rules or not isinstance(task, LmLikelihood):
        return [task]
    names = {rule: f"{task.name} by {rule}" if len(rules) > 1 else task.name for rule in rules}
    return [derive(task, {"estimator": rules[rule], "name": name}) for rule, name in names.items()]


def _with_draws(tasks: Sequence[Task], draws: int) -> list[Task]:
    """The tasks, where the estimator of each likelihood task now makes `draws` Monte Carlo draws; other tasks are
    unchanged. ValueError for an estimator without random draws, and if none of the tasks has an estimator."""
    found = []
    for task in tasks:
        if isinstance(task, LmLikelihood):
            place = next(
                (path for path in parts.leaves(task.estimator) if path.split(".")[-1] == "draws"), None
            )
            if place is None:
                name = parts.canonical(task.estimator)["part"]
                raise ValueError(
                    f"draws={draws}: the estimator of task {task.name!r} ({name}) draws nothing at random;"
                    " leave draws out, or name another estimator with --estimator"
                )
            task = derive(task, {f"estimator.{place}": draws})
        found.append(task)
    if not any(isinstance(task, LmLikelihood) for task in found):
        raise ValueError(
            f"draws={draws} given, but none of the selected tasks scores likelihoods; leave it out"
        )
    return found


def _near(name: str) -> str:
    """End of an error message about an unknown task `name`: the suites that have a task of this name, else the most
    similar name of a task of lm-eval or of a suite."""
    suites: dict[str, list[str]] = {}
    for path in sorted(SUITES.glob("*.toml")):
        with contextlib.suppress(ValueError):  # a suite group
            for task in read_suite(path.stem).tasks:
                suites.setdefault(task.name, []).append(path.stem)
    if name in suites:
        return f"it is a task of suite {' and '.join(suites[name])}: give --suite {suites[name][0]}"
    return nearest(name, {*standard_tasks().task_index, *suites})


def registered_task(text: str) -> Task | None:
    """The task that the text `NAME` or `NAME:field=value,field=value` describes, where NAME is that of a task class in
    the registry (`repro/core/registry.py`). Values are JSON or strings; the task's `name` is NAME unless it is given.
    None if NAME is not in the registry and no field is set.

    ValueError for an unknown NAME with fields, an unknown field or wrong value, and a field of the class without a
    value.
    """
    base, _, settings = text.partition(":")
    if not _is_task(base):
        if "=" in settings:
            raise ValueError(
                f"no registered task {base!r}; {nearest(base, filter(_is_task, registry.PARTS))}"
            )
        return None
    given = {"name": base} | (parts.parse_overrides(split_pins(settings)) if settings else {})
    names = [field.name for field in dataclasses.fields(cast(Any, parts.part_class(base)))]
    lacking = [name for name in names if name not in given]
    if lacking and given.keys() <= set(names):
        remedy = ",".join(f"{name}=VALUE" for name in lacking)
        raise ValueError(f"task {base!r} lacks {', '.join(lacking)}; write {base}:{remedy}")
    return parts.read({"part": base, **given}, Task)


def _is_task(name: str) -> bool:
    return name in registry.PARTS and issubclass(parts.part_class(name), Task)


def tasks_by_name(names: Sequence[str], suite: str, known: Sequence[Task], model: Model) -> list[Task]:
    """The tasks that `--tasks` selects by `names`. Each is looked up among the tasks `known` of the suite called
    `suite`, then among the perplexity protocols of evals/corpora.toml, then in the registry (`registered_task`), then
    in lm-eval (`find_tasks`).

    ValueError for a name that is known nowhere, for one that looks like a misspelling of a task of the suite or of a
    protocol, and for two tasks with the same name.
    """
    ours = {task.name: task for task in known}
    found = [task for name, task in ours.items() if name in names]
    for name in names:
        if name in ours:
            continue
        if name.removesuffix(TRUNCATED) in protocols():
            found.append(protocol(name))
            continue
        registered = registered_task(name)
        if registered is not None:
            found.append(registered)
            continue
        for several, whose in (
            (ours, f"in suite {suite!r}"),
            (protocols(), "among the perplexity protocols"),
        ):
            if not name.endswith((".yaml", ".yml")) and misspelt(name, list(several)):
                raise ValueError(f"no task {name!r} {whose}; {nearest(name, several)}")
        found += find_tasks(name, model)
    refuse_twice(found)
    return found


def refuse_twice(tasks: Sequence[Task]) -> None:
    """Raise ValueError if two tasks have the same name."""
    twice = [name for name, times in Counter(task.name for task in tasks).items() if times > 1]
    if twice:
        raise ValueError(f"two tasks are called {twice[0]!r}; give only one of them to --tasks")
