"""Jinja templates of lm-eval tasks in a sandbox: a task's YAML is data and may not reach Python's own objects.

lm-eval renders `doc_to_text`, `doc_to_target` and other fields with an ordinary jinja2 environment, in which a template
such as `{{ ''.__class__... }}` reaches `os.system`. In the sandbox nothing in a YAML runs code except a `!function`, as
SECURITY.md says.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def sandboxed(task: str) -> Generator[None]:
    """Context in which lm-eval renders templates in the sandbox of `repro.core.templates`. ValueError, which names the
    task `task`, for a template that fails there, runs too long or takes too much memory."""
    from lm_eval import utils

    from repro.core.templates import Environment, Refused

    outside = utils.env
    inside = Environment()
    inside.filters.update(outside.filters)
    utils.env = inside
    try:
        yield
    except Refused as error:
        raise ValueError(
            f"{task}: {error}; templates may use the document's fields and jinja2's filters only"
        ) from error
    finally:
        utils.env = outside
