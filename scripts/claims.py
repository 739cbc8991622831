"""Train and evaluate what the claims of evals/claims.toml need, on train seeds that no table has seen.

    python -m scripts.claims --register     # before any run: write evals/claims_lock.json, to be committed too
    python -m scripts.claims                # train and evaluate what is not stored yet (40 minutes on one core)

Records go to results/claims, each with the commit that it was made from; `python -m repro.report` writes the verdicts
to results/tables/claims.md (docs/method.md#claims). The claims about the founding Duo are decided by the records of
`python -m scripts.choices`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence

from repro.core.cli import Parser, run
from repro.core.files import write_text
from repro.core.reading import read_json
from repro.results.claims import LOCK, claims, lock, runs_of
from repro.results.store import Store
from repro.results.tables.claims import FOLDERS
from scripts.fresh_runs import measured


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; ValueError where the claims are not those of evals/claims_lock.json."""
    parser = Parser(
        "python -m scripts.claims",
        "Train and evaluate what the claims of evals/claims.toml need.",
        ["python -m scripts.claims"],
    )
    parser.add_argument(
        "--register", action="store_true", help="write evals/claims_lock.json and run nothing"
    )
    args = parser.parse_args(argv)
    found, store = claims(), Store(FOLDERS["claims"])
    if args.register:
        write_text(LOCK, json.dumps(lock(found), indent=1) + "\n")
        return 0
    if read_json(LOCK) != lock(found):
        raise ValueError(
            f"the claims are not those of {LOCK}; restore evals/claims.toml, or register new ones with --register and"
            " commit both files before any run"
        )
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from repro.recipes.scale import by_name

    done = {(each.labels.recipe, each.question.checkpoint.seed) for each in store.records()}
    for recipe, (seeds, cells) in runs_of(found).items():
        for seed in seeds:
            if (recipe, seed) in done:
                continue
            for record in measured(by_name(recipe), seed, cells):
                store.append(record)
            print(f"{recipe}, train seed {seed}: stored", file=sys.stderr)
    return 0


if __name__ == "__main__":
    run(main, "scripts.claims")
