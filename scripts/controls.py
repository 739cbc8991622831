"""Negative controls of certificates: every wrong sampler and loss of examples/certify, and the tests that see it.

    python -m scripts.controls            # certify all of them and write results/certificates/controls.json
    python -m scripts.controls twice      # only those named; prints, writes nothing

Exit code 1 if a defect is seen by no test. The table results/tables/controls.md is made from the stored file.
"""

from __future__ import annotations

import json
import runpy
import sys
from typing import Any

from repro.certify.foreign import load
from repro.certify.isolated import isolated
from repro.certify.verdict import FULL
from repro.core.files import write_text
from repro.results.certificates import CONTROLS, FOLDER

FILES = ("examples/certify/wrong_samplers.py", "examples/certify/wrong_losses.py")


def controls() -> list[tuple[str, str]]:
    """File and name of every negative control."""
    return [(file, call.__name__) for file in FILES for call in runpy.run_path(file)["CONTROLS"]]


def seen(file: str, name: str) -> dict[str, Any]:
    """One control: its defect in words, and the checks of its certificate that do not stand."""
    call = load(f"{file}:{name}")
    certificate = isolated(f"{file}:{name}", None, FULL)
    failed = sorted({check.name for check in certificate.checks if not check.stands})
    return {
        "name": name,
        "kind": "loss" if "losses" in file else "sampler",
        "defect": (call.__doc__ or "").strip().splitlines()[0],
        "seen_by": failed,
    }


def main(wanted: list[str]) -> int:
    """Certify the controls; returns 1 if one of them is seen by no test."""
    chosen = [(file, name) for file, name in controls() if not wanted or name in wanted]
    found = []
    for file, name in chosen:
        found.append(seen(file, name))
        print(f"{name:<18} {', '.join(found[-1]['seen_by']) or 'NOT SEEN'}", file=sys.stderr)
    if not wanted:
        write_text(FOLDER / CONTROLS, json.dumps(found, indent=1) + "\n")
    return 0 if all(row["seen_by"] for row in found) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
