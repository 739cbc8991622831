"""The full recipes made small by overrides alone: chats, a tokenizer, ModernBERT and float32 master weights."""

from __future__ import annotations

import json

import pytest
from helpers.tiny_tokenizer import CHATS, CLS, MASK, PAD, SEP, SIZE

from repro import load, sample
from repro.core import parts
from repro.data.corpus import prepared
from repro.recipes.scale import by_name
from repro.training.checkpoint import open_checkpoint
from repro.training.loop import train

SMALL_BERT = {
    "layers": 4,
    "width": 32,
    "heads": 2,
    "ffn": 48,
    "window": 16,
    "weights": None,
    "revision": None,
}
SMALL_LLAMA = {"layers": 2, "width": 32, "heads": 2, "kv_heads": 2, "ffn": 48}


def small(name: str, tokenizer, **more):
    """A full recipe with another data source, a smaller network and few steps; all other pins stay."""
    recipe = by_name(name)
    backbone = SMALL_LLAMA if name == "ar" else SMALL_BERT
    pins = {
        "data.source": CHATS,
        "data.source_rows": 118,
        "data.tokenizer": str(tokenizer),
        "data.max_length": 48,
    }
    pins |= {"data.size": SIZE, "data.total": SIZE, "data.mask": MASK, "data.pad": PAD, "data.cls": CLS}
    pins |= {"data.sep": SEP, "batch": 8, "micro_batch": 4, "steps": 4, "log_every": 1, "heldout_every": 2}
    pins |= {f"backbone.{pin}": value for pin, value in backbone.items()}
    return parts.derive(recipe, pins | more)


@pytest.fixture(scope="module", autouse=True)
def folders(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("REPRO_RUNS", str(tmp_path_factory.mktemp("runs")))
        yield


@pytest.mark.parametrize("name", ["ar", "duo", "duo_nelbo", "duo_script", "llada", "mdlm"])
def test_a_full_recipe_trains_saves_and_answers_a_prompt(name, tokenizer, tmp_path):
    recipe = small(name, tokenizer)
    assert recipe.precision == "bf16_master"
    train(recipe, seed=0, out=tmp_path / "run", stop=None, resume=False)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert all(row["grad_norm"] > 0 for row in rows) and "heldout_nll_bound" in rows[-1]
    assert open_checkpoint(tmp_path / "run").has_ema == (recipe.ema is not None)
    model = load(tmp_path / "run")
    first, second = (sample(model, ["What is the capital of France?"], gen_length=6, seed=s) for s in (0, 0))
    assert first == second and len(first) == 1


def test_no_padding_is_scored_and_prompts_only_where_the_recipe_says_so(tokenizer):
    """docs/method.md#masked-script scores answers, docs/method.md#uniform-script every token but PAD."""
    masked, duo = (prepared(small(name, tokenizer).data).train for name in ("llada", "duo"))
    for rows in (masked, duo):
        assert not (rows.candidates & (rows.ids == PAD)).any()
    assert not masked.candidates[:, 0].any() and duo.candidates[:, 0].all()
