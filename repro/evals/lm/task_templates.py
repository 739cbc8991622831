"""Jinja templates of lm-eval tasks in a sandbox: a task's YAML is data and may not reach Python's own objects.

lm-eval renders `doc_to_text` and its like with an ordinary environment, in which `{{ ''.__class__... }}` reaches
`os.system`. Only `!function` of a YAML runs code, as SECURITY.md says.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def sandboxed(task: str) -> Generator[None]:
    """Within it lm-eval renders templates in jinja2's immutable sandbox; ValueError for a template that fails there."""
    from jinja2 import StrictUndefined, TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from lm_eval import utils

    outside = utils.env
    inside = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
    inside.filters.update(outside.filters)
    utils.env = inside
    try:
        yield
    except TemplateError as error:
        raise ValueError(
            f"{task}: a template of this task fails ({error}); templates may use the document's fields and jinja2's"
            " filters only"
        ) from error
    except OverflowError as error:  # a range longer than the sandbox allows
        raise ValueError(f"{task}: a template of this task runs too long ({error})") from error
    finally:
        utils.env = outside
