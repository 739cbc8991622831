"""Cases of adapters (LoRA) beside released weights: the checkpoint of the adapters, and the weights that they adapt."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fuzz import worlds
from fuzz.machine import Case
from fuzz.mutations import Spoil
from fuzz.spoilt import from_json, whole

AREA = "adapters"
SAMPLE = ("repro.sample", "--ckpt", "run", "--n", "1")
SHOW = ("repro.checkpoint", "show", "run")
EXPORT = ("repro.checkpoint", "export", "run", "--hf", "hf")
STEP = "run/step_00000001"
WEIGHTS = f"{STEP}/model.safetensors"
BASE = "base/model.safetensors"
NAMED = ("base", "model.safetensors", "revision")
HEADERS: dict[str, tuple[Any, ...]] = {
    "shape": ([10**9, 10**9], [-1, 4], [0], [], [4, 4], "x", None),
    "dtype": ("F64", "I8", "F8_E4M3", "X", None),
    "data_offsets": ([0, 10**12], [8, 0], [0], None),
}


def cases(out: Path) -> Iterator[Case]:
    """Every case of a run with adapters; `out`: folder of the worlds."""
    more: dict[str, Any] = {"writes": ("hf*",), "keeps": ("base/*", "run/step*")}
    raw = (*SAMPLE, "--weights", "raw")
    yield from from_json(AREA, out, "adapted", f"{STEP}/state.json", SHOW, **more)
    yield from whole(AREA, "adapted", WEIGHTS, raw, **more)
    for file in ("base/config.json", BASE):
        yield from whole(AREA, "adapted", file, SAMPLE, also=NAMED, **more)
    yield from from_json(AREA, out, "adapted", "base/config.json", EXPORT, also=NAMED, **more)
    for path, argv in ((WEIGHTS, raw), (WEIGHTS, EXPORT), (BASE, SAMPLE), (BASE, EXPORT)):
        head, _ = worlds.header(out / "adapted" / path)
        names = [name for name in head if name != "__metadata__"]
        for what, spoil in _headers(path, (names[0], names[-1])):
            named = (Path(path).name, *NAMED, names[0], names[-1])
            yield Case(AREA, f"{path}: {what} ({argv[1]})", "adapted", argv, named, spoil, **more)


def _headers(file: str, names: tuple[str, ...]) -> Iterator[tuple[str, Spoil]]:
    """Headers with a tensor less, renamed, twice, or with another shape, type or place."""

    def of(change: Callable[[dict[str, Any]], Any]) -> Spoil:
        def spoil(folder: Path) -> None:
            found, rest = worlds.header(folder / file)
            change(found)
            worlds.write_header(folder / file, found, rest)

        return spoil

    for name in names:
        yield f"{name} missing", of(lambda found, n=name: found.pop(n))
        yield f"{name} called x", of(lambda found, n=name: found.__setitem__("x", found.pop(n)))
        yield f"{name} once more", of(lambda found, n=name: found.__setitem__("x", found[n]))
        for key, values in HEADERS.items():
            for value in values:
                what = f"{name}.{key}={json.dumps(value)}"
                yield what, of(lambda f, n=name, k=key, v=value: f[n].__setitem__(k, v))
