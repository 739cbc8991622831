"""Tasks on a model's own data and training run: log-likelihood of held-out rows (a bound for diffusion models, exact
for autoregressive ones; docs/method.md#metrics), and the curve of the training loss, read from the run's log."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from repro.core import rng
from repro.core.lazy import torch
from repro.core.parts import part
from repro.core.reading import convert
from repro.core.stats import perplexity
from repro.data.corpus import Rows, prepared
from repro.data.language import Language
from repro.evals.task import Answer, Ask, Task
from repro.evals.work_queue import WorkQueue, rows_per_chunk
from repro.evals.workload import Workload
from repro.model import Model

if TYPE_CHECKING:
    from repro.data.corpus import Vocabulary
    from repro.objectives.bound import Bound, Form


ESTIMATORS: dict[Form, str] = {
    "full": "process bound, stratified",
    "truncated": "integral of the bound over t in [.001, 1], without prior and tail, stratified",
}
"""Form of the bound -> field `estimator` of a record's protocol."""
SUFFIXES: dict[Form, str] = {"full": "_bound", "truncated": "_truncated"}
"""Form of the bound -> ending of the names of its metrics."""


def shared_bound(
    model: Model,
    vocabulary: Vocabulary,
    rows: Rows,
    work: WorkQueue,
    *,
    passes: int,
    seed: int,
    batch: int,
    form: Form = "full",
) -> Bound:
    """A model's upper bound on -log p of each of n rows of L ids of `vocabulary`, in nats (exact for an autoregressive
    model).

    `passes`: independent Monte Carlo passes, with the random seed `seed`; `batch`: rows per forward pass; `form`:
    "full", all terms of the bound, or "truncated", without prior and tail terms (`repro.objectives.bound`). The rows
    are split into chunks that several processes share through `work`; raises Busy while other processes compute chunks
    that are still missing.
    """
    from repro.models.denoiser import ForwardWrapper
    from repro.objectives.bound import bound_of, row_nll

    network, process = ForwardWrapper(model.denoiser), model.recipe.process

    def nll(chunk: range) -> list[list[float]]:
        part = slice(chunk.start, chunk.stop)
        return row_nll(
            network, process, vocabulary, rows, part, passes=passes, seed=seed, batch=batch, form=form
        ).tolist()

    def read(found: Any, chunk: range) -> np.ndarray:
        values = convert(found, list[list[float]], "the bounds of rows", "compute them again")
        if not values or any(len(each) != len(chunk) for each in values):
            raise ValueError(
                f"the stored chunk does not have, for each Monte Carlo pass, the bounds of {len(chunk)} rows"
            )
        return np.array(values)

    chunks = work.map_chunks(len(rows), rows_per_chunk(rows.ids.shape[1]), nll, read)
    work.join()
    return bound_of(rows, np.concatenate(chunks, axis=1))


@part
class HeldoutBound(Task):
    """Upper bound on -log p per token, in nats, of `rows` held-out rows of the model's data, from `passes` independent
    Monte Carlo passes; also the exact negative log-likelihood of these rows if the data is a synthetic language with
    known probabilities (oracle). Documents of the first `skip_rows` held-out rows are left out, because training is
    monitored on them."""

    rows: int
    skip_rows: int
    passes: int
    generates = False
    form: ClassVar[Literal["full", "truncated"]] = "full"

    def workload(self, model: Model, ask: Ask) -> Workload:
        return Workload.of_bound(self.rows, self.passes, model.data.row_length(), model).limited(ask.limit)

    def protocol(self) -> dict[str, Any]:
        return {
            "estimator": ESTIMATORS[self.form],
            "precision": "float32",
            "unit": "nats a candidate token",
        }

    def shared(self, model: Model, ask: Ask, work: WorkQueue) -> Answer:
        from repro.objectives.bound import BATCH

        data = model.data
        rows = self._rows(model, ask.at_most(self.rows))
        count, vocabulary = len(rows), data.vocabulary()
        batch = work.batch or BATCH
        bound = shared_bound(
            model, vocabulary, rows, work, passes=self.passes, seed=ask.seed, batch=batch, form=self.form
        )
        suffix = SUFFIXES[self.form]
        error = bound.error if math.isfinite(bound.error) else None  # rows of a single document
        metrics: dict[str, tuple[float, float | None, int]] = {
            f"nll{suffix}": (bound.value, error, count),
            f"ppl{suffix}": (perplexity(bound.value), error and perplexity(bound.value) * error, count),
        }
        if isinstance(data, Language):
            exact = -data.hmm().log_likelihood(torch.from_numpy(rows.ids.astype(np.int64))).numpy()
            gap, gap_error = bound.gap(exact)
            value = float(exact.sum() / bound.tokens.sum())
            spread = float(exact.std(ddof=1) / math.sqrt(count) / data.row_length()) if count > 1 else None
            metrics["nll_exact"] = (value, spread, count)
            metrics["gap"] = (gap, gap_error, count)
        return Answer(metrics)

    def _rows(self, model: Model, count: int) -> Rows:
        """`count` held-out rows, a random choice with a fixed random key, from documents that the bound computed during
        training does not use.

        ValueError if there are fewer such rows, or if the data is not the version that the model was trained on.
        """
        split, clusters, fresh = self._fresh(model)
        if count > len(fresh):
            raise ValueError(
                f"task {self.name!r} needs {count} held-out rows, but the data has {len(fresh)}; give a smaller --limit"
            )
        order = rng.permutation(0, rng.QUOTED, 0, len(fresh)).numpy()[:count]
        chosen = np.sort(fresh[order])
        return Rows(split.ids[chosen], split.candidates[chosen], clusters[chosen])

    def _fresh(self, model: Model) -> tuple[Rows, np.ndarray, np.ndarray]:
        """(n held-out rows; number of the document that each is from, [n]; indices of the rows from documents that the
        bound computed during training does not use). ValueError if the data is not that on which the model was
        trained."""
        corpus = prepared(model.data)
        if model.corpus is not None and corpus.digest != model.corpus:
            raise ValueError(
                f"the model was trained on other data (digest {model.corpus[:12]}; the data here has"
                f" {corpus.digest[:12]}); use the version of the data that the model was trained on"
            )
        split = corpus.heldout
        clusters = model.data.clusters(np.asarray(split.example))
        return split, clusters, np.flatnonzero(~np.isin(clusters, clusters[: self.skip_rows]))


@part
class HeldoutBoundUpTo(HeldoutBound):
    """Upper bound on -log p per token, in nats, of `rows` held-out rows or, where the data has fewer, of all of them:
    for a user's own data, of any size. The standard error is left out where all rows are from one document. All other
    fields are those of `HeldoutBound`."""

    def _rows(self, model: Model, count: int) -> Rows:
        return super()._rows(model, min(count, len(self._fresh(model)[2])))


@part
class TruncatedBound(HeldoutBound):
    """Upper bound on -log p per token, in nats, of `rows` held-out rows, without its terms for t = 1 (prior) and for
    times below the smallest integrated one (tail), as published perplexities of MDLM and Duo are computed: no longer a
    bound, and lower by about .001 nats per token (docs/method.md#mdlm). All other fields are those of
    `HeldoutBound`."""

    form = "truncated"

    def skip(self, model: Model) -> str | None:
        return no_terms(model)


def no_terms(model: Model) -> str | None:
    """Reason, as a clause, why a model has no truncated bound (without prior and tail terms); None if it has one."""
    return "its likelihood is exact and has no prior or tail term" if model.recipe.process.exact else None


@part
class TrainingCurve(Task):
    """Training loss (at most `points` points) and held-out bound by training step, as logged in the run's
    metrics.jsonl. A point of the loss is the mean over a block of consecutive logged steps. The metric `loss` is the
    last point; its `n` is the number of logged steps of the whole curve."""

    points: int
    generates = False

    def skip(self, model: Model) -> str | None:
        if model.folder is None:
            return "this model has no run folder with a training log"
        known = (model.folder.parent / "metrics.jsonl").is_file()
        return None if known else "the run folder has no metrics.jsonl, the log of training"

    def workload(self, model: Model, ask: Ask) -> Workload:
        return Workload.of_rows(0, 0, 1)

    def protocol(self) -> dict[str, Any]:
        return {"loss": "mean over blocks of logged steps", "objective": "as in the recipe"}

    def answer(self, model: Model, ask: Ask) -> Answer:
        assert model.folder is not None
        path = model.folder.parent / "metrics.jsonl"
        try:
            rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path} has a broken line ({error}); run the training command with --resume, which repairs its log"
            ) from None
        rows = [row for row in rows if row["step"] <= model.step]
        blocks = np.array_split(np.arange(len(rows)), min(self.points, len(rows)))
        curve = {
            "step": [float(rows[b[-1]]["step"]) for b in blocks],
            "loss": [float(np.mean([rows[i]["loss"] for i in b])) for b in blocks],
        }
        heldout = [row for row in rows if "heldout_nll_bound" in row]
        if heldout:
            curve["heldout_step"] = [float(row["step"]) for row in heldout]
            curve["nll_bound"] = [row["heldout_nll_bound"] for row in heldout]
        return Answer({"loss": (curve["loss"][-1], None, len(rows))}, curve=curve)
