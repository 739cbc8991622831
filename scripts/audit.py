"""Look up the releases of constraints.txt in a database of published vulnerabilities (pip-audit).

python -m scripts.audit    # exit code 1 for a finding; one line says so where the database cannot be reached

pip-audit is installed into an environment of its own, so that the suite's has no package that only the audit needs.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path

from repro.core.cli import Parser, run
from repro.core.files import ROOT

SECONDS = 600


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code of the command: 1 if a pinned release has a published vulnerability, else 0."""
    about = "Look the pinned releases up among published weaknesses."
    Parser("python -m scripts.audit", about, ["python -m scripts.audit"]).parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = str(Path(folder) / "bin" / "python")
        install = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "pip-audit"]
        audit = [python, "-m", "pip_audit", "--no-deps", "--disable-pip", "--format", "json"]
        try:
            subprocess.run(install, capture_output=True, timeout=SECONDS, check=True)
            done = subprocess.run(
                [*audit, "-r", str(ROOT / "constraints.txt")],
                capture_output=True,
                text=True,
                timeout=SECONDS,
                check=False,
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            print("audit: did not run, pip-audit could not be installed")
            return 0
    lines, code = verdict(done.stdout)
    print("\n".join(lines))
    return code


def verdict(report: str) -> tuple[list[str], int]:
    """The lines to print and the exit code for pip-audit's JSON (`report`), which is empty where it failed."""
    packages = json.loads(report)["dependencies"] if report.strip() else []
    known = [each for each in packages if "vulns" in each]
    if not known:
        return ["audit: did not run, the database of weaknesses could not be reached"], 0
    found = [
        f"{each['name']} {each['version']}: {weakness['id']}, fixed in {', '.join(weakness['fix_versions']) or 'none'}"
        for each in known
        for weakness in each["vulns"]
    ]
    skipped = f", {len(packages) - len(known)} are not in the database" if len(known) < len(packages) else ""
    return [*found, f"audit: {len(known)} releases looked up, {len(found)} findings{skipped}"], int(
        bool(found)
    )


if __name__ == "__main__":
    run(main, "scripts.audit")
