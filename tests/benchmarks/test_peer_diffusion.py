"""Benchmarks against Duo and MDLM, with small files in their place: same results are seen, others reported, and nothing
of one peer's modules is left for the next, whose files have the same names."""

from __future__ import annotations

import dataclasses
import functools
import sys

import pytest
from helpers.checkouts import checkout, rows_of

from benchmarks import __main__ as bench
from benchmarks import peer_diffusion, peers
from repro.certify.peers import imports

CASE = peer_diffusion.Case(
    ids=40, rows=3, length=6, samples=2, steps=2, width=16, layers=1, heads=2, texts=2, judge=(1, 16, 2)
)
ALGO = """
import flash_attn.layers.rotary
import torch
import trainer_base
import utils
from repro.processes.bayes import plug_in
from repro.processes.uniform import integrand

class DUO(trainer_base.L.LightningModule):
    def nll(self, x0, output, accumulation, train_mode):
        t = torch.rand(len(x0))
        alpha = (1 - (1 - 1e-3) * t)[:, None]
        soft = {}
        if self.global_step > self.curriculum_end:
            inputs = xt = torch.where(torch.rand(x0.shape) < alpha, x0, torch.randint(0, self.vocab_size, x0.shape))
        elif self.config.algo.curriculum.mode == "simple":
            inputs = 5 * torch.nn.functional.one_hot(x0, self.vocab_size) + 3 * torch.randn(*x0.shape, self.vocab_size)
            xt = inputs.argmax(-1)
        else:
            xt = torch.randint(0, self.vocab_size, x0.shape)
            inputs, soft = torch.stack([xt, x0], -1), {"weights": torch.rand(*x0.shape, 2)}
        logp = self.backbone(x=inputs, sigma=-alpha.log()[:, 0], class_cond=None, **soft).log_softmax(-1)
        return self.nll_per_token(log_x_theta=logp, xt=xt, x0=x0, alpha_t=alpha, dalpha_t=alpha * 0 - 1 + 1e-3)

    def nll_per_token(self, log_x_theta, xt, x0, alpha_t, dalpha_t):
        every = [each.double().expand(x0.shape).flatten() for each in (alpha_t, dalpha_t)]
        p = log_x_theta.exp().double().flatten(0, 1)
        return integrand(p, x0.flatten(), xt.flatten(), *every).view(x0.shape) {loss}

    def _sigma_from_alphat(self, alpha):
        return -alpha.log()[:, 0]

    def _get_posterior_from_xt(self, xt, sigma, labels, alpha_s, alpha_t):
        p = self.backbone(x=xt, sigma=sigma).double().softmax(-1).flatten(0, 1)
        alphas = [each.double().expand(xt.shape).flatten() {law} for each in (alpha_t, alpha_s)]
        return None, plug_in(p, xt.flatten(), *alphas).view(*xt.shape, -1)

    def generate_samples(self, num_samples, num_steps):
        return torch.randint(0, self.vocab_size, (num_samples, self.num_tokens))
"""
METRICS = """
import torch
import transformers

class Metrics:
    def record_generative_perplexity(self, samples, max_length, retokenize=True, device="cuda"):
        network = transformers.AutoModelForCausalLM.from_pretrained(self.gen_ppl_eval_model_name_or_path)
        end = self.tokenizer.eos_token_id
        with torch.no_grad():
            logp = network(samples).logits[:, :-1].log_softmax(-1)
        valid = (samples != end) | ((samples == end).cumsum(-1) == 1)
        nll = -logp.gather(-1, samples[:, 1:, None])[..., 0] {perplexity}
        self.gen_ppl.update(nll * valid[:, 1:], valid[:, 1:])
"""
TRAINER = """
import lightning as L
import metrics

class LogLinear:
    def __init__(self, eps):
        self.eps = eps
"""
DIFFUSION = """
import lightning as L
import noise_schedule
import torch
import utils
from types import SimpleNamespace

class Diffusion(L.LightningModule):
    def _sample(self, num_steps):
        size = self.config.loader.eval_batch_size, self.config.model.length
        for _ in range(num_steps + self.config.sampling.noise_removal):
            self._ddpm_caching_update(torch.full(size, self.mask_index), torch.ones(size[0], 1), 0.5)
        return torch.randint(0, self.mask_index, size)

    def _ddpm_caching_update(self, x, t, dt):
        logits = self.backbone(x, t[:, 0] * 0)
        logits[..., self.mask_index] -= 1e6
        p = logits.softmax(-1) {law}
        return p, x

    def _sample_t(self, n, device):
        return .1 + .9 * torch.rand(n, device=device)

    def _loss(self, x0, attention_mask):
        t = self._sample_t(len(x0), x0.device)
        xt = torch.where(torch.rand(x0.shape) < t[:, None], self.mask_index, x0)
        logits = self.backbone(xt, t * 0)
        logits[..., self.mask_index] -= 1e6
        ce = -logits.log_softmax(-1).gather(-1, x0[..., None])[..., 0]
        return SimpleNamespace(loss=(ce * (xt == self.mask_index) / t[:, None]).mean() {loss})
"""


def files(peer: str, **changes: str) -> dict[str, str]:
    """The files of a peer in small; `changes` of its loss, posterior (`law`) or generative perplexity."""
    changes = {"loss": "", "law": "", "perplexity": ""} | changes

    def changed(text: str) -> str:
        for name, change in changes.items():
            text = text.replace(f"{{{name}}}", change)
        return text

    if peer == "mdlm":
        schedule = "class LogLinearNoise:\n    pass\n"
        return {
            "diffusion.py": changed(DIFFUSION),
            "noise_schedule.py": schedule,
            "utils.py": "NAME = 'mdlm'\n",
        }
    named = {"algo.py": ALGO, "metrics.py": METRICS, "trainer_base.py": TRAINER, "utils.py": "NAME = 'duo'\n"}
    return {name: changed(text) for name, text in named.items()}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    for name in ("duo", "mdlm"):
        found = peers.PEERS[name]
        made = dataclasses.replace(found, measure=functools.partial(found.measure, case=CASE))
        monkeypatch.setitem(peers.PEERS, name, made)


def test_equal_losses_posteriors_and_perplexities(tmp_path):
    """Both peers in one call, though both have a utils.py; afterwards their modules and stand-ins are forgotten."""
    commits = [checkout(tmp_path / name, files(name)) for name in ("duo", "mdlm")]
    asked = [text for name in ("duo", "mdlm") for text in ("--peer", f"{name}={tmp_path / name}")]
    assert bench.main([*asked, "--repeats", "1", "--out", str(tmp_path / "out")]) == 0
    rows = rows_of(tmp_path / "out")
    assert [row["commit"] for row in rows] == [commits[0]] * 5 + [commits[1]] * 2
    assert all(row["equal"] for row in rows), rows
    assert not {"algo", "diffusion", "utils", "metrics", "flash_attn", "lightning"} & set(sys.modules)
    assert not [place for place in sys.path if place.startswith(str(tmp_path))]
    assert not [each for each in sys.meta_path if isinstance(each, imports._Finder)]


@pytest.mark.parametrize(
    ("peer", "change", "equal"),
    [
        ("duo", {"loss": "* 1.001"}, [False, False, False, True, True]),
        ("duo", {"law": "** 1.001"}, [True, True, True, False, True]),
        ("duo", {"perplexity": "* 1.001"}, [True, True, True, True, False]),
        ("mdlm", {"loss": "* 1.001"}, [False, True]),
        ("mdlm", {"law": "** 1.01"}, [True, False]),
    ],
)
def test_other_results_are_reported(peer, change, equal, tmp_path):
    checkout(tmp_path / peer, files(peer, **change))
    assert bench.main(["--peer", f"{peer}={tmp_path / peer}", "--repeats", "1", "--out", str(tmp_path)]) == 1
    assert [row["equal"] for row in rows_of(tmp_path)] == equal
