"""Templates of others: they reach nothing of Python, end soon and take little memory."""

import resource
import sys
import time

import pytest

from repro.core import templates
from repro.core.templates import Environment, Refused, limited, refuse_power


def nothing() -> None:
    return None


def render(text: str, **named: object) -> str:
    return Environment().from_string(text).render(**named)


@pytest.mark.parametrize(
    "text",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 'x' * 10000000000 }}",
        "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{{ ''.ljust(99999999999) }}",
        "{{ 9 ** 9 ** 9 }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ ''.__class__.__mro__[1].__subclasses__()[0] }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{{ unknown.name }}",
        "{{ 1 // 0 }}",
        "{% for %}",
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    ],
)
def test_what_is_refused(text, monkeypatch):
    monkeypatch.setattr(templates, "SECONDS", 0.2)
    before = sys.gettrace(), resource.getrlimit(resource.RLIMIT_AS)
    began = time.monotonic()
    with pytest.raises(Refused) as error:
        render(text)
    assert "\n" not in str(error.value)
    assert time.monotonic() - began < 20
    assert (sys.gettrace(), resource.getrlimit(resource.RLIMIT_AS)) == before


def test_a_busy_machine_refuses_no_template(monkeypatch):
    """While the process waits, its CPU time stands still."""
    monkeypatch.setattr(templates, "SECONDS", 0.2)
    with limited("a template"):
        time.sleep(0.4)
        assert nothing() is None  # its lines are seen by the trace function


def test_what_a_task_and_a_chat_need():
    assert (
        render("{{ a.strip() }}{% for b in c %}, {{ b|upper }}{% endfor %}\n", a=" x ", c="yz") == "x, Y, Z\n"
    )
    refuse_power("**bold** {{ dict(**x) }} {{ f(1, **y) }}")
    with pytest.raises(Refused, match="the chat template cannot be rendered"), limited("the chat template"):
        raise TypeError("wrong")
