"""Certify foreign code in a process of its own, with limits of wall time and memory.

    certificate = isolated("FILE.py:NAME", None, FULL)

Whatever the code does, this process goes on: code that exits, hangs, takes all memory or crashes the interpreter has no
certificate, and the error `Unfinished` says what it did.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict

import msgspec

from repro.certify import certify
from repro.certify.space import Noise
from repro.certify.verdict import Certificate, Effort, Told, silent

MEMORY = 4 << 30
"""Bytes of data that the process may hold; the suite's own code and torch need less than 1 GiB of them."""
GRACE = 25.0
"""Seconds beyond `Effort.seconds` that the process may run before it is killed: time for the checks themselves."""
START = 600.0
"""Seconds that the process may take before it imports the code to be tested: it imports torch first, which is slow on a
busy machine."""

READY = b"!"
"""What the process writes just before it imports the code to be tested."""
PR_SET_PDEATHSIG = 1
"""Number of the option of Linux's prctl by which the kernel signals a process when its parent ends (linux/prctl.h)."""


class Unfinished(ValueError):
    """Error of tested code that did not run to its end, so that its claim has no verdict; the message says why."""


def isolated(
    target: str,
    noise: Noise | None,
    effort: Effort,
    loader: str = "repro.certify.foreign:load",
    told: bool = False,
) -> Certificate:
    """The certificate of the sampler or loss `target` (FILE.py:NAME), made in a child process. The child is also ended
    when the calling process ends, for whatever reason.

    `noise`: the noise to test under (None: found as `repro.certify.certify` does); `effort`: sample sizes and limit of
    time; `loader`: the function, as MODULE:NAME, that the child calls to turn `target` into a function; `told`: whether
    the child names each test on stderr as it begins, with the seconds so far. Raises ValueError for what
    `repro.certify.certify` refuses, and Unfinished (a ValueError) for code that ends its process, takes too long or
    takes too much memory.
    """
    name = target.rpartition(":")[2].partition("=")[0]
    request = {"target": target, "noise": noise, "effort": asdict(effort), "loader": loader, "told": told}
    asked = json.dumps(request)
    with _lifeline() as alive:
        command = [sys.executable, "-m", "repro.certify.isolated", asked, str(alive)]
        # one thread, unless the user says otherwise: threads that wait for each other are slow on a busy machine
        env, out = {"OMP_NUM_THREADS": "1", **os.environ}, subprocess.PIPE
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, pass_fds=(alive,), env=env
        ) as child:
            try:
                found = _answer(child, effort.seconds + GRACE)
            finally:
                child.kill()
        if found is None:
            raise Unfinished(
                f"{name} was still running after {effort.seconds + GRACE:.0f} s (--seconds {effort.seconds:.0f} and"
                f" {GRACE:.0f} s of grace) and was ended; make it faster, or give larger --seconds"
            )
    code = child.returncode
    if not found.endswith(b"\n"):
        ended = f"was ended by signal {-code}" if code < 0 else f"ended by itself with exit code {code}"
        raise Unfinished(
            f"the process of {name} {ended} before the certificate was complete; {name} must return from each call"
        )
    data = json.loads(found)
    if "error" in data:
        raise ValueError(data["error"])
    if "memory" in data:
        raise Unfinished(f"{name} asked for more than {MEMORY >> 30} GiB of memory; make it use less")
    return msgspec.convert(data, Certificate)


def _answer(child: subprocess.Popen[bytes], seconds: float) -> bytes | None:
    """What the child process writes after `READY`, its sign that the tested code runs next, until it closes its output.
    None if after `seconds` the output is still open, or was closed without a whole answer (a line) by a process that
    still runs.

    After a whole answer the child may take longer to end: on a busy machine the interpreter needs seconds for that.
    """
    assert child.stdout is not None
    ready, _, _ = select.select([child.stdout], [], [], START)
    if not ready or os.read(child.stdout.fileno(), len(READY)) != READY:
        raise RuntimeError(
            f"the process of repro.certify did not start within {START:.0f} s; run it again on a less busy machine"
        )
    found, end = b"", time.monotonic() + seconds
    while select.select([child.stdout], [], [], max(0.0, end - time.monotonic()))[0]:
        piece = os.read(child.stdout.fileno(), 1 << 16)
        if not piece and found.endswith(b"\n"):
            return found
        if not piece:
            return found if _has_ended(child, end - time.monotonic()) else None
        found += piece
    return None


def _has_ended(child: subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        child.wait(max(0.0, seconds))
    except subprocess.TimeoutExpired:
        return False
    return True


@contextmanager
def _lifeline() -> Generator[int]:
    """Context manager that yields the file descriptor of the reading end of a pipe, to be passed to a child process.
    The child reads end of file when this process ends or leaves the context."""
    alive, held = os.pipe()
    try:
        yield alive
    finally:
        os.close(alive)
        os.close(held)


def _child(asked: str, alive: int) -> None:
    """Main function of the child process: certify within the limits of time and memory, and write the certificate to
    stdout, or one line that says why there is none.

    `asked`: the request as JSON; `alive`: file descriptor of the pipe from `_lifeline`. What the code itself writes to
    stdout, at whatever level, goes to stderr.
    """
    import resource

    _end_with_parent(alive)
    answer = os.dup(1)
    os.dup2(2, 1)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    request = json.loads(asked)
    effort = msgspec.convert(request["effort"], Effort)
    gc.disable()  # what imports make stays: searching it for garbage takes an eighth of their time
    for module in ("torch", "repro.certify.sampler", "repro.certify.loss"):
        importlib.import_module(module)  # not in the time of the code
    gc.freeze()
    gc.enable()
    os.write(answer, READY)
    try:
        module, _, name = request["loader"].partition(":")
        load = getattr(importlib.import_module(module), name)
        told = _progress() if request["told"] else silent
        certificate = certify(load(request["target"]), request["noise"], effort, told)
        data = asdict(certificate)
    except ValueError as error:
        data = {"memory": True} if _out_of_memory(error.__cause__) else {"error": str(error)}
    except (MemoryError, RuntimeError) as error:  # of the checks, with what the code left of the memory
        if not _out_of_memory(error):
            raise
        data = {"memory": True}
    try:
        with open(answer, "w", encoding="utf-8") as out:
            out.write(json.dumps(data) + "\n")
    except OSError:  # the code has closed what the answer is written to; the parent says that there is none
        os._exit(1)


def _progress() -> Told:
    """A function that prints a line of text on stderr, preceded by the number of seconds since `_progress` was called;
    it is called as each test of a certificate begins."""
    began = time.monotonic()

    def told(line: str) -> None:
        print(f"{time.monotonic() - began:4.0f} s  {line}", file=sys.stderr, flush=True)

    return told


def _end_with_parent(alive: int) -> None:
    """Make this process end when its parent has. A thread waits for the end of the pipe `alive` (`_lifeline`); on Linux
    the kernel also kills the process, even while foreign code holds the interpreter's lock."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    def wait() -> None:
        os.read(alive, 1)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


def _out_of_memory(error: BaseException | None) -> bool:
    """Whether an error says that memory is short: a MemoryError, or the RuntimeError that torch raises on a CPU."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and "allocate memory" in str(error)
    )


if __name__ == "__main__":
    _child(sys.argv[1], int(sys.argv[2]))
