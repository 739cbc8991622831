"""Plots of how far the exact distribution of each preset's output (its law) is from the true one, from certificates
(docs/certify.md)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from repro.results import certificates
from repro.results.certificates import Stored
from repro.results.page import decodings
from repro.results.page.series import LAW_SHAPES, Items, keep, plot, series_of
from repro.results.page.sources import Json


def law_plots(stored: Sequence[Stored], items: Items) -> Iterator[Json]:
    """A plot for each noise process: the total variation distance between the exact output distribution of each preset
    and the true distribution, against the number of steps. `stored`: the certificates, which hold these distances;
    recorded decodings of the plotted points are added to `items`."""
    titles = {"absorbing": "Exact law: masked noise", "uniform": "Exact law: uniform noise"}
    for noise, title in titles.items():
        found = []
        for certificate in stored:
            for i, number in enumerate(certificate["numbers"]):
                if number["noise"] == noise and decodings.is_plotted(certificate["preset"], number):
                    found.append(_law_point(certificate, i, noise, items))
        x = {
            "label": "steps for a sentence of 3 tokens",
            "unit": "steps",
            "log": True,
            "better": "left",
            "base": 2,
        }
        y = {
            "label": "total variation from the true law",
            "unit": "total variation",
            "log": False,
            "better": "down",
            "percent": False,
        }
        about = (
            "The denoiser is exact and all 27 sentences are listed, so there is no sampling noise: what is left is the "
            "error of the rule itself. Total variation: 0 is the true law."
        )
        yield plot(
            f"law-{noise}",
            title,
            x,
            y,
            found,
            about=about,
            what="sentences",
            world="sentences",
            frontier=True,
        )


def _law_point(certificate: Stored, place: int, noise: str, items: Items) -> tuple[Json, Json]:
    number, preset = certificate["numbers"][place], certificate["preset"]
    source = {"certificate": certificates.file_name(preset), "place": place}
    steps = 3 / number["tokens_per_step"]
    path = decodings.law_path(noise, preset, number["steps"])
    name = keep(items, path, {"sampler": certificate["part"]})
    forwards = {"v": steps, "how": "3 tokens divided by", "field": "tokens_per_step", **source}
    point = {
        "setting": f"{steps:g} step{'s' * (steps != 1)}",
        "preset": preset,
        "x": forwards,
        "y": {"v": number["value"], "how": "exact, by enumeration: equal to", "field": "value", **source},
        "low": None,
        "high": None,
        "extra": [{"label": "steps", "number": forwards}],
        "outcomes": [],
        "items": name,
    }
    order = decodings.LAWS[noise].index(preset)
    series = series_of(noise, preset, number["steps"] is None)
    return {**series, "colour": f"rule-{order}", "shape": LAW_SHAPES[order]}, point
