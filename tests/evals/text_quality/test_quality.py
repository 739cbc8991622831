"""Text quality: both kinds of judges, the tasks, and files of samples from the command line."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from helpers import synthetic
from helpers.toy import toy

from repro import score
from repro.core import parts
from repro.core.files import file_digest
from repro.data.corpus import prepared
from repro.evals import __main__ as command_line
from repro.evals.task import Ask
from repro.evals.text_quality import quality
from repro.evals.text_quality.gen_ppl import EveryToken, rule, score_texts
from repro.evals.text_quality.judges import (
    END,
    CheckpointJudge,
    TransformersJudge,
    judge_parameters,
    judge_text,
    load_judge,
)
from repro.models.attention import Mask
from repro.results.difference import difference
from repro.results.record import make_record, read_record
from repro.results.store import collect, items_file
from repro.results.tables.text_quality import points
from repro.samplers.plan import Plan
from repro.samplers.presets import preset

LENGTH = 32


@pytest.fixture(scope="module")
def judge(folder):
    return load_judge(folder)


@pytest.fixture
def named(folder, monkeypatch, tmp_path):
    """The judge's name as a suite gives it, with a runs folder of this test's own."""
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path))
    (tmp_path / "ar-judge").symlink_to(folder)
    return "ar-judge"


@pytest.fixture
def task(named):
    return quality.GenerationQuality(
        name="quality",
        samples=20,
        judge=named,
        rule=EveryToken(length=LENGTH),
        retokenise="text",
        distinct=(1, 2),
    )


def heldout(judge, count):
    return prepared(judge.model.data).heldout.ids[:count].astype(int).tolist()


def test_log_probabilities_equal_those_of_one_prefix_at_a_time(judge):
    """Each id is predicted from BOS and the ids before it, independently of the rest of the batch."""
    denoiser, bos = judge.model.denoiser, judge.model.data.vocabulary().bos
    rows = [row[:n] for row, n in zip(heldout(judge, 6), (1, 3, 7, 7, 32, 32), strict=True)]
    for row, found in zip(rows, judge.logp(rows), strict=True):
        literal = []
        for i, token in enumerate(row):
            with torch.no_grad():
                features = denoiser.encode(torch.tensor([[bos, *row[:i]]]), t=None, attention=Mask())
                literal.append(denoiser.logits(features[0, -1:]).double().log_softmax(-1)[0, token].item())
        assert found == pytest.approx(literal, abs=1e-5)
    assert judge.logp([[], [1]])[0].shape == (0,)


def test_gen_ppl_of_a_uniform_network_is_the_vocabulary_size(judge):
    """A network whose head is 0 (docs/method.md#oracle-30)."""
    network = toy("ar").network(0)
    network.head().weight.data.zero_()
    nothing = CheckpointJudge(type(judge.model)(**{**vars(judge.model), "denoiser": network.eval()}))
    value, _, _ = score_texts(heldout(judge, 5), nothing, EveryToken(length=LENGTH)).perplexity()
    assert value == pytest.approx(judge.model.data.vocabulary().size, abs=1e-6)


def test_unreadable_windows_models_and_folders_raise(judge, model, tmp_path):
    for rows, message in {
        ((0,) * 33,): "reads at most 32 ids at once, and a text has 33",
        ((10**6,),): "a sample contains 1000000",
    }.items():
        with pytest.raises(ValueError, match=message):
            judge.logp(rows)
    with pytest.raises(ValueError, match="is not left to right"):
        CheckpointJudge(model)
    with pytest.raises(ValueError, match="no judge 'nowhere'"):
        load_judge("nowhere")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="not a causal LM with its tokenizer"):
        load_judge(tmp_path)


@pytest.fixture(scope="module")
def llama(tmp_path_factory, tokenizer):
    """A tiny causal LM and a tokenizer whose EOS is [SEP], as saved by transformers."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    out = tmp_path_factory.mktemp("llama")
    words = AutoTokenizer.from_pretrained(tokenizer)
    words.eos_token = "[SEP]"
    words.save_pretrained(out)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(words), max_position_embeddings=24, **sizes)
    LlamaForCausalLM(config).save_pretrained(out)
    return out


def test_parameters_of_a_run_that_judges(folder, judge):
    assert judge_parameters(folder) == sum(p.numel() for p in judge.model.denoiser.parameters())
    assert judge_parameters("nowhere") is None


def test_a_folder_of_transformers_is_a_judge(llama):
    """Compared with the network's own loss; no BOS is added, so the first id has no likelihood."""
    judge = load_judge(llama)
    assert isinstance(judge, TransformersJudge) and judge.end == "[SEP]"
    assert judge_parameters(llama) == sum(p.numel() for p in judge.network.parameters())
    ids = judge.encode("the people of the country")
    (found,) = judge.logp([ids])
    rows = torch.tensor([ids])
    with torch.no_grad():
        loss = judge.network(rows, labels=rows).loss.item()
    assert math.isnan(found[0]) and -found[1:].mean() == pytest.approx(loss, abs=1e-5)
    value, _, _ = score_texts([ids], judge, rule("bd3:length=24,stride=8")).perplexity()
    assert ids[-1] == judge.eos and value == pytest.approx(math.exp(-found[1:-1].mean()), rel=1e-4)
    with pytest.raises(ValueError, match="set length=24 or less in the scoring rule"):
        score_texts([ids * 9], judge, rule("duo"))


@pytest.mark.parametrize(
    ("defect", "message"),
    [
        ("missing", "has no tensor for 'model.layers.0.mlp.up_proj.weight', which would start at random"),
        ("mismatched", "stores .* in another shape than config.json says"),
        (
            "damaged",
            "'model.layers.0.mlp.up_proj.weight' holds NaN or infinite weights; copy the file from its source again",
        ),
        ("unexpected", "stores 'model.layers.7.extra', for which its configuration has no place"),
    ],
)
def test_a_judge_with_unfilled_or_damaged_layers_is_refused(llama, tmp_path, defect, message):
    """transformers itself fills such layers at random and exits with 0."""
    import shutil

    from safetensors.torch import load_file, save_file

    copy = shutil.copytree(llama, tmp_path / "judge")
    tensors = load_file(copy / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    if defect == "missing":
        del tensors[name]
    elif defect == "mismatched":
        tensors[name] = tensors[name][:8].clone()
    elif defect == "damaged":
        tensors[name][2, 1] = float("nan")
    else:
        tensors["model.layers.7.extra"] = torch.zeros(2)
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=message):
        load_judge(copy)


def test_a_judge_never_runs_code_of_its_folder(llama, tmp_path):
    """`auto_map` names a module of the folder; it is neither asked about nor imported."""
    import json
    import shutil

    copy = shutil.copytree(llama, tmp_path / "judge")
    config = json.loads((copy / "config.json").read_text("utf-8"))
    config |= {
        "model_type": "theirs",
        "auto_map": {"AutoConfig": "theirs.C", "AutoModelForCausalLM": "theirs.M"},
    }
    (copy / "config.json").write_text(json.dumps(config), "utf-8")
    (copy / "theirs.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n", "utf-8")
    with pytest.raises(ValueError, match="not a causal LM with its tokenizer"):
        load_judge(copy)
    assert not (tmp_path / "ran").exists()


def test_the_digest_of_a_folder_is_its_contents(llama):
    from repro.evals.text_quality.judges import _folder_digest

    before = _folder_digest(llama)
    config = llama / "config.json"
    text = config.read_text()
    config.write_text(text + "\n")
    assert _folder_digest(llama) != before
    config.write_text(text)
    assert _folder_digest(llama) == before


def test_eos_survives_retokenisation():
    """A packed row's EOS becomes the text of the judge's EOS and then its id; a judge without EOS raises."""

    class Letters:
        def vocabulary(self):
            from repro.data.corpus import Vocabulary

            return Vocabulary(size=27, total=28, mask=27, bos=26, eos=26, pad=None)

        def encode(self, text):
            return [ord(c) - 97 for c in text]

        def decode(self, ids):
            return "".join(chr(97 + i) for i in ids)

    row = [26, 0, 1, 26, 26, 2]
    assert judge_text(Letters(), row, END) == f"{END}ab{END}{END}c"
    with pytest.raises(ValueError, match="the judge has no EOS"):
        judge_text(Letters(), row, None)
    judge = CheckpointJudge.__new__(CheckpointJudge)
    judge.model, judge.eos, judge.end = type("M", (), {"data": Letters()})(), 26, END
    assert judge.encode(judge_text(Letters(), row, END)) == row


def test_the_task_stores_its_samples_and_their_scores(task, judge, model):
    """gen_ppl recomputed from the stored ids, token by token; entropy of the same ids; metrics of held-out rows."""
    plan = Plan(gen_length=LENGTH, block_length=LENGTH, steps=8)
    answer = task.answer(model, Ask(preset("ancestral"), plan, 0, None))
    rows = [item["ids"] for item in answer.items]
    nll = -np.stack(judge.logp(rows))
    assert answer.metrics["gen_ppl"][0] == pytest.approx(math.exp(nll.mean()), rel=1e-6)
    assert [item["nll"] for item in answer.items] == pytest.approx(nll.sum(1), rel=1e-6)
    assert {item["tokens"] for item in answer.items} == {LENGTH} and answer.nfe <= 8
    assert answer.metrics["entropy"] == quality.diversity_metrics(rows, [])["entropy"]
    assert {f"true_{name}" for name in answer.metrics if "true" not in name} < answer.metrics.keys()
    assert all(model.data.encode(item["text"]) == item["ids"] for item in answer.items)


def test_chunks_of_decoding_and_scoring_make_one_answer(task, model, tmp_path, monkeypatch):
    """Generated and held-out rows are scored in chunks; no chunk is computed again after a failure."""
    from repro.evals import work_queue

    ask = Ask(preset("ancestral"), Plan(gen_length=LENGTH, block_length=LENGTH, steps=8), 0, None)
    whole = task.answer(model, ask)
    monkeypatch.setattr(work_queue, "ROWS", 5)
    seen, original = [], CheckpointJudge.logp

    def logp(self, rows):
        seen.append(len(rows))
        if len(seen) == 3:
            raise KeyboardInterrupt
        return original(self, rows)

    monkeypatch.setattr(CheckpointJudge, "logp", logp)
    work = [work_queue.shared_queue(tmp_path, "q" * 64, {}, None, lambda: False) for _ in range(2)]
    with pytest.raises(KeyboardInterrupt):
        task.shared(model, ask, work[0])
    found = task.shared(model, ask, work[1])
    rows = task.count(ask)
    assert sum(seen) - seen[2] == 2 * rows and max(seen) == 5
    assert difference(found.data(), whole.data()) is None and difference(found.items, whole.items) is None


def test_the_protocol_has_judge_rule_and_tokenisation(task):
    protocol = task.protocol()
    judge = load_judge(task.judge)
    assert protocol["judge_digest"] == judge.digest and protocol["rule"] == parts.canonical(task.rule)
    assert protocol["retokenise"] == "text" and str(judge.model.folder) not in json.dumps(protocol)
    assert parts.read(parts.canonical(task)) == task


def test_a_missing_judge_is_a_reason_to_skip(task, model):
    missing = parts.derive(task, {"judge": "gpt2-large"})
    assert "no judge 'gpt2-large'" in missing.skip(model) and task.skip(model) is None
    ids = parts.derive(task, {"retokenise": "ids"})
    assert "does not share this model's ids" in ids.skip(model)  # the toy's corpus is a smaller one
    ours = type(model)(**{**vars(model), "data": load_judge(task.judge).model.data})
    assert ids.skip(ours) is None


def test_statistics_of_naive_samples(task, model):
    """Repetition loses entropy, unigram draws keep it; items hold both and the held-out rows."""
    shared = {k: v for k, v in vars(task).items() if k != "name"}
    answer = quality.NaiveSamples(name="naive", **shared, period=4).answer(model, Ask(None, None, 0, 12))
    m = {name: value for name, (value, _, _) in answer.metrics.items()}
    assert m["repetition_entropy"] <= math.log(4) + 1e-9 < m["real_entropy"]
    assert m["repetition_distinct_2"] <= 4 / 31 < m["unigram_distinct_2"]
    assert abs(m["unigram_entropy"] - m["real_entropy"]) < 0.5
    assert [item["kind"] for item in answer.items] == ["real"] * 12 + ["repetition"] * 12 + ["unigram"] * 12


# --- from the command line ----------------------------------------------------------------------------------


def test_stored_items_score_the_same_as_a_file_of_samples(named, monkeypatch, tmp_path, capsys):
    """The items of a suite's record, given to `judge` as a file, have the same metrics."""
    suite = tmp_path / "suites"
    suite.mkdir()
    pins = f'samples = 8\njudge = "{named}"\nretokenise = "text"\ndistinct = [1, 2, 3]\n'
    pins += 'rule = { part = "every_token", version = 1, length = 32 }\n'
    tasks = f'[[tasks]]\npart = "generation_quality"\nname = "quality"\n{pins}'
    tasks += f'[[tasks]]\npart = "naive_samples"\nname = "naive"\nperiod = 4\n{pins}'
    (suite / "toy.toml").write_text(f"tokens_per_step = [8]\n{tasks}")
    monkeypatch.setattr("repro.evals.suites.SUITES", suite)
    out = tmp_path / "out"
    records = score("oracle:mdlm@nano", ["ancestral"], suite="toy", out=out)
    (record,) = [r for r in records if r.labels.task == "quality"]
    assert len(records) == 2 and record.question.protocol["judge_digest"]
    kept = items_file(out / "raw", record)
    arguments = ["judge", str(kept), "--judge", str(tmp_path / named), "--json"]
    assert command_line.main(arguments) == 0
    (found,) = map(read_record, json.loads(capsys.readouterr().out)["records"])
    for name, metric in found.answer.metrics.items():
        assert metric.value == pytest.approx(record.answer.metrics[name].value, rel=1e-6), name
    # how the draws were made is the sampler's side: a file of samples cannot say
    protocol = found.question.protocol
    assert protocol.pop("engine") == "external"
    assert record.question.protocol == protocol | {"draws": "float64"}
    assert command_line.main([*arguments[:-1], "--rule", "every_token:length=16"]) == 0
    shown = capsys.readouterr().out
    assert "rule every_token, text, entropy of the generator's ids" in shown and "(n = 8)" in shown


def test_entropy_of_texts_alone_is_that_of_the_judges_ids(folder, judge, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path))
    rows = heldout(judge, 4)
    path = tmp_path / "samples.jsonl"
    path.write_text("".join(json.dumps({"text": judge.model.data.decode(row)}) + "\n" for row in rows))
    assert command_line.main(["judge", str(path), "--judge", str(folder), "--json"]) == 0
    (found,) = map(read_record, json.loads(capsys.readouterr().out)["records"])
    protocol = found.question.protocol
    assert protocol["entropy"] == "judge's ids" and protocol["retokenise"] == "text"
    for name, (value, se, n) in quality.diversity_metrics(rows, (1, 2, 3)).items():
        assert found.answer.metrics[name].data() == pytest.approx({"value": value, "se": se, "n": n})


def test_a_file_of_samples_becomes_a_record_of_its_own_kind(folder, judge, tmp_path, capsys):
    """The file's digest takes the place of a checkpoint's, `engine: external` keeps it out of columns of samples
    decoded here, and it has no speed. Scoring the same file again changes nothing; another file is another question."""
    rows = heldout(judge, 4)
    paths = [tmp_path / "theirs.jsonl", tmp_path / "others.jsonl"]
    for path, some in zip(paths, (rows[:3], rows[1:]), strict=True):
        path.write_text("".join(json.dumps({"ids": row}) + "\n" for row in some))
    out = tmp_path / "out"
    for path in [*paths, paths[0]]:
        arguments = ["judge", str(path), "--judge", str(folder), "--out", str(out)]
        assert command_line.main(arguments) == 0
    assert "theirs.jsonl (" in capsys.readouterr().out
    first, second = sorted(collect(out), key=lambda r: r.labels.checkpoint, reverse=True)
    assert first.labels.checkpoint == "external:theirs" and first.id != second.id
    question = first.question
    assert question.task["samples"] == question.checkpoint.digest == file_digest(paths[0])
    assert question.protocol["engine"] == "external" and question.protocol["judge_digest"] == judge.digest
    assert first.answer.nfe is None and first.measurements.tokens_per_second is None
    items = items_file(out / "raw", first).read_text().splitlines()
    assert [json.loads(line)["tokens"] for line in items] == [LENGTH] * 3
    naive = synthetic.naive("mdlm@nano.text", protocol=without_engine(question))
    labels = first.labels.data() | {"task": "quality", "preset": "random:temperature=1.0"}
    labels |= {"tokens_per_step": "1", "recipe": "external@nano.text", "suite": naive.labels.suite}
    posing = make_record(question, labels, first.answer.data(), first.measurements.data())
    with pytest.raises(ValueError, match="two protocols would share a column: engine"):
        points([posing, naive], [])


def test_short_samples_are_left_out_with_a_count(folder, judge, tmp_path, capsys):
    """Each metric is that of the samples that have it; the lines say how many are left out, and why."""
    whole, short = heldout(judge, 3), [[], [5], [5, 6]]
    path = tmp_path / "theirs.jsonl"
    lines = [json.dumps({"ids": row}) for row in [*whole, *short]]
    path.write_text("\n".join([*lines[:2], "", *lines[2:], ""]))
    arguments = ["judge", str(path), "--judge", str(folder), "--out", str(tmp_path / "out")]
    assert command_line.main(arguments) == 0
    shown = capsys.readouterr().out
    for line in (
        "left out: 1 of 7 lines, which are blank",
        "left out of gen_ppl: 1 of 6 samples, with no token that the rule scores",
        "left out of entropy: 1 of 6 samples, with no id",
        "left out of distinct_2: 2 of 6 samples, with fewer than 2 ids",
        "left out of distinct_3: 3 of 6 samples, with fewer than 3 ids",
    ):
        assert line in shown
    (record,) = collect(tmp_path / "out")
    metrics = record.answer.metrics
    assert metrics["distinct_3"].value == quality.diversity_metrics(whole, (3,))["distinct_3"][0]
    scores = score_texts([*whole, [5], [5, 6]], judge, EveryToken(length=LENGTH))
    assert metrics["gen_ppl"].value == scores.perplexity()[0]
    assert [metrics[name].n for name in ("gen_ppl", "entropy", "distinct_2", "distinct_3")] == [5, 5, 4, 3]


def without_engine(question):
    return {name: value for name, value in question.protocol.items() if name != "engine"}


@pytest.mark.parametrize(
    "lines, more, message",
    [
        ('{"text": "a"}\n', [], "holds 1 samples"),
        ('{"text": "a"}\n{"txt": "a"}\n', [], ":2: this line has neither text nor ids"),
        ('{"text": "a"}\n{"ids": [1]}\n', [], ":2: this line has ids, the first sample text"),
        ('{"text": "a"}\n{"text": 3}\n', [], ":2: expected"),
        ('{"ids": [1, 2, 3]}\n{"ids": [1]}\n', [], "1 of 2 samples have 2 or more ids; give at least two"),
        ('{"ids": [1]}\n{"ids": []}\n', [], "1 of 2 samples have 1 or more ids; give at least two"),
        ('{"ids": []}\n{"ids": []}\n', [], "no token of the samples is scored"),
        ('{"ids": [1, 2, 3]}\n{"ids": [1, 2, 3]}\n', ["--rule", "duo"], "this judge has none"),
        ('{"ids": [1, 2, 3]}\n{"ids": [1, 2, 3]}\n', ["--rule", "dou"], "nearest is 'duo'"),
        ('{"text": "AB"}\n{"text": "Ab"}\n', [], r"samples\.jsonl, sample 1: no symbol 'b' in 'Ab'"),
        ('{"ids": [1, 2, 3]}\n{"ids": [1, 2, 3]}\n', ["--limit", "3"], "--limit has no effect"),
    ],
)
def test_invalid_files_and_options_raise(folder, tmp_path, lines, more, message):
    path = tmp_path / "samples.jsonl"
    path.write_text(lines)
    with pytest.raises(ValueError, match=message):
        command_line.main(["judge", str(path), "--judge", str(folder), *more])


def test_a_judge_without_samples_is_an_error():
    for arguments in (["--judge", "x"], ["--ckpt", "x", "--rule", "duo"], ["--samples", "x.jsonl"]):
        with pytest.raises(ValueError, match=r"python -m repro\.evals judge FILE\.jsonl --judge CKPT"):
            command_line.main(arguments)


def test_a_judge_of_transformers_reads_each_window_once(llama, monkeypatch):
    """Likelihood and both states come from one forward, equal to those of the network alone, and stay known."""
    judge = TransformersJudge(llama)
    windows = [judge.encode(text) for text in ("the people of the country", "the congress", "the people")]
    forwards = []
    judge.network.register_forward_pre_hook(lambda module, given: forwards.append(len(given[0])))
    logp, mean = judge.logp(windows), judge.features(windows, "mean")
    last = judge.features([windows[2], windows[0]], "last")
    assert sum(forwards) == len(windows)
    for window, values, state in zip(windows, logp, mean, strict=True):
        out = judge.network(torch.tensor([window]), output_hidden_states=True)
        own = out.logits.double().log_softmax(-1)[0, :-1].gather(-1, torch.tensor(window)[1:, None])[:, 0]
        assert values[1:] == pytest.approx(own.tolist(), abs=1e-6)
        assert state == pytest.approx(out.hidden_states[-1][0].double().mean(0).tolist(), abs=1e-6)
    assert last[1] == pytest.approx(out_last(judge, windows[0]), abs=1e-6)
    monkeypatch.setattr("repro.evals.text_quality.judges.READINGS", 1)
    before = sum(forwards)
    judge.logp([windows[1], windows[1]])
    judge.logp([windows[0]])
    assert sum(forwards) == before + 1 and len(judge._readings) == 1


def out_last(judge: TransformersJudge, window: list[int]) -> list[float]:
    """The last layer's state after the last id, from the network itself."""
    out = judge.network(torch.tensor([window]), output_hidden_states=True)
    return out.hidden_states[-1][0, -1].double().tolist()
