"""Reproduce the nano results: train, repeat the evaluations of the suites, compare with the committed results, draw
tables and figures.

    make reproduce                                    everything, seed 0
    make reproduce SEEDS="0 1 2 3 4"                  the runs behind the committed results
    python -m scripts.reproduce --only mdlm@nano        one cell

Runs without downloads and writes run folders, tables/ and figures/ to runs/reproduce. Each network is trained and
evaluated by one process on one CPU thread, so that the numbers do not depend on how many processes share the networks.
Finished work is skipped, so an interrupted call continues where it stopped.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any, cast

from repro import report as report_command
from repro.core.cli import Parser, natural, positive, run
from repro.core.errors import nearest
from repro.core.files import ROOT, runs
from repro.results.store import RAW

CELLS = (
    "llada@nano.sudoku",
    "mdlm@nano",
    "llada@nano",
    "ar@nano.sudoku",
    "duo@nano",
    "duo_nelbo@nano",
    "mdlm@nano.text",
    "ar@nano",
    "ar@nano.text",
)
"""Networks to train; those that take longest first, so that the processes finish at about the same time."""
ORACLES = ("oracle:mdlm@nano", "oracle:duo_nelbo@nano")
"""Exact denoisers of both noise processes, evaluated on suite `oracle`: all error that remains is the sampler's."""
PROCESSES = 4
"""Most processes that share the networks unless the user asks for more; each takes about 1 GB of memory."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code of the reproduction test."""
    parser = Parser(
        "python -m scripts.reproduce",
        "Train, score, compare and draw the nano cells.",
        ["python -m scripts.reproduce", "python -m scripts.reproduce --only mdlm@nano --seeds 0,1"],
    )
    parser.add_argument("--seeds", default="0", help="training seeds, separated by spaces or commas")
    parser.add_argument("--only", action="append", metavar="CELL", help="only this cell (repeatable)")
    parser.add_argument("--out", type=Path, help="folder (default: runs/reproduce)")
    parser.add_argument(
        "--processes",
        type=positive,
        default=min(PROCESSES, os.cpu_count() or 1),
        metavar="N",
        help=f"processes that share the networks (default: one a CPU, at most {PROCESSES})",
    )
    args = parser.parse_args(argv)
    seeds = [natural(text) for text in args.seeds.replace(",", " ").split()]
    wanted = args.only or [*CELLS, *ORACLES]
    for name in wanted:
        if name not in CELLS + ORACLES:
            raise ValueError(f"no cell {name!r}; {nearest(name, CELLS + ORACLES)}")
    if not RAW.is_dir():
        raise ValueError(f"no committed records at {RAW}; reproduce from a checkout of the repository")
    out = args.out or runs() / "reproduce"
    out.mkdir(parents=True, exist_ok=True)  # an error in each process would be said by each
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    began = time.perf_counter()
    todo = [
        (name, seed, out)
        for seed in seeds
        for name in wanted
        if name not in ORACLES or seed == 0  # an oracle is not trained: its answers depend on no train seed
    ]
    shared(_cell, todo, args.processes)
    code = _finish(out, set(wanted) if args.only else None)
    print(f"\n{time.perf_counter() - began:.0f} s")
    return code


def shared(work: Callable[..., None], todo: Sequence[tuple[Any, ...]], processes: int) -> None:
    """Call `work(*each)` for each entry of `todo`, in this process or, if there is more than one entry, in `processes`.

    Each process takes the next entry when it has finished one. If one of them fails it prints why, the others are
    ended, and SystemExit has its code; ValueError if one is killed.
    """
    processes = min(processes, len(todo))
    if processes < 2:
        for each in todo:
            work(*each)
        return
    context = multiprocessing.get_context("spawn")  # a fork of a process whose torch has threads may hang
    taken = context.Value("i", 0)
    # a daemon ends with this process, also with one that ends by SystemExit, but not with one that a signal ends
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    started = [context.Process(target=_take, args=(work, todo, taken), daemon=True) for _ in range(processes)]
    for process in started:
        process.start()
    running = {process.sentinel: process for process in started}
    code = 0
    while running and not code:
        for sentinel in cast(list[int], wait(list(running))):
            process = running.pop(sentinel)
            process.join()
            code = code or process.exitcode or 0
    for process in running.values():
        process.terminate()  # one that trains saves its step first
        process.join()
    if code > 0:
        raise SystemExit(code)
    if code < 0:
        raise ValueError(
            f"a process was killed by signal {-code} (memory?); call again with --processes 1: what is finished is kept"
        )


def _take(work: Callable[..., None], todo: Sequence[tuple[Any, ...]], taken: Synchronized[int]) -> None:
    """The work of one process of `shared`; `taken`: number of entries of `todo` that a process has taken."""

    def main(_: Sequence[str] | None) -> int:
        parent = multiprocessing.parent_process()
        while parent is not None and parent.is_alive():
            with taken.get_lock():
                place, taken.value = taken.value, taken.value + 1
            if place >= len(todo):
                break
            work(*todo[place])
        return 0

    run(main, "scripts.reproduce")


def _cell(name: str, seed: int, out: Path) -> None:
    """Train a cell, or continue its training, and run the evaluations that its folder does not hold yet."""
    from rich.console import Console

    from repro.evals.request import Request, prepare
    from repro.model import load
    from repro.recipes.scale import by_name
    from repro.training.checkpoint import steps_in
    from repro.training.loop import train

    exact = name.startswith("oracle:")
    folder = out / f"{name.replace(':', '_')}-s{seed}"
    began = time.perf_counter()
    if not exact:
        train(
            by_name(name),
            seed=seed,
            out=folder,
            stop=None,
            resume=bool(steps_in(folder)),
            shown=sys.stderr.isatty() and multiprocessing.parent_process() is None,
        )
    trained = time.perf_counter()
    model = load(name if exact else folder)
    grid = prepare(model, Request(suite="oracle" if exact else None, out=folder))
    fresh = sum(new for _, new in grid.run())
    Console(stderr=True).print(
        f"{name:<22} seed {seed}  trained in {trained - began:5.1f} s  {len(grid.cells):3} evaluations,"
        f" {fresh:3} run now in {time.perf_counter() - trained:5.1f} s",
        highlight=False,
        soft_wrap=True,
    )


def _finish(out: Path, only: set[str] | None) -> int:
    """The reproduction test, then tables and figures of this run; returns the exit code of the test."""
    from repro.results import reproduction

    tested = {cell.recipe for cell in reproduction.cells()}
    some = sorted(tested if only is None else only & tested)
    code = (
        reproduction.main([str(out), *(flag for name in some for flag in ("--recipe", name))]) if some else 0
    )
    report_command.main(["--raw", str(out), "--out", str(out / "tables")])
    if (ROOT / "paper_figures").is_dir():  # absent when installed as a package
        from paper_figures.__main__ import main as draw

        draw(["--raw", str(out), "--out", str(out / "figures")])
    for folder in (out / "tables", out / "figures"):
        for path in sorted(folder.glob("*.[ms][dv]*")):
            print(path)
    return code


if __name__ == "__main__":
    run(main, "scripts.reproduce")
