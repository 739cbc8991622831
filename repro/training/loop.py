"""The training loop of all methods: the recipe's objective defines the loss; an engine (`repro.training.engines`) runs
a step in one process or many.

    train(recipe, seed=0, out=Path("runs/mdlm@nano"), stop=None, resume=False)

The rows of a step are a function of seed and step number: each epoch is a pseudo-random permutation of the corpus,
split in order over processes and microbatches, so that resuming needs no data-loader state. The loss of a step is a sum
over rows with weights that are known before the forward pass. Any split into processes and microbatches therefore gives
the same loss curve up to rounding, and on one machine a resumed run is bitwise equal to an uninterrupted one.

The run folder holds recipe.json, metrics.jsonl (one row per logged step: step, loss, grad_norm, lr, ...) and the
checkpoints step_*/.
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

from repro.core import parts, rng
from repro.core.cli import first
from repro.core.devices import device
from repro.core.errors import Stopped
from repro.core.files import lacks_locks, remove, write_text
from repro.data.corpus import Corpus, Rows, prepared
from repro.models.denoiser import Denoiser, copy_weights
from repro.objectives.bound import attention_of, heldout_bound
from repro.objectives.objective import Batch, Distillation, Loss
from repro.training import checkpoint as checkpoints
from repro.training import teacher as teaching
from repro.training.engines import Engine, bfloat16, engine
from repro.training.engines.engine import Single
from repro.training.engines.options import PLAIN, Options
from repro.training.metrics import MetricsLog, check_tracker, progress, tracker
from repro.training.recipe import Recipe, TrainedTeacher
from repro.training.resuming import checkpoint_to_resume

CHECKPOINTS = 2
"""Number of checkpoints that a run folder holds; older ones are deleted."""
SHARDS = ".shards"
"""Folder within a run folder where engines that shard put the files of a checkpoint together."""
HELDOUT_PASSES = 4
"""Number of Monte Carlo draws per row of the held-out likelihood bound (`repro.objectives.bound`)."""


class Order:
    """Callable: step number (from 0) -> indices [batch] int64 of the step's training rows, from 0 to `rows` - 1.

    Each epoch is a permutation of the `rows` training rows, determined by `seed` and the epoch's number.
    """

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
    """This process's microbatches of optimizer step `step`: (batch, whether it is this process's last one of the step).

    `rows`: indices [batch] of the step's training rows over all processes; `made`: the engine.
    """
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
    """State of a training run. `made`: the engine, which holds network, master weights and optimizer; `corpus`: the
    prepared training data; `resolved`: dotted path -> value of the data's settings that are UNRESOLVED in the recipe;
    `saved`: checkpoint to resume, None for a new run.

    Raises ValueError if the batch does not split evenly into processes and microbatches.
    """

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
                f" {recipe.micro_batch}; set micro_batch to a divisor of batch/processes"
            )
        self.recipe, self.corpus, self.seed, self.engine = recipe, corpus, seed, made
        self.resolved = resolved
        self.order = Order(len(corpus.train), recipe.batch, seed)
        # a resumed run trains no teacher and fetches no weights but frozen ones: the others are in the checkpoint
        network = recipe.network(seed) if saved is None else recipe.resumed_network()
        if saved is not None:
            saved.check_base(network)
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
        """Take one optimizer step; returns metric name -> its sum over this process's microbatches, with "lr" and
        "grad_norm".

        The sums are tensors on the device, which `row` reads: to read them here would wait for the device.
        """
        recipe, made = self.recipe, self.engine
        if self.teacher is not None and _distillation(recipe).renews(self.step):
            copy_weights(dict(self.teacher.named_parameters()), made.weights(), "student")
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
        """The recipe's loss of one microbatch; runs inside the forward of the engine's wrapped network."""
        denoiser.set_dropout_keys(rng.keys(batch.seed, rng.DROPOUT, batch.step, batch.index))
        objective, process = self.recipe.objective, self.recipe.process
        if self.teacher is None:
            return objective(denoiser, process, batch)
        return _distillation(self.recipe).distil(denoiser, self.teacher, process, batch)

    def row(self, seen: dict[str, Any]) -> dict[str, float]:
        """The row of metrics.jsonl for the last step; `seen`: what `advance` returned for this step (a collective
        operation: all processes call it).

        "loss" is the step's loss, "nll" nats per scored token, "tokens" their number; further metrics of the objective
        are means over the step's rows.
        """
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
        """The raw weights' bound on the negative log-likelihood of the first `heldout_rows` held-out rows, in nats per
        token, as "heldout_nll_bound", and its standard error as "heldout_error" (left out if all rows are from one
        document). Every process computes both on all of these rows."""
        recipe = self.recipe
        split = self.corpus.heldout
        here = slice(recipe.heldout_rows)
        clusters = recipe.data.clusters(np.asarray(split.example[here]))
        some = Rows(split.ids[here], split.candidates[here], clusters)
        bound = heldout_bound(
            self.engine.forward_wrapper(),
            recipe.process,
            recipe.data.vocabulary(),
            some,
            passes=HELDOUT_PASSES,
            seed=self.seed,
        )
        found = {"heldout_nll_bound": bound.value, "heldout_error": bound.error}
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def save(self, out: Path) -> None:
        """Write a checkpoint of the current step into the run folder `out`, and delete all but the last two (a
        collective operation: all processes call it)."""
        scratch = out / SHARDS
        known = (self.recipe, self.seed, self.step, self.corpus.digest, self.resolved)
        try:
            files = dict(self.engine.files(scratch))
            if self.teacher is not None:
                files[teaching.FILE] = dict(self.teacher.named_parameters())
            if self.engine.first:
                base = self.engine.forward_wrapper().denoiser.base_digest
                checkpoints.save(out, *known, files, base)
                for old in checkpoints.steps_in(out)[:-CHECKPOINTS]:
                    remove(old)
        finally:  # also after an error: a full disk would stay full
            if self.engine.first and scratch.exists():
                shutil.rmtree(scratch)
        self.engine.wait()

    def write_fault(self, out: Path) -> Path:
        """Write fault.json into `out`, with what is needed to repeat the last step (recipe, seed, step, rows); returns
        its path."""
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


def _distillation(recipe: Recipe) -> Distillation:
    assert isinstance(recipe.objective, Distillation), "a recipe with a teacher has such an objective"
    return recipe.objective


def train_alone(pinned: TrainedTeacher, folder: Path) -> None:
    """Train `pinned`, the teacher of a distillation, by its own recipe in this process alone, and save its last
    checkpoint in `folder`."""
    recipe = pinned.recipe
    where = torch.device("cuda" if device().startswith("cuda") else "cpu")
    alone = SimpleNamespace(process_index=0, num_processes=1, device=where, wait_for_everyone=lambda: None)
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
    shown: bool = False,
) -> Path:
    """Train a recipe up to step `stop` (None: its last step) on the training engine (a single device, DDP, ZeRO-2
    or FSDP2) that `accelerate launch`, or another launcher, sets in the environment.

    Returns the run folder, which is `out`. `resume`: continue from the last checkpoint in `out`; `options`: how layers
    run; `track`: name of a metrics tracker (`repro.training.metrics`); `shown`: whether progress is printed on stderr.
    `options`, `track` and `shown` change no result beyond rounding. Raises ValueError if the engine is not available,
    if the recipe has no step `stop`, if `out` holds a run and `resume` is false, if `resume` is true and `out` holds no
    run that this recipe, seed and data continue (`repro.training.resuming`), if another run writes to `out`, or if a
    loss is not finite; ConnectionError if the data cannot be fetched; Stopped after SIGTERM, when the current step has
    been finished and saved.
    """
    last = recipe.steps if stop is None else stop
    if not 1 <= last <= recipe.steps:
        raise ValueError(
            f"cannot stop at step {last}: {recipe.name} has steps 1 to {recipe.steps}; give --steps in this range"
        )
    check_tracker(track)
    saved = checkpoint_to_resume(recipe, seed, out, resume)
    if saved is not None and saved.step >= last:
        with _locked(out, first()):
            MetricsLog(out / "metrics.jsonl", saved.step, first())  # drops the last line of a killed run
            shutil.rmtree(out / SHARDS, ignore_errors=True)
        return out
    resolved = recipe.data.resolve()
    corpus = prepared(parts.derive(recipe.data, dict(resolved)))
    if saved is not None and saved.corpus != corpus.digest:
        raise ValueError(
            f"{out} was trained on other data (digest {saved.corpus[:12]}, now {corpus.digest[:12]}); restore the data,"
            " or use a new --out"
        )
    with (
        engine(options) as made,
        _locked(out, made.first),
        progress(recipe.name, last, made.first and shown) as show,
        tracker(track, out, recipe, made.first) as send,
        _sigterm() as sigterm_came,
    ):
        said = bfloat16.note(recipe.precision, made.device) if made.first else None
        if said is not None:
            print(said, file=sys.stderr)
        run = Training(recipe, corpus, resolved, seed, made, saved)
        if made.first and (saved is None or saved.recipe != recipe):
            write_text(out / "recipe.json", json.dumps(parts.canonical(recipe), indent=1) + "\n")
        log = MetricsLog(out / "metrics.jsonl", run.step, made.first)
        began = time.perf_counter()
        while run.step < last:
            seen = run.advance()
            show.step(run.step, lambda seen=seen: float(seen["loss"]) * made.world)
            due = run.step % recipe.heldout_every == 0 or run.step == recipe.steps
            stopping = run.step < last and made.any(sigterm_came())
            saves = run.step % recipe.checkpoint_every == 0 or run.step == last or stopping
            if run.step % recipe.log_every == 0 or run.step == 1 or due or saves:
                row = run.row(seen)
                for name in (
                    "loss",
                    "grad_norm",
                ):  # before any checkpoint, so that every checkpoint can be resumed
                    if not math.isfinite(row[name]):
                        raise ValueError(
                            f"{recipe.name}: {name} is {row[name]} at step {run.step}; try a lower learning rate in a"
                            f" new run (checkpoints are intact; this step's rows are in {run.write_fault(out)})"
                        )
                row["seconds"] = round(time.perf_counter() - began, 3)
                row |= run.heldout() if due else {}
                log.write(row)
                send(row)
                show.row(row)
            if saves:
                run.save(out)
            if stopping:
                raise Stopped(f"SIGTERM: saved step {run.step} of {last} in {out}; go on with --resume")
    return out


@contextlib.contextmanager
def _sigterm() -> Generator[Callable[[], bool]]:
    """Context manager that yields a function that returns whether SIGTERM has been received within the context.

    The signal only sets a flag, so that the current step is finished. Outside the main thread signals cannot be
    handled, and the function always returns False.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    try:
        yield lambda: bool(came)
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _locked(out: Path, writes: bool) -> Generator[None]:
    """Context manager that holds the lock of the run folder `out` if `writes`, which is true in the process that writes
    there. ValueError, without waiting, if another run holds the lock. Where the file system has no locks, another run
    is not noticed."""
    if not writes:
        yield
        return
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(f"another run is writing to {out}; wait for it or choose another --out") from None
    except OSError as error:
        if not lacks_locks(error):
            raise
    try:
        yield
    finally:
        lock.release()
