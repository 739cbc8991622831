"""What each choice of the founding Duo costs: its recipe at nano, changed one choice at a time, under equal seeds.

    python -m scripts.choices                      # every arm, train seeds 0 to 7 (40 minutes on one core)
    python -m scripts.choices duo duo_mended --seeds "0 1"

Arms of equal train seed share the initial weights, the order of the data and the noise, so that they are compared in
pairs. An arm and seed whose records are stored is left out. Records go to results/choices; `python -m repro.report`
makes the table `choices` from them, `python -m paper_figures choices` the figure (docs/method.md#duo-mended).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from repro.core import parts
from repro.core.cli import Parser, natural, run
from repro.core.errors import nearest
from repro.results.store import Store
from repro.results.tables.choices import ARMS, FOLDER
from scripts.fresh_runs import measured

if TYPE_CHECKING:
    from repro.training.recipe import Recipe

SEEDS = "0 1 2 3 4 5 6 7"
CELLS = [("bound", "", ""), ("law", "ancestral", "1"), ("law", "ancestral", "4")]
OWN_WINDOW = {"objective.noise.low": 0.0141, "objective.noise.high": 0.0704}
"""Times t = 1 - A at which gamma is -3.55 and -1.85, the ends of Duo's curriculum (docs/method.md#duo-curriculum)."""


def recipe(arm: str) -> Recipe:
    """The recipe of an arm at nano, named `ARM@nano`."""
    from repro.objectives.noise import LinearWindow
    from repro.objectives.sym_kl import RelaxedCE, SymKL
    from repro.objectives.view_scale import NoViewScale
    from repro.recipes.scale import by_name

    every = LinearWindow(low=1e-3, high=0.999)
    match arm:
        case "duo_unscaled":
            base, changed = "duo@nano", {"objective.view_scale": NoViewScale()}
        case "duo_own_window":
            base, changed = "duo@nano", OWN_WINDOW
        case "duo_every_level":
            base, changed = "duo@nano", {"objective.noise": every}
        case "duo_mended_ce":
            base = "duo_mended@nano"
            mended = by_name(base).objective
            assert isinstance(mended, SymKL)
            kept = {
                pin: getattr(mended, pin) for pin in ("noise", "temperature", "tokens", "view_scale", "group")
            }
            changed = {"objective": RelaxedCE(**kept)}
        case _:
            return by_name(f"{arm}@nano")
    return parts.derive(by_name(base), {**changed, "name": f"{arm}@nano"})


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; ValueError for an unknown arm."""
    parser = Parser(
        "python -m scripts.choices",
        "Train the arms of the comparison of Duo's choices, and store their records.",
        ["python -m scripts.choices", 'python -m scripts.choices duo duo_mended --seeds "0 1"'],
    )
    parser.add_argument("arms", nargs="*", metavar="ARM", help=f"default: {' '.join(ARMS)}")
    parser.add_argument("--seeds", default=SEEDS, help=f"train seeds (default: {SEEDS})")
    args = parser.parse_args(argv)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for arm in args.arms:
        if arm not in ARMS:
            raise ValueError(f"no arm {arm!r}; {nearest(arm, ARMS)}")
    store = Store(FOLDER)
    done = {(each.labels.recipe, each.question.checkpoint.seed) for each in store.records()}
    for seed in [natural(text) for text in args.seeds.replace(",", " ").split()]:
        for arm in args.arms or ARMS:
            if (f"{arm}@nano", seed) in done:
                continue
            for record in measured(recipe(arm), seed, CELLS):
                store.append(record)
            print(f"{arm}, train seed {seed}: stored", file=sys.stderr)
    return 0


if __name__ == "__main__":
    run(main, "scripts.choices")
