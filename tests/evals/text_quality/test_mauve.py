"""MAUVE against a literal computation of its definition, its limits, its standard error, and the tasks with MAUVE."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
import torch
from filelock import FileLock

from repro import load
from repro.core import parts
from repro.core.files import file_digest
from repro.data.corpus import prepared
from repro.evals import work_queue
from repro.evals.task import Ask
from repro.evals.text_quality import mauve
from repro.evals.text_quality.external_samples import read_samples
from repro.evals.text_quality.gen_ppl import EveryToken
from repro.evals.text_quality.judges import CheckpointJudge, load_judge
from repro.evals.text_quality.mauve import Mauve, area, cluster_points, mauve_score, project_features
from repro.evals.text_quality.mauve_tasks import GenerationMauve, NaiveMauve
from repro.evals.text_quality.references import OpenMauve, load_reference
from repro.evals.work_queue import Busy, SharedQueue
from repro.models.attention import Mask
from repro.results.record import read_record
from repro.samplers.plan import Plan
from repro.samplers.presets import preset

LENGTH = 32
PINS = Mauve(state="last", length=24, clusters=6, seeds=5, starts=2, variance=0.9, scaling=5.0, mixtures=25)


def cloud(n, shift=0.0, seed=0, width=4):
    """Rows of a fixed normal distribution, moved by `shift` along the first axis."""
    found = np.random.default_rng(seed).normal(size=(n, width))
    found[:, 0] += 3 + shift
    return found


def literal(p, q, scaling, mixtures):
    """Equations 1 to 3 of arXiv 2102.01454 with loops, both orders of integration averaged."""

    def kl(a, b):
        return sum(x * math.log(x / y) for x, y in zip(a, b, strict=True) if x > 0)

    points = [(1.0, 0.0), (0.0, 1.0)]
    for w in np.linspace(1e-6, 1 - 1e-6, mixtures):
        r = [w * x + (1 - w) * y for x, y in zip(p, q, strict=True)]
        points.append((math.exp(-scaling * kl(q, r)), math.exp(-scaling * kl(p, r))))
    total = 0.0
    for first, second in ((0, 1), (1, 0)):
        line = sorted(points, key=lambda xy: (xy[first], -xy[second]))
        for one, other in itertools.pairwise(line):
            total += (other[first] - one[first]) * (one[second] + other[second]) / 2
    return total / 2


@pytest.mark.parametrize("seed", range(6))
def test_the_area_is_the_literal_one(seed):
    draw = np.random.default_rng(seed)
    p, q = draw.dirichlet(np.full(5, 0.4), size=2)
    if seed % 2:  # an empty cluster on either side
        p[0] = q[1] = 0
        p, q = p / p.sum(), q / q.sum()
    found = area(p, q, PINS)
    assert found == pytest.approx(literal(p, q, 5.0, 25), abs=1e-9)
    assert found == pytest.approx(float(area(q, p, PINS)), abs=1e-9), (
        "the area does not know which text is real"
    )


def test_equal_samples_give_1_and_separate_clusters_nearly_0():
    same = cloud(60)
    assert mauve_score(same, same, PINS, 0).values == pytest.approx(np.ones(5))
    far = mauve_score(same, -same, PINS, 0)
    # disjoint histograms: y(x) is the arc w -> ((1 - w)^c, w^c), whose area is c B(c, c + 1)
    apart = 5 * math.gamma(5) * math.gamma(6) / math.gamma(11)
    fine = parts.derive(PINS, {"mixtures": 4001})
    assert float(area(np.array([1.0, 0]), np.array([0, 1.0]), fine)) == pytest.approx(apart, abs=1e-6)
    assert far.values == pytest.approx(np.full(5, float(area(np.array([1.0, 0]), np.array([0, 1.0]), PINS))))
    assert far.values.max() < 0.01


def test_mauve_falls_with_distance_and_real_against_real_is_below_1():
    reference = cloud(200)
    found = [
        mauve_score(reference, cloud(200, shift, seed=1), PINS, 0).metric()[0]
        for shift in (0.0, -2.0, -4.0, -9.0)
    ]
    assert found == sorted(found, reverse=True) and 0.9 < found[0] < 1 and found[-1] < 0.2


def test_swapping_the_texts_changes_nothing_but_the_clustering():
    """Both texts are clustered together and the area is symmetric, so the two orders agree up to the clustering."""
    a, b = cloud(80), cloud(80, -1.5, seed=1)
    there, back = mauve_score(a, b, PINS, 0), mauve_score(b, a, PINS, 0)
    assert there.metric()[0] == pytest.approx(back.metric()[0], abs=4 * there.metric()[1])


def test_the_standard_error_is_the_jackknifes():
    a, b = cloud(30), cloud(30, -1.0, seed=1)
    found = mauve_score(a, b, PINS, 3)
    points = project_features(np.concatenate([a, b]), PINS.variance)
    labels = [cluster_points(points, PINS.clusters, PINS.starts, 3, i) for i in range(PINS.seeds)]

    def value(rows):
        sides = ([i for i in rows if i < 30], [i for i in rows if i >= 30])
        shares = [[np.bincount(each[side], minlength=6) / len(side) for side in sides] for each in labels]
        return np.mean([literal(p, q, 5.0, 25) for p, q in shares])

    assert found.values.mean() == pytest.approx(value(range(60)))
    variance = 0.0
    for side in (range(30), range(30, 60)):
        left = np.array([value([i for i in range(60) if i != out]) for out in side])
        variance += 29 / 30 * ((left - left.mean()) ** 2).sum()
    assert found.sampling == pytest.approx(math.sqrt(variance), rel=1e-6)
    value, error, n = found.metric()
    assert error == pytest.approx(math.hypot(found.sampling, found.over_clusterings()[1])) and n == 30
    assert found.over_clusterings() == pytest.approx((value, found.values.std(ddof=1) / math.sqrt(5), 5))


def test_the_standard_error_is_about_the_spread_over_fresh_samples():
    runs = [
        mauve_score(cloud(100, seed=2 * i), cloud(100, -1.0, seed=2 * i + 1), PINS, 0).metric()
        for i in range(40)
    ]
    values, errors = np.array(runs)[:, :2].T
    assert 0.6 < errors.mean() / values.std(ddof=1) < 1.7


def test_clusters_are_found_where_they_are():
    """Clusters far apart: labels agree with the truth up to names, and each point is nearest to its own centre."""
    centres = np.eye(5) * 20
    truth = np.repeat(np.arange(5), 12)
    points = centres[truth] + np.random.default_rng(0).normal(size=(60, 5))
    labels = cluster_points(points, 5, 4, 0, 0)
    assert len({(a, b) for a, b in zip(truth, labels, strict=True)}) == 5
    means = np.stack([points[labels == k].mean(0) for k in range(5)])
    assert (((points[:, None] - means) ** 2).sum(-1).argmin(1) == labels).all()
    assert (cluster_points(points, 5, 4, 0, 0) == labels).all()
    assert len(set(cluster_points(np.ones((9, 2)), 4, 2, 0, 0))) == 1, "equal points are one cluster"


def test_the_projection_keeps_the_fewest_components_that_hold_the_variance():
    points = cloud(50, width=6)
    for variance in (0.3, 0.9, 1.0):
        found = project_features(points, variance)
        unit = points / np.linalg.norm(points, axis=1, keepdims=True)
        eigen = np.sort(np.linalg.eigvalsh(np.cov(unit.T)))[::-1]
        kept = next(k for k in range(1, 7) if eigen[:k].sum() >= variance * eigen.sum() * (1 - 1e-12))
        assert found.shape == (50, kept)
        assert np.cov(found.T).reshape(kept, kept).diagonal() == pytest.approx(eigen[:kept])


def test_unequal_numbers_and_settings_out_of_range_raise():
    with pytest.raises(ValueError, match="MAUVE of 3 samples against 9 reference texts"):
        mauve_score(cloud(9), cloud(3), PINS, 0)
    with pytest.raises(ValueError, match="clusters=6 of 5 samples; set clusters to at most 5"):
        mauve_score(cloud(5), cloud(5), PINS, 0)
    for pin, value in (("seeds", 4), ("clusters", 1), ("variance", 0.0), ("scaling", 0.0), ("length", 0)):
        with pytest.raises(ValueError, match=f"{pin}={value}"):
            parts.derive(PINS, {pin: value})


# --- the judge's features and the tasks ---------------------------------------------------------------------


@pytest.fixture
def pins(folder, monkeypatch):
    """Fields of a task that names the judge as a suite does; prepared corpora are cached in the same folder."""
    monkeypatch.setenv("REPRO_RUNS", str(folder.parent))
    fields = {"samples": 16, "judge": "ar-judge", "rule": EveryToken(length=LENGTH), "retokenise": "text"}
    return fields | {"distinct": (1, 2), "mauve": (PINS, parts.derive(PINS, {"state": "mean"}))}


def test_features_are_the_last_state_after_the_last_id(folder):
    """The network reads BOS and the ids, independently of the rest of the batch."""
    judge = load_judge(folder)
    denoiser, bos = judge.model.denoiser, judge.model.data.vocabulary().bos
    rows = [
        row[:n] for row, n in zip(prepared(judge.model.data).heldout.ids.tolist(), (3, 7, 1, 7), strict=False)
    ]
    found = {state: judge.features(rows, state) for state in ("last", "mean")}
    for i, row in enumerate(rows):
        with torch.no_grad():
            states = denoiser.encode(torch.tensor([[bos, *row]]), t=None, attention=Mask())[0, 1:]
        assert found["last"][i] == pytest.approx(states[-1].double().numpy(), abs=1e-5)
        assert found["mean"][i] == pytest.approx(states.double().mean(0).numpy(), abs=1e-5)
    assert not np.allclose(*judge.features([[1, 2, 3], [1, 2, 4]], "last")), (
        "the last id is part of the features"
    )
    with pytest.raises(ValueError, match="reads at most 31 ids at once"):
        judge.features([[0] * 32], "mean")
    with pytest.raises(ValueError, match="sample 1 is empty"):
        judge.features([[1], []], "last")


def test_features_of_a_folder_are_its_networks_last_hidden_state(tmp_path, tokenizer):
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    words = AutoTokenizer.from_pretrained(tokenizer)
    words.save_pretrained(tmp_path)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(words), max_position_embeddings=24, **sizes)
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    judge = load_judge(tmp_path)
    ids = judge.encode("the people of the country")
    with torch.no_grad():
        states = judge.network(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1]
    assert judge.features([ids, ids[:2]], "last")[0] == pytest.approx(states[0, -1].numpy(), abs=1e-6)


def test_the_task_adds_mauve_to_generation_quality(pins, model):
    """Same rows as `generation_quality`; MAUVE recomputed from the stored samples; one number per sample in the
    curves."""
    from repro.evals.text_quality.quality import GenerationQuality

    plain = GenerationQuality(name="q", **{k: v for k, v in pins.items() if k != "mauve"})
    task = GenerationMauve(name="q", **pins)
    ask = Ask(preset("ancestral"), Plan(gen_length=LENGTH, block_length=LENGTH, steps=4), 0, None)
    answer, without = task.answer(model, ask), plain.answer(model, ask)
    assert without.metrics.items() <= answer.metrics.items() and answer.samples == without.samples
    judge = load_judge("ar-judge")

    def features(rows, state):
        return judge.features([judge.encode(model.data.decode(row))[:24] for row in rows], state)

    rows, true = [item["ids"] for item in answer.items], task.heldout_rows(model, 0, 16).tolist()
    for state, name in (("last", "mauve"), ("mean", "mauve_mean")):
        reference = features(task.heldout_rows(model, 16, 16).tolist(), state)
        assert answer.metrics[name] == pytest.approx(
            mauve_score(reference, features(rows, state), PINS, 0).metric()
        )
        literal_true = mauve_score(reference, features(true, state), PINS, 0).metric()
        assert answer.metrics[f"true_{name}"] == pytest.approx(literal_true)
    assert answer.metrics["mauve_clusterings"][2] == 5
    total = sum(answer.curve["nll"]) / sum(answer.curve["tokens"])
    assert math.exp(total) == pytest.approx(answer.metrics["gen_ppl"][0], rel=1e-5)
    assert np.mean(answer.curve["entropy"]) == pytest.approx(answer.metrics["entropy"][0], abs=1e-6)
    assert answer.data()["curve"] == answer.curve
    protocol = task.protocol()
    assert (
        protocol["mauve"] == [parts.canonical(each) for each in pins["mauve"]]
        and protocol["draws"] == "float64"
    )
    assert parts.read(parts.canonical(task)) == task


def test_processes_share_the_states_of_the_judge(pins, folder, model, tmp_path, monkeypatch):
    """One leaves the chunk that another holds; the last one finds every state, and its answer is that of one alone."""
    monkeypatch.setattr(work_queue, "ROWS", 8)
    task = GenerationMauve(name="q", **pins)
    ask = Ask(preset("ancestral"), Plan(gen_length=LENGTH, block_length=LENGTH, steps=4), 0, None)
    alone = task.answer(model, ask)
    read, taken = CheckpointJudge.features, []

    def features(judge, windows, state):
        taken.append((len(windows), state))
        return read(judge, windows, state)

    def queue():
        return SharedQueue(tmp_path, "question", {}, None, lambda: False)

    monkeypatch.setattr(CheckpointJudge, "features", features)
    with FileLock(tmp_path / "3-8.lock"), pytest.raises(Busy):
        task.shared(model, ask, queue())
    assert taken == [(8, "last")] * 5, (
        "16 samples, real rows and rows of the reference each, less the chunk that is held"
    )
    assert task.shared(model, ask, queue()).metrics == alone.metrics
    assert taken[5:] == [(8, "last"), *[(8, "mean")] * 6]
    assert task.shared(model, ask, queue()).metrics == alone.metrics and len(taken) == 12
    stored = tmp_path / "3-0.json"
    chunk = json.loads(json.loads(stored.read_text())["chunk"])
    for wrong in ("", "AAAA", chunk["found"][:-4], 7, "\u00e4"):
        text = json.dumps(chunk | {"found": wrong})
        stored.write_text(json.dumps({"sha256": parts.sha256(text), "chunk": text}))
        with pytest.raises(ValueError, match="does not fit this evaluation"):
            task.shared(model, ask, queue())


def test_hidden_states_that_are_no_numbers_are_not_stored(pins, model, tmp_path, monkeypatch):
    task = GenerationMauve(name="q", **pins)
    ask = Ask(preset("ancestral"), Plan(gen_length=LENGTH, block_length=LENGTH, steps=4), 0, None)
    read = CheckpointJudge.features
    monkeypatch.setattr(CheckpointJudge, "features", lambda *given: read(*given) * math.nan)
    with pytest.raises(ValueError, match="hidden state of the judge is NaN or infinite"):
        task.shared(model, ask, SharedQueue(tmp_path, "question", {}, None, lambda: False))
    monkeypatch.setattr(CheckpointJudge, "features", read)
    again = task.shared(model, ask, SharedQueue(tmp_path, "question", {}, None, lambda: False))
    assert again.metrics == task.answer(model, ask).metrics


def test_reference_rows_are_not_among_the_scored_heldout_rows(pins, model):
    task = GenerationMauve(name="q", **pins)
    true = {tuple(row) for row in task.heldout_rows(model, 0, 30).tolist()}
    assert not true & {tuple(row) for row in task.heldout_rows(model, 30, 30).tolist()}
    held = len(prepared(model.data).heldout.ids)
    with pytest.raises(ValueError, match=f"needs {held + 1} held-out rows"):
        task.heldout_rows(model, held - 1, 2)
    with pytest.raises(ValueError, match="each with another `state`"):
        GenerationMauve(name="q", **pins | {"mauve": (PINS, PINS)})
    with pytest.raises(ValueError, match="6 clusters of 5 samples"):
        task.count(Ask(None, None, 0, 5))


def test_a_model_is_not_scored_by_itself(pins, folder, model):
    own = load(folder)
    assert "its own samples" in GenerationMauve(name="q", **pins).skip(own)
    assert GenerationMauve(name="q", **pins).skip(model) is None
    assert NaiveMauve(name="n", **pins, period=4).skip(own) is None


def test_mauve_of_naive_samples(pins, model):
    """A repeated phrase has a low MAUVE whatever its gen_ppl; each kind of samples has its own value."""
    wide = pins | {"samples": 60}
    answer = NaiveMauve(name="naive", **wide, period=4).answer(model, Ask(None, None, 0, None))
    m = {name: value for name, (value, _, _) in answer.metrics.items()}
    assert {"real_mauve", "repetition_mauve", "unigram_mauve", "unigram_mauve_clusterings"} < m.keys()
    assert "true_mauve" not in m and m["repetition_mauve_mean"] < m["real_mauve_mean"] <= 1


@pytest.fixture
def texts(folder):
    """A file of 8 real texts in `runs/`, as its lines are written."""
    data = load_judge(folder).model.data
    rows = prepared(data).heldout.ids[:8].tolist()
    lines = [json.dumps({"text": data.decode(row), "url": "ignored"}) for row in rows]
    (folder.parent / "real.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return "real.jsonl"


def test_released_weights_are_compared_with_texts_of_a_file(pins, model, texts):
    """MAUVE recomputed from the file and the generated rows; the file's digest is in the protocol."""
    settings = Mauve(
        state="mean", length=20, clusters=2, seeds=5, starts=1, variance=0.9, scaling=5.0, mixtures=9
    )
    few = pins | {"samples": 4, "mauve": (settings,)}
    task = OpenMauve(name="q", **few, reference=texts, length=LENGTH)
    ask = Ask(preset("ancestral"), Plan(gen_length=LENGTH, block_length=LENGTH, steps=2), 0, None)
    answer = task.answer(model, ask)
    judge, reference = load_judge("ar-judge"), load_reference(texts)
    against, real = reference.split(4)
    assert sorted([*against, *real]) == sorted(reference.texts)
    sides = [
        judge.features([judge.encode(text)[:20] for text in side], "mean")
        for side in (against, [item["text"] for item in answer.items], real)
    ]
    assert answer.metrics["mauve_mean"] == pytest.approx(
        mauve_score(sides[0], sides[1], settings, 0).metric()
    )
    assert answer.metrics["true_mauve_mean"] == pytest.approx(
        mauve_score(sides[0], sides[2], settings, 0).metric()
    )
    nll = -sum(judge.logp([judge.encode(text)])[0].sum() for text in real)
    assert answer.metrics["true_gen_ppl"][0] == pytest.approx(math.exp(nll / (4 * LENGTH)), rel=1e-5)
    assert task.protocol()["reference_digest"] == reference.digest and task.skip(model) is None
    assert task.gives("mauve_mean") and task.gives("gen_ppl") and not task.gives("mauve")
    gone = parts.derive(task, {"reference": "owt_valid.jsonl"})
    assert "no file 'owt_valid.jsonl' of reference texts" in gone.skip(model)
    with pytest.raises(ValueError, match="holds 8 texts; MAUVE of 5 samples needs 10"):
        reference.split(5)


def test_an_invalid_line_of_a_reference_is_named(tmp_path):
    (tmp_path / "odd.jsonl").write_text('{"text": "a"}\n{"ids": [1]}\n')
    with pytest.raises(ValueError, match=r"odd\.jsonl:2: "):
        load_reference(tmp_path / "odd.jsonl")


def test_an_empty_reference_is_named_by_its_line(tmp_path):
    """The message had its place in the random order of the texts that were drawn."""
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in ("a", "b", "", "c")), "utf-8")
    with pytest.raises(ValueError, match=r"^texts\.jsonl:3: the text is empty .*; remove the line$"):
        load_reference(path).split(2)


def test_only_a_newline_ends_a_line_of_texts_or_samples(tmp_path):
    """U+2028, U+2029 and U+0085 may occur inside a JSON string; the last newline begins no line."""
    text, path = "a\u2028b\u2029c\x85d", tmp_path / "web.jsonl"
    path.write_text(f'{{"text": "{text}"}}\n' * 2, "utf-8")
    assert load_reference(path).texts == (text, text)
    assert [line.text for line in read_samples(path)] == [text, text]


def test_a_file_of_samples_against_a_file_of_texts(pins, folder, texts, tmp_path, capsys):
    """From the command line: MAUVE by both states, and of real text; the reference's digest is in the question."""
    from repro.evals import __main__ as command_line

    data = load_judge(folder).model.data
    path = tmp_path / "theirs.jsonl"
    rows = prepared(data).heldout.ids[8:12].tolist()
    path.write_text("".join(json.dumps({"text": data.decode(row)}) + "\n" for row in rows))
    arguments = ["judge", str(path), "--judge", str(folder), "--out", str(tmp_path / "out")]
    assert command_line.main([*arguments, "--reference", str(folder.parent / texts), "--json"]) == 0
    (record,) = map(read_record, json.loads(capsys.readouterr().out)["records"])
    task, metrics = record.question.task, record.answer.metrics
    assert task["part"] == "external_likeness" and task["reference"] == file_digest(folder.parent / texts)
    assert [pins["state"] for pins in task["mauve"]] == ["last", "mean"] and task["mauve"][0]["length"] == 31
    names = {"mauve", "mauve_mean", "true_mauve", "true_mauve_mean", "true_gen_ppl", "gen_ppl"}
    assert names < metrics.keys()
    assert parts.read(task).mauve[1].clusters == 2
    with pytest.raises(
        ValueError, match=r"no flag '--reference' here; use .* judge FILE\.jsonl --judge CKPT"
    ):
        command_line.main(["--ckpt", "x", "--reference", str(folder.parent / texts)])


def test_the_module_says_where_its_randomness_comes_from(monkeypatch):
    """Another seed or clustering starts elsewhere; equal ones start at the same points."""
    points = cloud(60)
    starts = []
    monkeypatch.setattr(mauve, "_lloyd", lambda p, c: (starts.append(c), (np.zeros(len(p), int), 0.0))[1])
    for seed, clustering in ((0, 0), (0, 1), (1, 0), (0, 0)):
        cluster_points(points, 6, 1, seed, clustering)
    assert (starts[0] == starts[3]).all()
    assert not (starts[0] == starts[1]).all() and not (starts[0] == starts[2]).all()
