"""Certificates in a test suite: `pytest --certify` (installed as a pytest plugin with this package).

    def test_my_sampler(sampler_space):
        sampler_space.certify(sample, claims="law", meaning="x0_mean")

    pytest --certify            # smoke: about three seconds a sampler
    pytest --certify=full       # the tests of `python -m repro.certify`: about a minute a sampler

Without --certify such tests are skipped. The smoke level needs torch, numpy and scipy alone, and imports them only when
a test asks for the fixture. A failing test shows the checks that failed; certificates of all tests are summed up at the
end of the run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import pytest

if TYPE_CHECKING:
    from repro.certify.space import Noise, Space
    from repro.certify.verdict import Certificate
    from repro.processes.prediction import Meaning

CERTIFIED = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Hook of pytest: add the option --certify, which takes smoke (default) or full."""
    parser.getgroup("certify", "certificates of samplers and losses").addoption(
        "--certify",
        nargs="?",
        const="smoke",
        choices=("smoke", "full"),
        help="run the tests with the fixture sampler_space: smoke (3 seconds a sampler, default) or full (a minute)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Hook of pytest: make the empty list that the tests fill with a line for each certificate, to be shown at the end
    of the run."""
    config.stash[CERTIFIED] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Hook of pytest: print one line for each certificate at the end of the run."""
    if config.stash[CERTIFIED]:
        terminalreporter.section("certificates")
        for line in config.stash[CERTIFIED]:
            terminalreporter.line(line)


@pytest.fixture
def sampler_space(request: pytest.FixtureRequest) -> SamplerSpace:
    """A `SamplerSpace` at the level that --certify gives (smoke or full); without that option the test is skipped."""
    level = request.config.getoption("--certify")
    if level is None:
        pytest.skip("certificates run with --certify (smoke) or --certify=full")
    return SamplerSpace(level, request.config.stash[CERTIFIED])


class SamplerSpace:
    """What the fixture `sampler_space` gives a test: distributions of short sentences whose conditionals are known
    exactly (`space`), and the certification of a sampler or loss on them (`certify`)."""

    def __init__(self, level: Literal["smoke", "full"], certified: list[str]) -> None:
        self.level: Literal["smoke", "full"] = level
        self._certified = certified

    def space(self, noise: Noise, meaning: Meaning = "x0_mean") -> Space:
        """The space of sentences of three tokens under a noise, to call a sampler by hand (`repro.certify.space`)."""
        from repro.certify.sampler import LENGTH
        from repro.certify.space import Space, tiny

        return Space(noise, tiny(LENGTH), meaning)

    def certify(
        self,
        function: Callable[..., Any],
        *,
        claims: str | None = None,
        meaning: Meaning | None = None,
        noise: Noise | None = None,
    ) -> Certificate:
        """Certify a sampler `f(space, n, steps, seed) -> ids` or a loss `f(space, x0, seed) -> nats`; returns the
        certificate if the claim stands, else the test fails and shows the failed checks.

        `claims`, `meaning`: attributes of the function, if it does not have them itself (docs/certify.md); `noise`: the
        noise to test under (None: those that the function declares, else those under which a trial call works).
        ValueError for a function that is neither sampler nor loss; UsageError if the level `full` lacks a package.
        """
        from repro.certify import certify
        from repro.certify.verdict import FULL, SMOKE

        given = {"claims": claims, "meaning": meaning}
        described = _Described(function, {name: value for name, value in given.items() if value is not None})
        try:
            found = certify(described, noise, FULL if self.level == "full" else SMOKE)
        except ModuleNotFoundError as error:
            remedy = "install the whole suite (pip install dlm-repro), or use --certify=smoke"
            raise pytest.UsageError(f"--certify=full needs {error.name}; {remedy}") from error
        verdict = "stands" if found.stands else "DOES NOT STAND"
        how = "; ".join((f"{self.level}, {found.seconds:.1f} s", *found.notes))
        self._certified.append(f"{found.subject}: the claim {found.claims!r} {verdict} ({how})")
        failed = [f"{check.name}: {check.says}" for check in found.checks if not check.stands]
        if failed:
            pytest.fail("\n".join([self._certified[-1], *failed]), pytrace=False)
        return found


class _Described:
    """A callable that calls `function` and has its attributes `claims`, `meaning`, `noises` and `draws`, with those in
    `given` added or replaced; the function itself is not changed."""

    def __init__(self, function: Callable[..., Any], given: dict[str, str]) -> None:
        self.__wrapped__ = function
        for name in ("claims", "meaning", "noises", "draws"):
            if hasattr(function, name):
                setattr(self, name, getattr(function, name))
        for name, value in given.items():
            setattr(self, name, value)
        self.__name__ = getattr(function, "__name__", type(function).__name__)

    def __call__(self, *arguments: Any) -> Any:
        return self.__wrapped__(*arguments)
