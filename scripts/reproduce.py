"""Reproduce the nano results: train, evaluate with every valid sampler, compare with the committed results, draw tables
and figures.

    make reproduce                                    everything, seed 0
    make reproduce SEEDS="0 1 2 3 4"                  the runs behind the committed results
    python -m scripts.reproduce --only mdlm@nano        one cell

Runs on one CPU thread without downloads and writes run folders, tables/ and figures/ to runs/reproduce. Finished work
is skipped, so an interrupted call continues where it stopped.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from repro import report as report_command
from repro.core.cli import Parser, natural, run
from repro.core.errors import nearest
from repro.core.files import ROOT, runs
from repro.results.store import RAW

CELLS = (
    "ar@nano",
    "llada@nano",
    "mdlm@nano",
    "duo@nano",
    "duo_nelbo@nano",
    "ar@nano.sudoku",
    "llada@nano.sudoku",
    "ar@nano.text",
    "mdlm@nano.text",
)
ORACLES = ("oracle:mdlm@nano", "oracle:duo_nelbo@nano")
"""Exact denoisers of both noise processes, evaluated on suite `oracle`: all error that remains is the sampler's."""


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
    args = parser.parse_args(argv)
    seeds = [natural(text) for text in args.seeds.replace(",", " ").split()]
    wanted = args.only or [*CELLS, *ORACLES]
    for name in wanted:
        if name not in CELLS + ORACLES:
            raise ValueError(f"no cell {name!r}; {nearest(name, CELLS + ORACLES)}")
    if not RAW.is_dir():
        raise ValueError(f"no committed answers at {RAW}; reproduce from a checkout of the repository")
    out = args.out or runs() / "reproduce"
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    began = time.perf_counter()
    for seed in seeds:
        for name in wanted:
            _cell(name, seed, out)
    code = _finish(out, set(wanted) if args.only else None)
    print(f"\n{time.perf_counter() - began:.0f} s")
    return code


def _cell(name: str, seed: int, out: Path) -> None:
    """Train a cell, or continue its training, and run the evaluations that its folder does not hold yet."""
    from rich.console import Console

    from repro.evals.request import Request, prepare
    from repro.model import load
    from repro.recipes.scale import by_name
    from repro.training.checkpoint import steps_in
    from repro.training.loop import train

    exact = name.startswith("oracle:")
    if exact and seed != 0:
        return  # an oracle is not trained; its evaluations do not depend on a train seed
    folder = out / f"{name.replace(':', '_')}-s{seed}"
    began = time.perf_counter()
    if not exact:
        train(
            by_name(name),
            seed=seed,
            out=folder,
            stop=None,
            resume=bool(steps_in(folder)),
            shown=sys.stderr.isatty(),
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
