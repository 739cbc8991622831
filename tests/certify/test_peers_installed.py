"""Discrete schedulers of diffusers: both interfaces, checkouts, what they state that they draw from.

The interface of huggingface/diffusers#14741 is implemented here from its description: times in (0, 1] that fall, a
common output whose `pred_logits` is the law that tokens are drawn from, and schedulers that own what shapes logits.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from repro.certify import certify
from repro.certify.peers import catalogue, command, installed
from repro.certify.space import Space, tiny
from repro.certify.verdict import SMOKE

SMALL = replace(
    SMOKE, rows=4_000, last_rows=10_000, call_rows=10_000, steps=(1, 4, 16), row_calls=10, small_calls=40
)
OUTPUT = """
from dataclasses import dataclass
import torch

@dataclass
class DiscreteSchedulerOutput:
    prev_sample: torch.Tensor
    sampled_tokens: torch.Tensor
    pred_logits: torch.Tensor

def draw(logits, generator):
    return torch.multinomial(logits.double().softmax(-1).flatten(0, -2), 1, generator=generator).view(logits.shape[:-1])
"""
DDIM = """
import torch
from diffusers.schedulers.output import DiscreteSchedulerOutput, draw

class DiscreteDDIMScheduler:
    def __init__(self, temperature=0.0):
        self.temperature = temperature

    def set_timesteps(self, num_inference_steps, device=None):
        self.timesteps = torch.arange(num_inference_steps, 0, -1) / num_inference_steps

    def step(self, model_output, timestep, sample, *, generator=None):
        t = float(timestep)
        s = max(0.0, t - 1 / len(self.timesteps))
        if self.temperature:
            shaped = model_output / self.temperature
        else:
            best = torch.nn.functional.one_hot(model_output.argmax(-1), model_output.shape[-1])
            shaped = best.double().log()
        x0 = draw(shaped, generator)
        kept, vocab = (1 - t) / (1 - s), model_output.shape[-1]
        posterior = (1 - s) * torch.nn.functional.one_hot(x0, vocab) + s / vocab  # q(x_s | x0)
        posterior = posterior * (kept * torch.nn.functional.one_hot(sample, vocab) + (1 - kept) / vocab)
        return DiscreteSchedulerOutput(draw(posterior.log(), generator), x0, {stated})
"""


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """`checkout(stated)`: a folder with schedulers of that interface, whose `pred_logits` is the expression `stated`;
    what is imported of it is forgotten after the test."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in [name for name in sys.modules if name.partition(".")[0] == "diffusers"]:
        monkeypatch.delitem(sys.modules, name)

    def made(stated="shaped"):
        package = tmp_path / "src" / "diffusers"
        (package / "schedulers").mkdir(parents=True)
        (package / "__init__.py").write_text(
            "from diffusers.schedulers.scheduling_discrete_ddim import DiscreteDDIMScheduler\n"
        )
        (package / "schedulers" / "output.py").write_text(OUTPUT)
        (package / "schedulers" / "scheduling_discrete_ddim.py").write_text(DDIM.replace("{stated}", stated))
        return tmp_path

    yield made
    for name in [name for name in sys.modules if name.partition(".")[0] == "diffusers"]:
        del sys.modules[name]


TIMES = "timesteps are times in (0, 1] (huggingface/diffusers#14741)"


def test_a_checkout_whose_timesteps_are_times_is_certified(checkout):
    """The temperature goes to the constructor, which owns it there; without one, the default of 0 is refused."""
    folder = checkout()
    right = certify(catalogue.load(f"diffusers:ddim_temperature_1={folder}"), effort=SMALL)
    assert right.stands, right.text()
    assert right.notes[:2] == (TIMES, "pred_logits is the law that tokens are drawn from")
    wrong = certify(catalogue.load(f"diffusers:ddim={folder}"), effort=SMALL)
    assert "law at 16 steps, uniform" in {check.name for check in wrong.checks if not check.stands}
    assert wrong.notes[1] == "pred_logits is the law that tokens are drawn from"


def test_logits_that_are_not_drawn_from_are_noted(checkout):
    found = catalogue.load(f"diffusers:ddim={checkout('model_output')}")
    assert found.notes == (TIMES, "pred_logits is not the law that tokens are drawn from")


def test_an_argument_that_no_function_has_is_refused(checkout):
    """A setting that were dropped would certify another sampler."""
    with pytest.raises(ValueError, match=r"nor its step\(\) takes 'corrector_steps'"):
        catalogue.load(f"diffusers:ddim_corrector_random={checkout()}")


def test_an_error_of_a_step_names_the_line_of_the_scheduler(checkout):
    line = DDIM.count("\n")
    with pytest.raises(ValueError, match=rf"raised NameError at line {line} of scheduling_discrete_ddim\.py"):
        catalogue.load(f"diffusers:ddim={checkout('unknown')}")


def test_rows_of_a_checkout_stay_beside_those_of_a_release(checkout, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "isolated", lambda target, *_: certify(catalogue.load(target), effort=SMALL))
    monkeypatch.setattr(command, "commit", lambda folder, files: "0" * 40)
    row = {"peer": "diffusers", "sampler": "ddim", "version": "0.42.1"}
    monkeypatch.setattr(command, "read_peers", lambda out: [row])
    assert command.certify_peers([f"diffusers:ddim={checkout()}"], tmp_path, None, False) == 1
    text = (tmp_path / "peers.json").read_text()
    assert text.index('"0.42.1"') < text.index("0" * 40)


def test_a_package_without_the_sampler_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", SimpleNamespace())
    with pytest.raises(ValueError, match=r"this diffusers has no DiscreteDDIMScheduler; install 0\.42"):
        catalogue.load("diffusers:ddim=")
    monkeypatch.setitem(sys.modules, "transformers.models.diffusion_gemma.generation_diffusion_gemma", None)
    with pytest.raises(ValueError, match=r"import of transformers\..* raised ModuleNotFoundError"):
        catalogue.load("transformers:diffusion_gemma=")


class _Masked:
    """A scheduler of masked diffusion with times, whose constructor has the id of [MASK]."""

    def __init__(self, mask_token_id=None):
        self.mask = mask_token_id

    def set_timesteps(self, steps):
        self.timesteps = (torch.arange(steps, 0, -1) / steps) ** 2

    def step(self, model_output, timestep, sample, *, generator=None):
        TOLD.append(timestep.item())
        drawn = torch.multinomial(model_output.double().softmax(-1).flatten(0, 1), 1, generator=generator)
        drawn, later = drawn.view(sample.shape), self.timesteps[self.timesteps < timestep]
        masked = torch.rand(sample.shape, generator=generator) * timestep < (later[0] if len(later) else 0)
        after = torch.where((sample != self.mask) | masked, sample, drawn)
        return SimpleNamespace(prev_sample=after, sampled_tokens=drawn, pred_logits=model_output)


TOLD: list[float] = []


def test_a_scheduler_of_masks_is_driven_by_the_same_loop(monkeypatch):
    """The network is asked at the times of the scheduler."""
    asked = []

    class Spy(Space):
        def denoise(self, ids, t):
            asked.append(t)
            return super().denoise(ids, t)

    monkeypatch.setitem(sys.modules, "diffusers", SimpleNamespace(Masked=_Masked))
    sample = installed.scheduler(None, {"class": "Masked"})
    TOLD.clear()
    ids = sample(Spy("absorbing", tiny(3), "x0_mean"), 5, 4, 0)
    assert ids.shape == (5, 3) and (ids < 3).all() and asked == TOLD == [1.0, 0.5625, 0.25, 0.0625]


def test_the_interface_of_the_release_is_noted():
    pytest.importorskip("diffusers")
    bound, blocks = (
        catalogue.load(f"diffusers:{name}=").notes for name in ("entropy_bound", "block_refinement")
    )
    assert bound == ("timesteps are numbers of steps", "pred_logits is the law that tokens are drawn from")
    assert blocks == (
        "timesteps are numbers of steps",
        "pred_logits is not the law that tokens are drawn from",
    )
