"""Rewrite the derived files after a deliberate change, so that a reviewer reads the difference.

    make accept                                   all of them
    python -m scripts.accept locks goldens        some of them

    locks           recipes/locks/NAME.json, the canonical form of every recipe
    surface         tests/core/surface.json, the fields and version of every part
    goldens         tests/training/goldens.json, the first steps of every recipe at nano (kept where within 1e-5)
    certificates    results/certificates, of presets that have none or whose pins changed (up to a minute each)
    tables          results/tables, from results/raw and results/certificates
    figures         paper_figures/out, from results/raw
    gpu             docs/gpu.md, from the suites and their plans
    rooms           docs/rooms.svg, the package's subpackages and the imports between them
    gallery         docs/gallery.md and the animated pictures, from docs/traces and results/certificates
    items           docs/traces/items/sentences, the decodings of the results page that need no trained network

Each step prints the files that it changed. Commit generated data apart from code.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from repro.core import parts, registry
from repro.core.cli import Parser, run
from repro.core.errors import nearest
from repro.core.files import ROOT, runs, write_text
from repro.recipes.scale import by_name

LOCKS = ROOT / "recipes" / "locks"
SURFACE = ROOT / "tests" / "core" / "surface.json"
GOLDENS = ROOT / "tests" / "training" / "goldens.json"
FIELDS = ("loss", "grad_norm", "nll")
SHOWN = (1, 2, 10, 20)
"""Optimizer steps whose numbers a golden holds."""
TOLERANCE = 1e-5
"""Largest relative difference from a golden; instruction sets of processors differ by 7e-7 at 20 steps
(docs/method.md#exactness)."""
TOLERANCE_DISTILLED = 5e-3
"""The same for a recipe with a teacher: its loss compares two nearly equal networks, .01 to .04 nats, so that the
differences between processors after 20 steps of the teacher change it by 8e-4 and its gradient norm by 2.3e-3."""
TEACHER = {
    "teacher.steps": 20,
    "teacher.recipe.learning_rate.warmup": 2,
    "teacher.recipe.optimizer.lr": 0.01,
    "objective.round": 8,
    "objective.grid": 16,
}
"""Overrides for a distillation: a teacher of 20 steps whose loss is well above float32 rounding, updated twice."""


def lock(name: str) -> str:
    """Text of a recipe's lock: its canonical form."""
    return json.dumps(parts.canonical(by_name(name)), indent=1) + "\n"


def surface() -> dict[str, list[str]]:
    """Registered name -> version and "field: type" of each field of every part."""
    found = {}
    for name in registry.PARTS:
        cls = parts.part_class(name)
        fields = dataclasses.fields(cast(Any, cls))
        found[name] = [f"version {cls.version}", *(f"{field.name}: {field.type}" for field in fields)]
    return found


def first_steps(name: str, out: Path) -> dict[str, list[float]]:
    """Loss, gradient norm and nll of a recipe's first steps at nano, trained in the folder `out`."""
    from repro.training.loop import train

    recipe = dataclasses.replace(by_name(f"{name}@nano"), log_every=1)
    if recipe.teacher is None:
        train(recipe, seed=0, out=out, stop=SHOWN[-1], resume=False)
    else:
        with _own_runs(out.parent):
            train(parts.derive(recipe, TEACHER), seed=0, out=out, stop=SHOWN[-1], resume=False)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text("utf-8").splitlines()]
    return {field: [rows[step - 1][field] for step in SHOWN] for field in FIELDS}


@contextmanager
def _own_runs(folder: Path) -> Generator[None]:
    """Use `folder` as the run folder, with the prepared data of the usual one, so that no older teacher is reused."""
    data, before = runs() / "data", os.environ.get("REPRO_RUNS")
    data.mkdir(parents=True, exist_ok=True)
    (folder / "data").symlink_to(data.resolve())
    os.environ["REPRO_RUNS"] = str(folder)
    try:
        yield
    finally:
        del os.environ["REPRO_RUNS"]
        if before is not None:
            os.environ["REPRO_RUNS"] = before


def within(name: str, found: Mapping[str, Sequence[float]], golden: Mapping[str, Sequence[float]]) -> bool:
    """Whether the first steps `found` of the recipe `name` agree with the `golden` ones within the recipe's
    tolerance."""
    tolerance = TOLERANCE if by_name(name).teacher is None else TOLERANCE_DISTILLED
    return all(
        math.isclose(x, y, rel_tol=tolerance)
        for field in FIELDS
        for x, y in zip(found[field], golden[field], strict=True)
    )


# --- steps --------------------------------------------------------------------------------------------------


def _locks() -> None:
    for path in LOCKS.glob("*.json"):
        if path.stem not in registry.RECIPES:
            path.unlink()
    for name in registry.RECIPES:
        write_text(LOCKS / f"{name}.json", lock(name))


def _surface() -> None:
    write_text(SURFACE, json.dumps(surface(), indent=1) + "\n")


def _goldens() -> None:
    old = json.loads(GOLDENS.read_text("utf-8"))
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in registry.RECIPES:
            home = Path(folder) / name
            home.mkdir()
            fresh = first_steps(name, home / "run")
            found[name] = old[name] if name in old and within(name, fresh, old[name]) else fresh
    write_text(GOLDENS, json.dumps(found, indent=1) + "\n")


def _certificates() -> None:
    from repro.certify.__main__ import main
    from repro.certify.presets import names
    from repro.results.certificates import FOLDER, file_name, read
    from repro.samplers.presets import preset

    known = {one["preset"]: one["digest"] for one in read(FOLDER)}
    wanted = names()
    for name in known.keys() - set(wanted):
        (FOLDER / file_name(name)).unlink()
    todo = [name for name in wanted if known.get(name) != parts.digest(preset(name))]
    for name in todo:
        main(["--presets", name])


def _tables() -> None:
    from repro.report import main

    main([])


def _figures() -> None:
    from paper_figures.__main__ import main

    main([])


def _gpu() -> None:
    from scripts.gpu_docs import main

    main([])


def _rooms() -> None:
    from scripts.rooms import main

    main([])


def _gallery() -> None:
    from scripts.gallery import main

    main([])


def _items() -> None:
    from scripts.items import main

    main([])


STEPS: dict[str, Callable[[], None]] = {
    "locks": _locks,
    "surface": _surface,
    "goldens": _goldens,
    "certificates": _certificates,
    "tables": _tables,
    "figures": _figures,
    "gpu": _gpu,
    "rooms": _rooms,
    "gallery": _gallery,
    "items": _items,
}
DERIVED = ("recipes/locks", "tests", "results/certificates", "results/tables", "paper_figures/out", "docs")
"""Folders that hold derived files."""


def _state() -> dict[Path, bytes]:
    files = (path for folder in DERIVED for path in (ROOT / folder).rglob("*") if path.suffix != ".pyc")
    return {path: path.read_bytes() for path in files if path.is_file()}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; raises ValueError for an unknown step and names the nearest one."""
    parser = Parser(
        "python -m scripts.accept",
        "Rewrite derived files after a deliberate change.",
        ["python -m scripts.accept", "python -m scripts.accept locks goldens"],
    )
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"of {', '.join(STEPS)} (default: all)")
    wanted = parser.parse_args(argv).steps or list(STEPS)
    for name in wanted:
        if name not in STEPS:
            raise ValueError(f"no step {name!r}; {nearest(name, STEPS)}")
    for name in wanted:
        before = _state()
        STEPS[name]()
        after = _state()
        changed = sorted(p for p in before.keys() | after.keys() if before.get(p) != after.get(p))
        print(f"{name}: {len(changed)} files changed")
        for path in changed:
            print(f"  {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    run(main, "scripts.accept")
