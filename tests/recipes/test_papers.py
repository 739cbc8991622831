"""The papers' recipes: schedules, windows, dropout, row lengths, dialogues, and toy runs from the data to a checkpoint.

Their pins are compared with tests/helpers/paper_claims.py in tests/core/test_parts.py; distillation is tested in
tests/objectives/test_dcd.py.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import literal, tiny_tokenizer, toy, wordpiece

from repro.core import parts, rng
from repro.core.schedules import ConstantWithWarmup, LogLinearUntil, WarmupStableDecay, WarmupStableDropDecay
from repro.data.corpus import UNRESOLVED, Vocabulary, prepared
from repro.data.dialogues import Dialogues
from repro.models.attention import Mask
from repro.models.dit import WithDropout
from repro.objectives.elbo import DuoElbo, Elbo, IndependentElbo
from repro.objectives.lengths import RandomLength, ToLongest
from repro.objectives.objective import Batch, GlobalBatch, RowGroup
from repro.processes import gaussian
from repro.processes.absorbing import Absorbing
from repro.processes.prediction import Role
from repro.recipes.command import select
from repro.recipes.scale import by_name, scaled
from repro.training import teacher as teaching
from repro.training.cost import plan
from repro.training.engines.options import Options
from repro.training.loop import train, train_alone

PAPERS = ("mdlm_owt", "mdlm_lm1b", "duo_owt", "duo_lm1b", "ar_owt", "ar_lm1b")


@pytest.fixture(autouse=True)
def runs(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path_factory.getbasetemp() / "runs"))


# --- schedules ----------------------------------------------------------------------------------------------


def test_a_constant_rate_after_warm_up():
    rate = ConstantWithWarmup(warmup=4)
    assert [rate.factor(step, 100) for step in (0, 1, 3, 4, 50, 100)] == [0, 0.25, 0.75, 1, 1, 1]


def test_warm_up_stable_decay_by_hand():
    """LLaDA's SFT: 50 warm-up steps, constant, and linear to a tenth over the last tenth (docs/method.md#llada-sft)."""
    rate = WarmupStableDecay(warmup=50, decay=100, final=0.1)
    values = {0: 0, 25: 0.5, 50: 1, 899: 1, 900: 1, 950: 0.55, 999: 0.109, 1000: 0.1}
    assert {step: rate.factor(step, 1000) for step in values} == pytest.approx(values)


def test_llada_s_learning_rate_at_its_corners():
    """0 -> 4e-4 in 2,000 steps, 1e-4 from 1.2 T tokens on, 1e-4 -> 1e-5 over the last 0.3 T of 2.3 T
    (docs/method.md#llada-pretraining)."""
    recipe = by_name("llada_pretrain")
    rate, lr, steps = recipe.learning_rate, recipe.optimizer.lr, recipe.steps
    assert isinstance(rate, WarmupStableDropDecay)
    tokens = {1e9: None, 1.19e12: 4e-4, 1.21e12: 1e-4, 1.99e12: 1e-4, 2.15e12: 5.5e-5, 2.3e12: 1e-5}
    for seen, value in tokens.items():
        step = round(seen / (1280 * 4096))
        expected = 4e-4 * step / 2000 if value is None else value
        assert lr * rate.factor(step, steps) == pytest.approx(expected, rel=2e-3), seen


def test_schedules_keep_their_share_at_a_scale():
    full, small = by_name("llada_pretrain"), by_name("llada_pretrain@nano")
    for pin in ("drop", "decay"):
        share = getattr(small.learning_rate, pin) / small.steps
        assert share == pytest.approx(getattr(full.learning_rate, pin) / full.steps, abs=1e-3)


# --- windows ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "vocab_size", "alpha"),
    [("duo_lm1b", 30_522, (0.94171, 0.04868)), ("duo_owt", 50_257, (0.94547, 0.04932))],
)
def test_windows_keep_the_papers_share_of_tokens(name, vocab_size, alpha):
    """T(A) at the ends of the curriculum's window (docs/method.md#oracle-16); the window at nano has the same T(A)."""
    window = by_name(name).objective.window
    ends = torch.tensor([window.low, window.high], dtype=torch.float64)
    assert gaussian.transform(ends, vocab_size)[0].tolist() == pytest.approx(alpha, abs=1e-4)
    small = by_name(f"{name}@nano")
    ends = torch.tensor([small.objective.window.low, small.objective.window.high], dtype=torch.float64)
    found = gaussian.transform(ends, small.data.vocabulary().size)[0].tolist()
    assert found == pytest.approx(alpha, abs=1e-4)


# --- dropout ------------------------------------------------------------------------------------------------


def net(name: str = "duo_owt@nano"):
    """A network with perturbed initial weights (some start at zero), and token rows for it."""
    recipe = by_name(name)
    made = recipe.network(0)
    for number, parameter in enumerate(made.parameters()):
        parameter.data += 0.05 * rng.normal(rng.keys(0, rng.INIT, 1, number), *parameter.shape).float()
    ids = torch.arange(6 * 32).view(6, 32) % 32
    return made, ids


def features(made, ids, t=0.5):
    time = torch.full((len(ids),), t, dtype=torch.float64) if made.time_conditioned else None
    return made.encode(ids, t=time, attention=Mask())


@pytest.mark.parametrize("name", ["duo_owt@nano", "ar_owt@nano"])
def test_dropout_of_a_row_depends_on_its_key_only(name):
    """The same key drops the same units in any batch, another step's key others; in eval mode nothing is dropped."""
    made, ids = net(name)
    keys = rng.keys(3, rng.DROPOUT, 7, torch.arange(6))
    made.train()
    plain = features(made, ids)
    made.set_dropout_keys(keys)
    whole = features(made, ids)
    assert (whole - plain).abs().max() > 1e-3
    made.set_dropout_keys(keys[2:4])
    torch.testing.assert_close(features(made, ids[2:4]), whole[2:4], atol=1e-5, rtol=1e-5)
    made.set_dropout_keys(rng.keys(3, rng.DROPOUT, 8, torch.arange(6)))
    assert (features(made, ids) - whole).abs().max() > 1e-3
    made.eval()
    torch.testing.assert_close(features(made, ids), plain, atol=0, rtol=0)


def test_activation_checkpointing_repeats_the_same_dropout(tmp_path):
    """Activation checkpointing does not change the training curve of a network with dropout."""
    recipe = toy.toy("duo_owt")
    again = Options(activation_checkpointing=True, compile=False, whole_gradients=False)
    train(recipe, seed=3, out=tmp_path / "plain", stop=4, resume=False)
    train(recipe, seed=3, out=tmp_path / "again", stop=4, resume=False, options=again)
    toy.same_curve(toy.curve(tmp_path / "plain"), toy.curve(tmp_path / "again"))


def test_dropout_keeps_its_share_and_its_mean():
    from repro.models.dropout import drop

    x = torch.ones(8, 64, 96)
    dropped = drop(x, rng.keys(0, rng.DROPOUT, 0, torch.arange(8)), 0.1)
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / 0.9])
    assert (dropped == 0).double().mean().item() == pytest.approx(0.1, abs=4 * math.sqrt(0.09 / x.numel()))
    assert not torch.equal(dropped[0], dropped[1])


def test_dropout_scales_in_float32():
    """Rounding 1/(1 - .1) to bfloat16 first would bias every value by .2 %."""
    from repro.models.dropout import drop

    x = torch.randn(8, 16, 32, generator=torch.Generator().manual_seed(0)).bfloat16()
    keys = rng.keys(0, rng.DROPOUT, 0, torch.arange(8))
    assert torch.equal(drop(x, keys, 0.1), drop(x.float(), keys, 0.1).bfloat16())


def test_each_layer_and_sublayer_has_its_own_dropout():
    made, ids = net()
    seen = []
    import repro.models.dit_network as module

    plain = module.drop
    try:
        module.drop = lambda x, keys, rate: seen.append(keys.clone()) or x
        made.set_dropout_keys(rng.keys(0, rng.DROPOUT, 0, torch.arange(6)))
        features(made.train(), ids)
    finally:
        module.drop = plain
    assert len(seen) == 2 * len(made.layers()) and len({tuple(keys.tolist()) for keys in seen}) == len(seen)


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1])
def test_a_rate_outside_0_to_1_is_an_error(rate):
    with pytest.raises(ValueError, match=re.escape(f"rate={rate} is not strictly between 0 and 1")):
        WithDropout(backbone=by_name("duo_owt").backbone.backbone, rate=rate)


# --- lengths ------------------------------------------------------------------------------------------------

VOCABULARY = Vocabulary(size=9, total=10, mask=9, bos=None, eos=8, pad=None)


def batch(where: torch.Tensor, rows: slice = slice(None), step: int = 0) -> Batch:
    ids = torch.arange(where.numel()).view(where.shape) % 8
    return Batch(
        ids=ids[rows],
        candidates=where[rows],
        attention=Mask(),
        index=torch.arange(len(where))[rows],
        step=step,
        seed=0,
        vocabulary=VOCABULARY,
        step_examples=torch.arange(len(where)),
        step_candidates=where.sum(1),
        step_where=where,
    )


class Seen(IndependentElbo):
    """A loss that raises its batch as an exception."""

    def __call__(self, denoiser, process, batch):
        raise Handed(batch)


class Handed(Exception):
    pass


SEEN = Seen(eps=1e-3, group=RowGroup(rows=1))


def handed(objective, given: Batch) -> Batch:
    with pytest.raises(Handed) as caught:
        objective(None, Absorbing(), given)
    return caught.value.args[0]


def test_random_lengths_have_their_law():
    """A share of the row groups is truncated, to lengths uniform on 1..L; the rows of a group have the same length
    (docs/method.md#llada-objective)."""
    length, rows = 16, 4 * 20_000
    objective = RandomLength(loss=SEEN, probability=0.25, rows=4)
    lengths = objective.lengths(batch(torch.ones(rows, length, dtype=torch.bool))).view(-1, 4)
    assert (lengths == lengths[:, :1]).all()
    counts = torch.bincount(lengths[:, 0], minlength=length + 1)[1:].double() / len(lengths)
    expected = torch.full((length,), 0.25 / length, dtype=torch.float64)
    expected[-1] += 0.75
    error = (expected * (1 - expected) / len(lengths)).sqrt()
    assert ((counts - expected).abs() < 4.5 * error).all()


def test_truncated_positions_are_neither_attended_nor_scored():
    where = torch.ones(8, 16, dtype=torch.bool)
    where[:, 0] = False
    objective = RandomLength(loss=SEEN, probability=1.0, rows=2)
    whole = handed(objective, batch(where))
    length = objective.lengths(batch(where))
    assert (length < 16).any()
    inside = torch.arange(16) < length[:, None]
    assert torch.equal(whole.attention.valid, inside) and torch.equal(whole.candidates, where & inside)
    assert torch.equal(whole.step_candidates, (where & inside).sum(1))
    part = handed(objective, batch(where, slice(3, 5)))
    assert torch.equal(part.candidates, whole.candidates[3:5])
    assert torch.equal(part.step_candidates, whole.step_candidates)


def test_a_truncated_row_equals_the_shorter_row():
    """The features of the first 5 of 32 positions are those of a row of 5."""
    made, ids = net("mdlm_owt@nano")
    made.eval()
    valid = (torch.arange(32) < 5).expand(6, 32)
    long = made.encode(ids, t=None, attention=Mask(valid))[:, :5]
    torch.testing.assert_close(long, made.encode(ids[:, :5], t=None, attention=Mask()), atol=1e-5, rtol=1e-5)


def test_rows_that_are_not_truncated_do_not_change():
    given = batch(torch.ones(8, 16, dtype=torch.bool))
    found = handed(RandomLength(loss=SEEN, probability=1e-9, rows=4), given)
    assert found.attention.valid is None and torch.equal(found.candidates, given.candidates)


def test_answers_are_padded_to_the_longest_of_their_group():
    """Prompts have 2 ids and answers with their EOS end at 5, 7 | 3, 3: the first pair is padded to 7, the second to 3
    (docs/method.md#llada-sft)."""
    ends = torch.tensor([5, 7, 3, 3])
    column = torch.arange(10)
    where = (column >= 2) & (column < ends[:, None])
    found = handed(ToLongest(loss=SEEN, rows=2), batch(where))
    longest = torch.tensor([7, 7, 3, 3])
    assert torch.equal(found.candidates, (column >= 2) & (column < longest[:, None]))
    assert torch.equal(found.attention.valid, column.expand(4, -1) < longest[:, None])
    assert found.step_candidates.tolist() == [5, 5, 1, 1]


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: RandomLength(loss=SEEN, probability=0.0, rows=4), "probability=0.0 is not in (0, 1]"),
        (
            lambda: RandomLength(loss=SEEN, probability=0.1, rows=0),
            "rows=0 is not a number of rows per group",
        ),
        (lambda: ToLongest(loss=SEEN, rows=0), "rows=0 is not a number of rows per group"),
    ],
)
def test_invalid_length_pins_are_errors(make, line):
    with pytest.raises(ValueError, match=re.escape(line)):
        make()


# --- independent times --------------------------------------------------------------------------------------


class Noted(Absorbing):
    """Absorbing noise that raises the times that it receives."""

    def corrupt(self, x0, t, keys, candidates, vocabulary):
        raise Handed(t)


def test_independent_times_are_not_stratified():
    """LLaDA draws the t of each row independently, uniform on [eps, 1]; the other bounds have one row per stratum."""
    rows = 4000
    most = {}
    for objective in (IndependentElbo(eps=1e-3, group=GlobalBatch()), Elbo(eps=1e-3, group=GlobalBatch())):
        with pytest.raises(Handed) as caught:
            objective(None, Noted(), batch(torch.ones(rows, 4, dtype=torch.bool)))
        t = caught.value.args[0]
        assert t.min() >= 1e-3 and t.max() <= 1
        assert t.mean().item() == pytest.approx(0.5, abs=4 * math.sqrt(1 / 12 / rows))
        most[type(objective)] = torch.bincount(((t - 1e-3) / 0.999 * rows).long().clamp(max=rows - 1)).max()
    assert most[Elbo] == 1 and most[IndependentElbo] > 2


# --- dialogues ----------------------------------------------------------------------------------------------


def dialogues(folder, tokenizer, length: int) -> Dialogues:
    rows = [
        [("user", "a b"), ("assistant", "c")],
        [("user", "a"), ("assistant", "b c d"), ("user", "e"), ("assistant", "f g")],
        [("system", "h"), ("user", "a"), ("assistant", "b")],
        [("user", "a b c d e f g h a b c d"), ("assistant", "a")],
    ] * 6
    text = [json.dumps({"messages": [{"role": r, "content": c} for r, c in row]}) for row in rows]
    (folder / "chats.jsonl").write_text("\n".join(text) + "\n", "utf-8")
    return Dialogues(
        source=str(folder / "chats.jsonl"),
        revision=UNRESOLVED,
        split="train",
        source_rows=len(rows),
        tokenizer=str(tokenizer),
        tokenizer_revision=UNRESOLVED,
        head="{role} ",
        tail=" .",
        length=length,
        heldout_fraction=0.25,
        seed=0,
        size=len(wordpiece.WORDS),
        mask=wordpiece.MASK,
        begin=wordpiece.CLS,
        end=wordpiece.SEP,
    )


def test_dialogues_become_pairs_of_previous_turns_and_answer(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    data = dialogues(tmp_path, wordpiece.save(tmp_path / "words"), 24)
    split = data.build()
    assert len(split["heldout"]) == math.ceil(0.25 * (len(split["heldout"]) + len(split["train"])))
    ends = set()
    for rows in split.values():
        for ids, where, example in zip(rows.ids, rows.candidates, rows.example, strict=True):
            first, last = np.flatnonzero(where)[[0, -1]]
            assert where[first : last + 1].all() and ids[0] == wordpiece.CLS
            assert ids[last] == wordpiece.SEP and (ids[last:] == wordpiece.SEP).all(), (
                "EOS is scored, then pads"
            )
            assert not (ids[:last] == wordpiece.SEP).any()
            if example % 4 == 1:
                ends.add(data.decode(ids[first:last]))
                assert (wordpiece.WORDS.index("e") in ids[:first]) == (data.decode(ids[first:last]) == "f g")
    assert ends == {"b c d", "f g"}, "each answer of a dialogue can be drawn"
    question = data.prompt("a b")
    (row,) = [i for i, e in zip(split["train"].ids, split["train"].example, strict=True) if e % 4 == 0][:1]
    assert row[: len(question)].tolist() == question


# --- from data to a checkpoint ------------------------------------------------------------------------------


def local(name: str, folder) -> list[str]:
    """Overrides that give a full recipe a small local text and a small network."""
    texts = [" ".join("abcdefgh"[(i + j * (i % 3 + 1)) % 8] for j in range(5 + i % 9)) for i in range(80)]
    for split in ("train", "test"):
        rows = texts if split == "train" else texts[:24]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in rows), "utf-8")
    documents = "data.data.documents" if name.endswith("owt") else "data.data.documents.documents"
    words = len(wordpiece.WORDS)
    pins = {
        f"{documents}.source": str(folder),
        f"{documents}.split": "train",
        f"{documents}.heldout_split": "test",
        "data.data.units.source": str(wordpiece.save(folder / "words")),
        "data.data.units.size": words,
        "data.data.units.begin": wordpiece.CLS,
        "data.data.units.end": wordpiece.SEP,
        "data.data.units.pad": wordpiece.PAD,
        "data.data.units.mask": wordpiece.MASK,
        "data.data.length": 12,
        "backbone.backbone.layers": 1,
        "backbone.backbone.width": 16,
        "backbone.backbone.heads": 2,
        "backbone.backbone.ffn": 32,
        **{pin: value for pin, value in toy.CUT.items() if "." not in pin or "learning" in pin},
        "steps": 4,
        "heldout_every": 2,
    }
    if name.startswith("duo"):
        pins |= {
            "objective.until": 1,
            "objective.temperature.end": 1,
            "objective.tokens": '{"part": "dense_tokens"}',
        }
    return [f"{pin}={value}" for pin, value in pins.items()]


@pytest.mark.parametrize("scale", ["", "@nano"])
@pytest.mark.parametrize("name", ["duo_owt", "duo_lm1b"])
def test_the_last_step_of_duo_s_curriculum_has_hard_tokens(name, scale):
    """At `until` the temperature is 1e-10 already, and the loss is still that of the curriculum
    (docs/method.md#duo-curriculum)."""
    objective = by_name(f"{name}{scale}").objective
    assert isinstance(objective, DuoElbo)
    taus = [objective.temperature.tau(step) for step in range(objective.until - 1, objective.until + 2)]
    assert taus == [1e-3, 1e-10, 1e-10] and objective.temperature.hottest() == 1e-3


def test_the_temperature_of_duo_s_configuration_falls_linearly_in_its_logarithm():
    """`_compute_gumbel_tau_inverse` at the defaults of its yaml (s-sahoo/duo@7c9b498 algo.py:521-533,
    configs/algo/duo.yaml:16-19), and its steps at a smaller scale."""
    rule = LogLinearUntil(high=0.1, low=0.01, begin=100_000, end=200_000, after=1e-10)
    steps = (0, 99_999, 100_000, 125_000, 150_000, 199_999, 200_000, 900_000)
    logs = (-1, -1, -1, -1.25, -1.5, -1.99999, -10, -10)
    assert [rule.tau(step) for step in steps] == pytest.approx([10**log for log in logs], rel=1e-12)
    assert rule.hottest() == 0.1
    full = parts.derive(by_name("duo_owt"), {"objective.temperature": rule})
    small = scaled(full, "nano")
    share = small.objective.until / full.objective.until
    assert small.objective.temperature.begin == pytest.approx(rule.begin * share, abs=0.5)
    assert small.objective.temperature.end == pytest.approx(rule.end * share, abs=0.5)
    with pytest.raises(ValueError, match=r"begin=5, end=4 are no range of optimizer steps; give 0 <= begin"):
        LogLinearUntil(high=0.1, low=0.01, begin=5, end=4, after=1e-10)


@pytest.mark.parametrize("name", PAPERS)
def test_a_paper_s_recipe_trains_on_text(name, tmp_path, monkeypatch):
    """All pins but sizes, sources and counts are the full recipe's: data, packing, dropout, precision, average."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "text").mkdir()
    recipe = select(by_name(name), "full", local(name, tmp_path / "text"))
    assert recipe.precision == "bf16_autocast" and isinstance(recipe.backbone, WithDropout)
    corpus = prepared(recipe.data)
    padded = name.endswith("lm1b")
    assert bool((corpus.train.ids == wordpiece.PAD).any()) == padded
    train(recipe, seed=0, out=tmp_path / "run", stop=None, resume=False)
    rows = toy.curve(tmp_path / "run")
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert all(row["grad_norm"] > 0 for row in rows) and "heldout_nll_bound" in rows[-1]


@pytest.mark.parametrize("name", ["mdlm_lm1b", "duo_lm1b", "ar_lm1b"])
def test_packed_rows_need_one_override(name):
    """The published packed runs (31.8, 33.7, 22.8): the same documents, concatenated and cut, between BOS and EOS."""
    padded = parts.canonical(by_name(name).data.data)
    packed = {"part": "packed", "batch": 1000} | {
        pin: padded[pin] for pin in ("documents", "units", "length")
    }
    recipe = select(by_name(name), "full", [f"data.data={json.dumps(packed)}"])
    vocabulary = recipe.data.vocabulary()
    assert (vocabulary.bos, vocabulary.eos, vocabulary.mask) == (101, 102, 103)
    assert vocabulary.total == vocabulary.size == 30_522 and vocabulary.filler is None
    assert plan(recipe)["parameters"] == plan(by_name(name))["parameters"]


# --- weights to start from ----------------------------------------------------------------------------------


def released(folder, config: dict, weights: dict) -> str:
    """A folder of weights in the authors' layout, with the toy tokenizer."""
    from safetensors.torch import save_file

    made = tiny_tokenizer.save(folder.parent / "tokenizer") / "tokenizer.json"
    folder.mkdir()
    shutil.copy(made, folder / "tokenizer.json")
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    save_file(weights, folder / "model.safetensors")
    return str(folder)


def like(size: int, length: int) -> SimpleNamespace:
    """Stub data source with a vocabulary size and a row length."""
    vocabulary = Vocabulary(size=size, total=size, mask=4, bos=None, eos=2, pad=None)
    return SimpleNamespace(vocabulary=lambda: vocabulary, row_length=lambda: length)


def test_fine_tuning_starts_from_a_release_in_its_authors_layout(tmp_path):
    """LLaDA's SFT starts from the released weights: its first logits are those of the release (1e-5)."""
    size = tiny_tokenizer.SIZE
    config = {"model_type": "llada", "d_model": 32, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2}
    config |= {"mlp_hidden_size": 48, "vocab_size": size, "embedding_size": size, "rope_theta": 5e5}
    config |= {"rms_norm_eps": 1e-5, "weight_tying": False, "max_sequence_length": 64, "mask_token_id": 4}
    config |= {"eos_token_id": 2, "block_type": "llama", "activation_type": "silu"}
    config |= {"layer_norm_type": "rms", "rope": True, "include_bias": False}
    weights = literal.llada_weights(2, 32, 16, 48, size)
    folder = released(tmp_path / "llada", config, weights)
    sizes = {"layers": 2, "width": 32, "heads": 4, "kv_heads": 2, "ffn": 48}
    pins = by_name("llada_sft").backbone
    small = parts.derive(
        pins, {f"backbone.{pin}": value for pin, value in sizes.items()} | {"source": folder}
    )
    role = Role(like(size, 64), (4,), "leave_one_out")
    ids = torch.arange(5, 29).view(2, 12)
    made = small.module(role, 0).eval()
    found = made.head().logits(made.encode(ids, t=None, attention=Mask()))
    torch.testing.assert_close(found, literal.llada(weights, ids, 2, 4, 5e5, 1e-5), atol=1e-5, rtol=1e-5)
    assert small.blank() == small.backbone
    wider = parts.derive(small, {"backbone.ffn": 64})
    with pytest.raises(ValueError, match=r"backbone\.ffn is 64 in the recipe and 48 in these weights"):
        wider.module(role, 0)
    causal = parts.derive(small, {"backbone.attention": "causal", "backbone.init_deviation": 0.1})
    assert causal.module(role, 0) is not None, "pins that no weight depends on may differ"
    for pin, value, theirs in (("rope_base", 10_000.0, "500000.0"), ("norm_eps", 1e-6, "1e-05")):
        other = parts.derive(small, {f"backbone.{pin}": value})
        with pytest.raises(ValueError, match=f"backbone.{pin} is .* and {theirs} in these weights"):
            other.module(role, 0)
    pinned = parts.derive(small, {"revision": "0" * 64})
    with pytest.raises(ValueError, match="expected sha256 000"):
        pinned.module(role, 0)


def test_a_distillation_starts_from_a_release_in_its_authors_layout(tmp_path):
    """Student and teacher start from released weights in Duo's layout; the teacher is not trained."""
    size = tiny_tokenizer.SIZE
    config = {
        "hidden_dim": 32,
        "cond_dim": 16,
        "n_blocks": 2,
        "n_heads": 4,
        "dropout": 0.1,
        "model_length": 64,
    }
    config |= {"model_type": "DUO", "vocab_size": size, "causal": False}
    weights = literal.dit_weights(2, 32, 16, size)
    folder = released(tmp_path / "duo", config, weights)
    full = by_name("duo_owt_distilled")
    pins = {"layers": 2, "width": 32, "heads": 4, "ffn": 128, "condition": 16}
    units = {"size": size, "begin": 1, "end": 2, "pad": None, "mask": 4}
    moved = {f"backbone.backbone.{pin}": value for pin, value in pins.items()}
    moved |= {f"data.data.units.{pin}": value for pin, value in units.items()}
    recipe = parts.derive(full, moved | {"teacher.source": folder})
    student = recipe.network(0)
    teacher = teaching.teacher(recipe, student, torch.device("cpu"), None, train_alone)
    ids = torch.arange(5, 29).view(2, 12)
    sigma = torch.tensor([0.4, 2.0])
    t = (1 - torch.exp(-sigma)) / (1 - 1e-3)
    for made in (student.eval(), teacher):
        found = made.head().logits(made.encode(ids, t=t, attention=Mask()))
        torch.testing.assert_close(found, literal.dit(weights, ids, 4, sigma), atol=1e-5, rtol=1e-5)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    masked = {**config, "model_type": "mdlm", "time_conditioning": True}
    more_heads = {**config, "n_heads": 2}
    for name, foreign, line in (
        ("mdlm", masked, 'process is "uniform" in the recipe and "absorbing" in these weights'),
        ("heads", more_heads, "backbone.heads is 4 in the recipe and 2 in these weights"),
    ):
        other = parts.derive(recipe, {"teacher.source": released(tmp_path / name, foreign, weights)})
        with pytest.raises(ValueError, match=line):
            teaching.teacher(other, other.network(0), torch.device("cpu"), None, train_alone)
