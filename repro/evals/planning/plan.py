"""Cost plans: the estimated cost of a request, as forwards, tokens forwarded and hours of each evaluation.

    python -m repro.evals plan --ckpt GSAI-ML/LLaDA-8B-Instruct --suite fast_dllm
    python -m repro.evals plan --device a100 --suite duo_owt   # for the checkpoint that the suite belongs to
    python -m repro.evals plan --device cpu --ckpt runs/mdlm@nano-s0

No weights are loaded and no model is run. Forwards are an upper bound, since a sampler may finish early.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn, cast

from repro.core.cli import width
from repro.core.columns import columns
from repro.core.errors import nearest
from repro.data.released import Released
from repro.evals.batch_size import MOST, rows_at_once
from repro.evals.planning.device import Device, device, flops, seconds
from repro.evals.planning.judging import Reading, readings
from repro.evals.request import Request, lay_out
from repro.evals.runner import Cell, Skip
from repro.evals.table import UNBOUNDED
from repro.evals.task import Task
from repro.evals.text_quality.quality import TextQualityTask
from repro.evals.workload import Workload
from repro.hub.catalogue import Entry, known, read
from repro.hub.dit import ALPHA_END
from repro.hub.release import Release, is_release, open_release
from repro.model import Model, chat_template, local_folder
from repro.models.backbone import Size
from repro.processes.absorbing import Absorbing
from repro.processes.left_to_right import LeftToRight
from repro.processes.process import Process
from repro.processes.uniform import Uniform
from repro.training.checkpoint import open_checkpoint
from repro.training.cost import UTILISATION
from repro.training.exporting import is_export, open_export

if TYPE_CHECKING:
    from repro.model import Precision
    from repro.models.backbone import Backbone
    from repro.models.denoiser import Denoiser

LENGTH = 1024
"""Assumed maximum number of tokens per row of a released checkpoint whose entry in evals/checkpoints.toml has none."""


class Unloaded:
    """Stub in place of a network, for cost plans.

    It has two attributes, and any other raises ValueError. `supports_kv_cache`: assumed to be true;
    `required_block_size`: the only block length that the network can decode with (None: any).
    """

    supports_kv_cache = True

    def __init__(self, required_block_size: int | None) -> None:
        self.required_block_size = required_block_size

    def __getattr__(self, name: str) -> NoReturn:
        raise ValueError(
            f"the cost of this suite depends on {name!r} of the network, which a plan does not load; evaluate without"
            " `plan`"
        )


@dataclass(frozen=True, kw_only=True)
class Line:
    """Estimated cost of one evaluation; None where unknown.

    `forwards` and `token_forwards` (tokens through the network in all forwards) are per item; `flops` and `hours` are
    totals of all `items`. `batch`: rows per forward; `steps`: decoding steps; `assumed`: assumptions as sentences.
    """

    task: str
    preset: str | None
    steps: int | None
    seed: int
    items: int | None = None
    forwards: float | None = None
    token_forwards: float | None = None
    batch: int | None = None
    flops: float | None = None
    hours: float | None = None
    assumed: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Cost plan of a request: its evaluations in order (`cells`), the cost of each (`lines`), what is skipped, and what
    the judges, language models that score text, read (`judged`). The hours of judges are not part of `lines`."""

    checkpoint: str
    suite: str
    device: Device
    cells: list[Cell]
    lines: list[Line]
    skipped: list[Skip]
    judged: list[Reading]

    @property
    def hours(self) -> float:
        """Total estimated hours of the evaluations of known cost."""
        return sum(line.hours or 0.0 for line in self.lines)

    @property
    def unknown(self) -> int:
        """Number of evaluations of unknown cost."""
        return sum(line.hours is None for line in self.lines)


def plan(ckpt: str | None, request: Request, on: str, precision: Precision = "float32") -> Plan:
    """Estimated cost of an evaluation request for the checkpoint `ckpt`, with weights in `precision`, on the device
    named `on`.

    `ckpt` None: the released checkpoint that the request's suite belongs to. Raises ValueError for an unknown
    checkpoint, suite or device, and for a precision that the checkpoint cannot have.
    """
    name = _for(request) if ckpt is None else ckpt
    if precision != "float32" and not released(name):
        raise ValueError(f"{name} holds no released weights; leave out --precision {precision}")
    return of(*subject(name), request, device(on, precision))


def released(ckpt: str) -> bool:
    """Whether `ckpt` is a folder or GGUF file of released weights or is listed in evals/checkpoints.toml; only for such
    a checkpoint can --precision be chosen, as networks trained by this suite run in float32."""
    folder = local_folder(ckpt)
    if folder.exists():
        return is_release(folder)
    return known(ckpt) is not None


def of(model: Model, network: Size | None, request: Request, machine: Device) -> Plan:
    """Estimated cost of an evaluation request for a model on the device `machine`; `network` is the size of its network
    (None: unknown)."""
    suite, cells, skipped = lay_out(model, request, _reason)
    lines = [
        _line(cell, cell.task.workload(model, cell.ask), network, machine, request.batch) for cell in cells
    ]
    return Plan(
        checkpoint=model.recipe.name,
        suite=suite.name,
        device=machine,
        cells=cells,
        lines=lines,
        skipped=skipped,
        judged=list(readings(model, cells, machine)),
    )


def _reason(task: Task, model: Model) -> str | None:
    """Reason why a task is skipped, or None. Tasks that score text are never skipped here, since a scoring model that
    is missing on this machine can still be downloaded."""
    return None if isinstance(task, TextQualityTask) else task.skip(model)


def _for(request: Request) -> str:
    """Name of the one released checkpoint whose entry in evals/checkpoints.toml lists the request's suite; ValueError
    if there is none or more than one."""
    if request.suite is None:
        raise ValueError("no checkpoint given; give --ckpt, or a --suite of a released checkpoint")
    found = [each.name for each in read().values() if request.suite in each.suites]
    if len(found) != 1:
        suites = {suite for each in read().values() for suite in each.suites}
        raise ValueError(
            f"suite {request.suite!r} belongs to no single released checkpoint; give --ckpt, or a suite that does:"
            f" {nearest(request.suite, suites)}"
        )
    return found[0]


def subject(ckpt: str) -> tuple[Model, Size | None]:
    """Stub model of a checkpoint for cost plans, and the size of its network (None: unknown); reads no weights. `ckpt`:
    as `--ckpt`, but of names on the Hub only those in evals/checkpoints.toml."""
    folder = local_folder(ckpt)
    entry = known(ckpt)
    if entry is not None and not folder.exists():
        return listed(entry)
    denoiser = cast("Denoiser", Unloaded(None))
    if is_export(folder):
        exported = open_export(folder)
        run = (exported.seed, exported.step, exported.data, exported.corpus, None)
        model = Model(exported.made, denoiser, exported.weights, "", *run)
    elif is_release(folder):
        release = open_release(folder, template=chat_template(folder.resolve().name, "auto")).release
        denoiser = cast("Denoiser", Unloaded(release.backbone.required_block_size()))
        model = Model(release, denoiser, "raw", "", 0, 0, release.data, None, None)
    elif ckpt.startswith("oracle:"):
        from repro.recipes.scale import by_name

        recipe = by_name(ckpt)
        return Model(recipe, denoiser, "exact", "", 0, 0, recipe.data, None, None), None
    else:
        found = open_checkpoint(folder)
        run = (found.seed, found.step, found.data, found.corpus, found.folder)
        model = Model(found.recipe, denoiser, "raw", "", *run)
    return model, model.recipe.backbone.size(model.data)


def listed(entry: Entry) -> tuple[Model, Size | None]:
    """Stub model of a released checkpoint, and the size of its network (None: unknown), from its entry in
    evals/checkpoints.toml alone."""
    shape, parameters = entry.shape, entry.parameters
    unknown = shape is None or parameters == "unknown"
    return unloaded(entry), None if unknown else shape.size(parameters)


def unloaded(entry: Entry) -> Model:
    """Stub model of a released checkpoint as its entry in evals/checkpoints.toml describes it, without network and
    tokenizer."""
    length = LENGTH if entry.length == "unknown" else entry.length
    total = entry.shape.vocabulary if entry.shape is not None else 1
    data = Released(
        tokenizer_sha256="",
        size=total - (entry.mask == "last"),
        total=total,
        mask=total - 1 if entry.mask == "last" else _id(entry.mask),
        bos=None,
        eos=_id(entry.eos),
        pad=_id(entry.pad),
        length=length,
    )
    process = _process(entry)
    release = Release(
        name=entry.folder,
        data=data,
        backbone=cast("Backbone", Unloaded(None)),
        process=process,
        meaning="x0_mean" if entry.meaning == "unknown" else entry.meaning,
        score="unknown",
        suite="released",
    )
    return Model(release, cast("Denoiser", Unloaded(None)), "raw", "", 0, 0, data, None, None)


def _process(entry: Entry) -> Process:
    processes: dict[str, Process] = {
        "absorbing": Absorbing(),
        "uniform": Uniform(alpha_end=ALPHA_END, eps=ALPHA_END),
        "left_to_right": LeftToRight(),
    }
    if entry.process not in processes:
        raise ValueError(
            f"there is no cost plan for the noise process {entry.process} of {entry.name}, only for"
            f" {', '.join(processes)}; evaluate it without `plan`"
        )
    return processes[entry.process]


def _id(value: int | str) -> int | None:
    return value if isinstance(value, int) else None


def _line(
    cell: Cell, workload: Workload | None, network: Size | None, machine: Device, most: int | None
) -> Line:
    """The line of a plan, with estimated forward passes and hours, for an evaluation (`cell`, whose work is `workload`)
    on `machine`, with at most `most` rows in one forward pass (None: what fits the memory). Where `workload` or
    `network` is unknown (None), the line says so in place of an estimate."""
    line = Line(
        task=cell.task.name,
        preset=cell.preset,
        steps=None if cell.ask.plan is None else cell.ask.plan.steps,
        seed=cell.ask.seed,
    )
    if workload is None:
        return line
    counts = {"items": workload.items, "forwards": workload.forwards, "token_forwards": workload.tokens}
    line = replace(line, **counts, assumed=workload.assumed)
    if workload.forwards == 0:
        return replace(line, flops=0.0, hours=0.0)
    if workload.items is None or network is None:
        return line
    free = max(0.0, machine.memory - network.parameters * machine.weight)
    batch = min(rows_at_once(workload, network, free, machine.value), max(1, workload.items), most or MOST)
    return replace(
        line,
        batch=batch,
        flops=flops(workload, network) * workload.items,
        hours=seconds(workload, network, machine, batch) * workload.items / 3600,
    )


def data(found: Plan) -> dict[str, Any]:
    """The cost plan as the plain JSON that `--json` prints: total hours, assumptions, the cost of each evaluation, what
    is skipped, and what judges (language models that score text) read."""
    return {
        "checkpoint": found.checkpoint,
        "suite": found.suite,
        "device": found.device.name,
        "hours": found.hours,
        "questions_of_unknown_cost": found.unknown,
        "assumed": list(assumptions(found)),
        "questions": [asdict(line) for line in found.lines],
        "skipped": [vars(skip) for skip in found.skipped],
        "judges": [asdict(reading) for reading in found.judged],
    }


def assumptions(found: Plan) -> Iterator[str]:
    """Sentences that state the assumptions behind the estimated hours."""
    machine = found.device
    yield (
        f"{machine.flops / 1e12:.3g} TFLOP/s and {machine.bandwidth / 1e12:.3g} TB/s,"
        f" {UTILISATION:.0%} of either reached"
    )
    yield "batches that fit the memory; tokenisation and loading not counted, judges apart; no early stop"
    yield "lengths of lm-eval's prompts and answers as estimated in evals/tasks/sizes.toml"
    yield from dict.fromkeys(each for line in found.lines for each in line.assumed)


def text(found: Plan) -> Iterator[str]:
    """The cost plan as lines of text: a table with one row per evaluation, skips, the total and the assumptions."""
    yield f"{found.checkpoint}, suite {found.suite}: plan for {found.device.name}"
    heads = ("task", "preset", "steps", "items", "NFE", "token-forwards", "batch", "hours")
    rows = [heads, *(_shown(line) for line in found.lines)]
    yield from columns(rows, names=(0, 1), right=range(2, len(heads)), room=width(UNBOUNDED))
    for skip in found.skipped:
        yield f"skipped {skip.what}: {skip.reason}"
    unknown = f", {found.unknown} of unknown cost" if found.unknown else ""
    yield f"{len(found.lines)} evaluations{unknown}: {found.hours:.3g} hours" + (
        " at least" if unknown else ""
    )
    yield from map(str, found.judged)
    for line in assumptions(found):
        yield f"assumed: {line}"


def _shown(line: Line) -> Sequence[str]:
    return (
        line.task,
        line.preset or "",
        "" if line.steps is None else str(line.steps),
        "?" if line.items is None else f"{line.items:,}",
        "?" if line.forwards is None else f"{line.forwards:,.4g}",
        "?" if line.token_forwards is None else f"{line.token_forwards:,.4g}",
        "" if line.batch is None else str(line.batch),
        "?" if line.hours is None else f"{line.hours:.3g}",
    )
