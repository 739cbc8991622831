"""Fixtures of the text-quality tests: an untrained judge and a model with an exact denoiser."""

from __future__ import annotations

import pytest
from helpers.toy import toy

from repro import load
from repro.data.corpus import prepared
from repro.training import checkpoint


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A run folder `ar-judge` of an untrained left-to-right network over the language `strong`."""
    recipe = toy("ar")
    out = tmp_path_factory.mktemp("runs") / "ar-judge"
    weights = {"model.safetensors": dict(recipe.network(0).named_parameters())}
    checkpoint.save(out, recipe, 0, 0, prepared(recipe.data).digest, {}, weights)
    return out


@pytest.fixture(scope="module")
def model():
    return load("oracle:mdlm@nano")
