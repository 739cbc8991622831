"""Controls of certificates: the wrong samplers and losses of examples/certify, and the right ones.

    python -m scripts.controls                 # certify all of them and write results/certificates/controls.json
    python -m scripts.controls twice gumbel    # only those named, beside what is stored of the others

A wrong one must be refused by some test, a right one by none; exit code 1 otherwise. The table
results/tables/controls.md is made from the stored file.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import Any

from repro.certify.foreign import load
from repro.certify.isolated import Unfinished, isolated
from repro.certify.verdict import FULL
from repro.core.files import write_text
from repro.results.certificates import CONTROLS, FOLDER, read_controls

GROUPS = ("wrong", "right")
FILES = {"sampler": "examples/certify/{}_samplers.py", "loss": "examples/certify/{}_losses.py"}
EFFORT = replace(FULL, seconds=600.0)
"""The default number of samples, with more wall time: the machine may be busy."""
HANGS = replace(FULL, seconds=20.0)
UNFINISHED = "finishes"
"""Name under which code that does not run to its end is stored as refused."""


def controls(group: str) -> list[tuple[str, str, str, str]]:
    """Kind, file, family and name of every control of a group."""
    return [
        (kind, file.format(group), family, call.__name__)
        for kind, file in FILES.items()
        for family, calls in load(f"{file.format(group)}:FAMILIES").items()
        for call in calls
    ]


def certified(kind: str, file: str, family: str, name: str) -> dict[str, Any]:
    """One control: what it is in words, and the checks of its certificate that do not stand."""
    call = load(f"{file}:{name}")
    try:
        certificate = isolated(f"{file}:{name}", None, HANGS if name == "hangs" else EFFORT)
        refused_by = sorted({check.name for check in certificate.checks if not check.stands})
    except Unfinished:
        refused_by = [UNFINISHED]
    return {
        "name": name,
        "kind": kind,
        "family": family,
        "what": (call.__doc__ or "").strip().splitlines()[0],
        "refused_by": refused_by,
    }


def main(wanted: list[str]) -> int:
    """Certify the controls and store them; returns 1 if a wrong one is seen by no test, or a right one is refused."""
    stored = read_controls(FOLDER)
    found: dict[str, list[Any]] = {group: [] for group in GROUPS}
    good = True
    for group in GROUPS:
        old = {(row["kind"], row["name"]): row for row in stored[group]}
        for kind, file, family, name in controls(group):
            if not wanted or name in wanted:
                row = certified(kind, file, family, name)
                as_it_should = bool(row["refused_by"]) == (group == "wrong")
                good = good and as_it_should
                says = ", ".join(row["refused_by"]) or "stands"
                print(f"{'ok  ' if as_it_should else 'FAIL'} {group} {name:<22} {says}", file=sys.stderr)
            elif (kind, name) in old:
                row = old[kind, name]
            else:
                continue
            found[group].append(row)
    write_text(FOLDER / CONTROLS, json.dumps(found, indent=1) + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
