"""lm-eval tasks as questions of the suite: any standard name, and anybody's YAML.

    python -m repro.evals --ckpt runs/mdlm@nano.text-s0 --tasks my_tasks/capitals.yaml --samplers low_confidence,random
    python -m repro.evals --ckpt ... --tasks arc_easy,lambada_openai        # needs the Hub or its cache

Prompts, few-shot examples, scoring and standard errors are lm-eval's. Two parts, since what does not depend on a
sampler is asked once: `lm_likelihood` (multiple choice, likelihood, rolling) and `lm_generation`. Every item is kept
beside the records (OUT/items/<question>.jsonl: document, what was found and its standard error, what lm-eval made of
it), so that two samplers can be compared item by item.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
from typing import Any, Literal

from repro.core.parts import part
from repro.evals.likelihood.likelihood import Estimator
from repro.evals.lm.kept import config
from repro.evals.lm.prompts import Template
from repro.evals.lm.wishes import conflicts
from repro.evals.task import Answer, Ask, Task
from repro.evals.work_queue import Work
from repro.evals.workload import Workload, of_answers, of_texts, sizes
from repro.model import Model

STANDARD = "lm-eval"
"""Source of a task that lm-eval ships; else the digest of a kept YAML."""


@part
class LmTask(Task):
    """Kind: an lm-eval task by its name there, from `source`, of version `task_version` (as lm-eval prints it). A group
    by its name asks its members at once, with lm-eval's own aggregate (a limit is of each member).

    `shots`: few-shot examples (None: as the task says); `template`: whether contexts go through the chat template;
    `overlong`: whether a request longer than the network's rows is an error or loses the left of its prompt.
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
    """A task of likelihoods, estimated by `estimator`."""

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

    def shared(self, model: Model, ask: Ask, work: Work) -> Answer:
        from repro.evals.lm.adapter import BATCH, Adapter

        size = work.batch or BATCH
        return evaluate(
            self,
            Adapter(model, self.estimator, None, self.overlong, ask.seed, size, work, self.template),
            ask,
        )


@part
class LmGeneration(LmTask):
    """A task of texts of `length` ids; `policy`: who wins where task and sampler differ (`repro.evals.lm.adapter`)."""

    length: int
    policy: Literal["suite", "task"]
    asks: str
    """What the task asks of generation, canonical JSON; the sampler and the plan of the question say what was done."""
    generates = True

    def gen_length(self, model: Model) -> int:
        return self.length

    def workload(self, model: Model, ask: Ask) -> Workload | None:
        size = sizes().get(self.task) if self.source == STANDARD else None
        if size is None or self.shots is None:
            return None
        return of_texts(size.items, model, ask, size.context(self.shots))

    def protocol(self) -> dict[str, Any]:
        return super().protocol() | {"output": "generate_until", "draws": "float64"}

    def overridden(self, ask: Ask) -> dict[str, list[Any]]:
        assert ask.sampler is not None
        found = conflicts(
            json.loads(self.asks), ask.sampler, None if ask.plan is None else ask.plan.gen_length
        )
        return {name: list(pair) for name, pair in found.items()}

    def shared(self, model: Model, ask: Ask, work: Work) -> Answer:
        from repro.evals.lm.adapter import BATCH, Adapter, Generation

        assert ask.sampler is not None
        how = Generation(ask.sampler, ask.plan, 1.0, self.policy)
        size = work.batch or BATCH
        return self.asked_of(
            Adapter(model, None, how, self.overlong, ask.seed, size, work, self.template), ask
        )

    def asked_of(self, adapter: Any, ask: Ask) -> Answer:
        """Run the task by an adapter that generates."""
        return evaluate(self, adapter, ask)


# --- asking ---------------------------------------------------------------------------------------------------


def evaluate(task: LmTask, adapter: Any, ask: Ask) -> Answer:
    """Run one task through lm-eval: its metrics with sample standard errors, what it cost, and every item."""
    from lm_eval.tasks import TaskManager

    standard = task.source == STANDARD
    spec = task.task if standard else config(task.source)
    chat = task.template == "chat"
    found = asked(adapter, spec, TaskManager(include_defaults=standard), ask.limit, task.shots, chat)
    version = str(found["versions"][task.task])
    if version != task.task_version:
        raise ValueError(f"task {task.task!r} has version {version}; the question says {task.task_version}")
    members = found["samples"]
    given = {found["n-shot"][member] for member in members}
    if task.shots is not None and given != {task.shots}:
        raise ValueError(
            f"task {task.task!r} was asked with {min(given)} shots, not {task.shots}: it pins num_fewshot: 0, which "
            "lm-eval lets nobody change; leave --shots out"
        )
    count = sum(found["n-samples"][member]["effective"] for member in members)
    metrics = _metrics(found["results"][task.task], count)
    items = [
        item(sample, adapter) | ({} if member == task.task else {"task": member})
        for member, samples in members.items()
        for sample in samples
    ]
    if adapter.generation is not None:
        return drawn(adapter, metrics, items)
    forwards = [likelihood.forwards for likelihood in adapter.scored.values()]
    return Answer(metrics, nfe=sum(forwards) / len(forwards), items=items)


def asked(
    adapter: Any,
    spec: str | dict[str, Any],
    manager: Any,
    limit: int | None,
    shots: int | None = None,
    chat: bool = False,
) -> dict[str, Any]:
    """What lm-eval returns for one task, in silence."""
    from lm_eval import simple_evaluate

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    with contextlib.redirect_stderr(io.StringIO()):  # one bar a request would bury ours; errors still rise
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
    assert found is not None
    return dict(found)


def _metrics(result: dict[str, Any], count: int) -> dict[str, tuple[float, float | None, int]]:
    """lm-eval's "metric,filter" as names of ours: the filter is told where it is not the plain one."""
    found: dict[str, tuple[float, float | None, int]] = {}
    for key, value in result.items():
        metric, comma, way = key.partition(",")
        if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        error = result.get(f"{metric}_stderr,{way}")
        known = isinstance(error, int | float) and math.isfinite(error)
        found[metric if way == "none" else f"{metric}.{way}"] = (
            float(value),
            float(error) if known else None,
            count,
        )
    return found


def item(sample: dict[str, Any], adapter: Any) -> dict[str, Any]:
    """One document under one filter: its names, what was found, lm-eval's metrics."""
    if adapter.generation is not None:
        found = sample["resps"]
    else:
        each = [adapter.scored[tuple(arguments)] for arguments in sample["arguments"]]
        found = [{"value": f.value, "se": f.se, "forwards": f.forwards} for f in each]
    names = ("doc_id", "doc_hash", "prompt_hash", "target_hash", "filter")
    return {name: sample[name] for name in names} | {
        "found": found,
        "metrics": {name: sample[name] for name in sample["metrics"]},
    }


def drawn(adapter: Any, metrics: dict[str, Any], items: list[dict[str, Any]]) -> Answer:
    """The answer of a task of texts: metrics, and what the adapter's decoding cost."""
    from repro.core.lazy import torch
    from repro.evals.task import samples_digest

    forwards = torch.cat(adapter.forwards).double()
    ids = [row for batch in adapter.ids for row in batch]
    tokens = sum(len(row) for row in ids)
    return Answer(
        metrics,
        nfe=forwards.mean().item(),
        tokens_per_nfe=tokens / max(1.0, float(forwards.sum())),
        tokens=tokens,
        samples=samples_digest(ids),
        items=items,
    )
