"""Generative perplexity beside Duo's own, read by one judge with random weights."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from benchmarks.row import TOLERANCE, Compared, against
from repro.core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from benchmarks.peer_diffusion import Case


def generative_perplexity(metrics: Any, case: Case, repeats: int) -> Compared:
    """Our gen_ppl by rule `duo` against `record_generative_perplexity` (s-sahoo/duo@7c9b498 metrics.py:165-210): the
    same ids, and the same judge, a GPT-2 with random weights, which neither side loads while it is timed."""
    from repro.core import rng
    from repro.evals.text_quality.gen_ppl import gen_ppl, rule
    from repro.evals.text_quality.judges import TransformersJudge

    with tempfile.TemporaryDirectory() as folder:
        _save_judge(Path(folder), case)
        judge = TransformersJudge(Path(folder))
    keys = rng.keys(0, rng.SENTENCE, 1, torch.arange(case.texts))
    ids = (rng.uniform(keys, case.length) * case.ids).long()

    def ours() -> float:
        judge._readings.clear()
        return gen_ppl(ids.tolist(), judge, rule(f"duo:length={case.length},chunk={case.length}"))[0]

    def theirs() -> float:
        sums = torch.zeros(2, dtype=torch.float64)

        def update(nll: Tensor, count: Tensor) -> None:
            sums.add_(torch.stack([nll.sum().double(), count.sum().double()]))

        model = metrics.Metrics.__new__(metrics.Metrics)
        model.gen_ppl_eval_model_name_or_path, model.eval_ppl_batch_size = "judge", case.texts
        model.tokenizer, model.gen_ppl = judge.tokenizer, SimpleNamespace(update=update)
        model.record_generative_perplexity(ids, case.length, retokenize=False, device="cpu")
        return (sums[0] / sums[1]).exp().item()

    def alone() -> None:
        with torch.no_grad():
            judge.network(ids)

    loader = SimpleNamespace(from_pretrained=lambda name: judge.network)
    own, metrics.transformers = metrics.transformers, SimpleNamespace(AutoModelForCausalLM=loader)
    try:
        found = against({"ours": ours, "theirs": theirs, "network": alone}, repeats)
    finally:
        metrics.transformers = own
    off = abs(found.results["ours"] / found.results["theirs"] - 1)
    layers, width, _ = case.judge
    name = (
        f"record_generative_perplexity, {case.texts} texts of {case.length} ids,"
        f" judge with V={case.ids:,}, d={width}, {layers} layers"
    )
    agreement = f"values differ by {off:.1e}; {found.bound()}"
    return Compared(found.row(name, 1.2, agreement), off <= TOLERANCE)


def _save_judge(folder: Path, case: Case) -> None:
    """Save a GPT-2 with random weights, and a tokenizer, which is not used."""
    from tokenizers import Tokenizer, models
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    layers, width, heads = case.judge
    last = case.ids - 1
    config = GPT2Config(
        vocab_size=case.ids,
        n_positions=case.length,
        n_embd=width,
        n_layer=layers,
        n_head=heads,
        bos_token_id=last,
        eos_token_id=last,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        GPT2LMHeadModel(config).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({"a": 0, "<e>": last}, unk_token="a"))
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<e>", unk_token="a").save_pretrained(folder)
