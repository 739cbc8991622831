"""The main job: train the nano cells, score them with every valid sampler, judge them, draw tables and figures.

    make reproduce                                    everything, seed 0
    make reproduce SEEDS="0 1 2 3 4"                  what the committed answers come from
    python -m scripts.reproduce --only mdlm@nano        one cell

All of it runs on one thread of a CPU with no download, and everything lies under runs/reproduce: run folders,
tables/, figures/. Finished work is never done again; an interrupted call goes on where it stopped.
"""

from __future__ import annotations

import os
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
"""Exact denoisers of both noises: what is left of their error is the sampler's. Scored on the suite `oracle`."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser("scripts.reproduce", "Train, score, judge and draw the nano cells.")
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
    """Train a cell (or go on with it) and answer what is not answered yet."""
    from rich.console import Console

    from repro.evals.request import Request, prepare
    from repro.model import load
    from repro.recipes.scale import by_name
    from repro.training.checkpoint import steps_in
    from repro.training.loop import train

    exact = name.startswith("oracle:")
    if exact and seed != 0:
        return  # an oracle is not trained: its seed is the sampler's
    folder = out / f"{name.replace(':', '_')}-s{seed}"
    began = time.perf_counter()
    if not exact:
        train(by_name(name), seed=seed, out=folder, stop=None, resume=bool(steps_in(folder)))
    trained = time.perf_counter()
    model = load(name if exact else folder)
    grid = prepare(model, Request(suite="oracle" if exact else None, out=folder))
    fresh = sum(new for _, new in grid.run())
    Console(stderr=True).print(
        f"{name:<22} seed {seed}  trained in {trained - began:5.1f} s  {len(grid.cells):3} questions,"
        f" {fresh:3} asked anew in {time.perf_counter() - trained:5.1f} s",
        highlight=False,
        soft_wrap=True,
    )


def _finish(out: Path, only: set[str] | None) -> int:
    """The judged cells, then tables and figures of this run; returns the judge's exit code."""
    from repro.results import reproduction as judge

    judged = {cell.recipe for cell in judge.cells()}
    some = sorted(judged if only is None else only & judged)
    code = judge.main([str(out), *(flag for name in some for flag in ("--recipe", name))]) if some else 0
    report_command.main(["--raw", str(out), "--out", str(out / "tables")])
    if (ROOT / "paper_figures").is_dir():  # figures are drawn in a checkout only
        from paper_figures.__main__ import main as draw

        draw(["--raw", str(out), "--out", str(out / "figures")])
    for folder in (out / "tables", out / "figures"):
        for path in sorted(folder.glob("*.[ms][dv]*")):
            print(path)
    return code


if __name__ == "__main__":
    run(main, "scripts.reproduce")
