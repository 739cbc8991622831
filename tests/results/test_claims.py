"""Claims: the file and its lock, verdicts on simulated records, and records that are younger than their claims."""

from __future__ import annotations

import json
import random
import subprocess

import pytest
from helpers.synthetic import question, record

from repro.core.files import ROOT
from repro.results.claims import LOCK, Claims, claims, lock, power, runs_of, verdicts
from repro.results.store import collect
from repro.results.tables.claims import FOLDERS, stored, tables

CLAIM = {
    **{"name": "first", "says": "A is above B.", "source": "arXiv 0000.00000", "quantity": "A minus B"},
    **{"family": "f", "where": "claims", "seeds": [0, 1, 2, 3], "direction": "above", "margin": 0.1},
    **{"expected": 0.5, "spread": 0.1, "power": 0.9},
    "cells": [
        {"sign": 1, "recipe": "a@nano", "task": "bound", "metric": "nll_bound"},
        {"sign": -1, "recipe": "b@nano", "task": "bound", "metric": "nll_bound"},
    ],
}


def made(*others: dict[str, object]) -> Claims:
    import msgspec

    members = [CLAIM, *({**CLAIM, **other} for other in others)]
    return msgspec.convert({"level": 0.05, "claim": members, "untestable": []}, Claims)


def measured(apart: float, seeds=range(4), recipes=("a@nano", "b@nano")):
    """Records whose quantity is `apart` with a small spread over train seeds, both recipes sharing a large one."""
    found = []
    for seed in seeds:
        shared, own = random.Random(seed).gauss(2, 1), random.Random(f"{seed}").gauss(0, 0.01)
        for recipe, value in zip(recipes, (shared + apart + own, shared), strict=True):
            asked = question(recipe, "bound", seed)
            found.append(record(asked, {"nll_bound": (value, 0.01, 4096)}, recipe=recipe))
    return found


@pytest.mark.parametrize(
    ("apart", "word"), [(0.5, "holds here"), (0.0, "fails here"), (-0.5, "fails here"), (0.1, "undecided")]
)
def test_verdicts(apart, word):
    (found,) = verdicts(made(), {"claims": measured(apart), "choices": []})
    assert found.word == word and found.mean == pytest.approx(apart, abs=0.02) and found.n == 4


def test_the_direction_below_mirrors_the_claim():
    below = {"name": "first", "direction": "below", "margin": -0.1}
    import msgspec

    found = msgspec.convert({"level": 0.05, "claim": [{**CLAIM, **below}], "untestable": []}, Claims)
    for apart, word in ((-0.5, "holds here"), (0.5, "fails here")):
        assert verdicts(found, {"claims": measured(apart), "choices": []})[0].word == word


def test_a_claim_without_all_its_seeds_has_no_verdict():
    (found,) = verdicts(made(), {"claims": measured(0.5, range(3)), "choices": []})
    assert found.word == "not measured" and found.n == 3


def test_a_family_shares_its_error():
    """The same numbers hold alone, and not among forty claims (Holm)."""
    alone, *_ = verdicts(made(), {"claims": measured(0.125), "choices": []})
    empty = [{"cells": [{**c, "recipe": "none@nano"} for c in CLAIM["cells"]]}] * 40
    family = made(*({**each, "name": f"other {i}"} for i, each in enumerate(empty)))
    among, *_ = verdicts(family, {"claims": measured(0.125), "choices": []})
    assert alone.word == "holds here" and among.word == "undecided"
    assert among.holds == pytest.approx(41 * alone.holds)


def test_power_is_that_of_simulated_verdicts():
    found = made({"name": "second"})
    claim = found.claim[0]
    claim = type(claim)(**{**{f: getattr(claim, f) for f in claim.__struct_fields__}, "expected": 0.22})
    from scipy.stats import t

    draw, limit, hits = random.Random(0), t.isf(0.025, 3), 0
    for _ in range(4000):
        values = [draw.gauss(0.22, 0.1) - 0.1 for _ in range(4)]
        mean = sum(values) / 4
        error = (sum((v - mean) ** 2 for v in values) / 3 / 4) ** 0.5
        hits += abs(mean / error) > limit
    assert power(claim, 0.05, 2) == pytest.approx(hits / 4000, abs=0.025)


def test_the_committed_claims_are_those_of_the_lock_and_their_power_is_as_stated():
    found = claims()
    assert json.loads(LOCK.read_text("utf-8")) == lock(found)
    assert 12 <= len(found.claim) + len(found.untestable) <= 16
    for claim in found.claim:
        own = power(claim, found.level, len(found.family(claim.family)))
        assert claim.power == pytest.approx(own, abs=0.006), claim.name
        assert len(claim.seeds) >= 8, claim.name
    changed = made()
    assert lock(changed) != lock(made({"name": "second"}))  # the size of the family is part of a claim


def _git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False)


def test_records_name_a_commit_that_holds_the_lock():
    """In the history of a full clone, the lock at the commit of each deciding record is the present one."""
    commits = {
        each.measurements.commit for folder in FOLDERS.values() if folder.is_dir() for each in collect(folder)
    }
    for commit in sorted(filter(None, commits)):
        if _git("cat-file", "-e", f"{commit}^{{commit}}").returncode:
            pytest.skip(f"commit {commit} is not in this clone")
        assert _git("show", f"{commit}:evals/claims_lock.json").stdout == LOCK.read_bytes(), commit
    assert None not in commits


def test_every_claim_is_in_the_ledger():
    ledger = stored()
    assert ledger is not None
    text = tables(ledger)["claims.md"]
    for each in (*ledger[0].claim, *ledger[0].untestable):
        assert each.says in text, each.name
    assert all(len(set(found.seeds)) >= 8 for found in runs_of(ledger[0]).values())


def test_claims_that_differ_from_the_lock_are_not_run(monkeypatch, capsys, tmp_path):
    from repro.core.cli import run
    from scripts import claims as command

    other = tmp_path / "claims_lock.json"
    other.write_text("{}", "utf-8")
    monkeypatch.setattr(command, "LOCK", other)
    with pytest.raises(SystemExit) as stopped:
        run(lambda _: command.main([]), "scripts.claims")
    assert stopped.value.code == 2 and "--register" in capsys.readouterr().err
