"""The records of the benchmark of growth: sound, different from each other, and five seeds in a cell."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice

from benchmarks.growth import SEEDS, copies
from repro.results.record import read_record, text
from repro.results.store import RAW, Store, collect


def test_copies_are_sound_records_of_five_seeds_each():
    some = list({each.cell: each for each in collect(RAW)}.values())[:3]
    made = list(islice(copies(some), 3 * (SEEDS + 2)))
    assert made[:3] == some
    assert len({each.id for each in made}) == len(made)
    assert Counter(Counter(each.cell for each in made).values()) == {SEEDS: 3, 2: 3}
    assert (
        len({each.labels.checkpoint for each in made[-3:]} & {each.labels.checkpoint for each in some}) == 0
    )


def test_copies_survive_their_file(tmp_path):
    made = list(islice(copies(collect(RAW)[:2]), 12))
    store = Store(tmp_path)
    assert store.append(*made) == 12 and store.append(*made) == 0
    assert sorted(map(text, store.records())) == sorted(map(text, made))
    assert all(read_record(json.loads(text(each))) == each for each in store.records())
