"""Task component (part) for the lm-eval tasks that this repository defines itself, in evals/tasks/NAME.yaml. A suite
states the version and length that it requires of the YAML; another version or length is an error."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from repro.core.errors import nearest
from repro.core.files import ROOT, runs
from repro.core.parts import part
from repro.data.sudoku import Sudoku
from repro.evals.task import Answer, Ask, Task
from repro.evals.work_queue import WorkQueue
from repro.evals.workload import Workload, of_texts
from repro.model import Model

TASKS = ROOT / "evals" / "tasks"


@part
class HarnessTask(Task):
    """The lm-eval generation task evals/tasks/NAME.yaml, NAME = `task`, whose YAML must have the version `task_version`
    and generate `length` tokens per document; `metric` is lm-eval's name of the metric reported as accuracy."""

    task: str
    task_version: int
    metric: str
    length: int
    generates = True

    def path(self) -> Path:
        """Path of the task's YAML file; ValueError, with the most similar name, if evals/tasks has none."""
        path = TASKS / f"{self.task}.yaml"
        if not path.is_file():
            raise ValueError(
                f"no task {self.task!r} in evals/tasks; {nearest(self.task, [p.stem for p in TASKS.glob('*.yaml')])}"
            )
        return path

    def protocol(self) -> dict[str, Any]:
        return {"harness": "lm-eval", "output": "generate_until", "draws": "float64"}

    def skip(self, model: Model) -> str | None:
        if self.task == "sudoku" and not isinstance(model.data, Sudoku):
            return "the model's vocabulary is not that of Sudoku boards"
        return None

    def gen_length(self, model: Model) -> int:
        return self.length

    def workload(self, model: Model, ask: Ask) -> Workload:
        return of_texts(None, model, ask.sampler, ask.plan, self.length).limited(ask.limit)

    def shared(self, model: Model, ask: Ask, work: WorkQueue) -> Answer:
        from repro.evals.lm.adapter import BATCH, Adapter, Generation

        assert ask.sampler is not None
        how = Generation(ask.sampler, ask.plan, 1.0, "suite")
        size = work.batch or BATCH
        return self.evaluate_with(Adapter(model, None, how, "error", ask.seed, size, work), ask)

    def evaluate_with(self, adapter: Any, ask: Ask) -> Answer:
        """Result of the task run through lm-eval with the model `adapter` (an `Adapter` with generation settings),
        for at most `ask.limit` documents; the standard error is lm-eval's, over documents. ValueError if the version or
        length in the YAML is not `task_version` or `length`."""
        import yaml
        from lm_eval.tasks import TaskManager

        from repro.evals.lm.lm_tasks import generation_answer, item_record, run_lm_eval

        config = yaml.safe_load(self.path().read_text("utf-8"))
        version = config.get("metadata", {}).get("version")
        if version != self.task_version:
            raise ValueError(
                f"evals/tasks/{self.task}.yaml has version {version}; the suite requires {self.task_version}; use the "
                "YAML of that version, or set task_version in the suite"
            )
        length = config.get("generation_kwargs", {}).get("max_gen_toks", self.length)
        if length != self.length:
            raise ValueError(
                f"evals/tasks/{self.task}.yaml generates {length} tokens; the suite requires {self.length}; make the "
                "YAML's max_gen_toks and the suite's length agree"
            )
        given = config.get("dataset_kwargs", {})
        files = {split: str(ROOT / file) for split, file in given.get("data_files", {}).items()}
        cache = {"cache_dir": str((runs() / "data" / "lm_eval").absolute())}
        config["dataset_kwargs"] = given | cache | ({"data_files": files} if files else {})
        found = run_lm_eval(adapter, config, TaskManager(include_defaults=False), ask.limit)
        result = found["results"][self.task]
        value, error = result[f"{self.metric},none"], result[f"{self.metric}_stderr,none"]
        known = None if isinstance(error, str) or math.isnan(error) else float(error)
        items = [item_record(sample, None) for sample in found["samples"][self.task]]
        count = found["n-samples"][self.task]["effective"]
        return generation_answer(adapter, {"accuracy": (float(value), known, count)}, items)
