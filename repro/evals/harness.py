"""The task part behind lm-eval tasks; light, so that suites are read without importing lm-eval."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from repro.data.tasks import Sudoku
from repro.evals.task import Answer, Ask, Task
from repro.files import ROOT
from repro.models import Model
from repro.parts import nearest, part

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

    def answer(self, model: Model, ask: Ask) -> Answer:
        from repro.evals.lm_harness import answer

        return answer(self, model, ask)
