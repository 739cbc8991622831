"""Entries of evals/checkpoints.toml agree with the layouts, the published cells and the papers' sizes."""

from __future__ import annotations

import pytest

from repro.core import parts, registry
from repro.core.registry import LAYOUTS
from repro.data.released import Released
from repro.evals.published import cells as published
from repro.hub import catalogue as checkpoints
from repro.hub.catalogue import UNRESOLVED, entry, known, read
from repro.models.llama import Llama

ENTRIES = read()


def test_every_published_hub_name_is_listed():
    named = {name for cell in published.read() for name in cell.of if "/" in name}
    assert named and named <= ENTRIES.keys()


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_agrees_with_the_layout_it_names(name):
    each = ENTRIES[name]
    kind = each.layout.removeprefix("unlisted: ")
    if kind != each.layout:
        assert kind not in LAYOUTS, f"{kind} has a layout now; remove 'unlisted'"
        return
    layout = registry.resolve(LAYOUTS[kind])
    assert (each.process, each.meaning) == (parts.part_name(type(layout.process)), layout.meaning)
    assert (each.mask == "none") == (layout.mask is None)
    assert each.right_shift == (kind == "dream")


@pytest.mark.parametrize("name", [n for n, e in ENTRIES.items() if e.shape is not None])
def test_sizes_make_the_stated_parameters(name):
    """Blocks, one embedding (tied) or two, and at most 5 % for norms, biases, positions and modulation."""
    each = ENTRIES[name]
    size = each.shape.size(each.parameters)
    tables = [size.blocks + n * size.vocab_size * size.width for n in (1, 2)]
    assert any(0 <= each.parameters - total <= 0.05 * each.parameters for total in tables) or any(
        abs(each.parameters / total - 1) < 0.003 for total in tables
    )


def test_sizes_equal_those_of_our_network():
    shape = entry("GSAI-ML/LLaDA-8B-Base").shape
    assert shape is not None
    data = Released(
        tokenizer_sha256="", size=126464, total=126464, mask=126336, bos=None, eos=None, pad=None, length=4096
    )
    ours = Llama(
        layers=shape.layers,
        width=shape.width,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        ffn=shape.ffn,
        attention="bidirectional",
        rope_base=5e5,
        norm_eps=1e-5,
        learned_positions=0,
        tied=False,
        init_deviation=0.02,
    ).size(data)
    theirs = shape.size(ours.parameters)
    assert theirs == ours
    assert ours.parameters == pytest.approx(8.02e9, rel=1e-3)


def test_names_and_folders_find_their_entry():
    assert known("LLaDA-1.5") == entry("GSAI-ML/LLaDA-1.5")
    assert known("nobody/nothing") is None
    with pytest.raises(ValueError, match="nearest is 's-sahoo/duo-distilled'"):
        entry("s-sahoo/duo-distiled")


def test_checkpoints_of_one_configuration_differ_in_fingerprint_and_published_number(tmp_path):
    """Duo and its distilled student: the student scores 30.27 in the place of the base."""
    base, distilled = entry("s-sahoo/duo"), entry("s-sahoo/duo-distilled")
    assert (base.shape, base.layout) == (distilled.shape, distilled.layout)
    cells = {
        each.name: published.find(published.read(), each.number_of)
        for each in ENTRIES.values()
        if each.number_of
    }
    assert abs(cells[base.name].value - cells[distilled.name].value) > 5
    text = checkpoints.FILE.read_text("utf-8").split("[[checkpoint]]")
    pinned = [
        entry.replace(UNRESOLVED, "r", 1).replace(UNRESOLVED, "d" * 64)
        for entry in text
        if 'duo-distilled"' in entry
    ]
    path = tmp_path / "checkpoints.toml"
    path.write_text("[[checkpoint]]".join(["", *[p for p in text if '"s-sahoo/duo"' in p], *pinned]), "utf-8")
    found = read(path)
    with pytest.raises(ValueError, match=r"checkpoints\.toml records dddd"):
        found["s-sahoo/duo-distilled"].check("e" * 64, found)
    found["s-sahoo/duo-distilled"].check("d" * 64, found)
    with pytest.raises(ValueError, match="these weights are s-sahoo/duo-distilled, not s-sahoo/duo"):
        found["s-sahoo/duo"].check("d" * 64, found)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('process = "uniform"', 'process = "unifrom"', "unifrom"),
        ("right_shift = false", "right_shfit = false", "right_shfit"),
        ('fingerprint = "UNRESOLVED"\n', "", "fingerprint"),
        ('name = "s-sahoo/duo"', 'name = "s-sahoo/duo-distilled"', "two checkpoints have the name"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, old, new, says):
    path = tmp_path / "checkpoints.toml"
    text = checkpoints.FILE.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")
    with pytest.raises(ValueError, match=says):
        read(path)
