"""Tasks of lm-eval that an engine (a program that decodes) answers, in the form in which records store them.

Prompts, few-shot examples, scoring and standard errors are lm-eval's, as for checkpoints (`repro.evals.lm`); the
engine's own tokenizer and template are used. `adapter` makes the requests to the engine.
"""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from repro.core.parts import part
from repro.evals.engines.engine import Api
from repro.evals.lm.lm_tasks import LmTask, scored_documents
from repro.evals.lm.overrides import LENGTH_FIELDS
from repro.evals.task import Answer, Ask, mean_metric
from repro.evals.work_queue import WorkQueue

if TYPE_CHECKING:
    from repro.evals.engines.openai import Server

FOLLOWED = ("do_sample", "temperature", "top_p", "until", *LENGTH_FIELDS)
"""Generation arguments of a task that a request to an engine follows."""
REFUSALS = "count as an empty text"


@part
class EngineTask(LmTask):
    """Base class of lm-eval tasks that an engine answers by the protocol `api`, "completions" or "chat". With "chat"
    the engine puts its own template around the whole prompt, as one user message; `template` is always "none",
    since lm-eval applies no chat template."""

    api: Api

    @abstractmethod
    def found(self, engine: Server, ask: Ask, work: WorkQueue) -> Answer:
        """The result of the task for `engine`, computed in chunks of the queue `work`, with a per-item result for each
        document and each of lm-eval's answer filters."""


@part
class EngineLikelihood(EngineTask):
    """An lm-eval task that scores continuations by the log-likelihood that the engine gives them. An engine is a
    program that decodes, such as a server; `api` is the protocol by which it is asked, all other fields are those of
    `LmTask`."""

    version = 2  # tokens are matched with the text, not by text_offset
    generates = False

    def protocol(self) -> dict[str, Any]:
        return {**_harness(self), "output": "loglikelihood", "unit": "nats, summed"}

    def found(self, engine: Server, ask: Ask, work: WorkQueue) -> Answer:
        from repro.evals.engines.adapter import EngineAdapter

        metrics, items = scored_documents(self, EngineAdapter(engine, self.api, ask.seed, work), ask)
        return Answer(metrics, items=items)


@part
class EngineRolling(EngineTask):
    """An lm-eval task that scores whole texts, in windows of at most `max_length` - 1 ids of the engine's tokenizer
    (`tokenizer`: its commit on the Hub or the SHA-256 of its files); the first window begins with the id `prefix`."""

    tokenizer: str
    prefix: int
    max_length: int
    generates = False

    def protocol(self) -> dict[str, Any]:
        return {**_harness(self), "output": "loglikelihood_rolling", "unit": "nats, summed"}

    def found(self, engine: Server, ask: Ask, work: WorkQueue) -> Answer:
        from repro.evals.engines.adapter import EngineAdapter

        adapter = EngineAdapter(engine, self.api, ask.seed, work, engine.windows)
        metrics, items = scored_documents(self, adapter, ask)
        return Answer(metrics, items=items)


@part
class EngineGeneration(EngineTask):
    """An lm-eval task that generates texts as its `generation_kwargs` (`asks`, canonical JSON) say: with random draws
    (at temperature 1 if none is given) if do_sample is true or, where do_sample is not given, if the temperature is
    above 0, and greedily otherwise; with at most `length` tokens. The engine is a program that decodes, such as a
    server; all other fields are those of `LmTask`."""

    length: int
    asks: str
    version = 3  # 2: null in place of a text counts as refused; 3: do_sample with temperature 0 is greedy
    generates = True

    def protocol(self) -> dict[str, Any]:
        asked = json.loads(self.asks)
        ignored = {name: [value, None] for name, value in asked.items() if name not in FOLLOWED}
        output = {"output": "generate_until", "refusals": REFUSALS}
        return {**_harness(self), **output, **({"overridden": ignored} if ignored else {})}

    def found(self, engine: Server, ask: Ask, work: WorkQueue) -> Answer:
        from repro.core.lazy import torch
        from repro.evals.engines.adapter import EngineAdapter

        adapter = EngineAdapter(engine, self.api, ask.seed, work)
        metrics, items = scored_documents(self, adapter, ask)
        refused = torch.tensor(adapter.refused, dtype=torch.float64)
        digest = hashlib.sha256(json.dumps(adapter.texts).encode()).hexdigest()
        return Answer(metrics | {"refused": mean_metric(refused)}, samples=digest, items=items)


def _harness(task: EngineTask) -> dict[str, Any]:
    from importlib.metadata import version

    return {"harness": f"lm-eval {version('lm-eval')}", "api": task.api}
