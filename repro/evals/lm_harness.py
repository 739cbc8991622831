"""lm-eval runs our models: an adapter with `generate_until`, and the answer of a task part (repro.evals.harness).

The task's YAML lies in evals/tasks; prompts, scoring and standard errors are lm-eval's. All requests of a task decode
in shared batches; a request's draws are keyed by its document, so neither order nor batch size enters.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from repro.evals.harness import HarnessTask
from repro.evals.task import Answer, Ask, samples_digest
from repro.files import ROOT, runs
from repro.lazy import torch
from repro.models import Model
from repro.samplers.decode import decode

BATCH = 256


class Adapter(LM):
    """A model under one sampler and plan, as lm-eval asks it."""

    def __init__(self, model: Model, ask: Ask) -> None:
        super().__init__()
        assert ask.sampler is not None and ask.plan is not None
        self.model, self.ask, self.sampler, self.plan = model, ask, ask.sampler, ask.plan
        self.forwards: list[torch.Tensor] = []
        self.ids: list[torch.Tensor] = []

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Texts of gen_length tokens, cut at the first stop string; a length other than the plan's is an error."""
        texts = []
        for start in range(0, len(requests), BATCH):
            some = requests[start : start + BATCH]
            for request in some:
                asked = request.args[1].get("max_gen_toks", self.plan.gen_length)
                if asked != self.plan.gen_length:
                    raise ValueError(
                        f"the task asks for {asked} tokens, the suite for {self.plan.gen_length}"
                    )
            prompts = [self.model.data.prompt(request.args[0]) for request in some]
            names = [request.doc_id if request.doc_id is not None else 0 for request in some]
            process = self.model.recipe.process
            decoded = decode(
                self.model.denoiser,
                process,
                self.sampler,
                self.plan,
                prompts,
                seed=self.ask.seed,
                names=names,
            )
            self.forwards.append(decoded.ledger.forwards)
            self.ids.append(decoded.ids)
            for request, row in zip(some, decoded.ids.tolist(), strict=True):
                texts.append(_cut(self.model.data.decode(row), request.args[1].get("until") or []))
        return texts

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        raise ValueError("likelihood tasks are not supported by this adapter; choose a generate_until task")

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        raise ValueError("rolling likelihood is not supported by this adapter; use the suite's bound task")


def _cut(text: str, until: list[str] | str) -> str:
    """The text before the first stop string."""
    stops = [until] if isinstance(until, str) else until
    ends = [text.find(stop) for stop in stops if stop and stop in text]
    return text[: min(ends)] if ends else text


def answer(task: HarnessTask, model: Model, ask: Ask) -> Answer:
    """Run one lm-eval task; its metric's standard error is the sample one."""
    import yaml
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    config = yaml.safe_load(task.path().read_text("utf-8"))
    version = config.get("metadata", {}).get("version")
    if version != task.task_version:
        raise ValueError(f"task {task.task!r} has version {version}; the suite asks for {task.task_version}")
    given = config.get("dataset_kwargs", {})
    files = {split: str(ROOT / file) for split, file in given.get("data_files", {}).items()}
    cache = {"cache_dir": str((runs() / "data" / "lm_eval").absolute())}
    config["dataset_kwargs"] = given | cache | ({"data_files": files} if files else {})
    adapter = Adapter(model, ask)
    with contextlib.redirect_stderr(io.StringIO()):  # one bar a request would bury ours; errors still rise
        found = simple_evaluate(
            model=adapter,
            tasks=[config],
            task_manager=TaskManager(include_defaults=False),
            limit=ask.limit,
            bootstrap_iters=100,
            verbosity="ERROR",
            log_samples=False,
        )
    assert found is not None
    result = found["results"][task.task]
    count = found["n-samples"][task.task]["effective"]
    value, error = result[f"{task.metric},none"], result[f"{task.metric}_stderr,none"]
    forwards, ids = torch.cat(adapter.forwards).double(), torch.cat(adapter.ids)
    return Answer(
        metrics={"accuracy": (value, None if isinstance(error, str) or math.isnan(error) else error, count)},
        nfe=forwards.mean().item(),
        tokens_per_nfe=ids.numel() / max(1.0, float(forwards.sum())),
        tokens=ids.numel(),
        samples=samples_digest(ids),
    )
