"""The pytest plugin: what is skipped, passes and fails, and that it needs torch, numpy and scipy alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "certify"
TESTS = f"""
import sys
sys.path.insert(0, {str(EXAMPLES)!r})
from right_samplers import quotas
from wrong_samplers import shared_coins

def test_right(sampler_space):
    assert sampler_space.certify(quotas).stands

def test_wrong(sampler_space):
    sampler_space.certify(shared_coins)

def test_by_hand(sampler_space):
    space = sampler_space.space("absorbing")
    assert quotas(space, 5, 3, 0).shape == (5, space.length)
"""
BLOCKED = (
    "transformers",
    "lm_eval",
    "accelerate",
    "datasets",
    "evaluate",
    "pandas",
    "msgspec",
    "safetensors",
)
MINIMAL = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
import pytest
sys.exit(pytest.main(["-q", "-p", "no:xdist", "--certify", "-k", "test_right or test_wrong", {file!r}]))
"""


@pytest.fixture
def suite(tmp_path):
    """A file of three tests that use the fixture."""
    path = tmp_path / "test_mine.py"
    path.write_text(TESTS)
    return path


def run(*arguments):
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    return done.returncode, done.stdout + done.stderr


def pytest_run(suite, *flags):
    return run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-rs", *flags, str(suite))


def test_without_the_option_such_tests_are_skipped(suite):
    code, out = pytest_run(suite)
    assert code == 0 and "3 skipped" in out and "--certify" in out


def test_a_wrong_sampler_fails_with_the_failed_checks_in_an_environment_without_the_suite(suite):
    code, out = run("-c", MINIMAL.format(blocked=BLOCKED, file=str(suite)))
    assert code == 1 and "1 failed, 1 passed" in out, out
    assert "law at 4 steps, absorbing: 25,000 sentences of 4 steps, chi-square" in out
    lines = [line for line in out.splitlines() if "the claim 'law'" in line and "(smoke" in line]
    (right,) = [line for line in lines if "quotas: the claim 'law' stands" in line]
    assert "rare tokens were not tested" in right, "what the level leaves out"
    assert any("shared_coins: the claim 'law' DOES NOT STAND" in line for line in lines)
    assert "Traceback" not in out


def test_attributes_may_be_given_in_the_test():
    from repro.certify.pytest_plugin import SamplerSpace

    def sample(space, n, steps, seed):
        import torch

        return torch.zeros(n, space.length, dtype=torch.int64)

    certified: list[str] = []
    with pytest.raises(pytest.fail.Exception, match="DOES NOT STAND"):
        SamplerSpace("smoke", certified).certify(sample, claims="law", meaning="x0_mean", noise="absorbing")
    assert len(certified) == 1 and not hasattr(sample, "claims")
    with pytest.raises(ValueError, match="claims is missing"):
        SamplerSpace("smoke", certified).certify(sample)
