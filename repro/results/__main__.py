"""Publish records, check them, compare two of them, and show all as a page.

python -m repro.results publish DIR         # the only way into results/raw
python -m repro.results check [DIR]         # validate every line (default results/raw)
python -m repro.results explain A B         # settings in which two evaluations differ, and the effect of each one
python -m repro.results flips A B           # documents on which the results of two evaluations differ
python -m repro.results factors DIR         # effect on an accuracy of each setting that --factors varied
python -m repro.results page --out DIR      # the results as a page to click through
python -m repro.results export --every-eval-ever --out DIR      # records in the format of Every Eval Ever
"""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from repro.core.cli import Parser, run, say, width
from repro.core.files import write_text
from repro.results.page.build import write
from repro.results.recipes import differing, recipe_named
from repro.results.store import RAW, collect, publish, read, record_files
from repro.results.versions import latest


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code of `python -m repro.results`, whose arguments are `argv` (None: those of the process)."""
    arguments = _parser().parse_args(argv)
    if arguments.action == "publish":
        if arguments.folder is None:
            raise ValueError(
                "publish needs the folder of a run; give it, for example: publish runs/reproduce"
            )
        counts = publish(arguments.folder)
        print(f"{counts.added} records published to {RAW}, {counts.already} were already there")
    elif arguments.action == "check":
        files = record_files(arguments.folder)
        count = sum(len(read(path)) for path in files)
        print(f"{count} records in {len(files)} files of {arguments.folder}, all valid")
    elif arguments.action == "page":
        count = write(arguments.out, arguments.raw, arguments.certificates)
        print(f"{count} files written to {arguments.out}; open {arguments.out / 'index.html'} in a browser")
    elif arguments.action == "export":
        _export(arguments)
    else:
        lines = (_factors if arguments.action == "factors" else _compare)(arguments)
        print("\n".join(lines)) if arguments.json else say(lines)
    return 0


def _export(arguments: Namespace) -> None:
    """Write records below `--out` as files of Every Eval Ever; print how many results they hold, and which metrics are
    left out."""
    from repro.results.every_eval_ever import export

    made = export(latest(collect(arguments.raw)), arguments.organisation)
    for path, content in made.files.items():
        (arguments.out / path).parent.mkdir(parents=True, exist_ok=True)
        write_text(arguments.out / path, content)
    print(f"{made.results} results in {len(made.files)} files below {arguments.out / 'data'}")
    for metric, task in made.unknown.items():
        where = "it needs a line in MEANINGS of repro/results/every_eval_ever.py"
        say([f"left out: metric {metric} of task {task}, whose direction is not known; {where}"])


def _compare(arguments: Namespace) -> Iterable[str]:
    """Lines that `explain` or `flips` prints: text, or one JSON document with --json."""
    from repro.results import explain, flips

    if arguments.action == "explain":
        made = [recipe_named(name) for name in (arguments.a, arguments.b)]
        if made[0] is not None and made[1] is not None:
            lines = list(differing(made[0], made[1]))
            return [json.dumps(lines, indent=1)] if arguments.json else lines or ["the same settings"]
        explained = explain.explain(collect(arguments.raw), arguments.a, arguments.b, arguments.raw)
        return [json.dumps(asdict(explained), indent=1)] if arguments.json else explain.say(explained)
    a, b = (flips.items_of(arguments.raw, name) for name in (arguments.a, arguments.b))
    found = flips.flips(a, b, arguments.metric, arguments.filter)
    return [json.dumps(asdict(found), indent=1)] if arguments.json else flips.say(found)


def _factors(arguments: Namespace) -> Iterable[str]:
    """Lines that `factors` prints: text, or one JSON document with --json; writes the CSV file if one is named."""
    from repro.results import crossing, factors

    found = factors.analyse(crossing.stored(arguments.folder))
    if arguments.csv is not None:
        write_text(arguments.csv, factors.csv(found))
    if arguments.json:
        return [json.dumps(factors.data(found), indent=1)]
    return [line for each in found for line in factors.say(each, width(sys.maxsize))]


def _parser() -> Parser:
    parser = Parser(
        "python -m repro.results",
        "Publish records into results/raw, check or compare them, or show them as a page.",
        ["python -m repro.results publish runs/mdlm@nano-s0", "python -m repro.results check"],
    )
    actions = parser.add_subparsers(dest="action", required=True)
    about = "Copy the records of a finished run into results/raw."
    example = "python -m repro.results publish runs/reproduce"
    action = actions.add_parser("publish", help=about, description=about, examples=[example])
    action.add_argument("folder", type=Path, nargs="?", help="folder of a run, for example runs/reproduce")
    about = "Validate every line of the record files."
    example = "python -m repro.results check runs/mdlm@nano-s0"
    action = actions.add_parser("check", help=about, description=about, examples=[example])
    action.add_argument("folder", type=Path, nargs="?", default=RAW, help="default results/raw")
    about = "Write records in a format that others read."
    example = "python -m repro.results export --every-eval-ever --out exported"
    action = actions.add_parser("export", help=about, description=about, examples=[example])
    action.add_argument(
        "--every-eval-ever",
        action="store_true",
        required=True,
        help="files of Every Eval Ever's schema 0.3, as data/SUITE/DEVELOPER/MODEL/UUID.json",
    )
    action.add_argument("--out", type=Path, required=True, help="folder to write to")
    action.add_argument("--raw", type=Path, default=RAW, help="folder of records (default results/raw)")
    action.add_argument(
        "--organisation",
        default="dlm-repro",
        help="who ran the evaluations and trained the models without a developer in their name (default dlm-repro)",
    )
    for name, about, example in (
        (
            "explain",
            "The settings in which two evaluations or two recipes differ; of evaluations also the effect of each one"
            " alone in other records.",
            ["mdlm@nano/law/ancestral/1 mdlm@nano/law/ancestral/4", "duo@nano mdlm@nano"],
        ),
        (
            "flips",
            "The documents on which two results of one task differ.",
            ["llada@nano.sudoku-s0/sudoku/random/1 llada@nano.sudoku-s0/sudoku/low_confidence/1 --raw runs"],
        ),
    ):
        lines = [f"python -m repro.results {name} {each}" for each in example]
        action = actions.add_parser(name, help=about, description=about, examples=lines)
        what = "CHECKPOINT[-sSEED]/TASK[/PRESET[/TOKENS_PER_STEP]] (CHECKPOINT: a name or a run folder), or the prefix"
        what += " of a hash"
        what += "; or a recipe or run folder" if name == "explain" else "; or a file of items"
        for which in ("a", "b"):
            action.add_argument(which, help=what)
        action.add_argument("--raw", type=Path, default=RAW, help="folder of records (default results/raw)")
        action.add_argument("--json", action="store_true", help="print JSON")
        if name == "flips":
            action.add_argument("--metric", help="metric to compare, if the items have several")
            action.add_argument("--filter", help="answer filter to compare, if the task has several")
    about = "What each setting that `python -m repro.evals --factors` crossed does to an accuracy: variance and flips."
    lines = [
        "python -m repro.results factors runs/factors/mdlm@nano.text-s0",
        "python -m repro.results factors runs/factors/mdlm@nano.text-s0 --csv factors.csv",
    ]
    action = actions.add_parser("factors", help=about, description=about, examples=lines)
    action.add_argument("folder", type=Path, help="folder of the crossed records (OUT of --factors)")
    action.add_argument("--csv", type=Path, metavar="FILE", help="also write the numbers to FILE.csv")
    action.add_argument("--json", action="store_true", help="print JSON")
    about = "Write the results as a page: frontier plots, decodings, certificates, claims, the source of each number."
    lines = [
        "python -m repro.results page --out build/page",
        "python -m repro.results page --raw runs/llada@nano.sudoku-s0/raw --out mine",
    ]
    action = actions.add_parser("page", help=about, description=about, examples=lines)
    action.add_argument("--out", type=Path, required=True, help="folder that the files are written to")
    action.add_argument(
        "--raw",
        type=Path,
        default=RAW,
        help="folder of records of decoding speed or text quality (default results/raw)",
    )
    action.add_argument(
        "--certificates",
        type=Path,
        help="folder of certificates (default: results/certificates beside results/raw, none beside other records)",
    )
    return parser


if __name__ == "__main__":
    run(main, "repro.results")
