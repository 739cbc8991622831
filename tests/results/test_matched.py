"""Differences at matched entropy: interpolation, resamples, the pairs that are compared, and the tables."""

from __future__ import annotations

import csv
import io
import math

import numpy as np
import pytest
import torch
from helpers.synthetic import naive, quality, sampled
from msgspec import structs

from repro.core import rng
from repro.core.bootstrap import band, resampled, uniform
from repro.results.record import Question, make_record
from repro.results.tables.matched import Sweep, differences, sweeps
from repro.results.tables.text_quality import points, tables

PANEL = "nano.text (suite nano)"


def test_the_resamples_draw_from_the_suites_own_stream():
    theirs = rng.uniform(rng.keys(0, rng.RESAMPLE, 0, torch.arange(7)), 11).numpy()
    assert (uniform(rng.RESAMPLE, 7, 11) == theirs).all()
    found = resampled(11, 7)
    assert found.shape == (7, 11) and (found == np.floor(theirs * 11)).all()
    counts = np.bincount(resampled(50, 2000).ravel(), minlength=50)
    assert abs(counts - 2000).max() < 5 * math.sqrt(2000)


def frontier(name, shift, slope=0.8, temperatures=(0.7, 0.85, 1.0), moved=0.0, seeds=(0,)):
    """log gen_ppl = slope (entropy - 2) + shift, up to the spread of samples."""
    made = []
    for temperature in temperatures:
        entropy = 2.0 + temperature + moved
        preset = f"{name}+tempered:temperature={temperature}"
        made += [
            sampled("mdlm@nano.text", preset, "1", slope * (entropy - 2) + shift, entropy, seed)
            for seed in seeds
        ]
    return made


def test_a_sweep_is_measured_first_and_resampled_after():
    (found,) = sweeps(frontier("ancestral", 1.0))
    assert found.sampler == "ancestral" and found.temperatures == (0.7, 0.85, 1.0)
    records = [
        sampled("mdlm@nano.text", f"ancestral+tempered:temperature={t}", "1", 0.8 * t + 1, 2.0 + t)
        for t in found.temperatures
    ]
    for k, record in enumerate(records):
        curve = record.answer.curve
        assert found.log_ppl[0, k] == pytest.approx(sum(curve["nll"]) / sum(curve["tokens"]))
        assert found.entropy[0, k] == pytest.approx(np.mean(curve["entropy"]))
        rows = resampled(64, 1000)[17]
        assert found.entropy[18, k] == pytest.approx(np.mean(np.array(curve["entropy"])[rows]))
        tokens = np.array(curve["tokens"])[rows].sum()
        assert found.log_ppl[18, k] == pytest.approx(np.array(curve["nll"])[rows].sum() / tokens)


def relabelled(record, judge, **labels):
    """The same answer to a question with another judge."""
    protocol = record.question.protocol | {"judge": judge}
    asked = Question.read(record.question.data() | {"protocol": protocol})
    return make_record(asked, record.labels.data() | labels, record.answer.data(), record.measurements.data())


def test_a_band_is_of_the_panel_and_a_sweep_of_samples_that_a_judge_reads():
    """One checkpoint and sampler in two suites with different judges; another task with the same curves is ignored."""
    made = frontier("ancestral", 1.0)
    harsh = [relabelled(record, "harsh", suite="harsh") for record in frontier("ancestral", 2.0)]
    drawn = points([*made, *harsh], sweeps([*made, *harsh]))
    assert set(drawn.panel) == {PANEL, "nano.text (suite harsh)"}
    assert (drawn.gen_ppl_low < drawn.gen_ppl).all() and (drawn.gen_ppl < drawn.gen_ppl_high).all()
    other = [relabelled(record, "other", task="other") for record in frontier("ancestral", 2.0)]
    assert len(sweeps([*made, *other])) == 1 and sweeps(other) == []
    assert (sweeps([*made, *other])[0].log_ppl == sweeps(made)[0].log_ppl).all()


def line(*points):
    """A sweep through (entropy, log gen_ppl) without spread."""
    x, y = np.array(points).T
    both = [np.repeat(each[None], 3, 0) for each in (x, y)]
    fixed = {"panel": PANEL, "checkpoint": "mdlm@nano.text", "sampler": "s", "tokens_per_step": "1"}
    return Sweep(**fixed, temperatures=tuple(range(len(points))), entropy=both[0], log_ppl=both[1])


def test_between_temperatures_it_is_straight_and_order_is_by_entropy():
    sweep = line((2.0, 1.0), (3.0, 4.0), (2.5, 2.0))
    for at, value in ((2.0, 1.0), (2.25, 1.5), (2.5, 2.0), (2.75, 3.0), (3.0, 4.0), (3.5, 6.0), (1.5, 0.0)):
        assert sweep.at(at) == pytest.approx([value] * 3)
    assert sweep.reach == (2.0, 3.0)
    assert line((2.0, 1.0), (2.0, 3.0)).at(2.0) == pytest.approx([1.0] * 3), "two points of one entropy"


def test_a_difference_is_found_and_none_is_not():
    """One sampler is 0.3 nats above another; a third one, shifted along the same frontier, does not differ."""
    made = (
        frontier("ancestral", 1.0, seeds=(0, 1))
        + frontier("random", 1.3)
        + frontier("origin", 1.0, moved=0.1)
    )
    found = {(d.a, d.b): d for d in differences(sweeps(made), {PANEL: 2.85})}
    assert len(found) == 3
    apart = found["mdlm, ancestral, 1", "mdlm, random, 1"]
    assert apart.value == pytest.approx(-0.3, abs=0.05) and apart.p < 1e-4 and apart.entropy == 2.85
    assert apart.interval.low < apart.value < apart.interval.high < -0.2
    same = found["mdlm, ancestral, 1", "mdlm, origin, 1"]
    assert same.interval.low < 0 < same.interval.high and same.p > 0.05


def test_the_interval_is_paired_by_row():
    """Samples of one row are correlated between samplers: if the rows of one are permuted, the interval is wider."""
    made = frontier("ancestral", 1.0) + frontier("random", 1.3)
    (paired,) = differences(sweeps(made), {PANEL: 2.85})
    shuffled = []
    for record in made:
        curve = {name: list(values) for name, values in record.answer.curve.items()}
        if "random" in record.labels.preset:
            curve = {name: values[1:] + values[:1] for name, values in curve.items()}
        shuffled.append(structs.replace(record, answer=structs.replace(record.answer, curve=curve)))
    (alone,) = differences(sweeps(shuffled), {PANEL: 2.85})
    assert paired.value == pytest.approx(alone.value) and alone.se > 1.5 * paired.se


def test_coverage_of_the_band():
    """The band of a sweep at one entropy contains the true value in about 95 of 100 sets of samples."""
    hits = 0
    for run in range(100):
        draw = np.random.default_rng(run)
        rows = resampled(40, 200)
        entropy = np.array([2.0, 3.0]) + 0.1 * draw.normal(size=(40, 2))
        nll = np.array([1.0, 2.0]) + 0.5 * draw.normal(size=(40, 2))
        fixed = {
            "panel": "",
            "checkpoint": "",
            "sampler": "",
            "tokens_per_step": "",
            "temperatures": (0.5, 1.0),
        }
        both = [np.concatenate([each.mean(0)[None], each[rows].mean(1)]) for each in (entropy, nll)]
        low, high = band(Sweep(**fixed, entropy=both[0], log_ppl=both[1]).at(2.4)[1:], 0.95)
        hits += low < 1.4 < high
    assert 88 <= hits <= 100


def test_what_is_compared_and_where():
    """Compared are sweeps at equal tokens per step, of one sampler, or with an autoregressive one; at the nearest
    entropy that both reach, if any."""
    low = [sampled("ar@nano.text", f"sample:temperature={t}", "1", t, 1.8 + t) for t in (0.7, 1.0)]
    four = [sampled("mdlm@nano.text", f"random:temperature={t}", "4", t, 2.0 + t) for t in (0.7, 1.0)]
    two = [sampled("mdlm@nano.text", f"random:temperature={t}", "2", t, 2.0 + t) for t in (0.7, 1.0)]
    far = [sampled("mdlm@nano.text", f"margin:temperature={t}", "1", t, 5.0 + t) for t in (0.7, 1.0)]
    single = [quality("mdlm@nano.text", "entropy:temperature=1.0", "1", 7.0, 2.6)]
    found = differences(sweeps([*low, *frontier("ancestral", 1.0), *four, *two, *far, *single]), {PANEL: 9.0})
    pairs = {(d.a.split(", ")[1], d.b.split(", ")[1]): d for d in found}
    assert set(pairs) == {
        *(("sample", name) for name in ("ancestral", "margin", "random")),
        *(("ancestral", "margin"), ("random", "random")),
    }
    meeting = pairs["sample", "ancestral"]
    assert meeting.entropy == pytest.approx(
        min(s.reach[1] for s in sweeps([*low, *frontier("ancestral", 1.0)]))
    )
    assert pairs["ancestral", "margin"].value is None and pairs["ancestral", "margin"].p is None


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_the_tables_hold_points_references_and_differences():
    made = frontier("ancestral", 1.0) + frontier("random", 1.3)
    files = tables([*made, naive("mdlm@nano.text")])
    rows = rows_of(files["text_quality.csv"])
    assert [row["line"] for row in rows] == ["ancestral"] * 3 + ["random"] * 3 + [
        "real",
        "repetition",
        "unigram",
    ]
    for row in rows[:6]:
        assert float(row["gen_ppl_low"]) < float(row["gen_ppl"]) < float(row["gen_ppl_high"])
    (difference,) = rows_of(files["matched.csv"])
    assert float(difference["entropy"]) == pytest.approx(
        2.7, abs=0.05
    )  # real text's 2.6 lies below both sweeps
    assert float(difference["low"]) < float(difference["difference"]) < float(difference["high"]) < 0
    page = files["text_quality.md"]
    assert "| repetition " in page and "At matched entropy" in page and "real" in page
    assert tables([*made[::-1], naive("mdlm@nano.text")]) == files


def test_reference_rows_have_no_draws_and_samples_of_two_kinds_of_draws_do_not_mix():
    protocol = {"judge": "ar@nano.text", "judge_digest": "0" * 64, "rule": {"part": "every_token"}}
    drawn = quality(
        "mdlm@nano.text", "random:temperature=1.0", "1", 7.0, 2.6, protocol=protocol | {"draws": "float64"}
    )
    assert len(points([drawn, naive("mdlm@nano.text", protocol=protocol)], [])) == 4
    other = quality(
        "mdlm@nano.text", "random:temperature=0.7", "1", 7.0, 2.6, protocol=protocol | {"draws": "float32"}
    )
    with pytest.raises(ValueError, match="draws"):
        points([drawn, other], [])


def test_suites_that_judge_differently_stand_apart():
    """Two suites of one scale with different protocols: two sections, no comparison between them, no error."""
    protocol = {"judge": "gpt2-large", "judge_digest": "0" * 64, "rule": {"part": "first_eos_chunks"}}
    made, other = frontier("ancestral", 1.0), frontier("random", 1.3)
    moved = []
    for record in other:
        asked = Question.read(record.question.data() | {"protocol": protocol})
        labels = record.labels.data() | {"suite": "remdm_owt"}
        moved.append(make_record(asked, labels, record.answer.data(), record.measurements.data()))
    files = tables([*made, *moved])
    assert files["text_quality.md"].count("\n## ") == 2 and len(rows_of(files["matched.csv"])) == 0
    assert len(rows_of(tables([*made, *other])["matched.csv"])) == 1
