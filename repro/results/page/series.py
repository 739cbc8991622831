"""What all plots share: names, colours and markers of series, and the JSON of a plot.

A plot has axes, series and points. Cost is the horizontal axis of the speed plots, so that left is faster. A series is
one model and one sampler (rule); a point is one setting of it: `x` and `y` are numbers with their sources
(`repro.results.page.sources`), `low` and `high` the ends of an interval of `y` (None: none), `extra` further numbers,
`outcomes` of each network, one digit per question (1: answered correctly), `items` the name of the recorded decodings
(None: not recorded) and `recorded` the index in `outcomes` of the network that they are compared with.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from msgspec import Struct

from repro.core.files import ROOT
from repro.core.reading import read_toml
from repro.results.page import decodings
from repro.results.page.sources import Json
from repro.results.record import Record
from repro.samplers.presets import PAPERS, SOURCES

MODELS = {
    "llada": "LLaDA (masked diffusion)",
    "mdlm": "MDLM (masked diffusion)",
    "duo": "Duo (uniform diffusion)",
    "duo_mended": "Duo, mended (uniform diffusion)",
    "duo_nelbo": "Duo, NELBO (uniform diffusion)",
    "ar": "autoregressive (left to right)",
    "absorbing": "masked diffusion, exact",
    "uniform": "uniform diffusion, exact",
}
"""Name on the page of each recipe, and of each noise process with its exact denoiser."""
SHAPES = {
    "ancestral": "circle",
    "low_confidence": "square",
    "threshold_0.9": "diamond",
    "factor_1": "triangle",
    "random": "down",
    "greedy": "cross",
    "sample": "cross",
}
"""Marker of each rule where a plot has several models, whose colours tell the models apart."""
LAW_SHAPES = ("circle", "down", "triangle", "square", "cross", "diamond", "ring")
"""Marker of each rule of `decodings.LAWS`, in its order, which also decides the colour."""
GALLERY = ROOT / "docs" / "gallery.toml"
Items = dict[str, list[Json]]
"""Name of a file of recorded decodings -> its items, with their frames (`decodings.decoded`)."""


class _Entry(Struct):
    """An entry of docs/gallery.toml: `says`, a sentence about what a preset does."""

    says: str


@lru_cache
def _sentences() -> dict[str, str]:
    """Preset -> a sentence about it, from docs/gallery.toml; empty in an installed package, which does not carry
    docs/."""
    if not GALLERY.is_file():
        return {}
    return {name: each.says for name, each in read_toml(GALLERY, dict[str, _Entry]).items()}


def _bare(preset: str) -> str:
    """Name of a preset without logits processors, changed settings, blocks and cache:
    `random:temperature=0.7+nucleus:p=0.9` -> `random`."""
    return preset.partition("+")[0].partition(":")[0].partition(",")[0]


def rule_text(preset: str) -> str:
    """What a preset does: the sentence in docs/gallery.toml, else the one that is defined with the preset
    (`repro.samplers.presets.SOURCES`); "" if there is no such preset."""
    name = _bare(preset)
    return _sentences().get(name, SOURCES.get(name, ""))


def series_of(model: str, rule: str, adaptive: bool) -> Json:
    """JSON of the series of a model (recipe or noise process) and a rule (preset): family of the model (decides the
    colour), marker, names, what the rule does and its paper (arXiv number). `adaptive`: whether the rule has no fixed
    number of steps."""
    family = model.partition("@")[0]
    return {
        "id": f"{model}/{rule}",
        "family": family,
        "model": MODELS.get(family, model),
        "recipe": model,
        "rule": rule,
        "about": rule_text(rule),
        "paper": PAPERS.get(_bare(rule)),
        "adaptive": adaptive,
        "colour": family,
        "shape": SHAPES.get(rule.partition(",")[0], "circle"),
        "dash": rule.partition(", ")[2],
    }


def plot(name: str, title: str, x: Json, y: Json, found: Sequence[tuple[Json, Json]], **more: Any) -> Json:
    """JSON of the plot with the identifier `name`, axes `x` and `y`, and the pairs (series, point) in `found`; `more`:
    further fields of the plot."""
    series = {each["id"]: each for each, _ in found}
    made = [{"id": f"{name}-{i}", "series": each["id"], **point} for i, (each, point) in enumerate(found)]
    return {
        "id": name,
        "title": title,
        "x": x,
        "y": y,
        "series": list(series.values()),
        "points": made,
    } | more


def how(own: Sequence[Record]) -> str:
    """How a number is computed from one field of the records `own`, in words that stand before the field's name:
    `equal to`, or `mean over 2 trained networks of`."""
    return f"mean over {len(own)} trained networks of" if len(own) > 1 else "equal to"


def keep(items: Items, path: Path, wanted: Json) -> str | None:
    """Add the decodings of the file `path` to `items` and return their key there, the file's name without extension. If
    there is no such file, or its fields are not those in `wanted` (field -> value), nothing is added and None is
    returned."""
    found = decodings.decoded(path, wanted)
    if found is None:
        return None
    items[path.stem] = found
    return path.stem
