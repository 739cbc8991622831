"""What the reproduction test must tell apart: reruns of a recipe, which differ by rounding, and half-trained networks.

    python -m scripts.reruns                 # every recipe in evals/reproduction.toml (about an hour on one core)
    python -m scripts.reruns duo@nano        # one recipe, made anew

A rerun on another processor follows the same steps with other rounding. It is imitated by multiplying every weight
after the first step by 1 + 2^-23 z with z ~ N(0, 1), about one unit in the last place, and training on as usual. A
half-trained network is the first rerun at half of its steps. All have train seed 0 and are evaluated on the cells of
evals/reproduction.toml only. Their records are stored in results/reruns and results/half_trained; `python -m
repro.report` makes results/tables/reproduction.md from them (docs/method.md#reproduction-test).
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from repro.core.cli import Parser, run
from repro.core.errors import nearest
from repro.results.record import Record
from repro.results.reproduction import RERUNS, ReproductionCell, cells
from repro.results.store import Store
from repro.results.tables.reproduction import HALF

REPEATS = 2
"""Number of reruns of a recipe that is not in MORE."""
MORE = {"ar@nano.sudoku": 5, "llada@nano.sudoku": 5}
"""Number of reruns of each recipe whose likelihood changes by several per cent through rounding, so that the interval
of two reruns would be too wide."""
STEP = 2.0**-23
"""Relative size of the perturbation of a weight: the spacing of float32 numbers at 1."""


def begin(name: str, number: int, out: Path) -> Path:
    """Take the first step of a recipe in the folder `out`, and perturb the weights by noise number `number`; returns
    `out`."""
    import torch

    from repro.training.checkpoint import open_checkpoint, save

    noise = torch.Generator().manual_seed(number)
    saved = open_checkpoint(go_on(name, out, 1))
    files = {file: saved.tensors(file) for file in saved.files}
    for weight in files["model.safetensors"].values():
        weight *= 1 + STEP * torch.randn(weight.shape, generator=noise)
    shutil.rmtree(saved.folder)
    save(out, saved.recipe, saved.seed, saved.step, saved.corpus, saved.resolved, files)
    return out


def go_on(name: str, out: Path, stop: int | None) -> Path:
    """Train a recipe with train seed 0 up to step `stop` (None: its last) in the folder `out`; returns `out`."""
    from repro.recipes.scale import by_name
    from repro.training.loop import train

    return train(by_name(name), seed=0, out=out, stop=stop, resume=out.is_dir())


def answers(folder: Path, asked: Sequence[ReproductionCell]) -> Iterator[Record]:
    """Records of the run in `folder` for the cells `asked`, which are those of its recipe."""
    from repro.evals.request import Request, prepare
    from repro.model import load

    model = load(folder)
    for cell in asked:
        request = Request(
            tasks=[cell.task],
            samplers=[cell.preset] if cell.preset else None,
            tokens_per_step=[float(cell.tokens_per_step)] if cell.tokens_per_step else None,
            out=folder,
        )
        for record, _ in prepare(model, request).run():
            yield record


def keep(store: Store, records: Sequence[Record]) -> None:
    """Replace the stored records of a recipe, which are in one file."""
    for path in {store.path(record) for record in records}:
        path.unlink(missing_ok=True)
    for record in records:
        store.append(record)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; ValueError for a recipe without a cell in evals/reproduction.toml."""
    parser = Parser(
        "python -m scripts.reruns",
        "Train reruns and half-trained networks of the judged recipes.",
        ["python -m scripts.reruns mdlm@nano"],
    )
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help="default: every judged recipe")
    judged = {cell.recipe: [each for each in cells() if each.recipe == cell.recipe] for cell in cells()}
    wanted = parser.parse_args(argv).recipes or list(judged)
    for name in wanted:
        if name not in judged:
            raise ValueError(
                f"no cell of evals/reproduction.toml is of recipe {name!r}; {nearest(name, judged)}"
            )
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from repro.recipes.scale import by_name

    for name in wanted:
        halfway, half, full = by_name(name).steps // 2, [], []
        repeats = MORE.get(name, REPEATS)
        with tempfile.TemporaryDirectory() as scratch:
            for number in range(1, repeats + 1):
                out = begin(name, number, Path(scratch) / str(number))
                if number == 1:
                    half += answers(go_on(name, out, halfway), judged[name])
                full += answers(go_on(name, out, None), judged[name])
        keep(Store(HALF), half)
        keep(Store(RERUNS), full)
        print(f"{name}: a half-trained network and {repeats} reruns", file=sys.stderr)
    return 0


if __name__ == "__main__":
    run(main, "scripts.reruns")
