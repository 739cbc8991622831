"""Command line: score a checkpoint on a suite of tasks, with several samplers and numbers of tokens per step. Prints
tables, and stores each result as a record (a line of JSON) beside the checkpoint.

python -m repro.evals --ckpt runs/mdlm@nano-s0 --samplers all
python -m repro.evals --ckpt oracle:mdlm@nano --samplers ancestral,random --tokens-per-step 1,2,4
python -m repro.evals --ckpt runs/mdlm@nano.text-s0 --corpus FILE.txt
accelerate launch --config_file recipes/launch/ddp_8.yaml -m repro.evals --ckpt DIR     # processes share the work
python -m repro.evals --ckpt DIR --tasks my.yaml --factors batch,steps,seed     # the effect of each setting
python -m repro.evals --suite flagship --max-hours 6    # several checkpoints; run it again to continue
python -m repro.evals list samplers                     # as `repro list`: also recipes, suites, tasks, ...
python -m repro.evals plan --device h100 --ckpt GSAI-ML/LLaDA-8B-Instruct --suite fast_dllm
python -m repro.evals cells duo.t5.mdlm                 # reproduce the published numbers of this name
python -m repro.evals --engine openai:http://localhost:8000/v1 --tasks gsm8k    # a server instead of a checkpoint
python -m repro.evals engine-check openai:URL runs/ar@nano.text-s0    # compare a server with our own decoding
python -m repro.evals judge FILE.jsonl --judge runs/ar@nano.text-s0 --rule every_token:length=64
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from repro.core.cli import first, run, say, width
from repro.core.devices import take_device
from repro.core.errors import Usage, nearest
from repro.evals import cli

if TYPE_CHECKING:
    from repro.evals.factors import Combination
    from repro.evals.planning.time_budget import TimeBudget
    from repro.evals.published.suite_group import Step
    from repro.evals.request import Prepared, Request
    from repro.results.record import Record


# --- commands -----------------------------------------------------------------------------------------------
def score(argv: Sequence[str]) -> int:
    """Score checkpoints or, with --engine, a server, or run every row of a suite group (a file of evals/suites whose
    rows each name a checkpoint); prints tables or JSON and returns the exit status."""
    if any(word.partition("=")[0] == "--engine" for word in argv):
        return score_engine(argv)
    group = _suite_group(argv)
    if group is not None:
        args = cli.group_parser(group, planned=False).parse_args(argv)
        return _run_steps(_group_steps(args), args)
    parser = cli.score_parser()
    args = parser.parse_args(argv)
    if args.ckpt is None:
        parser.error(
            "no checkpoint given: give --ckpt DIR or --ckpt oracle:RECIPE@SCALE (the subcommand `list` shows samplers"
            " and suites)"
        )
    from repro.evals.planning.time_budget import exit_code, time_budget
    from repro.evals.request import prepare
    from repro.evals.results import name_once
    from repro.evals.suites import read_suite
    from repro.model import load

    if args.suite is not None:
        read_suite(args.suite)  # a wrong name is an error before the weights are loaded
    request = dataclasses.replace(_grid_request(args), out=args.out, batch=args.batch_size)
    take_device(args.device)
    budget = time_budget(args.max_hours)
    names = cli.checkpoints(args.ckpt)
    if args.factors is not None:
        return _score_factors(names, request, args, budget)
    request = dataclasses.replace(request, lenient=len(names) > 1)
    grids, records = [], []
    given: dict[str, str] = {}
    for name in names:
        model = load(name, args.weights, args.precision or "float32", args.chat_template)
        name_once(given, model, name)
        grids.append(prepare(model, request))
        records += _answer(grids[-1], budget, f"{name}: " if len(names) > 1 else "")
    if first() and args.json:
        from repro.evals.table import rows

        skipped = dict.fromkeys(skip for grid in grids for skip in grid.skipped)
        _print_json({"rows": rows(records)} | _found(records, skipped))
    elif first():
        _show(grids, records, given)
    return exit_code(budget)


def score_engine(argv: Sequence[str]) -> int:
    """Score the server that --engine names, which decodes in place of a checkpoint; returns the exit status. Raises
    Usage (a ValueError) for a flag that has an effect only on checkpoints."""
    from repro.evals.engines import command

    taken = command.engine_parser()._option_string_actions
    for flag in (word.partition("=")[0] for word in argv):
        if flag not in taken and flag in cli.score_parser()._option_string_actions:
            raise Usage(
                f"{flag} has no effect with --engine, since the server decodes by itself; leave {flag} out"
            )
    return command.score(argv)


def engine_check(argv: Sequence[str]) -> int:
    """Compare the outputs of two engines (programs that decode) and print a report; returns 0 if they agree, else 1."""
    from repro.evals.engines import command

    return command.main(argv)


def plan(argv: Sequence[str]) -> int:
    """Print the estimated cost of what `python -m repro.evals` would run with these arguments; returns the exit
    status."""
    group = _suite_group(argv)
    if group is not None:
        args = cli.group_parser(group, planned=True).parse_args(argv)
        return _plan_steps(_group_steps(args), args, args.device)
    args = cli.plan_parser().parse_args(argv)
    if args.factors is not None:
        return _plan_factors(args)
    from repro.evals.planning import plan as planning

    found = planning.plan(args.ckpt, _grid_request(args), args.device, args.precision or "float32")
    _print_plan(args, planning.data(found), planning.text(found))
    return 0


def cells(argv: Sequence[str]) -> int:
    """Run the evaluations that reproduce published numbers, or print their estimated cost; returns the exit status."""
    planned = any(word.partition("=")[0] == "--plan" for word in argv)
    args = cli.cells_parser(planned).parse_args(argv)
    from repro.evals.published.suite_group import of_cells

    steps = of_cells(args.names, _row_request(args), args.ckpt)
    return _plan_steps(steps, args, args.plan) if planned else _run_steps(steps, args)


def judge(argv: Sequence[str]) -> int:
    """Let a language model score a file of samples, and print its metrics; returns the exit status."""
    args = cli.judge_parser().parse_args(argv)
    from repro.evals.text_quality.external_samples import command

    take_device(args.device)
    lines = command(args.file, args.judge, args.rule, args.reference, args.out, args.json)
    print("\n".join(lines)) if args.json else say(lines)
    return 0


def show_list(argv: Sequence[str]) -> int:
    """Print the names of samplers, suites, tasks and so on that commands take (`repro list`); returns the exit
    status."""
    from repro.evals.listing import main as list_names

    return list_names(argv)


COMMANDS = {
    "list": show_list,
    "plan": plan,
    "cells": cells,
    "judge": judge,
    "engine-check": engine_check,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the subcommand that the first argument names (see `COMMANDS`); without one, score a checkpoint.

    Returns the exit status. Raises Usage (a ValueError) for a subcommand that does not exist.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0].startswith("-"):
        return score(words)
    if words[0] not in COMMANDS:
        raise Usage(f"no command {words[0]!r}; {nearest(words[0], COMMANDS)}")
    return COMMANDS[words[0]](words[1:])


# --- factors ------------------------------------------------------------------------------------------------
def _combinations(name: str, request: Request, args: argparse.Namespace) -> list[Combination]:
    """Requests to evaluate the checkpoint `name`, which together combine all values (levels) of the settings (factors)
    in --factors. `request` has the other settings. ValueError for a factor that another flag sets too."""
    from repro.evals.factors import check, combinations

    given = {
        "precision": args.precision is not None,
        "template": args.template is not None,
        "shots": args.shots is not None,
        "batch": request.batch is not None,
        "steps": args.tokens_per_step is not None,
        "seed": args.seeds != [0],
    }
    check(name, args.factors, given)
    return combinations(request, args.factors, args.precision or "float32")


def _plan_factors(args: argparse.Namespace) -> int:
    """Print the number of evaluations that combine all values (levels) of the settings (factors) in --factors, and
    their estimated cost; returns the exit status."""
    from repro.evals.factors import price, priced_data, priced_text

    if args.ckpt is None:
        raise Usage("--factors needs a checkpoint; give --ckpt")
    some = _combinations(args.ckpt, _grid_request(args), args)
    found = price(args.ckpt, some, args.factors, args.device)
    _print_plan(args, priced_data(found), priced_text(found))
    return 0


def _score_factors(
    names: Sequence[str], request: Request, args: argparse.Namespace, budget: TimeBudget | None
) -> int:
    """Evaluate each checkpoint of `names` with all combinations of the values (levels) of the settings (factors) in
    --factors, and print how each factor changes the accuracy; returns the exit status.

    Raises Stopped if evaluations were not started because they would exceed the time `budget` (None: no limit).
    """
    from repro.evals.factor_levels import said
    from repro.evals.factors import grids
    from repro.evals.planning.time_budget import exit_code
    from repro.model import load

    crossed = [(name, _combinations(name, request, args)) for name in names]
    done: list[tuple[Prepared, list[Record]]] = []
    for name, some in crossed:
        for precision, group in itertools.groupby(some, lambda each: each.precision):
            model = load(name, args.weights, precision, args.chat_template)
            ready = grids(model, list(group))
            if first():
                count = sum(len(grid.cells) for grid in ready)
                say(
                    [f"all combinations of {said(args.factors)}: {count} evaluations in {precision}"],
                    sys.stderr,
                )
            done += [(grid, _answer(grid, budget)) for grid in ready]
    if exit_code(budget) == 0 and first():
        _show_factors(done, args.json)
    return 0


def _show_factors(done: Sequence[tuple[Prepared, list[Record]]], as_json: bool) -> None:
    from repro.results import factors
    from repro.results.crossing import Stored
    from repro.results.store import items_file

    found = {  # a record that answers several combinations counts once
        (grid.store.folder, record.sha256): Stored(record, items_file(grid.store.folder, record))
        for grid, records in done
        for record in records
    }
    analysed = factors.analyse(found.values())
    if as_json:
        records = [each.record for each in found.values()]
        _print_json({"factors": factors.data(analysed)} | _found(records, ()))
        return
    say(line for each in analysed for line in factors.say(each, width(sys.maxsize)))
    for folder in dict.fromkeys(grid.store.folder for grid, _ in done):
        print(f"records: {folder}", file=sys.stderr)


# --- requests -----------------------------------------------------------------------------------------------
def _suite_group(argv: Sequence[str]) -> str | None:
    """The value of --suite if it is a suite group (evaluation requests for several checkpoints), else None; a group
    takes other flags than a suite."""
    found = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    found.add_argument("--suite", nargs="?")
    suite = found.parse_known_args(argv)[0].suite
    if suite is None:
        return None
    from repro.evals.published.suite_group import is_suite_group

    return suite if is_suite_group(suite) else None


def _row_request(args: argparse.Namespace) -> Request:
    """A request with only the seeds and the limits on items and samples of the command line; checkpoint, tasks and
    decoding are set by each row of a suite group or published table."""
    from repro.evals.request import Request

    return Request(seeds=args.seeds, limit=args.limit, samples=args.samples)


def _grid_request(args: argparse.Namespace) -> Request:
    cli.check_files(args.tasks or ())
    return dataclasses.replace(
        _row_request(args),
        samplers=args.samplers,
        tasks=args.tasks,
        tokens_per_step=args.tokens_per_step,
        suite=args.suite,
        block_length=args.block_length,
        cache=args.cache,
        estimator=args.estimator,
        shots=args.shots,
        template=args.template,
        corpus=args.corpus,
    )


def _group_steps(args: argparse.Namespace) -> list[Step]:
    from repro.evals.published.suite_group import read_suite_group, steps

    return steps(read_suite_group(args.suite), _row_request(args))


# --- suite groups -------------------------------------------------------------------------------------------
def _plan_steps(steps: Sequence[Step], args: argparse.Namespace, device: str) -> int:
    from repro.evals.published.suite_group_plan import data, planned, text

    rows = planned(steps, device, args.precision)
    _print_plan(args, data(rows), text(rows))
    return 0


def _run_steps(steps: Sequence[Step], args: argparse.Namespace) -> int:
    """Run evaluation requests for several checkpoints (`steps`: of a suite group or of published numbers), load each
    checkpoint once, and print tables or JSON; returns the exit status.

    Raises Stopped if evaluations were not started because they would exceed the time limit of --max-hours.
    """
    from repro.evals.planning.time_budget import exit_code, time_budget
    from repro.evals.published.suite_group import by_checkpoint, precision
    from repro.evals.table import reasons
    from repro.model import load

    take_device(args.device)
    budget = time_budget(args.max_hours)
    records: list[Record] = []
    skipped = [skip for step in steps for skip in step.skipped]
    if first():
        say(reasons(skipped), sys.stderr)
    for ckpt, parts in by_checkpoint(steps):
        model = load(ckpt, precision=precision(ckpt, args.precision))
        for part in parts:
            grid = part.prepare(model, args.out, args.batch_size)
            answered = _answer(grid, budget)
            records += answered
            skipped += grid.skipped
            if first() and not args.json:
                _show([grid], answered)
    if first() and args.json:
        _print_json(_found(records, skipped))
    return exit_code(budget)


# --- output -------------------------------------------------------------------------------------------------
def _answer(grid: Prepared, budget: TimeBudget | None, which: str = "") -> list[Record]:
    """Run a grid of evaluations within the time `budget` (None: no limit), show its progress in lines that begin with
    `which`, and return its records."""
    from repro.evals.progress import progress

    shown = progress(grid.model.recipe.name, len(grid.cells), which)
    run = grid.run(shown.chunk) if budget is None else budget.within(grid, shown.chunk)
    return grid.ordered(record for record, _ in shown.follow(run))


def _show(grids: Sequence[Prepared], records: list[Record], given: Mapping[str, str] | None = None) -> None:
    """Print the tables of the records of one or several checkpoints, and what was skipped and why; `given`: digest of a
    checkpoint -> the name that the user gave."""
    from repro.evals.results import Results

    print(Results(records, [skip for grid in grids for skip in grid.skipped], given).table(), end="")
    for others in dict.fromkeys(tuple(grid.others) for grid in grids if grid.others):
        say([f"also valid here: {', '.join(others)} (--samplers NAME,NAME or all)"])
    for folder in dict.fromkeys(grid.store.folder for grid in grids):
        print(f"records: {folder}", file=sys.stderr)


def _found(records: list[Record], skipped: Iterable[Any]) -> dict[str, Any]:
    return {"records": [record.data() for record in records], "skipped": [vars(skip) for skip in skipped]}


def _print_plan(args: argparse.Namespace, data: dict[str, Any], text: Iterable[str]) -> None:
    if args.json:
        _print_json(data)
    else:
        say(text)


def _print_json(data: dict[str, Any]) -> None:
    print(json.dumps(msgspec.to_builtins(data), indent=1))


if __name__ == "__main__":
    run(main, "repro.evals")
