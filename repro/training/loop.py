"""The one training loop. Methods differ in an objective; engines in where a step runs.

    train(recipe, seed=0, out=Path("runs/mdlm@nano"), stop=None, resume=False)

Row r of step s is data(s, r): a keyed permutation of the corpus an epoch, split over processes and microbatches in
order, so a resume needs no loader state. The loss of a step is a sum over rows with weights known beforehand; any split
gives one curve (up to rounding), and a resumed run is bitwise the uninterrupted one on one machine.

DIR holds recipe.json, metrics.jsonl (one row a logged step: step, loss, grad_norm, lr, ...) and step_*/ checkpoints.
"""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from repro.core import parts, rng
from repro.core.errors import Stopped
from repro.core.files import write_text
from repro.data.corpus import Corpus, Rows, prepared
from repro.models.denoiser import Denoiser, take
from repro.objectives.bound import attention_of, heldout_bound
from repro.objectives.objective import Batch, Distillation, Loss
from repro.training import checkpoint as checkpoints
from repro.training import teacher as teaching
from repro.training.engines import Engine, engine
from repro.training.engines.engine import Single
from repro.training.engines.options import PLAIN, Options
from repro.training.recipe import Recipe, TrainedTeacher
from repro.training.track import check, tracked

KEPT = 2
"""Checkpoints kept in a run folder."""
HELDOUT_PASSES = 4


class Order:
    """Which corpus row each row of a step is: `order(step) -> [batch]`."""

    def __init__(self, rows: int, batch: int, seed: int) -> None:
        self.rows, self.batch = rows, batch
        self.epoch = lru_cache(maxsize=2)(lambda epoch: rng.permutation(seed, rng.ORDER, epoch, rows))

    def __call__(self, step: int) -> np.ndarray:
        place = torch.arange(step * self.batch, (step + 1) * self.batch)
        epoch = place // self.rows
        chosen = [self.epoch(int(e))[place[epoch == e] % self.rows] for e in epoch.unique()]
        return torch.cat(chosen).numpy()


def microbatches(
    recipe: Recipe, corpus: Corpus, rows: np.ndarray, step: int, seed: int, made: Engine
) -> Iterator[tuple[Batch, bool]]:
    """This process's microbatches of a step, each with whether it is the last."""
    share = recipe.batch // made.world
    candidates = corpus.train.candidates[rows]
    examples = torch.from_numpy(np.asarray(corpus.train.example[rows])).to(made.device)
    counts = torch.from_numpy(candidates.sum(1).astype(np.int64)).to(made.device)
    where = torch.from_numpy(np.array(candidates)).to(made.device)
    vocabulary = recipe.data.vocabulary()
    size = min(recipe.micro_batch, share)
    for start in range(made.rank * share, (made.rank + 1) * share, size):
        here = slice(start, start + size)
        ids = torch.from_numpy(corpus.train.ids[rows[here]].astype(np.int64)).to(made.device)
        batch = Batch(
            ids=ids,
            candidates=torch.from_numpy(candidates[here]).to(made.device),
            attention=attention_of(ids, vocabulary),
            index=torch.arange(start, start + size, device=made.device),
            step=step,
            seed=seed,
            vocabulary=vocabulary,
            step_examples=examples,
            step_candidates=counts,
            step_where=where,
        )
        yield batch, start + size >= (made.rank + 1) * share


class Training:
    """A run between two steps; the engine holds the network, its masters and its optimizer."""

    def __init__(
        self,
        recipe: Recipe,
        corpus: Corpus,
        resolved: Mapping[str, str | int],
        seed: int,
        made: Engine,
        saved: checkpoints.Checkpoint | None,
    ) -> None:
        share, odd = divmod(recipe.batch, made.world)
        if odd or share % min(recipe.micro_batch, share):
            raise ValueError(
                f"batch {recipe.batch} does not split into {made.world} processes x microbatches of"
                f" {recipe.micro_batch}; choose micro_batch to divide batch/processes"
            )
        self.recipe, self.corpus, self.seed, self.engine = recipe, corpus, seed, made
        self.resolved = resolved
        self.order = Order(len(corpus.train), recipe.batch, seed)
        # what goes on fetches and trains nothing: all weights are in the checkpoint
        network = recipe.network(seed) if saved is None else recipe.blank_network()
        self.teacher = (
            None
            if recipe.teacher is None
            else teaching.teacher(recipe, network, made.device, saved, train_alone)
        )
        made.build(network, recipe)
        self.step = 0
        if saved is not None:
            made.restore(saved)
            self.step = saved.step

    def advance(self) -> dict[str, float | torch.Tensor]:
        """One optimizer step; returns what may be logged of it (tensors are read only when a row is written)."""
        recipe, made = self.recipe, self.engine
        if self.teacher is not None and teaching.renews(recipe, self.step):
            take(self.teacher, made.weights())
        rows = self.order(self.step)
        sums: dict[str, torch.Tensor] = {}
        for batch, last in microbatches(recipe, self.corpus, rows, self.step, self.seed, made):
            loss = made.run(lambda denoiser, batch=batch: self.loss(denoiser, batch), last)
            made.backward(loss.value, last)
            seen = {"loss": loss.value.detach(), "nll": loss.nll, "tokens": torch.tensor(float(loss.tokens))}
            for name, value in {**seen, **loss.logs}.items():
                sums[name] = sums.get(name, 0.0) + value.double().to(made.device)
        lr = recipe.optimizer.lr * recipe.learning_rate.factor(self.step, recipe.steps)
        norm = made.update(self.step, lr)
        self.step += 1
        return {**sums, "grad_norm": norm, "lr": lr}

    def loss(self, denoiser: Denoiser, batch: Batch) -> Loss:
        """The recipe's loss of one microbatch, inside the door."""
        denoiser.begin(rng.keys(batch.seed, rng.DROPOUT, batch.step, batch.index))
        objective, process = self.recipe.objective, self.recipe.process
        if self.teacher is None:
            return objective(denoiser, process, batch)
        assert isinstance(objective, Distillation)
        return objective.distil(denoiser, self.teacher, process, batch)

    def row(self, seen: dict[str, Any]) -> dict[str, float]:
        """A row of metrics.jsonl from what `advance` returned, summed over processes."""
        made = self.engine
        names = [n for n in seen if n not in ("grad_norm", "lr")]
        sums = dict(zip(names, made.sum(torch.stack([seen[n] for n in names])).tolist(), strict=True))
        row = {
            "step": self.step,
            "loss": sums.pop("loss"),
            "grad_norm": float(seen["grad_norm"]),
            "lr": seen["lr"],
        }
        row["nll"] = sums.pop("nll") / max(1.0, sums["tokens"])
        row["tokens"] = sums.pop("tokens")
        return row | {name: value / self.recipe.batch for name, value in sums.items()}

    def heldout(self) -> dict[str, float]:
        """Held-out bound of the raw weights on the first rows of the split (every process computes it alike)."""
        recipe = self.recipe
        split = self.corpus.heldout
        here = slice(recipe.heldout_rows)
        clusters = recipe.data.clusters(np.asarray(split.example[here]))
        some = Rows(split.ids[here], split.candidates[here], clusters)
        bound = heldout_bound(
            self.engine.door(),
            recipe.process,
            recipe.data.vocabulary(),
            some,
            passes=HELDOUT_PASSES,
            seed=self.seed,
        )
        return {"heldout_nll_bound": bound.value, "heldout_error": bound.error}

    def save(self, out: Path) -> None:
        """Write a checkpoint of this step (every process must ask); older ones than the last `KEPT` are removed."""
        scratch = out / ".shards"
        known = (self.recipe, self.seed, self.step, self.corpus.digest, self.resolved)
        try:
            files = dict(self.engine.files(scratch))
            if self.teacher is not None:
                files[teaching.FILE] = dict(self.teacher.named_parameters())
            if self.engine.first:
                checkpoints.save(out, *known, files)
                for old in checkpoints.steps_in(out)[:-KEPT]:
                    shutil.rmtree(old)
        finally:  # also when the disk is full: shards would keep it so
            if self.engine.first and scratch.exists():
                shutil.rmtree(scratch)
        self.engine.wait()

    def keep_for_replay(self, out: Path) -> Path:
        """Write what the last step was made of: recipe, seed, step, corpus rows; returns the file."""
        rows = self.order(self.step - 1)
        path = out / "fault.json"
        if self.engine.first:
            found = {
                "recipe": parts.canonical(self.recipe),
                "seed": self.seed,
                "step": self.step,
                "rows": rows.tolist(),
                "examples": np.asarray(self.corpus.train.example[rows]).tolist(),
            }
            write_text(path, json.dumps(found, indent=1) + "\n")
        return path


def train_alone(pinned: TrainedTeacher, folder: Path) -> None:
    """Train a teacher in this process, outside any group of processes, and save it in `folder`."""
    recipe = pinned.recipe
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    alone = SimpleNamespace(process_index=0, num_processes=1, device=device, wait_for_everyone=lambda: None)
    resolved = recipe.data.resolve()
    corpus = prepared(parts.derive(recipe.data, dict(resolved)))
    run = Training(recipe, corpus, resolved, pinned.seed, Single(cast(Any, alone), PLAIN), None)
    while run.step < pinned.steps:
        run.advance()
    run.save(folder)


def train(
    recipe: Recipe,
    *,
    seed: int,
    out: Path,
    stop: int | None,
    resume: bool,
    options: Options = PLAIN,
    track: str | None = None,
) -> Path:
    """Train up to `stop` steps (None: all of the recipe's) under the launcher's engine; returns the run folder.

    `options` and `track` (a tracker of accelerate's that gets the rows of metrics.jsonl too) move no number.
    Raises ValueError: the engine is not there; the recipe has no step `stop`; `out` holds a run and `resume` is off,
    or holds none (or another recipe's) and it is on; a second run writes there at this moment. ConnectionError: the
    data cannot be fetched. Stopped: SIGTERM came; the step at hand was finished and saved.
    """
    last = recipe.steps if stop is None else stop
    if not 1 <= last <= recipe.steps:
        raise ValueError(f"cannot stop at step {last}: {recipe.name} has steps 1 to {recipe.steps}")
    check(track)
    saved = _admit(recipe, seed, out, resume)
    if saved is not None and saved.step >= last:
        _Log(out / "metrics.jsonl", saved.step, True)  # a kill may have torn its last line
        return out
    resolved = recipe.data.resolve()
    corpus = prepared(parts.derive(recipe.data, dict(resolved)))
    if saved is not None and saved.corpus != corpus.digest:
        raise ValueError(f"{out} was trained on other data (digest {saved.corpus[:12]}); use a new --out")
    with (
        engine(options) as made,
        _alone(out, made),
        _progress(recipe.name, last, made) as tick,
        tracked(track, out, recipe, made.first) as send,
        _told() as told,
    ):
        run = Training(recipe, corpus, resolved, seed, made, saved)
        if saved is None and made.first:
            write_text(out / "recipe.json", json.dumps(parts.canonical(recipe), indent=1) + "\n")
        log = _Log(out / "metrics.jsonl", run.step, made.first)
        began = time.perf_counter()
        while run.step < last:
            seen = run.advance()
            tick(run.step, seen)
            due = run.step % recipe.heldout_every == 0 or run.step == recipe.steps
            stopping = run.step < last and made.any(told())
            saves = run.step % recipe.checkpoint_every == 0 or run.step == last or stopping
            if run.step % recipe.log_every == 0 or run.step == 1 or due or saves:
                row = run.row(seen)
                for name in ("loss", "grad_norm"):  # before any checkpoint: what is saved can be gone on with
                    if not math.isfinite(row[name]):
                        raise ValueError(
                            f"{recipe.name}: {name} is {row[name]} at step {run.step}; the last checkpoint stands,"
                            f" the step's rows are in {run.keep_for_replay(out)}"
                        )
                row["seconds"] = round(time.perf_counter() - began, 3)
                row |= run.heldout() if due else {}
                log.write(row)
                send(row)
            if saves:
                run.save(out)
            if stopping:
                raise Stopped(f"SIGTERM: saved step {run.step} of {last} in {out}; go on with --resume")
    return out


@contextlib.contextmanager
def _told() -> Generator[Callable[[], bool]]:
    """Whether SIGTERM came since; it is noted and no more, so that a step ends whole (main thread only)."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    try:
        yield lambda: bool(came)
    finally:
        signal.signal(signal.SIGTERM, before)


def _admit(recipe: Recipe, seed: int, out: Path, resume: bool) -> checkpoints.Checkpoint | None:
    """What is in `out` already, if it may be gone on with."""
    if not resume:
        if checkpoints.steps_in(out):
            raise ValueError(f"{out} holds a run already; go on with --resume or choose another --out")
        return None
    if not out.is_dir():
        raise ValueError(f"cannot resume: no folder {out}; give the --out of the run to go on with")
    saved = checkpoints.open_checkpoint(out)
    if saved.recipe.digest() != recipe.digest():
        raise ValueError(
            f"cannot resume: {out} holds {saved.recipe.name}, not this {recipe.name}; pins differ"
        )
    if saved.seed != seed:
        raise ValueError(f"cannot resume: {out} was trained with --seed {saved.seed}, not {seed}")
    return saved


@contextlib.contextmanager
def _alone(out: Path, made: Engine) -> Generator[None]:
    """Hold the run folder's lock (the first process does); a second run is refused at once."""
    if not made.first:
        yield
        return
    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / ".lock", timeout=0):
            yield
    except Timeout:
        raise ValueError(f"another run is writing to {out}; wait for it or choose another --out") from None


class _Log:
    """metrics.jsonl: rows after the checkpoint that is resumed are dropped, so each step has one row."""

    def __init__(self, path: Path, step: int, active: bool) -> None:
        self.path, self.active = path, active
        if active and path.exists():
            kept = [line for line in path.read_text("utf-8").splitlines() if _step(line) <= step]
            write_text(path, "".join(line + "\n" for line in kept))

    def write(self, row: dict[str, float]) -> None:
        if self.active:
            with open(self.path, "a", encoding="utf-8") as handle:
                handle.write(json.dumps(row) + "\n")


def _step(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (json.JSONDecodeError, KeyError):
        return math.inf  # the torn last line of a killed run


@contextlib.contextmanager
def _progress(name: str, last: int, made: Engine) -> Generator[Any]:
    """A bar with the loss and the time left, on a terminal and in the first process only."""
    if not (made.first and sys.stderr.isatty()):
        yield lambda step, seen: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("loss {task.fields[loss]}"), console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=last, loss="")

        def tick(step: int, seen: dict[str, Any]) -> None:
            if step % 10 == 0:
                bar.update(task, completed=step, loss=f"{float(seen['loss']) * made.world:.4f}")

        yield tick
