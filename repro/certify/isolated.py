"""Certify foreign code in a process of its own, with limits of wall time and memory, and always with a verdict.

    certificate = isolated("FILE.py:NAME", None, FULL)

Whatever the code does (exits, hangs, takes all memory, crashes the interpreter), the certificate says so. ValueError
for what is no sampler and no loss, as from `repro.certify.certify`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import msgspec

from repro.certify import certify
from repro.certify.foreign import load
from repro.certify.space import Noise
from repro.certify.verdict import Certificate, Check, Effort

MEMORY = 4 << 30
"""Bytes of data that the process may hold; the suite's own code and torch need less than 1 GiB of them."""
GRACE = 30.0
"""Seconds beyond those of the effort before the process is ended from outside: imports, and the checks themselves."""


def isolated(target: str, noise: Noise | None, effort: Effort) -> Certificate:
    """The certificate of `FILE.py:NAME`, made in a child process."""
    with tempfile.TemporaryDirectory() as folder:
        asked, found = Path(folder) / "asked.json", Path(folder) / "found.json"
        asked.write_text(json.dumps({"target": target, "noise": noise, "effort": asdict(effort)}), "utf-8")
        command = [sys.executable, "-m", "repro.certify.isolated", str(asked), str(found)]
        try:
            code = subprocess.run(
                command, stdin=subprocess.DEVNULL, timeout=effort.seconds + GRACE, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            return _ended(target, f"it was still running after {effort.seconds + GRACE:.0f} s and was ended")
        if not found.is_file():
            ended = f"was ended by signal {-code}" if code < 0 else f"ended by itself with exit code {code}"
            return _ended(target, f"its process {ended} before the certificate was complete")
        data = json.loads(found.read_text("utf-8"))
    if "error" in data:
        raise ValueError(data["error"])
    if "memory" in data:
        return _ended(target, f"it asked for more than {MEMORY >> 30} GiB of memory")
    return msgspec.convert(data, Certificate)


def _ended(target: str, says: str) -> Certificate:
    """The certificate of code that did not finish."""
    check = Check(name="finishes", stands=False, says=says, false_alarm=0.0)
    name = target.rpartition(":")[2]
    return Certificate(
        subject=name,
        kind="function",
        claims="unknown",
        meaning="unknown",
        checks=(check,),
        evidence=(),
        notes=(),
        seconds=0.0,
    )


def _child(asked: Path, found: Path) -> None:
    """Certify within the limits and write the certificate, or one line that says why there is none."""
    import resource

    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    request = json.loads(asked.read_text("utf-8"))
    effort = msgspec.convert(request["effort"], Effort)
    try:
        certificate = certify(load(request["target"]), request["noise"], effort)
        data = asdict(certificate)
    except ValueError as error:
        data = {"memory": True} if _out_of_memory(error.__cause__) else {"error": str(error)}
    except (MemoryError, RuntimeError) as error:  # of the checks, with what the code left of the memory
        if not _out_of_memory(error):
            raise
        data = {"memory": True}
    part = found.with_suffix(".part")
    part.write_text(json.dumps(data), "utf-8")
    part.rename(found)


def _out_of_memory(error: BaseException | None) -> bool:
    """Whether an error says that memory is short; torch's own on a CPU is a RuntimeError."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and "allocate memory" in str(error)
    )


if __name__ == "__main__":
    _child(Path(sys.argv[1]), Path(sys.argv[2]))
