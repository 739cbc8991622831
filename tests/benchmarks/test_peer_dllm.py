"""Benchmarks against dllm, with small files in their place: same tokens and losses are seen, others reported."""

from __future__ import annotations

import dataclasses
import functools
import sys

import pytest
from helpers.checkouts import checkout, rows_of

from benchmarks import __main__ as bench
from benchmarks import peers
from benchmarks.peer_decoding import Case

CASE = Case(40, 16, 4, 2, width=16, layers=2, ffn=24, heads=2)
SAMPLER = """
import torch

class MDLMSampler:
    def __init__(self, model, tokenizer):
        self.model, self.mask = model, tokenizer.mask_token_id

    @torch.no_grad()
    def sample(self, prompts, steps, max_new_tokens, block_size):
        rows = []
        for prompt in prompts:
            x = torch.tensor([prompt + [self.mask] * max_new_tokens])
            for first in range(len(prompt), x.shape[1], block_size):
                for _ in range(block_size):
                    p, token = self.model(x, attention_mask=torch.ones_like(x)).logits.softmax(-1).max(-1)
                    p[x != self.mask] = -1
                    p[:, first + block_size:] = -1
                    best = int(p.argmax())
                    x[0, best] = {token}
            rows.append(x[0])
        return rows
"""
TRAINER = """
import torch
from dllm.utils.names import NAME

class LinearAlphaScheduler:
    def weight(self, t):
        return 1 / (t + 1e-6)

class MDLMTrainer:
    def _compute_loss_weights(self, t, inputs):
        return self.scheduler.weight(t)[:, None]

    def compute_loss(self, model, inputs):
        x = inputs["input_ids"]
        t = .1 + .9 * torch.rand(len(x))
        masked = torch.rand(x.shape) < t[:, None]
        noised = torch.where(masked, self.processing_class.mask_token_id, x)
        logits = model(input_ids=noised, attention_mask=None).logits
        nll = torch.nn.functional.cross_entropy(logits.transpose(1, 2), x, reduction="none")
        return (nll * self._compute_loss_weights(t=t, inputs=inputs) * masked).mean() {loss}
"""


def files(token: str = "token[0, best]", loss: str = "") -> dict[str, str]:
    """dllm in small; its packages cannot be imported, as the real ones need what is not installed."""
    broken = "import no_such_module\n"
    packages = ("", "core/", "core/samplers/", "core/trainers/", "utils/")
    return {
        **{f"dllm/{package}__init__.py": broken for package in packages},
        "dllm/utils/names.py": "NAME = 'dllm'\n",
        "dllm/core/samplers/mdlm.py": SAMPLER.replace("{token}", token),
        "dllm/core/trainers/mdlm.py": TRAINER.replace("{loss}", loss),
    }


@pytest.mark.parametrize(
    ("changes", "equal"),
    [
        ({}, [True, True, True]),
        ({"token": "(token[0, best] + 1) % 40"}, [False, False, True]),
        ({"loss": "* 1.001"}, [True, True, False]),
    ],
    ids=["equal", "other_tokens", "other_loss"],
)
def test_tokens_and_losses_are_compared(changes, equal, tmp_path, monkeypatch):
    found = peers.PEERS["dllm"]
    measure = functools.partial(found.measure, case=CASE, rows=3)
    monkeypatch.setitem(peers.PEERS, "dllm", dataclasses.replace(found, measure=measure))
    commit = checkout(tmp_path / "dllm", files(**changes))
    asked = ["--peer", f"dllm={tmp_path / 'dllm'}", "--repeats", "1", "--out", str(tmp_path)]
    assert bench.main(asked) == (0 if all(equal) else 1)
    rows = rows_of(tmp_path)
    assert [row["equal"] for row in rows] == equal and {row["commit"] for row in rows} == {commit}
    assert not [name for name in sys.modules if name.split(".")[0] == "dllm"]
