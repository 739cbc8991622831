"""The gallery of decoding strategies and the animated pictures: what they show is what the traces hold."""

from __future__ import annotations

import copy
import re
import xml.etree.ElementTree as ElementTree

import pytest

from repro.core.parts import canonical
from repro.samplers.presets import PRESETS
from scripts import gallery
from scripts.denoising import FRAME, Panel, frames, panel, picture

TRACE = {
    "prompt": "1..2",
    "start": ["·", "·", "·", "·"],
    "steps": [
        {"forwards": 1, "writes": [{"position": 1, "text": "3", "revises": None}]},
        {
            "forwards": 2,
            "writes": [
                {"position": 0, "text": "1", "revises": None},
                {"position": 1, "text": "4", "revises": 3},
            ],
        },
        {"forwards": 3, "writes": [{"position": 0, "text": "·", "revises": 1}]},
        {"forwards": 4, "writes": [{"position": i, "text": "1", "revises": None} for i in (0, 2, 3)]},
    ],
    "text": "1411",
}
NAMESPACE = "{http://www.w3.org/2000/svg}"


def visible(svg: str, seconds: float) -> list[tuple[str, str]]:
    """(text, state) that the animation of a picture of one panel shows at a time, by position."""
    style = svg.partition("<style>")[2].partition("</style>")[0]
    length = float(re.search(r"animation:([\d.]+)s", style)[1])
    shown = {}
    for text in ElementTree.fromstring(svg).iter(f"{NAMESPACE}text"):
        kind, _, state = text.get("class", "").partition(" ")
        if kind != "run":
            continue
        name = text.get("style", "").removeprefix("animation-name:")
        block = re.search(r"@keyframes " + name + r"\{(.*)\}$", style, re.M)[1]
        value = "0"
        for when, opacity in re.findall(r"([\d.]+)%[,\d.%]*\{opacity:(\d)\}", block):
            if float(when) <= 100 * seconds / length:
                value = opacity
        if value == "1":
            place = (float(text.get("y", "")), float(text.get("x", "")))
            assert place not in shown, f"two texts at {place} at {seconds} s"
            shown[place] = (text.text, state.removesuffix(" last"))
    return [shown[place] for place in sorted(shown)]


def test_a_position_is_noise_then_new_or_revised_then_settled():
    assert frames(TRACE) == [
        [("·", "noise")] * 4,
        [("·", "noise"), ("3", "new"), ("·", "noise"), ("·", "noise")],
        [("1", "new"), ("4", "revised"), ("·", "noise"), ("·", "noise")],
        [("·", "noise"), ("4", "settled"), ("·", "noise"), ("·", "noise")],
        [("1", "new"), ("4", "settled"), ("1", "new"), ("1", "new")],
        [("1", "settled"), ("4", "settled"), ("1", "settled"), ("1", "settled")],
    ]


def test_a_trace_whose_steps_do_not_lead_to_its_text_is_refused():
    broken = copy.deepcopy(TRACE)
    broken["steps"].pop()
    with pytest.raises(ValueError, match="lead to '·4··', its text is '1411'"):
        panel("broken", broken)


@pytest.mark.parametrize("name", ["low_confidence", "remdm_conf", "corrector"])
def test_at_every_moment_the_animation_shows_one_frame(name):
    shown = panel(name, gallery.trace_of(name))
    svg = picture([shown], legend=False)
    for number, frame in enumerate(shown.frames):
        assert visible(svg, (number + 0.5) * FRAME) == frame
    still = [
        text.text
        for text in ElementTree.fromstring(svg).iter(f"{NAMESPACE}text")
        if text.get("class", "").endswith(" last")
    ]
    assert still == [text for text, _ in shown.frames[-1]], "without animation the final text is shown"


def test_pictures_hold_text_safely_and_reach_nothing_outside():
    svg = picture([Panel("a<b&c", "note", [[("<", "noise")] * 4, [("&", "settled")] * 4], frozenset())], True)
    assert ElementTree.fromstring(svg).findtext(f"{NAMESPACE}text") == "a<b&c"
    for path, text in gallery.files():
        if path.suffix == ".svg":
            assert not re.search(r"href|url\(|<script|@import|https?://(?!www\.w3\.org/2000/svg)", text), path


def test_page_and_pictures_are_current():
    assert gallery.main(["--check"]) == 0


def test_every_preset_has_a_section_with_its_certificate_and_a_trace_of_its_settings():
    page = gallery.PAGE.read_text("utf-8")
    assert re.findall(r"^### `(.*)`$", page, re.M) == [
        name
        for noise in ("absorbing", "uniform", "left_to_right")
        for name in PRESETS
        if gallery.noise_of(name) == noise
    ]
    assert "none stored" not in page
    assert all(gallery.trace_of(name)["sampler"] == canonical(rule) for name, rule in PRESETS.items())


def test_a_preset_without_entry_or_of_other_settings_is_named(monkeypatch):
    monkeypatch.setitem(PRESETS, "new", PRESETS["random"])
    with pytest.raises(ValueError, match="new has no entry"):
        gallery.entries()
    monkeypatch.setitem(PRESETS, "margin", PRESETS["entropy"])
    with pytest.raises(ValueError, match=r"margin\.json: sampler is .*--record RUNS"):
        gallery.trace_of("margin")
