"""Bytes that random draws move: tensors as wide as the vocabulary, counted in and out of every operation."""

from __future__ import annotations

import pytest
import torch
from helpers import released, tiny_tokenizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from repro import load, score
from repro.evals.workload import DRAWN, Workload
from repro.models.dit_network import DitDenoiser
from repro.samplers.decode import decode
from repro.samplers.plan import Plan
from repro.samplers.presets import preset

LENGTH = 64
VIEWS = (
    "view",
    "expand",
    "slice",
    "select",
    "squeeze",
    "transpose",
    "permute",
    "detach",
    "alias",
    "as_strided",
)
PRODUCTS = ("mm", "linear")


class Moved(TorchDispatchMode):
    """Sums the bytes of tensors of at least 8 rows of `width` ids; views move none, products are FLOPs."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width, self.bytes = width, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        if not any(word in str(func) for word in (*VIEWS, *PRODUCTS)):
            for each in tree_leaves((args, kwargs, found)):
                wide = isinstance(each, torch.Tensor) and each.dim() > 1
                if wide and abs(each.shape[-1] - self.width) <= 5 and each.numel() >= 8 * each.shape[-1]:
                    self.bytes += each.numel() * each.element_size()
        return found


@pytest.mark.parametrize("kind", sorted(DRAWN))
def test_bytes_of_draws_are_counted(kind, tmp_path, monkeypatch):
    """Duo and MDLM folders of random weights, 4 rows in 8 steps: a posterior every forward, or each position once."""
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path / "runs"))
    words = tiny_tokenizer.save(tmp_path / "tokenizer") / "tokenizer.json"
    write = released.duo if kind == "uniform" else released.mdlm
    write(tmp_path / "weights", words)
    model = load(tmp_path / "weights")
    width = model.data.vocabulary().total
    plan = Plan(gen_length=LENGTH, block_length=LENGTH, steps=8)
    with Moved(width) as moved:
        found = decode(
            model.denoiser,
            model.recipe.process,
            preset("drawn_tail"),
            plan,
            [[]] * 4,
            seed=0,
            names=range(4),
        )
    times = int(found.cost.forwards.sum()) if kind == "uniform" else 4
    assert moved.bytes / (times * LENGTH * width) == pytest.approx(DRAWN[kind], rel=0.05)


@pytest.mark.parametrize("write", [released.mdlm, released.bd3], ids=["mdlm", "bd3"])
def test_tokens_of_a_bound_are_counted(write, tmp_path, monkeypatch):
    """Perplexity of a text of one's own with released weights: BD3-LM's pass the layers as two copies of each row."""
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path / "runs"))
    words = tiny_tokenizer.save(tmp_path / "tokenizer") / "tokenizer.json"
    write(tmp_path / "weights", words)
    model, seen = load(tmp_path / "weights"), []
    text = "What is the capital of France? The capital of France is Paris. " * 40
    (tmp_path / "book.txt").write_text(text, "utf-8")
    read = DitDenoiser._read
    monkeypatch.setattr(
        DitDenoiser, "_read", lambda self, ids, *rest: seen.append(ids.numel()) or read(self, ids, *rest)
    )
    (record,) = score(model, corpus=str(tmp_path / "book.txt"), out=tmp_path / "raw")
    value, rows = record.answer.metrics["nll_bound"].value, record.answer.metrics["nll_bound"].n
    assert 0 < value < 20 and rows > 1
    length, passes = model.data.row_length(), record.question.task["passes"]
    expected = Workload.of_bound(rows, passes, length, model)
    assert sum(seen) == expected.tokens * rows
