"""The table of samplers' styles, and what figures at print size must keep: nothing cut, nothing overlapping."""

from __future__ import annotations

import itertools
import re

import pytest
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from paper_figures import COLUMN, PAGE, End, law_error, quality, samplers, spread_out
from paper_figures import __main__ as figures
from repro.results import certificates
from repro.results.store import RAW, collect
from repro.results.versions import latest
from repro.samplers.presets import PRESETS


@pytest.fixture(scope="module")
def stored():
    return latest(collect(RAW))


def given(name, stored):
    kind = figures.FIGURES[name]
    if kind == "bench":
        return figures.bench_rows(figures.BENCH, name)
    if kind == "certificates":
        return certificates.read(certificates.FOLDER)
    return figures.choices.stored() if kind == "choices" else stored


def test_every_preset_has_a_style_of_its_own():
    missing = [name for name in PRESETS if samplers.base(name) not in samplers.SAMPLERS]
    assert not missing, f"{missing} need a line in SAMPLERS of paper_figures/samplers.py"
    for kind in samplers.KINDS:
        styles = [each for each in samplers.SAMPLERS.values() if each.kind == kind]
        assert len({each.marker for each in styles}) == len(styles), kind
        assert kind == "left to right" or len({each.ink for each in styles}) == len(styles), kind


def test_settings_do_not_change_a_style_and_unknown_samplers_are_grey():
    assert samplers.style_of("threshold_0.9:threshold=0.4") == samplers.SAMPLERS["threshold"]
    assert samplers.style_of("ancestral+tempered:temperature=0.7") == samplers.SAMPLERS["ancestral"]
    assert samplers.style_of("random, block 8, dual cache") == samplers.SAMPLERS["random"]
    assert samplers.style_of("mine").kind == "other"
    assert samplers.name_of("margin:temperature=1.0") == "margin"
    assert samplers.name_of("margin:temperature=1.05") == "margin:temperature=1.05"


def test_no_panel_has_more_than_eight_samplers(stored):
    rows = law_error.rows(law_error.query(given("law_error", stored)))
    assert len(rows) > 3 and max(len(presets) for *_, presets in rows) <= 8
    points = quality.query(stored)
    for _, block in points[points.recipe_family != "ar"].groupby(["task", "scale"]):
        panels = quality.panels(block)
        assert max(len(panel.presets) for panel in panels) <= 8
        shown = {(panel.checkpoint, name) for panel in panels for name in panel.presets}
        assert shown == set(zip(block.checkpoint, block.preset, strict=True))


def laid_out(name, stored, width=None):
    """A figure after its layout, at its own or another width, and the boxes of its texts, in pixels."""
    with style.context(figures.HERE / "style.mplstyle", after_reset=True):
        drawing, _ = figures.module(name).figure(given(name, stored))
        if width:
            drawing.set_size_inches(*figures.pdf_size(*drawing.get_size_inches(), width))
        canvas = FigureCanvasAgg(drawing)
        canvas.draw()
        texts = [text for text in drawing.findobj(Text) if text.get_visible() and text.get_text().strip()]
        ticks = {id(label) for axes in drawing.findobj(Axes) for label in _tick_labels(axes)}
        texts = [t for t in texts if id(t) not in ticks and (t.axes is None or t.axes.get_visible())]
        boxes = {text: text.get_window_extent(canvas.get_renderer()) for text in texts}
        return drawing, boxes


SLOW = {"frontier": pytest.mark.slow, "matched": pytest.mark.slow}  # resamples


@pytest.mark.parametrize("name", [pytest.param(n, marks=SLOW.get(n, ())) for n in figures.FIGURES])
def test_no_text_is_cut_and_labels_stand_beside_their_panels_and_overlap_nothing(name, stored):
    drawing, boxes = laid_out(name, stored)
    assert drawing.get_figwidth() in (COLUMN, PAGE)
    high, wide = (getattr(drawing.bbox, side) for side in ("height", "width"))
    for text, box in boxes.items():
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= wide + 1 and box.y1 <= high + 1
        assert inside, f"{text.get_text()!r} is cut"
    cores = {text: box.shrunk(0.98, 0.85) for text, box in boxes.items()}
    for (one, first), (other, second) in itertools.combinations(cores.items(), 2):
        if End.__name__ in (one.get_gid(), other.get_gid()):
            assert not first.overlaps(second), f"{one.get_text()!r} overlaps {other.get_text()!r}"
    for text, box in boxes.items():
        if text.get_gid() == End.__name__:
            panel, line = text.axes.get_window_extent(), text.get_fontsize() * drawing.dpi / 72
            beside = panel.y0 - line <= (box.y0 + box.y1) / 2 <= panel.y1 + line
            assert beside, f"{text.get_text()!r} stands apart from its panel"


def _tick_labels(axes):
    """Labels of all ticks, of which those outside the limits are not drawn."""
    for axis in (axes.xaxis, axes.yaxis):
        for tick in (*axis.majorTicks, *axis.minorTicks):
            yield from (tick.label1, tick.label2)


def test_spread_out_keeps_equal_heights_in_order():
    assert spread_out([0.5, 0.5 + 1e-6], 0.1, 0, 1) == pytest.approx([0.45, 0.55], abs=1e-3)


def test_spread_out_moves_only_what_must_move_to_stay_between_the_ends():
    assert spread_out([0.98, 0.0, 0.01, 0.02], 0.1, 0.0, 1.0) == pytest.approx([0.98, 0.0, 0.1, 0.2])
    assert spread_out([1.0, 0.99], 0.1, 0.0, 1.0) == pytest.approx([1.0, 0.9])
    assert spread_out([0.5, 0.5, 0.5], 0.6, 0.0, 1.0) == pytest.approx([-0.1, 0.5, 1.1])


@pytest.mark.parametrize(
    ("name", "width", "page"),
    [("gap", "column", COLUMN), ("choices", "text", PAGE), ("vocabulary", "column", PAGE)],
)
def test_pdf_has_the_width_of_the_column_and_fonts_as_truetype(name, width, page, tmp_path):
    assert figures.main([name, "--pdf", width, "--out", str(tmp_path)]) == 0
    data = (tmp_path / f"{name}.pdf").read_bytes()
    (box,) = re.findall(rb"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+) \]", data)
    assert float(box[0]) == pytest.approx(72 * page) and float(box[1]) < 72 * 9
    kinds = set(re.findall(rb"/Subtype /(Type3|TrueType|Type0|Type1|CIDFontType2)\b", data))
    assert kinds and kinds <= {b"TrueType", b"Type0", b"CIDFontType2"} and b"/FontFile2" in data
