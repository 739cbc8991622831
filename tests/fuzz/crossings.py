"""Cases of crossed settings (`--factors`, `repro.results factors`), and of the page of results."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from fuzz import mutations
from fuzz.machine import Case
from fuzz.mutations import Spoil
from fuzz.spoilt import from_json, resealed, whole

FACTORS = ("repro.results", "factors", "out", "--csv", "factors.csv")
PAGE = ("repro.results", "page", "--raw", "raw", "--certificates", "certificates", "--out", "page")
LEVELS = (
    *("", ",", "=", "batch", "batch=", "batch=1", "batch=1|", "batch=|", "batch=1|1", "batch=0|1", "batch=-1|2"),
    *("batch=1.5|2", "batch=x|y", "batch=1|2,batch", "batch=1|99999999999999999999", "zzz=1|2", "zzz", "steps=0|1"),
    *("steps=nan|1", "steps=inf|all", "steps=all|all", "seed=-1|2", "seed=1e9|2", "precision=float16|float32"),
    *("template=own|none", "template=chat|none", "draws=0|8", "draws=1|2|3|4|5|6|7|8|9", "shots=-1|2", "sampler=x|y"),
    *("batch=1|2,draws=2|4,seed=0|1,steps=1|2,precision,template", "\x1b[31m=1|2", "é=1|2", "batch=\uff11|2"),
)  # fmt: skip


def cases(out: Path) -> Iterator[Case]:
    """Every case of crossings and of the page; `out`: folder of the worlds."""
    yield from _levels()
    yield from _stored(out)
    yield from _page(out)


def _levels() -> Iterator[Case]:
    base = ("repro.evals", "--ckpt", "run", "--tasks", "task.yaml", "--estimator", "llada_mc:batch=1,draws=2")
    plan = ("repro.evals", "plan", *base[1:])
    for text in LEVELS:
        for argv in (base, plan):
            named = ("--factors", "factor", text[:20] or "factor", *text.replace("=", "|").split("|"))
            yield Case(
                "factors", f"{argv[1]} {text[:40]!r}", "crossed", (*argv, f"--factors={text}"), named,
                valid=True, writes=("runs*",),
            )  # fmt: skip


def _stored(out: Path) -> Iterator[Case]:
    """Records and items of a crossing, spoilt."""
    more: dict[str, Any] = {
        "writes": ("factors.csv",),
        "keeps": ("out/*",),
        "also": ("out", "missing", "combination"),
    }
    for path in sorted((out / "crossed").glob("out/batch-1/*/*.jsonl")):
        file = str(path.relative_to(out / "crossed"))
        for case in whole("crossed records", "crossed", file, FACTORS, **more):
            absent = case.what.endswith((": missing", ": empty", ": blank", ": empty device"))
            yield replace(case, valid=absent)  # what is left is a crossing of one setting
        first = json.loads(path.read_text("utf-8").splitlines()[0])
        for what, place, changed in mutations.values(first):
            spoil = _first_line(file, changed)
            if spoil is None:
                continue
            fields = tuple(str(step) for step in place if isinstance(step, str))[-2:]
            named = (Path(file).name, *fields, "combination", "items", "metric", "out")
            yield Case(
                "crossed records", f"{file}: {what}", "crossed", FACTORS, named, spoil,
                valid=True, writes=("factors.csv",), keeps=("out/*",),
            )  # fmt: skip


def _first_line(file: str, data: Any) -> Spoil | None:
    """The first line changed; a record gets right hashes, as another programme would write them."""
    data = resealed(data) if "/raw/" in file else data
    if data is None:
        return None

    def spoil(folder: Path) -> None:
        lines = (folder / file).read_text("utf-8").splitlines()
        (folder / file).write_text("\n".join([json.dumps(data), *lines[1:], ""]), "utf-8")

    return spoil


def _page(out: Path) -> Iterator[Case]:
    more: dict[str, Any] = {"writes": ("page*",), "keeps": ("page/*",)}
    record = "raw/ar@nano.sudoku-s0.speed.sudoku.jsonl"
    yield from whole(
        "page", "page", record, PAGE, also=("ar@nano.sudoku/", "evaluation", "raw has no"), **more
    )
    for file in ("certificates/ancestral.json", "certificates/controls.json"):
        yield from from_json("page", out, "page", file, PAGE, **more)
