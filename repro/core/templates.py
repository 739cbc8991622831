"""Rendering Jinja templates that others wrote (chat templates, templates of tasks), in a sandbox with limits on time
and memory.

    with limited("the chat template of X"):           around compiling and rendering
        refuse_power(text)
        Environment().from_string(text).render(...)

jinja2's sandbox stops neither a `{% for %}` within a `{% for %}` nor `'x' * 10**10`. Therefore a trace function checks
the thread's CPU time at every line of Python that runs (at most 5 seconds), and the address space may grow by 512 MiB
only, so that a larger value is a MemoryError.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from jinja2 import Environment as Plain
from jinja2 import StrictUndefined, Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

SECONDS = 5.0
"""CPU time of one template: on a busy machine, wall time says nothing of the template."""
MEMORY = 1 << 29
"""Bytes by which the address space may grow while a template is rendered."""
STATM = Path("/proc/self/statm")


class Refused(ValueError):
    """Error for a template that fails, runs too long or takes too much memory."""


class TookTooLong(Exception):
    """Error for a template that has used more than 5 seconds of CPU time (`SECONDS`)."""


@contextmanager
def limited(what: str) -> Generator[None]:
    """Context manager for compiling or rendering a template, and for nothing else. Any exception of the template, more
    than 5 seconds of CPU time and more than 512 MiB of memory raise Refused, whose message begins with `what`, the name
    of the template. Use it in one thread at a time."""
    before, end = sys.gettrace(), time.thread_time() + SECONDS

    def watch(frame: FrameType, event: str, argument: Any) -> Any:
        if time.thread_time() > end:
            raise TookTooLong(f"the template takes more than {SECONDS:g} seconds of CPU time; simplify it")
        return watch

    try:
        with _memory():
            sys.settrace(watch)
            try:
                yield
            finally:
                sys.settrace(before)
    except MemoryError:
        raise Refused(
            f"{what} cannot be rendered (it takes more than {MEMORY >> 20} MiB of memory)"
        ) from None
    except Exception as error:  # of a template, of jinja2, or of a filter that got a wrong value
        said = " ".join(str(error).split())[:200]
        raise Refused(f"{what} cannot be rendered ({type(error).__name__}: {said})") from error


@contextmanager
def _memory() -> Generator[None]:
    """Context manager in which the address space may grow by 512 MiB (`MEMORY`), where the system can limit it (on
    Linux)."""
    if not STATM.is_file():
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = int(STATM.read_text("ascii").split()[0]) * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most if soft < 0 else min(most, soft), hard))
    try:
        yield
    finally:
        with suppress(ValueError):
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def refuse_power(text: str) -> None:
    """Raise ValueError for a template that uses the operator `**`: Python computes `9 ** 9 ** 9` in one step, during
    which the limit of time is not checked."""
    before = ""
    for _, kind, value in Plain().lex(text):
        if kind == "operator" and value == "**" and before not in ("(", ","):  # else the arguments of a call
            raise ValueError("the template uses the operator **; multiply instead")
        before = before if kind == "whitespace" else value


class _Limited(Template):
    def render(self, *given: Any, **named: Any) -> str:
        with limited("a template"):
            return super().render(*given, **named)


class Environment(ImmutableSandboxedEnvironment):
    """jinja2's immutable sandbox, in which an unknown name is an error and each template is limited to 5 seconds of CPU
    time and 512 MiB of memory (`limited`)."""

    template_class = _Limited

    def __init__(self) -> None:
        super().__init__(undefined=StrictUndefined, keep_trailing_newline=True)

    def from_string(self, source: Any, *given: Any, **named: Any) -> Template:
        with limited("a template"):
            refuse_power(source)
            return super().from_string(source, *given, **named)
