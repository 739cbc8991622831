"""Certificates of the presets, and what is derived from them."""

from __future__ import annotations

import pytest

from repro.certify import presets
from repro.certify.oracle import OracleDenoiser
from repro.certify.space import Space, tiny, total_variation
from repro.core import parts
from repro.results import certificates
from repro.samplers.ancestral import Ancestral
from repro.samplers.ordered import LowConfidence, Margin
from repro.samplers.presets import PRESETS

# --- presets ------------------------------------------------------------------------------------------------


LAWFUL = [name for name in presets.names() if presets.preset(name).claim() == "law"]


@pytest.mark.parametrize("name", LAWFUL)
def test_every_preset_that_claims_a_law_has_it(name):
    """On 9 sentences the distance is 0 at one position per step, or falls with every doubling of the steps."""
    rule = presets.preset(name)
    for noise in rule.capabilities.processes:
        if rule.capabilities.plan == "steps":
            far = [
                total_variation(presets.output_law(rule, noise, tiny(2), None, n), tiny(2).law)
                for n in (16, 32)
            ]
            assert far[1] < presets.EXACT or far[0] > presets.FALLS * far[1], (noise, far)
        else:
            steps = 2 if rule.capabilities.plan == "quota" else None
            found = presets.output_law(rule, noise, tiny(2), None, steps)
            assert total_variation(found, tiny(2).law) < presets.EXACT, noise


def test_a_noise_without_an_exact_denoiser_is_refused():
    with pytest.raises(
        ValueError, match="no exact denoiser for gaussian noise, only for absorbing and uniform"
    ):
        presets.certify_rule(PRESETS["ancestral"], "gaussian")


class Boastful(LowConfidence):
    """Low confidence that claims the law at any temperature."""

    def claim(self):
        return "law"


class Hasty(Margin):
    """A rule that commits one position more than its quota."""

    def step(self, state):
        state.quota += 1
        return super().step(state)


@pytest.mark.parametrize("rule", [Boastful(temperature=1.0), Hasty(temperature=1.0)])
def test_wrong_rules_fail(rule, monkeypatch):
    from repro.core import registry

    monkeypatch.setitem(registry.PARTS, "wrong", f"{type(rule).__module__}:{type(rule).__qualname__}")
    monkeypatch.setattr(presets, "SPOILED", {})
    _, verdict = presets.certify_rule(rule, "absorbing")
    assert not verdict["stands"] and verdict["kind"] == "stuck"


def test_the_mean_under_the_plug_in_posterior_is_stuck(monkeypatch):
    """With E[x0 | xt] in Duo's posterior (docs/method.md#uniform-samplers) more steps do not help."""

    def mistaken(noise, source, spoil):
        return OracleDenoiser(Space(noise, source, "x0_mean", spoil))

    monkeypatch.setattr(presets, "SPOILED", {})
    monkeypatch.setattr(presets, "STEPS", (1,))
    monkeypatch.setattr(presets, "DOUBLED", (8, 16, 32))
    assert presets.certify_rule(Ancestral(), "uniform")[1]["kind"] == "converges"
    monkeypatch.setattr(presets, "_oracle", mistaken)
    assert presets.certify_rule(Ancestral(), "uniform")[1]["kind"] == "stuck"


@pytest.mark.parametrize(
    ("excess", "stands", "says"), [(-1.377, True, "1.38 nats below"), (0.2, False, "0.20 nats above")]
)
def test_the_verdict_on_likely_texts_says_how_much_likelier_they_are(excess, stands, says):
    verdict = presets._verdict_at(
        presets.preset("low_confidence"), "absorbing", {"value": 0.7, "excess": excess}
    )
    assert verdict["stands"] is stands
    assert verdict["says"] == f"its texts' mean -log p is {says} that of true samples"


def test_every_preset_has_a_current_certificate():
    stored = {one["preset"]: one["digest"] for one in certificates.read(certificates.FOLDER)}
    wanted = {name: parts.digest(presets.preset(name)) for name in presets.names()}
    apart = {name for name in stored.keys() | wanted.keys() if stored.get(name) != wanted.get(name)}
    assert not apart, (
        f'presets without a current certificate: {apart}; run make accept STEPS="certificates tables"'
    )
    assert set(PRESETS) <= set(stored)


def test_every_stored_claim_stands():
    stored = certificates.read(certificates.FOLDER)
    assert [(one["preset"], v["says"]) for one in stored for v in one["verdicts"] if not v["stands"]] == []


def test_tables_and_figure_are_functions_of_the_certificates(tmp_path):
    from paper_figures import law_error
    from paper_figures.__main__ import draw

    stored = certificates.read(certificates.FOLDER)
    assert certificates.tables(stored) == certificates.tables(stored[::-1])
    assert law_error.query(stored).equals(law_error.query(stored[::-1]))
    assert "<dc:date>" not in draw("law_error", stored)["law_error.svg"]
    assert "No certificates yet" in certificates.tables([])["certificates.md"]
    assert "no certificates yet" in draw("law_error", [])["law_error.svg"]
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(ValueError, match="is not a certificate"):
        certificates.read(tmp_path)
