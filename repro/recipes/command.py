"""Command line of every recipe: print its settings, estimate its cost, or train it.

python -m repro.recipes.duo --print              every setting with its source;  --print --json: as canonical JSON
python -m repro.recipes.duo --plan               parameters, tokens, steps, memory, hours;  --engine fsdp2 --gpus 16
python -m repro.recipes.duo --scale nano.text    the same recipe on one CPU core
python -m repro.recipes.duo --scale nano.text --data book.txt --tokenizer bpe:2048 --length 128     on data of your own
python -m repro.recipes.duo --set optimizer.lr=1e-4 --out DIR --steps 100 --resume --seed 1
python -m repro.recipes.duo --activation-checkpointing --compile --track tensorboard     options that change no result
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import json
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from repro.core import parts, registry
from repro.core.cli import Parser, fill, first, natural, positive, run, say, width
from repro.core.devices import take_device
from repro.core.errors import Usage
from repro.core.files import runs
from repro.recipes.scale import full_recipe
from repro.training.recipe import Recipe

EXAMPLES = (
    "--scale nano",
    "--print",
    "--plan --engine fsdp2 --gpus 16",
    "--scale nano.text --set optimizer.lr=1e-4 --out runs/mine",
)


def main(recipe: Recipe) -> NoReturn:
    """Run the command line of a recipe and exit."""
    run(lambda argv: command(recipe, argv), f"repro.recipes.{recipe.name}")


def command(recipe: Recipe, argv: Sequence[str] | None = None) -> int:
    """Print a recipe, estimate its cost or train it, according to the arguments; returns the exit code.

    Raises ValueError for an unregistered recipe, an unknown flag, setting or scale, and for flags that exclude or need
    each other.
    """
    if _base(recipe) not in registry.RECIPES:
        raise ValueError(
            f"recipe {_base(recipe)!r} is not registered; add its line to RECIPES of repro/core/registry.py"
        )
    args = _arguments(recipe, argv)
    _check_combination(args)
    own = None if args.data is None else Own(args.data, args.tokenizer, args.length)
    chosen = select(recipe, args.scale, args.set, own)
    if args.print and args.json:
        print(json.dumps(parts.canonical(chosen), indent=1))
    elif args.print:
        say(listing(chosen, select(recipe, args.scale, []), width(sys.maxsize)))
    elif args.plan:
        _plan(chosen, args)
    else:
        _train(chosen, args)
    return 0


def _arguments(recipe: Recipe, argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        f"python -m repro.recipes.{recipe.name}",
        "Train this recipe, print its settings, or estimate what training it needs.",
        [f"python -m repro.recipes.{recipe.name} {example}" for example in EXAMPLES],
    )
    parser.add_argument(
        "--scale", default="full", help="full, micro, nano, nano.lexicon, nano.sudoku or nano.text"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PIN=VALUE",
        help="override one setting (--print lists them); may be repeated",
    )
    parser.add_argument(
        "--data",
        metavar="SOURCE",
        help="train on a text file, a folder of .txt files, JSON Lines, Parquet or CSV with a column `text` or"
        " `messages` (chats), or a dataset OWNER/NAME on the Hub",
    )
    parser.add_argument(
        "--tokenizer",
        metavar="NAME",
        help="with --data: characters, bpe:SIZE (trained here), gpt2, a tokenizer's folder, or OWNER/NAME on the Hub"
        " (default: the recipe's, else characters)",
    )
    parser.add_argument("--length", type=natural, help="with --data: ids a row (default: the recipe's)")
    shows = parser.add_mutually_exclusive_group()
    shows.add_argument("--print", action="store_true", help="print every setting with its source")
    shows.add_argument("--plan", action="store_true", help="what the run needs: parameters, memory, hours")
    parser.add_argument("--engine", help="with --plan: ddp, fsdp2 or zero2 (default ddp)")
    parser.add_argument(
        "--gpus", type=natural, help="with --plan: number of GPUs that share the batch (default 8)"
    )
    parser.add_argument("--json", action="store_true", help="with --print or --plan: JSON")
    parser.add_argument("--out", type=Path, help="run folder (default: runs/NAME-sSEED)")
    parser.add_argument(
        "--seed", type=natural, default=0, help="random seed of weights, data order and noise"
    )
    parser.add_argument("--steps", type=natural, help="stop after this step; schedules do not change")
    parser.add_argument("--resume", action="store_true", help="continue from the last checkpoint in --out")
    parser.add_argument(
        "--longer",
        type=positive,
        metavar="STEPS",
        help="continue the run in --out up to this step, beyond its recipe's last one; the learning rate's schedule"
        " starts again, unless it is constant (docs/method.md#longer)",
    )
    parser.add_argument(
        "--activation-checkpointing",
        action="store_true",
        help="recompute layers in the backward pass to save memory (--plan accounts for it)",
    )
    parser.add_argument("--compile", action="store_true", help="compile each layer with torch.compile")
    parser.add_argument(
        "--whole-gradients",
        action="store_true",
        help="under FSDP2 or ZeRO-2, exchange gradients once a step, not once a microbatch; each process then holds"
        " them whole",
    )
    parser.add_argument(
        "--device", help="where it trains: cuda, cuda:1 or cpu (default: the GPU if there is one)"
    )
    parser.add_argument("--track", metavar="NAME", help="also log to tensorboard, wandb, trackio, ...")
    return parser.parse_args(argv)


def _check_combination(args: argparse.Namespace) -> None:
    """Raise Usage for flags that are given without the flag that they need (as --gpus without --plan), and for flags
    that exclude each other (as --compile and --print)."""
    for flag in ("tokenizer", "length"):
        if getattr(args, flag) is not None and args.data is None:
            raise Usage(f"--{flag} goes with --data; add --data, or leave out --{flag}")
    if args.json and not (args.print or args.plan):
        raise Usage("--json goes with --print or --plan; add one of them, or leave out --json")
    for flag in ("engine", "gpus"):
        if getattr(args, flag) and not args.plan:
            raise Usage(f"--{flag} goes with --plan; add --plan, or leave out --{flag}")
    for flag in ("resume", "steps", "set", "data"):
        if args.longer and getattr(args, flag):
            raise Usage(f"--longer continues the run that is in --out; leave out --{flag}")
    for flag in ("compile", "whole-gradients", "track", "device", "longer"):
        if getattr(args, flag.replace("-", "_")) and (args.plan or args.print):
            raise Usage(f"--{flag} is for a run; it goes with neither --print nor --plan, so leave it out")


def _plan(recipe: Recipe, args: argparse.Namespace) -> None:
    from repro.training.cost import GPUS, plan, text

    planned = plan(
        recipe,
        engine=args.engine or "ddp",
        gpus=GPUS if args.gpus is None else args.gpus,
        activation_checkpointing=args.activation_checkpointing,
    )
    print(json.dumps(planned, indent=1)) if args.json else say(text(planned).splitlines())


def _train(recipe: Recipe, args: argparse.Namespace) -> None:
    from repro.training.checkpoint import open_checkpoint
    from repro.training.engines.options import Options
    from repro.training.loop import train

    if args.device is not None and take_device(args.device) == "mps":
        raise Usage("--device mps: training runs on cuda or cpu; give one of them")
    options = Options(
        activation_checkpointing=args.activation_checkpointing,
        compile=args.compile,
        whole_gradients=args.whole_gradients,
    )
    out = args.out or runs() / f"{recipe.name}-s{args.seed}"
    if args.longer:
        recipe = _prolonged(recipe, out, args.longer)
    try:
        train(
            recipe,
            seed=args.seed,
            out=out,
            stop=args.steps,
            resume=args.resume or args.longer is not None,
            options=options,
            track=args.track,
            shown=True,
        )
    except ConnectionError as error:
        raise ConnectionError(f"{error}; a recipe at --scale nano.text needs no download") from None
    if first():
        early = recipe.unfinished(open_checkpoint(out).step)
        print(f"{recipe.name}{f' ({early}; --resume goes on)' if early else ''}: {out}", file=sys.stderr)


def _prolonged(recipe: Recipe, out: Path, steps: int) -> Recipe:
    """The recipe that continues the run in `out` up to step `steps`. ValueError unless the run is of `recipe`, or of
    `recipe` as changed by `--set` or `--longer`."""
    from repro.training.checkpoint import open_checkpoint
    from repro.training.resuming import longer

    held = open_checkpoint(out).recipe
    if held.name.partition("+")[0] != recipe.name:
        raise ValueError(
            f"{out} holds a run of {held.name}, not of {recipe.name}; give the --out and the --scale of the same run"
        )
    return longer(held, steps) if held.steps != steps else held


class Own(NamedTuple):
    """The user's own data: values of the options --data (`source`), --tokenizer and --length (None: not given)."""

    source: str
    tokenizer: str | None
    length: int | None


def select(recipe: Recipe, scale: str, overrides: Sequence[str], own: Own | None = None) -> Recipe:
    """The recipe at a scale ("full", "nano", ...), on the user's data `own` (None: on the scale's data), with settings
    changed by `overrides`: texts `SETTING=VALUE`, where SETTING is a dotted path.

    If data or overrides change the recipe, six digits of the new recipe's digest are added to its name (`duo+3fa9c1`).
    Raises ValueError for an unknown scale or setting, an override of `name`, data that cannot be read
    (`repro.data.own`), and a tokenizer of the user's for pretrained weights, which need their own; ConnectionError
    where the Hub cannot be reached.
    """
    from repro.recipes.scale import data_at, scaled

    plain = chosen = scaled(recipe, scale)
    if own is not None:
        from repro.data.own import own_data

        data = own_data(data_at(recipe, scale), *own)
        chosen = scaled(recipe, scale, data)
    pins = parts.parse_overrides(overrides)
    if "name" in pins:
        raise ValueError(
            "a recipe's name follows from its settings and cannot be set; leave out --set name=..."
        )
    derived = parts.derive(chosen, pins)
    if own is not None and own.tokenizer is not None:
        _check_weights(derived)
    if derived.digest() == plain.digest():
        return plain
    return dataclasses.replace(derived, name=f"{chosen.name}+{derived.digest()[:6]}")


def _check_weights(recipe: Recipe) -> None:
    """Raise ValueError if network or teacher start from released weights, which need their own tokenizer."""
    for pin, source in parts.leaves(recipe).items():
        starts = pin.startswith("backbone.") and pin.rpartition(".")[2] in ("weights", "source")
        if source is not None and (starts or pin == "teacher.source"):
            remedy = f", or start from random ones with --set {pin}=null" if pin == "backbone.weights" else ""
            raise ValueError(
                f"the weights of {source} belong to their own tokenizer; leave out --tokenizer{remedy}"
            )


# --- sources ------------------------------------------------------------------------------------------------------


def citations(name: str) -> dict[str, str]:
    """Dotted path of a setting -> its source, for the registered recipe `name`: the comment in the recipe's file, on
    the last line of the setting's value."""
    module = registry.recipe_module(name)
    text = Path(__file__).with_name(module.rpartition(".")[2] + ".py").read_text("utf-8")
    lines = text.splitlines()
    found: dict[str, str] = {}

    def walk(call: ast.Call, prefix: str) -> None:
        for keyword in call.keywords:
            pin = f"{prefix}.{keyword.arg}" if prefix else str(keyword.arg)
            if isinstance(keyword.value, ast.Call) and keyword.value.keywords:
                walk(keyword.value, pin)
            else:
                _, mark, comment = lines[(keyword.value.end_lineno or 1) - 1].rpartition("  # ")
                if mark:
                    found[pin] = comment.strip()

    for statement in ast.parse(text).body:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Call):
            walk(statement.value, "")
    return found


def _base(recipe: Recipe) -> str:
    """The name of the registered recipe from which `recipe` is derived: "duo" for "duo@nano+3fa9c1"."""
    return recipe.name.removeprefix("oracle:").partition("@")[0].partition("+")[0]


def listing(recipe: Recipe, unchanged: Recipe, room: int = sys.maxsize) -> Iterator[str]:
    """Lines of text with every setting of a recipe, its value and its source.

    `unchanged`: the recipe before `--set`; settings that differ from it are marked by `*` and show the value that they
    had. The source of any other setting that differs from the full-scale recipe is scale.py.
    `room`: greatest length of a line. If a dotted path, its value and its source do not fit into a line, settings are
    indented below their part, and called by the last word of their path.
    """
    rows = list(_rows(recipe, unchanged))
    marked = [pin for mark, pin, *_ in rows if mark == "* "]
    yield f"{recipe.name}  digest {recipe.digest()}"
    wide, middle = max(len(pin) for _, pin, *_ in rows), min(44, max(len(value) for *_, value, _ in rows))
    lines = [
        f"{mark}{pin:<{wide}}  {value:<{middle}}  {source}".rstrip() for mark, pin, value, source in rows
    ]
    if max(map(len, lines)) <= room:
        yield from lines
    else:
        yield from _indented(rows, room)
        deepest = max((pin for _, pin, *_ in reversed(rows)), key=lambda pin: pin.count("."))
        yield from fill("", f"An indented name goes with those above it: --set {deepest}=VALUE", 0, room)
    if marked:
        moved = sum(pin != "name" for pin, *_ in parts.changes(unchanged, recipe))
        yield f"* changed by --set: {moved} setting{'s' * (moved > 1)} of {unchanged.name}"


def _rows(recipe: Recipe, unchanged: Recipe) -> Iterator[tuple[str, str, str, str]]:
    """(mark, dotted path, value, source) of every setting of `recipe`, as `listing` prints them; the mark is "* " for
    settings that differ from `unchanged`, else two spaces."""
    base = _base(recipe)
    cited, full = citations(base), dict(_settings(full_recipe(base)))
    moved = {pin: value for pin, value, _ in parts.changes(unchanged, recipe) if pin != "name"}
    for pin, value in _settings(recipe):
        where = next((path for path in moved if pin == path or pin.startswith(f"{path}.")), None)
        if where is not None:
            source = f"--set (was {parts.brief(moved[where])})" if pin == where else "--set"
        elif full.get(pin) != value:
            source = "--set" if pin == "name" and moved else "repro/recipes/scale.py"
        else:
            source = cited.get(pin, "")
        yield "* " if where is not None else "  ", pin, value, source


_SHORT = 12
"""Most characters of a value that has its source on the same line in a narrow terminal."""


def _indented(rows: Sequence[tuple[str, str, str, str]], room: int) -> Iterator[str]:
    """Lines in three columns for `rows` of (mark, dotted path, value, source): the last word of the path, indented by
    its depth; the value; the source, which begins on the next line if the value has more than 12 characters. Lines have
    at most `room` characters where words allow that."""
    names = ["  " * pin.count(".") + pin.rpartition(".")[2] for _, pin, *_ in rows]
    wide = max(map(len, names))
    column = 2 + wide + 2 + _SHORT + 2
    for (mark, _, value, source), name in zip(rows, names, strict=True):
        head = f"{mark}{name:<{wide}}  "
        sources = _wrapped(source, room - column) or [""]
        if len(value) <= _SHORT:
            yield f"{head}{value:<{_SHORT}}  {sources.pop(0)}".rstrip()
        else:
            yield from fill(head, value, 0, room)
        yield from (" " * column + each for each in sources if each)


def _wrapped(source: str, room: int) -> list[str]:
    """The text `source` wrapped to lines of at most `room` characters; a longer path is broken after its last slash."""
    words = [re.sub("(.*/)", r"\1 ", word) if len(word) > room else word for word in source.split()]
    return textwrap.wrap(" ".join(words), room, break_long_words=False, break_on_hyphens=False)


def _settings(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """(dotted path, text of the value) of every setting of a recipe, in the order of its fields. For a part the text is
    the part's registered name, and the part's settings follow."""

    def walk(value: Any, path: str) -> Iterator[tuple[str, str]]:
        if not (isinstance(value, dict) and "part" in value):
            yield path, json.dumps(value)
            return
        if path:
            yield path, value["part"]
        for name, each in value.items():
            if name not in ("part", "version"):
                yield from walk(each, f"{path}.{name}" if path else name)

    return walk(parts.canonical(recipe), "")
