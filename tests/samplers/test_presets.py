"""Invariants of every preset under every process that it supports: it behaves as it declares."""

from __future__ import annotations

import re

import pytest
import torch
from helpers.spaces import Words, llama, random_space, stranger

from repro.core import parts, registry
from repro.processes.absorbing import Absorbing
from repro.processes.left_to_right import LeftToRight
from repro.processes.uniform import Uniform
from repro.samplers import presets
from repro.samplers.decode import decode, steps
from repro.samplers.plan import Plan
from repro.samplers.presets import LOGITS_PROCESSORS, PRESETS, preset

NOISES = {
    "absorbing": Absorbing(),
    "uniform": Uniform(alpha_end=1e-3, eps=1e-3),
    "left_to_right": LeftToRight(),
}
PROCESSED = [
    "low_confidence+guided",
    "low_confidence+nucleus",
    "threshold_0.9:temperature=1.0+top_p",
    "ancestral+tempered",
    "remdm_conf+guided:scale=1.0+nucleus",
    "low_confidence+no_eos:ids=[0]",
    "factor_1+eos_last:ids=[0]",
    "entropy+order_temperature",
    "random+rounded_quotas",
    "margin:temperature=1.0+dream_quotas+top_k:k=2",
    "sample+top_k:k=2",
]
PAIRS = [
    (name, noise) for name in [*PRESETS, *PROCESSED] for noise in sorted(preset(name).capabilities.processes)
]
SPACE = random_space(3, 4)
PROMPTS = [[1], [2], [0]]


def denoiser(noise):
    if noise == "left_to_right":
        return llama("causal", NOISES[noise], Words(size=3, length=8))
    return stranger(SPACE, NOISES[noise], meaning="leave_one_out")


def plan(name, count):
    return Plan(
        gen_length=3, block_length=3, steps=None if preset(name).capabilities.plan == "adaptive" else count
    )


@pytest.mark.parametrize(("name", "noise"), PAIRS)
def test_presets_behave_as_declared(name, noise):
    """Prompts stay, no noise is left, only declared rules change committed tokens, and quotas take all steps."""
    rule, process = preset(name), NOISES[noise]
    made, mask = plan(name, 3), SPACE.size
    before, frames = None, 0
    for decoder, frame in steps(denoiser(noise), process, rule, made, PROMPTS, seed=3, names=[0, 1, 2]):
        before = decoder.ids if before is None else before
        assert (frame.ids[:, : decoder.start] == decoder.ids[:, : decoder.start]).all()
        if noise not in rule.capabilities.revises:
            decided = before != mask if noise == "absorbing" else ~frame.changed
            assert not (frame.changed & decided).any()
        before, frames = frame.ids, frames + 1
    assert before is not None and (before[:, -3:] < SPACE.size).all()
    if rule.capabilities.plan == "quota":
        assert frames == 3


@pytest.mark.parametrize(
    "name", [name for name, noise in PAIRS if noise in preset(name).capabilities.revises == {"absorbing"}]
)
def test_remasking_rules_remask(name):
    """Over 60 steps and 30 rows some committed tokens are masked again, and all steps are taken."""
    mask, before, again, count = SPACE.size, None, 0, 0
    names = range(30)
    for decoder, frame in steps(
        denoiser("absorbing"),
        NOISES["absorbing"],
        preset(name),
        plan(name, 60),
        [[1]] * 30,
        seed=0,
        names=names,
    ):
        before = decoder.ids if before is None else before
        again += int(((before != mask) & (frame.ids == mask)).sum())
        before, count = frame.ids, count + 1
    assert again > 3 and count == 60


@pytest.mark.parametrize(("name", "noise"), [p for p in PAIRS if p[1] == "uniform"])
def test_revising_rules_revise(name, noise):
    """Some written tokens change again."""
    changed = 0
    for _, frame in steps(
        denoiser(noise), NOISES[noise], preset(name), plan(name, 6), PROMPTS, seed=0, names=[0, 1, 2]
    ):
        changed += int(frame.changed.sum())
    assert changed > 3


@pytest.mark.parametrize(("name", "noise"), [p for p in PAIRS if p[1] != "left_to_right"])
def test_rows_do_not_see_each_other(name, noise):
    """Three rows equal the three decoded alone, bitwise for known answers (networks round differently by batch)."""
    made, process = plan(name, 3), NOISES[noise]
    together = decode(denoiser(noise), process, preset(name), made, PROMPTS, seed=3, names=[4, 5, 6])
    for row, prompt in enumerate(PROMPTS):
        alone = decode(denoiser(noise), process, preset(name), made, [prompt], seed=3, names=[4 + row])
        assert torch.equal(alone.ids[0], together.ids[row])
        assert alone.cost.forwards[0] == together.cost.forwards[row]


def test_every_logits_processor_is_tested():
    used = {text.partition(":")[0] for name in PROCESSED for text in name.split("+")[1:]}
    assert used == set(LOGITS_PROCESSORS)


def test_every_preset_is_cited_and_reads_back():
    assert list(presets.SOURCES) == [*PRESETS, *LOGITS_PROCESSORS]
    for name, rule in {**PRESETS, **LOGITS_PROCESSORS}.items():
        assert len(presets.SOURCES[name]) > 20, f"{name} has no source"
        assert parts.read(parts.canonical(rule)) == rule
    used = {parts.part_name(type(rule)) for rule in PRESETS.values()}
    assert used <= set(registry.PARTS)


def test_a_changed_preset_is_another_sampler():
    warm = preset("low_confidence:temperature=1.0")
    assert warm != PRESETS["low_confidence"] and parts.digest(warm) != parts.digest(PRESETS["low_confidence"])
    with pytest.raises(ValueError, match="no setting 'temprature'; nearest is 'temperature'"):
        preset("low_confidence:temprature=1.0")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("drawn_tail:times.end=0.0", "linear_times: end=0.0 is no time at which some noise is left"),
        ("greedy_tail:times.end=1.0", "linear_times: end=1.0"),
        ("psi_loop:times.level=1.0", "held_times: from 1 to level=1.0"),
        ("psi_loop:times.end=0.2", "held_times: from 1 to level=0.1 and end=0.2 times do not fall"),
        ("psi_loop:times.high=0.9", "held_times: high=0.9 and middle=0.5 are no shares"),
        ("psi_loop:rule.high_frac=-0.1", "psi: high_frac=-0.1"),
        ('psi_cap:rule.low={"part":"constant_kappa","value":1.5}', "constant_kappa: value=1.5"),
        ("origin:end=1.5", "origin: end=1.5 is no diffusion time; give 0 to 1"),
        ("random+dream_quotas:end=2.0", "dream_quotas: end=2.0 is no diffusion time; give 0 to 1"),
        ("renoise:hot=0.0", "renoise: hot=0.0"),
        ("renoise:bound=-1.0", "renoise: hot=0.8, cold=0.4, bound=-1.0"),
        ("corrector_margin:choice.temperature=0.0", "doubtful: temperature=0.0 chooses no position"),
        ("entropy+order_temperature:alg_temp=1e-310", "alg_temp=1e-310: too low"),
    ],
)
def test_settings_without_a_meaning_are_refused(name, message):
    """They gave times outside [0, 1], probabilities below 0, or NaN: samples of another law, or a traceback."""
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        preset(name)
    assert "\n" not in str(error.value)
