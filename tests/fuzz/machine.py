"""How a fuzz case is run and judged.

A case copies a small valid input (a *world*), spoils it in one place and runs a command on it, through the same
`repro.core.cli.run` as on the command line. Each case runs in a forked process, so that it is as fast as a call and as
isolated as a command: a crash, a hang or a large allocation ends the case and not the tests.

It passes if the command exits with code 2 and exactly one line on stderr that names the file or the value, or if it
succeeds where the case says that it may (`Case.valid`), or where the output is that of the unspoilt world, which shows
that the spoilt place is not read. It fails on a traceback, a hang, a crash, a success of another kind, a message that
names nothing, and on any file outside `Case.writes` that appeared, changed or vanished.
"""

from __future__ import annotations

import fnmatch
import hashlib
import importlib
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SECONDS = 30
"""Wall time after which a case counts as a hang."""
MEMORY = 6 << 30
"""Bytes of address space that a case may take beyond what the tests hold."""
CACHES = (
    *("runs", "run/raw", "runs/data*", "runs/tasks*", "runs/.*", "*/.lock", ".lock"),
    *("out", "out/raw", "out/chunks", "out/chunks/*", "*/.git/index"),
)
"""What any command may write: copies of inputs by digest, locks, the empty folder of its records, and the answers that
were stored before an error, and git's own record of when files changed."""
PROGRESS = re.compile(r" step \d+ of \d+: loss | chunks$| \(\d+ of \d+\)$|^ *\d+ s  ")
"""Lines of progress, which a command may print before it fails."""
LONGEST = 800
"""Characters that a message may have."""


@dataclass(frozen=True)
class Case:
    """`area`: its row in the table of counts; `world`: folder that is copied, or "" for an empty one; `spoil`: changes
    the copy, which is the working directory; `argv`: program (a module with `main`) and its arguments; `named`: texts
    of which the message must contain one; `valid`: whether a success is a documented one; `writes`: patterns of the
    files that the command may write where it succeeds; `keeps`: patterns of those that it may
    not even touch where it fails."""

    area: str
    what: str
    world: str
    argv: tuple[str, ...]
    named: tuple[str, ...]
    spoil: Callable[[Path], None] = lambda folder: None
    valid: bool = False
    writes: tuple[str, ...] = ()
    keeps: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """`code`: exit status, negative for a signal, None for a hang."""

    code: int | None
    out: str
    err: str
    changed: tuple[str, ...]
    seconds: float


def main_of(program: str) -> tuple[Callable[[Sequence[str]], int], str]:
    """The `main` of a command and its name in messages; `python:NAME` is a function of tests/fuzz/calls.py."""
    if program.startswith("python:"):
        from fuzz import calls

        return getattr(calls, program.removeprefix("python:")), program
    if program.startswith("repro.recipes."):
        from repro.recipes.command import command
        from repro.recipes.scale import full_recipe

        recipe = full_recipe(program.removeprefix("repro.recipes."))
        return lambda argv: command(recipe, argv), program
    for name in (program, f"{program}.__main__"):
        module = importlib.import_module(name)
        if hasattr(module, "main"):
            return module.main, program
    raise ValueError(f"{program} has no main")


def execute(case: Case, worlds: Path, scratch: Path) -> Outcome:
    """Run a case in a forked process, in a copy of its world below `scratch`."""
    folder = _prepared(case, worlds, scratch)
    before, began = snapshot(folder), time.monotonic()
    logs = [scratch / name for name in ("out", "err")]
    sys.stdout.flush(), sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _inside(case, folder, logs)  # never returns
    code = _awaited(child)
    seconds = time.monotonic() - began
    out, err = (log.read_text("utf-8", "replace") for log in logs)
    changed = _changed(case, code, before, snapshot(folder))
    _remove(folder)
    return Outcome(code, out, err, changed, seconds)


def _changed(
    case: Case, code: int | None, before: Mapping[str, str], after: Mapping[str, str]
) -> tuple[str, ...]:
    """What a command must not have touched and did, by its exit code and the snapshots before and after."""
    touched = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    allowed = (*CACHES, *(case.writes if code in (0, 1) else ()))

    def one(name: str, patterns: Sequence[str]) -> bool:
        return any(fnmatch.fnmatch(name, each) for each in patterns)

    kept = () if code in (0, 1) else case.keeps
    return tuple(sorted(name for name in touched if one(name, kept) or not one(name, allowed)))


def execute_alone(case: Case, worlds: Path, scratch: Path, *flags: str) -> Outcome:
    """Run a case as a command of its own, `python FLAGS -m PROGRAM ARGUMENTS`."""
    folder = _prepared(case, worlds, scratch)
    before, began = snapshot(folder), time.monotonic()
    program, *arguments = case.argv
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "REPRO_RUNS": "runs",
        **case.environment,
    }
    try:
        done = subprocess.run(
            [sys.executable, *flags, "-m", program, *arguments],
            capture_output=True,
            cwd=folder,
            env=environment,
            timeout=2 * SECONDS,  # importing torch is part of it
        )
        code, out, err = done.returncode, done.stdout, done.stderr
    except subprocess.TimeoutExpired as hang:
        code, out, err = None, hang.stdout or b"", hang.stderr or b""
    changed = _changed(case, code, before, snapshot(folder))
    _remove(folder)
    texts = out.decode("utf-8", "replace"), err.decode("utf-8", "replace")
    return Outcome(code, *texts, changed, time.monotonic() - began)


def fault(case: Case, outcome: Outcome, plain: str | None) -> str | None:
    """What is wrong with the outcome of a case, None if nothing is; `plain`: the output of the command on the unspoilt
    world (None: it has none)."""
    lines = outcome.err.splitlines()
    if outcome.code is None:
        return "hang"
    if "Traceback (most recent call last)" in outcome.err:
        return f"traceback: {lines[-1][:200]}"
    if outcome.code < 0:
        return f"killed by {signal.Signals(-outcome.code).name}"
    if outcome.changed:
        return f"touched {', '.join(outcome.changed[:3])}"
    if outcome.code in (0, 1):
        if case.valid or (plain is not None and _numbers(outcome.out) == _numbers(plain)):
            return None
        return f"silent success: {outcome.out[:120]!r}"
    if outcome.code != 2:
        return f"exit code {outcome.code}"
    lines = [line for line in lines if not PROGRESS.search(line)]
    if len(lines) != 1:
        return f"{len(lines)} lines on stderr: {outcome.err[:200]!r}"
    if len(lines[0]) > LONGEST:
        return f"a line of {len(lines[0])} characters"
    if not any(name in lines[0] for name in case.named):
        return f"names none of {case.named}: {lines[0][:200]!r}"
    return None


def _numbers(out: str) -> str:
    """Output without digests of inputs."""
    return re.sub(r"\b[0-9a-f]{12,64}\b", "", out)


def snapshot(folder: Path) -> dict[str, str]:
    """Relative path -> kind and SHA-256 of every file, folder and link below a folder."""
    found = {}
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(root, name)
            if path.is_symlink():
                state = f"link {os.readlink(path)}"
            elif path.is_file():
                state = hashlib.sha256(path.read_bytes()).hexdigest()
            else:
                state = "folder" if path.is_dir() else "special"
            found[str(path.relative_to(folder))] = state
    return found


def _prepared(case: Case, worlds: Path, scratch: Path) -> Path:
    folder = scratch / "here"
    if case.world:
        shutil.copytree(worlds / case.world, folder, symlinks=True)
    else:
        folder.mkdir()
    case.spoil(folder)
    return folder


def _remove(folder: Path) -> None:
    shutil.rmtree(folder)


def _awaited(child: int) -> int | None:
    """Exit status of a child process; None where it did not end in time and was killed."""
    began = time.monotonic()
    while (waited := time.monotonic() - began) < SECONDS or (waited < 4 * SECONDS and _used(child) < SECONDS):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _used(child: int) -> float:
    """Seconds of processor time of a process: on a busy machine a case may wait for its turn."""
    fields = Path(f"/proc/{child}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def _inside(case: Case, folder: Path, logs: Sequence[Path]) -> None:
    """The forked child: run the command with its output in `logs`, and leave without the parent's clean-up."""
    code = 70
    try:
        for number, log in enumerate(logs, start=1):
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        os.chdir(folder)
        os.environ.update({"REPRO_RUNS": "runs", **case.environment})
        from repro.core.cli import run

        program, *arguments = case.argv
        main, name = main_of(program)
        sys.argv = [name, *arguments]
        run(lambda _: main(arguments), name)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)
