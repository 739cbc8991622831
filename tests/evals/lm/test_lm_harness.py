"""The adapter of lm-eval: requests, likelihoods and texts, compared with its own adapter of causal models."""

from __future__ import annotations

import json
import math

import pytest
from helpers import lm_worlds
from helpers.lm_worlds import BOS, Asked, diffusion
from lm_eval.api.instance import Instance

from repro import load
from repro.core import registry
from repro.evals.likelihood.batched import BatchedDenoiser
from repro.evals.likelihood.estimator_presets import estimator
from repro.evals.lm.adapter import Adapter, Generation, before_stops
from repro.evals.lm.lm_tasks import run_lm_eval
from repro.evals.lm.overrides import requested_length
from repro.evals.lm.prompts import generation_prompt, likelihood_request, max_request_length, rolling_windows
from repro.evals.lm.task_files import load_task_config, store_task
from repro.processes.absorbing import Absorbing
from repro.processes.left_to_right import LeftToRight
from repro.processes.uniform import Uniform
from repro.samplers.plan import Plan
from repro.samplers.presets import preset


@pytest.fixture(autouse=True)
def runs(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path_factory.getbasetemp() / "runs"))
    for name in ("Letters", "Asked"):
        monkeypatch.setitem(registry.PARTS, name.lower(), f"helpers.lm_worlds:{name}")


@pytest.fixture(scope="module")
def causal():
    return lm_worlds.model(LeftToRight())


@pytest.fixture(scope="module")
def masked():
    return diffusion()


def adapter(
    model, rule="levels:draws=16", sampler=None, policy="suite", plan=None, batch=8, overlong="error"
):
    made = None if sampler is None else Generation(preset(sampler), plan, 1.0, policy)
    return Adapter(model, None if rule is None else estimator(rule), made, overlong, 0, batch)


def likelihood(context, continuation, doc=0):
    return Instance("loglikelihood", {}, (context, continuation), 0, ("t", doc, 1))


def text(context, doc=0, **kwargs):
    return Instance("generate_until", {}, (context, kwargs), 0, ("t", doc, 1))


def rolling(whole):
    return Instance("loglikelihood_rolling", {}, (whole,), 0, ("t", 0, 1))


# --- parity with lm-eval's own adapter of causal models -----------------------------------------------------


@pytest.fixture(scope="module")
def theirs(causal, tmp_path_factory):
    from lm_eval.models.huggingface import HFLM

    folder = str(lm_worlds.save(causal, tmp_path_factory.mktemp("llama")))
    return HFLM(
        pretrained=folder, device="cpu", dtype="float32", add_bos_token=True, max_length=48, batch_size=3
    )


QUESTIONS = [
    *[(f"{a} {b}", f" {c}") for a, b, c in zip(*(lm_worlds.words(k, 9) for k in (1, 2, 3)), strict=True)],
    ("trailing spaces  ", "go to the answer"),
    ("a newline too\n", " b"),
    ("", "no context"),
    ("ab", "c"),
    ("abcdefghij" * 4, " fits"),
]


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_causal_models_score_as_in_lm_eval(causal, theirs, batch):
    """Log-likelihoods to 2e-4, is_greedy, rolling sums over windows, and texts, at three batch sizes."""
    mine = adapter(causal, "next_token", "greedy", batch=batch)
    theirs.batch_size_per_gpu = batch
    heads = lm_worlds.words(5, 20)
    bests = mine.generate_until([text(head, until=[], max_gen_toks=3) for head in heads])
    greedy = next((head, best) for head, best in zip(heads, bests, strict=True) if len(best) == 3)
    requests = [likelihood(*q) for q in [*QUESTIONS, greedy]]
    ours, other = mine.loglikelihood(requests), theirs.loglikelihood(requests, disable_tqdm=True)
    assert [a for a, _ in ours] == pytest.approx([a for a, _ in other], abs=2e-4)
    assert [g for _, g in ours] == [g for _, g in other] and ours[-1][1] and not all(g for _, g in ours)
    long = [rolling(". ".join(lm_worlds.words(k, 40))) for k in (7, 8)] + [rolling("ab")]
    theirs.add_bos_token = False  # otherwise its rolling windows begin with two BOS and score the second
    other = theirs.loglikelihood_rolling(long, disable_tqdm=True)
    theirs.add_bos_token = True
    assert mine.loglikelihood_rolling(long) == pytest.approx(other, abs=2e-4 * 48)
    wanted = [
        text(q, until=["e", "z"], max_gen_toks=6 + i % 2, do_sample=False)
        for i, (q, _) in enumerate(QUESTIONS)
        if q
    ]
    wanted = [w for w in wanted if len(w.args[0]) < 40 and w.args[0] == w.args[0].rstrip()]
    written = mine.generate_until(wanted)
    assert written == theirs.generate_until(wanted, disable_tqdm=True)
    assert any(0 < len(w) < 6 for w in written) and any(len(w) >= 6 for w in written)


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_three_local_tasks_agree_with_lm_eval(causal, theirs, batch, tmp_path):
    from lm_eval.tasks import TaskManager

    theirs.batch_size_per_gpu = batch
    for name, path in lm_worlds.tasks(tmp_path).items():
        spec, manager = load_task_config(store_task(path)), TaskManager(include_defaults=False)
        theirs.add_bos_token = name != "rolling"
        mine = run_lm_eval(adapter(causal, "next_token", "greedy", batch=batch), spec, manager, None)
        other = run_lm_eval(theirs, spec, manager, None)
        theirs.add_bos_token = True
        numbers = {k: v for k, v in mine["results"][name].items() if "," in k and not isinstance(v, str)}
        assert numbers == pytest.approx({k: other["results"][name][k] for k in numbers}, rel=1e-4) and numbers
        answers = [[s["filtered_resps"] for s in each["samples"][name]] for each in (mine, other)]
        if name == "writing":
            assert answers[0] == answers[1]


def test_few_shots_are_those_of_lm_eval(causal, theirs, tmp_path):
    """The same examples before each question: likelihoods agree, and differ from those without examples."""
    from lm_eval.tasks import TaskManager

    path = lm_worlds.tasks(tmp_path)["choice"]
    short = "\n".join(
        json.dumps({"q": f"a{c}", "choices": ["b", "cd"], "answer": i % 2}) for i, c in enumerate("xyz")
    )
    path.with_name("rows.jsonl").write_text(f"{short}\n", "utf-8")
    spec, manager = load_task_config(store_task(path)), TaskManager(include_defaults=False)
    found = {}
    for name, model in (("ours", adapter(causal, "next_token")), ("theirs", theirs)):
        for shots in (0, 2):
            samples = run_lm_eval(model, spec, manager, None, shots)["samples"]["choice"]
            found[name, shots] = [value for s in samples for value, _ in s["filtered_resps"]]
            prompts = [s["arguments"][0][0] for s in samples]
            assert all(prompt.count("\n\n") == shots for prompt in prompts)
    for shots in (0, 2):
        assert found["ours", shots] == pytest.approx(found["theirs", shots], abs=2e-4)
    assert found["ours", 0] != pytest.approx(found["ours", 2], abs=1e-2)


# --- requests -----------------------------------------------------------------------------------------------


def test_trailing_spaces_move_to_the_continuation(masked):
    one, other = (
        likelihood_request(masked, "ab  ", "c", "error"),
        likelihood_request(masked, "ab", "  c", "error"),
    )
    assert one == other and one.continuation == tuple(masked.data.encode("  c"))


def test_empty_contexts_begin_as_the_rows_do(masked, causal):
    """BOS where it is in the vocabulary, nothing where training rows have no BOS; causal models always read BOS."""
    assert likelihood_request(masked, "", "ab", "error").prompt == (BOS,)
    assert likelihood_request(causal, "", "ab", "error").prompt == (BOS,)
    assert likelihood_request(causal, "ab", "c", "error").prompt[0] == BOS
    bare = load("oracle:mdlm@nano")
    assert likelihood_request(bare, "", "AB", "error").prompt == () and likelihood_request(
        bare, "AB", "C", "error"
    ).prompt == (0, 1)


def test_too_long_requests_never_score(masked, causal):
    """docs/method.md#peer-defect-3: an error that names the remedy, or the truncated request's score; never 0.0."""
    long = "abcd " * 11 + "abcd"
    for model, rule in ((masked, "levels:draws=16"), (causal, "next_token")):
        with pytest.raises(ValueError, match="overlong=truncate"):
            adapter(model, rule).loglikelihood([likelihood(long, "xyz")])
        ((found, _),) = adapter(model, rule, overlong="truncate").loglikelihood([likelihood(long, "xyz")])
        kept = max_request_length(model) - 3
        short = likelihood_request(model, long, "xyz", "truncate")
        assert len(short.prompt) == kept and found < -1
        with pytest.raises(ValueError, match="even without a prompt"):
            adapter(model, rule, overlong="truncate").loglikelihood([likelihood("a", "x" * 60)])
    with pytest.raises(ValueError, match="adds no token id"):
        likelihood_request(masked, "ab", "", "error")


def test_contexts_of_spaces_count_as_empty(masked):
    """All spaces move to the continuation, which leaves an empty context; generation accepts one as well."""
    spaces = likelihood_request(masked, "  ", "ab", "error")
    assert spaces.prompt == (BOS,) and spaces.continuation == tuple(masked.data.encode("  ab"))
    ((found, _),) = adapter(masked).loglikelihood([likelihood("", "ab")])
    (same,) = estimator("levels:draws=16").score(
        BatchedDenoiser(masked.denoiser, Absorbing(), 8), [likelihood_request(masked, "", "ab", "error")], 0
    )
    assert found == pytest.approx(same.value, abs=1e-5)
    assert generation_prompt(masked, "", 4, "error") == [BOS]
    (written,) = adapter(masked, sampler="random").generate_until([text("", max_gen_toks=4)])
    assert len(written) <= 4


def test_too_long_prompts_of_texts_are_refused_or_cut(masked, causal):
    """The generated text keeps its length; the prompt is truncated on the left only with overlong=truncate."""
    long = "abcd " * 11 + "abcd"
    for model, rule in ((masked, "low_confidence"), (causal, "greedy")):
        with pytest.raises(ValueError, match="overlong=truncate"):
            adapter(model, None, rule).generate_until([text(long, max_gen_toks=6)])
        cut = generation_prompt(model, long, 6, "truncate")
        assert len(cut) == model.data.row_length() - 6 and cut == model.data.encode(long)[-len(cut) :]
        (found,) = adapter(model, None, rule, overlong="truncate").generate_until(
            [text(long, max_gen_toks=6)]
        )
        (short,) = adapter(model, None, rule).generate_until([text(model.data.decode(cut), max_gen_toks=6)])
        assert found == short
        with pytest.raises(ValueError, match="even without a prompt"):
            adapter(model, None, rule, overlong="truncate").generate_until([text("a", max_gen_toks=60)])


def test_windows_score_every_id_once(masked, causal):
    whole = "".join(lm_worlds.words(1, 60))
    for model in (masked, causal):
        found = rolling_windows(model, whole)
        assert len(found) > 2
        assert [i for r in found for i in r.continuation] == model.data.encode(whole)
        assert all(len(r.ids) <= max_request_length(model) for r in found)
        assert found[0].prompt == (BOS,) and all(len(r.prompt) >= 1 for r in found[1:])
    parts = estimator("levels:draws=16").score(
        BatchedDenoiser(masked.denoiser, Absorbing(), 64), rolling_windows(masked, whole), 0
    )
    mine = adapter(masked)
    assert mine.loglikelihood_rolling([rolling(whole)])[0] == pytest.approx(
        sum(p.value for p in parts), abs=1e-3
    )
    assert mine.scored[whole,].se == pytest.approx(math.sqrt(sum(p.se**2 for p in parts)), rel=1e-3)


# --- likelihood ---------------------------------------------------------------------------------------------


def test_scores_are_sums_and_depend_on_neither_order_nor_batch(masked):
    """docs/method.md#peer-defect-3: sums over the continuation, independent of the other requests."""
    requests = [likelihood(*q, doc=i) for i, q in enumerate(QUESTIONS)]
    whole = adapter(masked).loglikelihood(requests)
    turned = adapter(masked, batch=3).loglikelihood(requests[::-1])[::-1]
    assert [a for a, _ in turned] == pytest.approx([a for a, _ in whole], abs=1e-4)
    assert [g for _, g in turned] == [g for _, g in whole]
    exact = adapter(masked, "subsets").loglikelihood([likelihood("ab", "c"), likelihood("ab", "cc")])
    (alone,) = adapter(masked, "duel:order=left_to_right").loglikelihood([likelihood("ab", "c")])
    assert exact[0][0] == pytest.approx(alone[0], abs=1e-5) and exact[1][0] < exact[0][0]


def test_is_greedy_is_true_where_greedy_decoding_gives_the_continuation(masked):
    mine = adapter(masked, sampler="low_confidence")
    ((context, _), *_) = QUESTIONS
    (written,) = mine.generate_until([text(context, max_gen_toks=4)])
    assert len(written) == 4, "choose another context: this text contains special ids"
    (_, yes), (_, no) = mine.loglikelihood([likelihood(context, written), likelihood(context, "zzzz")])
    assert yes and not no


def test_guidance_reaches_likelihoods_and_greedy_checks(masked):
    """docs/method.md#peer-defect-8: a guided estimator gives other scores; is_greedy refers to guided decoding."""
    name, ((context, answer), *_) = "guided:scale=4.0", QUESTIONS
    plain, mine = adapter(masked), adapter(masked, f"levels:draws=16+{name}", f"low_confidence+{name}")
    texts = [
        each.generate_until([text(context, max_gen_toks=3)])[0]
        for each in (mine, adapter(masked, sampler="low_confidence"))
    ]
    assert texts[0] != texts[1] and len(texts[0]) == 3, "choose another context"
    wanted = [likelihood(context, each) for each in (*texts, answer)]
    scored = mine.loglikelihood(wanted)
    assert [greedy for _, greedy in scored] == [True, False, False]
    for (one, _), (other, _) in zip(scored, plain.loglikelihood(wanted), strict=True):
        assert abs(one - other) > 1e-2


def test_an_adapter_without_the_needed_sampler_or_estimator_raises(masked):
    with pytest.raises(ValueError, match="no sampler is given"):
        adapter(masked).generate_until([text("ab", max_gen_toks=2)])
    with pytest.raises(ValueError, match="no estimator is given"):
        adapter(masked, None, "random").loglikelihood([likelihood("a", "b")])
    with pytest.raises(ValueError, match="'levels' is for absorbing models, not uniform"):
        adapter(lm_worlds.model(Uniform(alpha_end=1e-3, eps=1e-3)))


# --- generation ---------------------------------------------------------------------------------------------


def test_every_request_keeps_its_own_arguments(masked):
    """docs/method.md#peer-defect-13: stop strings and lengths are each request's own, not those of the first one."""
    mine = adapter(masked, None, "random")
    requests = [text("ab c", doc=n, max_gen_toks=n) for n in (3, 9, 5)]
    alone = [mine.generate_until([request])[0] for request in requests]
    assert mine.generate_until(requests) == alone and len({len(each) for each in alone}) == 3
    full = alone[1]
    stop = next(c for c in full[1:] if c not in full[0])
    stopped = text("ab c", doc=9, max_gen_toks=9, until=[stop])
    assert mine.generate_until([requests[0], stopped]) == [alone[0], full[: full.index(stop)]]
    assert before_stops("abcd", ["d", "c", ""]) == "ab"
    assert requested_length({"max_tokens": 3}) == 3 != requested_length({})


def test_texts_exceed_neither_the_plan_nor_the_requested_length(masked):
    plan = Plan(gen_length=6, block_length=6, steps=6)
    mine = adapter(masked, None, "random", plan=plan)
    (short,), (long,) = (mine.generate_until([text("ab", max_gen_toks=n)]) for n in (2, 9))
    assert long.startswith(short) and len(short) <= 2 and len(long) <= 6
    assert mine.overridden == {"max_gen_toks": (9, 6)}


def test_conflicts_are_recorded_or_refused(masked):
    """Policy "suite": the sampler's setting is used and the field recorded; "task": the first difference raises."""
    arguments = {"max_gen_toks": 4, "do_sample": True, "temperature": 0.7, "top_p": 0.9, "until": ["."]}
    mine = adapter(masked, None, "random")
    mine.generate_until([text("ab", **arguments)])
    assert mine.overridden == {"top_p": (0.9, None), "temperature": (0.7, 0.0)}
    with pytest.raises(ValueError, match=r"top_p=0\.9"):
        adapter(masked, None, "random", policy="task").generate_until([text("ab", **arguments)])
    with pytest.raises(ValueError, match="do_sample=False, the sampler uses temperature 1"):
        adapter(masked, None, "ancestral", policy="task").generate_until([text("ab", do_sample=False)])
    agreed = adapter(masked, None, "random", policy="task")
    agreed.generate_until([text("ab", max_gen_toks=4, do_sample=False, temperature=0.0, until=["."])])
    assert agreed.overridden == {}


def test_repeated_documents_differ_and_texts_do_not_depend_on_batches(masked):
    many = [text("ab", doc=d, max_gen_toks=8) for d in (0, 0, 1, 2)]
    texts = adapter(masked, None, "ancestral").generate_until(many)
    assert len(set(texts)) == 4
    assert adapter(masked, None, "ancestral", batch=1).generate_until(many) == texts
    assert adapter(masked, None, "ancestral").generate_until(many[::-1][:2]) == texts[::-1][:2]


def test_the_chat_template_is_that_of_the_training_rows(masked):
    """The template is applied once; a model without one and assistant messages raise."""
    data = Asked(length=48, masked=1, template="q: {}\n")
    model = diffusion(data=data)
    mine = adapter(model)
    history = [{"role": "system", "content": "be short"}, {"role": "user", "content": "ab c"}]
    context = mine.apply_chat_template(history)
    assert list(likelihood_request(model, context, "d", "error").prompt) == [
        BOS,
        *data.encode("q: be short\n\nab c\n"),
    ]
    assert generation_prompt(model, context, 4, "error") == [BOS, *data.encode("q: be short\n\nab c\n")]
    assert mine.chat_template(True) == "q: {}\n" and len(mine.tokenizer_name) == 64
    with pytest.raises(ValueError, match="fewshot_as_multiturn"):
        mine.apply_chat_template([*history, {"role": "assistant", "content": "d"}])
    with pytest.raises(ValueError, match="no chat template"):
        adapter(masked).apply_chat_template(history)
