"""The task part behind lm-eval tasks; light, so that suites are read without importing lm-eval."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from repro.core.errors import nearest
from repro.core.files import ROOT, runs
from repro.core.parts import part
from repro.data.sudoku import Sudoku
from repro.evals.task import Answer, Ask, Task
from repro.evals.work_queue import Work
from repro.evals.workload import Workload, of_texts
from repro.model import Model

TASKS = ROOT / "evals" / "tasks"


@part
class HarnessTask(Task):
    """An lm-eval task by name (evals/tasks/NAME.yaml), generating `length` tokens; `metric` is lm-eval's name."""

    task: str
    task_version: int
    metric: str
    length: int
    generates = True

    def path(self) -> Path:
        path = TASKS / f"{self.task}.yaml"
        if not path.is_file():
            raise ValueError(
                f"no task {self.task!r}; {nearest(self.task, [p.stem for p in TASKS.glob('*.yaml')])}"
            )
        return path

    def protocol(self) -> dict[str, Any]:
        return {"harness": "lm-eval", "output": "generate_until", "draws": "float64"}

    def skip(self, model: Model) -> str | None:
        if self.task == "sudoku" and not isinstance(model.data, Sudoku):
            return "the model's symbols are not those of a board"
        return None

    def gen_length(self, model: Model) -> int:
        return self.length

    def workload(self, model: Model, ask: Ask) -> Workload:
        return of_texts(None, model, ask, self.length)

    def shared(self, model: Model, ask: Ask, work: Work) -> Answer:
        from repro.evals.lm.adapter import BATCH, Adapter, Generation

        assert ask.sampler is not None
        how = Generation(ask.sampler, ask.plan, 1.0, "suite")
        size = work.batch or BATCH
        return self.asked_of(Adapter(model, None, how, "error", ask.seed, size, work), ask)

    def asked_of(self, adapter: Any, ask: Ask) -> Answer:
        """Run the task; its metric's standard error is the sample one."""
        import yaml
        from lm_eval.tasks import TaskManager

        from repro.evals.lm.lm_tasks import asked, drawn, item

        config = yaml.safe_load(self.path().read_text("utf-8"))
        version = config.get("metadata", {}).get("version")
        if version != self.task_version:
            raise ValueError(
                f"task {self.task!r} has version {version}; the suite asks for {self.task_version}"
            )
        most = config.get("generation_kwargs", {}).get("max_gen_toks", self.length)
        if most != self.length:
            raise ValueError(f"the task asks for {most} tokens, the suite for {self.length}")
        given = config.get("dataset_kwargs", {})
        files = {split: str(ROOT / file) for split, file in given.get("data_files", {}).items()}
        cache = {"cache_dir": str((runs() / "data" / "lm_eval").absolute())}
        config["dataset_kwargs"] = given | cache | ({"data_files": files} if files else {})
        found = asked(adapter, config, TaskManager(include_defaults=False), ask.limit)
        result = found["results"][self.task]
        value, error = result[f"{self.metric},none"], result[f"{self.metric}_stderr,none"]
        known = None if isinstance(error, str) or math.isnan(error) else error
        items = [item(sample, adapter) for sample in found["samples"][self.task]]
        count = found["n-samples"][self.task]["effective"]
        return drawn(adapter, {"accuracy": (value, known, count)}, items)
