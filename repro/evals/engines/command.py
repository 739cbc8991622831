"""Command lines about engines (programs that decode): scoring one (`python -m repro.evals --engine openai:URL`), and
comparing two (`repro engine-check A B`)."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro.core.cli import Parser, add_chat_template, first, natural, positive, run, say
from repro.core.reading import parse_json
from repro.evals.engines.http import KEY, Limits

if TYPE_CHECKING:
    from repro.evals.engines.engine import Engine
    from repro.evals.engines.findings import Finding

PROG = "python -m repro.evals"


def engine_parser() -> Parser:
    """Parser of `python -m repro.evals --engine openai:URL`, which scores a server on tasks of lm-eval."""
    parser = Parser(
        f"{PROG} --engine",
        "Score a model behind an OpenAI-compatible server (vLLM, SGLang, llama.cpp) on tasks of lm-eval.\n"
        f"An API key is read from the environment variable {KEY} and never stored.",
        [
            f"{PROG} --engine openai:http://localhost:8000/v1 --tasks gsm8k --limit 100",
            f"{PROG} --engine openai:http://localhost:8000/v1 --model NAME --api chat --tasks ifeval",
        ],
    )
    parser.add_argument("--engine", required=True, help="openai:URL, with the server's address ending in /v1")
    parser.add_argument("--model", help="model that requests name (default: the server's only one)")
    parser.add_argument(
        "--api",
        choices=["completions", "chat"],
        default="completions",
        help="completions: prompts as they are (default); chat: the server applies its chat template",
    )
    parser.add_argument(
        "--tasks", required=True, help="tasks of lm-eval or YAML files of yours, separated by ','"
    )
    parser.add_argument("--shots", type=natural, help="few-shot examples (default: the task's)")
    parser.add_argument(
        "--tokenizer",
        metavar="NAME",
        help="for tasks that score whole texts: the engine's tokenizer, a folder or OWNER/NAME on the Hub",
    )
    parser.add_argument(
        "--max-length",
        type=positive,
        help="for tasks that score whole texts: tokens that the engine's context holds (default: what the server says)",
    )
    parser.add_argument("--limit", type=natural, help="largest number of items per task")
    parser.add_argument(
        "--seeds",
        type=lambda text: [natural(each) for each in text.split(",")],
        default=[0],
        help="seeds of drawn texts, separated by ','",
    )
    parser.add_argument("--out", type=Path, help="records go to OUT/raw (default: runs/engines/raw)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    _add_requests(parser)
    return parser


def check_parser() -> Parser:
    """Parser of `engine-check`, which compares two engines."""
    parser = Parser(
        f"{PROG} engine-check",
        "Compare two engines, or an engine and our own decoding: tokens at temperature 0, order and batch, stop rule,"
        " template, answers, log-probabilities, law of draws. Exit code 1 if they differ.",
        [
            f"{PROG} engine-check openai:http://localhost:8000/v1 openai:http://localhost:8001/v1",
            f"{PROG} engine-check openai:http://localhost:8000/v1 smollm2 --chat-template own --tolerance 0.5",
        ],
    )
    parser.add_argument("a", help="openai:URL, or a left-to-right checkpoint (folder, name or GGUF file)")
    parser.add_argument("b", help="as A; what A is compared with")
    parser.add_argument("--model-a", help="model of A that requests name (default: the server's only one)")
    parser.add_argument("--model-b", help="model of B that requests name (default: the server's only one)")
    parser.add_argument(
        "--prompts",
        type=Path,
        metavar="FILE",
        help='JSON Lines of {"prompt": TEXT} or {"prompt": TEXT, "answer": TEXT} (default: 16 short prompts)',
    )
    parser.add_argument("--length", type=positive, default=24, help="most tokens of a text (default 24)")
    parser.add_argument(
        "--tolerance",
        type=_positive,
        default=0.005,
        help="largest accepted difference of a log-probability, in nats (default 0.005: for equal precision)",
    )
    parser.add_argument(
        "--margin",
        type=_share,
        default=0.2,
        help="largest accepted share of texts that differ, or difference in accuracy (default 0.2)",
    )
    parser.add_argument(
        "--draws",
        type=natural,
        default=200,
        help="draws per prompt for the test of the sampling distribution; 0 leaves it out (default 200)",
    )
    parser.add_argument(
        "--precision",
        choices=["float32", "bfloat16"],
        default="float32",
        help="precision of a checkpoint of released weights (default float32)",
    )
    add_chat_template(parser)
    parser.add_argument("--device", help="where a checkpoint runs: cuda, mps or cpu")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    _add_requests(parser)
    return parser


def _add_requests(parser: Parser) -> None:
    """Add the flags that say how requests to a server are made: how many at once, time-out, further fields."""
    parser.add_argument(
        "--concurrency",
        type=positive,
        default=Limits.concurrency,
        help=f"requests at once (default {Limits.concurrency})",
    )
    parser.add_argument(
        "--timeout",
        type=_positive,
        default=Limits.timeout,
        help=f"seconds without an answer before a request is tried again (default {Limits.timeout:g})",
    )
    parser.add_argument(
        "--extra",
        type=_extra,
        default={},
        metavar="JSON",
        help='further fields of every request, for example \'{"top_k": 0, "min_p": 0}\'',
    )


def score(argv: Sequence[str]) -> int:
    """Run `python -m repro.evals` with arguments `argv` that name an engine: score it on tasks and print a table or
    JSON; returns the exit status."""
    args = engine_parser().parse_args(argv)
    from repro.evals.engines.openai import connect
    from repro.evals.engines.request import EngineRequest, prepare
    from repro.evals.progress import progress
    from repro.evals.results import Results

    tasks = [each for each in args.tasks.split(",") if each]
    request = EngineRequest(
        tasks, args.api, args.shots, args.seeds, args.limit, args.out, args.tokenizer, args.max_length
    )
    grid = prepare(connect(args.engine, args.model, _limits(args), args.extra), request)
    shown = progress(grid.name, len(grid.cells))
    try:
        records = [record for record, _ in shown.follow(grid.run(shown.chunk))]
    except ConnectionError as error:
        raise ConnectionError(
            f"{error}; finished answers are stored, and the same command continues with the others"
        ) from None
    results = Results(grid.ordered(records), grid.skipped)
    if first() and args.json:
        from repro.evals.table import rows

        skipped = [{"what": skip.what, "reason": skip.reason} for skip in grid.skipped]
        stored = [record.data() for record in results]
        print(json.dumps({"rows": rows(results), "records": stored, "skipped": skipped}))
    elif first():
        print(results.table(), end="")
        print(f"records: {grid.store.folder}", file=sys.stderr)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Compare two engines and print the report; returns 0 if they agree, else 1. `argv`: the arguments (None: those of
    the process)."""
    args = check_parser().parse_args(argv)
    from repro.core.devices import take_device
    from repro.evals.engines.check import Plan, compare, read_prompts

    take_device(args.device)
    prompts = read_prompts(args.prompts)
    plan = Plan(prompts, args.length, args.tolerance, args.margin, args.draws)
    a, b = (
        _engine(name, model, flag, args)
        for name, model, flag in ((args.a, args.model_a, "--model-a"), (args.b, args.model_b, "--model-b"))
    )
    if args.json:
        report = compare(a, b, plan)
        print(json.dumps(report.data()))
    else:
        say([f"A: {a.name}", f"B: {b.name}"])
        report = compare(a, b, plan, _tell)
        say([report.verdict])
    return 0 if report.agrees else 1


def _tell(found: Finding) -> None:
    """Print the result of one check of the engines at once, since a slow engine takes minutes for each check."""
    say([found.line()])
    sys.stdout.flush()


def _engine(name: str, model: str | None, flag: str, args: argparse.Namespace) -> Engine:
    from repro.evals.engines.openai import connect, is_server

    if is_server(name):
        return connect(name, model, _limits(args), args.extra, flag)
    if model is not None:
        raise ValueError(f"{name} is a checkpoint; leave out {flag}, which names a model of a server")
    from repro.evals.engines.local import Local
    from repro.model import load

    return Local(load(name, precision=args.precision, template=args.chat_template))


def _limits(args: argparse.Namespace) -> Limits:
    return Limits(timeout=args.timeout, concurrency=args.concurrency)


# --- values -------------------------------------------------------------------------------------------------
def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number; give one, for example 0.01")
    return value


def _share(text: str) -> float:
    value = _positive(text)
    if value >= 1:
        raise argparse.ArgumentTypeError(f"{text} is no share; give a number between 0 and 1")
    return value


def _extra(text: str) -> dict[str, Any]:
    try:
        return parse_json(text, dict[str, Any], "--extra", "give a JSON object")
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


if __name__ == "__main__":
    run(main, "repro engine-check")
