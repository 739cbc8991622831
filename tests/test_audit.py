"""The audit of pinned releases fails for a finding alone; the floors of pyproject.toml allow the pins."""

from __future__ import annotations

import json
import tomllib
from itertools import chain

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from repro.core.files import ROOT
from scripts.audit import verdict

CLEAN = {"name": "a", "version": "1", "vulns": []}
WEAK = {"name": "b", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]}
SKIPPED = {"name": "c", "skip_reason": "not found"}


def said(*packages):
    return verdict(json.dumps({"dependencies": packages}))


def test_only_a_finding_fails():
    assert said(CLEAN) == (["audit: 1 releases looked up, 0 findings"], 0)
    lines, code = said(CLEAN, WEAK, SKIPPED)
    assert code == 1 and lines[0] == "b 2: CVE-1, fixed in 3" and "1 are not in the database" in lines[1]
    for lines, code in (verdict(""), said(SKIPPED)):
        assert code == 0 and "did not run" in lines[0] and len(lines) == 1


def test_pins_fulfil_the_floors():
    """Also those of the extras; and no floor allows a release with a known weakness."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if line)
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    wanted = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    floors = {}
    for requirement in map(Requirement, wanted):
        name = canonicalize_name(requirement.name)
        floors[name] = requirement.specifier
        if name in pins:  # torchao has no pin
            assert requirement.specifier.contains(pins[name]), (name, pins[name])
    weak = {
        "torch": "2.9.1",
        "transformers": "5.2.0",
        "filelock": "3.20.2",
        "jinja2": "3.1.5",
        "pyyaml": "5.3.1",
    }
    assert not [name for name, release in weak.items() if floors[name].contains(release)]
