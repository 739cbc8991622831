"""Components (parts) of a suite that evaluate lm-eval tasks: any task that lm-eval ships, and user-written YAML files.

    python -m repro.evals --ckpt runs/mdlm@nano.text-s0 --tasks my_tasks/capitals.yaml --samplers low_confidence,random
    python -m repro.evals --ckpt ... --tasks arc_easy,lambada_openai        # needs the Hub or its cache

Prompts, few-shot examples, scoring and standard errors are lm-eval's. There are two parts, since only generation
depends on a sampler: `lm_likelihood` (multiple choice, likelihood, rolling likelihood) and `lm_generation`. Results per
document (its number, the model's output with its standard error, lm-eval's metrics) are stored next to the records, in
files of OUT/items whose names begin with the record's id, so that two samplers can be compared document by document.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
from collections.abc import Generator, Mapping
from numbers import Real
from typing import Any, Literal

from repro.core.parts import part
from repro.core.reading import silent
from repro.evals.likelihood.likelihood import Estimator
from repro.evals.lm.overrides import conflicts
from repro.evals.lm.prompts import Template
from repro.evals.lm.task_files import load_task_config
from repro.evals.lm.task_index import standard_tasks
from repro.evals.lm.task_templates import sandboxed
from repro.evals.task import Answer, Ask, Task, generated
from repro.evals.work_queue import WorkQueue
from repro.evals.workload import Workload, of_answers, of_texts, sizes
from repro.model import Model

STANDARD = "lm-eval"
"""Value of `LmTask.source` for a task that lm-eval ships; other values are digests of stored YAML files
(`task_files`)."""


@part
class LmTask(Task):
    """Base class of lm-eval tasks. `task`: lm-eval's name of a task or a group of tasks; `source`: "lm-eval", or the
    digest of a stored YAML (`task_files`); `task_version`: its version as lm-eval prints it. A group evaluates all its
    member tasks and reports lm-eval's aggregate; a limit on the number of documents applies to each member.

    `shots`: number of few-shot examples (None: the task's own); `template`: whether contexts are formatted with the
    model's chat template ("chat") or read as they are ("none"); `overlong`: whether a request beyond the model's
    maximum length raises ValueError ("error") or is truncated on the left ("truncate").
    """

    task: str
    source: str
    task_version: str
    shots: int | None
    template: Template
    overlong: Literal["error", "truncate"]

    def protocol(self) -> dict[str, Any]:
        from importlib.metadata import version

        return {"harness": f"lm-eval {version('lm-eval')}", "precision": "float32"}


@part
class LmLikelihood(LmTask):
    """An lm-eval task that scores continuations by their log-likelihood, estimated by `estimator`; all other fields are
    those of `LmTask`."""

    estimator: Estimator
    generates = False

    def skip(self, model: Model) -> str | None:
        try:
            self.estimator.check(model.recipe.process)
        except ValueError as error:
            return str(error)
        return None

    def workload(self, model: Model, ask: Ask) -> Workload | None:
        size = sizes().get(self.task) if self.source == STANDARD else None
        if size is None or self.shots is None:
            return None
        return of_answers(size, self.shots, self.estimator, model).limited(ask.limit)

    def protocol(self) -> dict[str, Any]:
        return super().protocol() | {
            "output": "loglikelihood",
            "score": self.estimator.score_is,
            "unit": "nats, summed",
        }

    def shared(self, model: Model, ask: Ask, work: WorkQueue) -> Answer:
        from repro.evals.lm.adapter import BATCH, Adapter

        batch = work.batch or BATCH
        adapter = Adapter(model, self.estimator, None, self.overlong, ask.seed, batch, work, self.template)
        return evaluate(self, adapter, ask)


@part
class LmGeneration(LmTask):
    """An lm-eval task that generates texts of `length` ids; fields not named here are those of `LmTask`. `policy`:
    where the task's generation arguments and the sampler's settings differ, "suite" uses the sampler's and records the
    difference, "task" raises ValueError (`repro.evals.lm.overrides`)."""

    length: int
    policy: Literal["suite", "task"]
    asks: str
    """The task's `generation_kwargs` as canonical JSON; the settings actually used are the sampler's and the decoding
    plan's, which the record holds as well."""
    generates = True

    def gen_length(self, model: Model) -> int:
        return self.length

    def workload(self, model: Model, ask: Ask) -> Workload | None:
        size = sizes().get(self.task) if self.source == STANDARD else None
        if size is None or self.shots is None:
            return None
        context = size.context(self.shots)
        return of_texts(size.items, model, ask.sampler, ask.plan, context).limited(ask.limit)

    def protocol(self) -> dict[str, Any]:
        return super().protocol() | {"output": "generate_until", "draws": "float64"}

    def overridden(self, ask: Ask) -> dict[str, list[Any]]:
        assert ask.sampler is not None
        found = conflicts(
            json.loads(self.asks), ask.sampler, None if ask.plan is None else ask.plan.gen_length
        )
        return {name: list(pair) for name, pair in found.items()}

    def shared(self, model: Model, ask: Ask, work: WorkQueue) -> Answer:
        from repro.evals.lm.adapter import BATCH, Adapter, Generation

        assert ask.sampler is not None
        how, batch = Generation(ask.sampler, ask.plan, 1.0, self.policy), work.batch or BATCH
        adapter = Adapter(model, None, how, self.overlong, ask.seed, batch, work, self.template)
        return self.evaluate_with(adapter, ask)

    def evaluate_with(self, adapter: Any, ask: Ask) -> Answer:
        """Result of the task run through lm-eval with the model `adapter` (an `Adapter` with generation settings),
        for at most `ask.limit` documents."""
        return evaluate(self, adapter, ask)


# --- evaluation -----------------------------------------------------------------------------------------------


def evaluate(task: LmTask, adapter: Any, ask: Ask) -> Answer:
    """Result of one task run through lm-eval with the model `adapter` (an `Adapter`), for at most `ask.limit`
    documents: metrics, per-item results, and the mean number of forward passes per request."""
    metrics, items = scored_documents(task, adapter, ask)
    if adapter.generation is not None:
        return generation_answer(adapter, metrics, items)
    forwards = [likelihood.forwards for likelihood in adapter.scored.values()]
    return Answer(metrics, nfe=sum(forwards) / len(forwards), items=items)


def scored_documents(
    task: LmTask, adapter: Any, ask: Ask
) -> tuple[dict[str, tuple[float, float | None, int]], list[dict[str, Any]]]:
    """Results of one task run by lm-eval with the model `adapter` (an `Adapter`), for at most `ask.limit` documents:
    metrics with lm-eval's standard errors (name -> value, standard error or None, number of documents), and items, one
    for each document and each of lm-eval's answer filters (`item_record`).

    Raises ValueError where lm-eval's task version or number of few-shot examples is not the one of `task`.
    """
    from lm_eval.tasks import TaskManager

    if task.source == STANDARD:
        spec, manager = task.task, standard_tasks()
    else:
        spec, manager = load_task_config(task.source), TaskManager(include_defaults=False)
    found = run_lm_eval(adapter, spec, manager, ask.limit, task.shots, task.template == "chat")
    version = str(found["versions"][task.task])
    if version != task.task_version:
        raise ValueError(
            f"lm-eval's task {task.task!r} has version {version}; this evaluation requires {task.task_version}; "
            "install the lm-eval release with that version"
        )
    members = found["samples"]
    given = {found["n-shot"][member] for member in members}
    if task.shots is not None and given != {task.shots}:
        raise ValueError(
            f"task {task.task!r} ran with {min(given)} shots, not {task.shots}: it sets num_fewshot: 0, which lm-eval "
            "does not override; leave --shots out"
        )
    count = sum(found["n-samples"][member]["effective"] for member in members)
    metrics = _metrics(found["results"][task.task], count)
    scored = None if task.generates else adapter.scored
    items = [
        item_record(sample, scored) | ({} if member == task.task else {"task": member})
        for member, samples in members.items()
        for sample in samples
    ]
    return metrics, items


def run_lm_eval(
    adapter: Any,
    spec: str | dict[str, Any],
    manager: Any,
    limit: int | None,
    shots: int | None = None,
    chat: bool = False,
) -> dict[str, Any]:
    """The result dictionary of lm-eval's `simple_evaluate` for one task. What lm-eval writes (log messages, progress
    bars, and lines on the standard output, where `--json` writes) is hidden. `adapter`: the model (an `Adapter`);
    `spec`: the task's name or configuration, resolved by lm-eval's TaskManager `manager`; `limit`: most documents per
    task (None: all); `shots`: number of few-shot examples (None: the task's own); `chat`: whether to apply the chat
    template. ValueError where a metric overflows or divides by zero."""
    from lm_eval import simple_evaluate

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    name = spec if isinstance(spec, str) else str(spec.get("task"))
    # hides lm-eval's progress bars, and what the git that it calls says where there is no repository
    discarded = io.StringIO()
    with (
        sandboxed(name),
        silent(),
        _no_environment(),
        contextlib.redirect_stderr(discarded),
        contextlib.redirect_stdout(discarded),
    ):
        try:
            found = simple_evaluate(
                model=adapter,
                tasks=[spec],
                task_manager=manager,
                num_fewshot=shots,
                limit=limit,
                apply_chat_template=chat,
                fewshot_as_multiturn=False,
                bootstrap_iters=100,
                log_samples=True,
            )
        except ArithmeticError as error:
            raise ValueError(
                f"lm-eval cannot compute a metric of task {name} ({type(error).__name__}: {error}): a word_perplexity"
                " of texts without spaces is above 1e308, and empty texts have no bits_per_byte; leave such a metric"
                " out of metric_list in the task's YAML"
            ) from error
    assert found is not None
    return dict(found)


@contextlib.contextmanager
def _no_environment() -> Generator[None]:
    """Context in which lm-eval does not describe the machine in its results: after each task it would start about ten
    programs to do so (torch's collect_env), which takes longer than a small task."""
    from lm_eval import evaluator

    names = vars(evaluator)
    outside = names["add_env_info"]
    names["add_env_info"] = lambda storage: None
    try:
        yield
    finally:
        names["add_env_info"] = outside


def _metrics(result: dict[str, Any], count: int) -> dict[str, tuple[float, float | None, int]]:
    """Metrics, name -> (value, standard error or None, `count`), from lm-eval's results of one task. lm-eval's key
    "metric,filter" becomes the name `metric`, or `metric.filter` if the filter is not "none"; `count` is the number of
    documents. ValueError if there is no metric."""
    found: dict[str, tuple[float, float | None, int]] = {}
    for key, value in result.items():
        metric, comma, filter_name = key.partition(",")
        if not comma or metric.endswith("_stderr") or not isinstance(value, Real):
            continue
        error = result.get(f"{metric}_stderr,{filter_name}")
        known = isinstance(error, int | float) and math.isfinite(error)
        found[metric if filter_name == "none" else f"{metric}.{filter_name}"] = (
            float(value),
            float(error) if known else None,
            count,
        )
    if not found:
        raise ValueError("lm-eval gave no metric for this task; check metric_list of its YAML")
    return found


def item_record(sample: dict[str, Any], scored: Mapping[tuple[str, ...], Any] | None) -> dict[str, Any]:
    """The stored per-item result of one document under one of lm-eval's answer filters, from `sample`, lm-eval's log
    entry for it: number and hashes of the document, lm-eval's metrics, and the model's output: the generated texts if
    `scored` is None, else log-likelihoods with standard errors and forward passes, from `scored`, those of the whole
    task by lm-eval's arguments, (context, continuation) or (text,)."""
    if scored is None:
        found = sample["resps"]
    else:
        each = [scored[tuple(arguments)] for arguments in sample["arguments"]]
        found = [{"value": f.value, "se": f.se, "forwards": f.forwards} for f in each]
    names = ("doc_id", "doc_hash", "prompt_hash", "target_hash", "filter")
    return {name: sample[name] for name in names} | {
        "found": found,
        "metrics": {name: _plain(sample[name]) for name in sample["metrics"]},
    }


def _plain(value: Any) -> Any:
    """Copy, as plain JSON, of what a task logs for a document, such as the probabilities of its choices: numpy's
    numbers and arrays are numbers and lists, and other objects their text, as in lm-eval's own log."""
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if hasattr(value, "tolist"):  # of numpy or torch
        return value.tolist()
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def generation_answer(adapter: Any, metrics: dict[str, Any], items: list[dict[str, Any]]) -> Answer:
    """Result of a generation task: the given `metrics` (name -> value, standard error or None, number of documents) and
    per-item results `items`, with the mean number of forward passes per text and the number of generated tokens, which
    `adapter` (an `Adapter`) counted while it decoded."""
    from repro.core.lazy import torch

    rows = [row for batch in adapter.ids for row in batch]
    return generated(rows, torch.cat(adapter.forwards), metrics, items)
