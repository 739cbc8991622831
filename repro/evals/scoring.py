"""`score` for notebooks: evaluate one checkpoint or several, as `python -m repro.evals` does.

results = score("runs/mdlm@nano-s0", samplers=["all"])
print(results.table())
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from repro.core.arguments import checked
from repro.evals.lm.prompts import Template
from repro.evals.progress import Silent
from repro.evals.progress import progress as shown_progress
from repro.evals.request import Request, prepare
from repro.evals.results import Results, name_once
from repro.evals.suites import TokensPerStep
from repro.model import Model, load


@checked
def score(
    ckpt: str | Path | Model | Sequence[str | Path | Model],
    samplers: str | Sequence[str] | None = None,
    tasks: str | Sequence[str] | None = None,
    tokens_per_step: TokensPerStep | Sequence[TokensPerStep] | None = None,
    seeds: int | Sequence[int] = (0,),
    limit: int | None = None,
    samples: int | None = None,
    suite: str | None = None,
    block_length: int | None = None,
    cache: str | None = None,
    out: str | Path | None = None,
    batch: int | None = None,
    corpus: str | Path | None = None,
    estimator: str | None = None,
    shots: int | None = None,
    template: Template | None = None,
    progress: bool = False,
) -> Results:
    """Results of the evaluations of one checkpoint or several, computed and stored as by `python -m repro.evals`.

    `ckpt`: a loaded model, a checkpoint folder, a Hub name or oracle:RECIPE@SCALE, or several of them, which then share
    one table; a sampler that fits only some of them is skipped for the others. A single name or number stands for a
    sequence of one. `progress`: whether progress is shown on stderr. The other arguments are described in
    `repro.evals.request.Request`. Raises ValueError for a checkpoint or setting that cannot be used, ConnectionError if
    the data of none of the tasks can be reached.
    """
    models = [ckpt] if isinstance(ckpt, str | Path | Model) else list(ckpt)
    if not models:
        raise ValueError("score: ckpt is empty; give a checkpoint")
    if out == "":
        raise ValueError("score: out is ''; give a folder, or leave it out")
    request = Request(
        samplers=_several(samplers, str),
        tasks=_several(tasks, str),
        tokens_per_step=_several(tokens_per_step, int | float | str),
        seeds=_several(seeds, int) or (),
        limit=limit,
        samples=samples,
        suite=suite,
        block_length=block_length,
        cache=cache,
        out=None if out is None else Path(out),
        batch=batch,
        corpus=None if corpus is None else str(corpus),
        estimator=estimator,
        shots=shots,
        template=template,
        lenient=len(models) > 1,
    )
    found, given = Results([]), {}
    for each in models:
        model, name = each if isinstance(each, Model) else load(each), _name(each)
        name_once(given, model, name)
        grid = prepare(model, request)
        which = f"{name}: " if len(models) > 1 else ""
        told = shown_progress(grid.model.recipe.name, len(grid.cells), which) if progress else Silent()
        records = grid.ordered(record for record, _ in told.follow(grid.run(told.chunk)))
        found += Results(records, grid.skipped, {model.digest: name})
    return found


def _name(ckpt: str | Path | Model) -> str:
    """What the user called a checkpoint; for a loaded model its run folder or, without one, the name of its recipe."""
    if not isinstance(ckpt, Model):
        return str(ckpt)
    return ckpt.recipe.name if ckpt.folder is None else str(ckpt.folder.parent)


def _several(given, single):  # type: ignore[no-untyped-def]
    """A sequence of one for a single value (an instance of `single`); sequences and None as they are."""
    return [given] if isinstance(given, single) else given
