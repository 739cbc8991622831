"""Bad input of every kind, to every command and every file format: one line that names it and exit code 2, or a success
that is documented; see tests/fuzz/machine.py for what a case is and when it fails."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from fuzz import campaign, machine, worlds

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads do not survive a fork


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """The folder of the worlds."""
    folder = tmp_path_factory.mktemp("worlds")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REPRO_RUNS", str(folder / "runs"))
        worlds.build(folder)
    campaign.preload()
    return folder


def check(cases: list[machine.Case], made: Path, scratch: Path) -> Counter[tuple[str, str]]:
    """Run the cases and assert that none has a fault; returns the number of outcomes by area."""
    faults, counts = [], Counter()
    for case, outcome, fault in campaign.run(cases, made, scratch):
        counts[case.area, "refused" if outcome.code == 2 else "right or without effect"] += 1
        if fault is not None:
            counts[case.area, "faults"] += 1
            faults.append(f"[{case.area}] {case.what} ({' '.join(case.argv)[:120]}): {fault}")
    assert not faults, "\n".join([f"{len(faults)} of {len(cases)} cases", *faults[:40]])
    return counts


def test_a_sample_of_bad_input(made, tmp_path):
    cases = campaign.few(campaign.cases(made))
    assert len(cases) >= 300
    check(cases, made, tmp_path)


@pytest.mark.slow
def test_bad_input(made, tmp_path, capsys):
    cases = campaign.cases(made)
    assert len(cases) >= 3000
    counts = check(cases, made, tmp_path)
    with capsys.disabled():
        print("\narea | cases | refused | right or without effect | faults")
        for area in dict.fromkeys(case.area for case in cases):
            row = [counts[area, kind] for kind in ("refused", "right or without effect", "faults")]
            print(area, sum(row[:2]), *row, sep=" | ")


@pytest.mark.slow
@pytest.mark.parametrize("flags", [(), ("-O",)], ids=["plain", "without asserts"])
def test_bad_input_to_commands_of_their_own(flags, made, tmp_path):
    """A share of the cases as processes of their own, with and without asserts, ends as in a forked process."""
    for case in campaign.few(campaign.cases(made))[::20]:
        if case.argv[0].startswith("python:"):
            continue
        outcome = machine.execute_alone(case, made, tmp_path, *flags)
        forked = machine.execute(case, made, tmp_path)
        assert (outcome.code, outcome.err) == (forked.code, forked.err), case
        assert machine.fault(case, outcome, forked.out) is None
