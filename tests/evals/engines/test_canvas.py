"""A denoiser behind a server: samples equal local ones id for id, tails are bounded, records name the server."""

from __future__ import annotations

import pytest
import torch
from helpers import lm_worlds
from helpers.fake_engine import FakeEngine

from repro import load, sample, score
from repro.evals.engines.canvas import remote
from repro.models.attention import Mask
from repro.samplers.decode import decode
from repro.samplers.plan import plan_for
from repro.samplers.presets import preset


class Canvas(FakeEngine):
    """A server of the protocol of vLLM #57250, for a local model."""

    def __init__(self, model):
        super().__init__(engine=object())
        self.model = model

    def answer(self, path, body):
        asked = body["vllm_xargs"]
        canvas = asked["diffusion_seed_canvas"]
        assert asked["diffusion_max_steps"] == 1 and asked["diffusion_read_only"] and "t" not in asked
        assert body["max_tokens"] == asked["diffusion_canvas_length"] == len(canvas)
        ids = torch.tensor([body["prompt"] + canvas])
        with self.lock, torch.no_grad():
            features = self.model.denoiser.encode(ids, t=None, attention=Mask())
            logp = self.model.denoiser.raw_logits(features)[0, -len(canvas) :].double().log_softmax(-1)
        best = logp.topk(body["logprobs"])
        rows = [
            {f"token_id:{i}": value for i, value in zip(*row, strict=True)}
            for row in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]
        logprobs = {"tokens": [next(iter(row)) for row in rows], "top_logprobs": rows}
        return {"choices": [{"logprobs": logprobs}]}


@pytest.fixture(scope="module")
def served():
    model = lm_worlds.diffusion()
    with Canvas(model) as server:
        yield model, server


def texts(model, name, prompts=((3, 1, 2), (5, 9))):
    rule = preset(name)
    plan = plan_for(rule, 8, 8, None if rule.capabilities.plan == "adaptive" else 4, None)
    process = model.recipe.process
    return decode(model.denoiser, process, rule, plan, prompts, seed=3, names=range(len(prompts))).ids


def denoiser_of(model, server, top, most_tail=1.0, **more):
    model.recipe.role = lambda: role(model)
    return remote(model, server.url, None, top=top, most_tail=most_tail, **more)


def role(model):
    from repro.processes.prediction import Role

    return Role(model.data, model.recipe.process.forbidden(model.data.vocabulary()), "x0_mean")


@pytest.mark.parametrize(
    "name", ["ancestral", "low_confidence:temperature=1.0", "threshold_0.9", "entropy_bound_0.1", "remdm_cap"]
)
def test_samples_with_all_probabilities_are_those_of_the_network(served, name):
    model, server = served
    found = denoiser_of(model, server, model.data.vocabulary().total)
    assert torch.equal(texts(model, name), texts(found, name))
    assert found.denoiser.tail < 1e-12 and found.denoiser.positions > 0


def test_a_canvas_leaves_the_rest_of_a_row_to_the_prompt(served):
    model, server = served
    found = denoiser_of(model, server, model.data.vocabulary().total, canvas=8)
    before = len(server.requests)
    assert torch.equal(texts(model, "ancestral"), texts(found, "ancestral"))
    assert {len(body["prompt"]) for body in server.requests[before:]} == {2, 3}


def test_the_tail_is_spread_bounded_and_said(served):
    model, server = served
    found = denoiser_of(model, server, 4)
    ids = torch.tensor([[3, 1, model.data.vocabulary().mask, 2]])
    logits = found.denoiser.logits(found.denoiser.encode(ids, t=None, attention=Mask()))
    exact = (
        model.denoiser.raw_logits(model.denoiser.encode(ids, t=None, attention=Mask())).double().softmax(-1)
    )
    listed = exact.topk(4).values.sum(-1)
    assert found.denoiser.tail == pytest.approx((1 - listed).max().item(), abs=1e-9)
    spread = found.denoiser.encode(ids, t=None, attention=Mask()).exp()
    unlisted = torch.ones_like(exact, dtype=torch.bool).scatter(-1, exact.topk(4).indices, False)
    unlisted &= ~model.denoiser.forbidden
    share = (1 - listed) / unlisted.sum(-1)  # of the probability that the server leaves out, for each id
    assert torch.allclose(spread[unlisted], share[..., None].expand_as(exact)[unlisted], rtol=1e-9, atol=0)
    distance = (spread - exact).abs().sum(-1) / 2
    assert (distance <= 1 - listed + 1e-9).all() and distance.max() > 0.01
    assert logits[..., model.data.vocabulary().mask].isinf().all()
    with pytest.raises(ValueError, match=r"the 4 probabilities .* more than most_tail=0.01; raise `top`"):
        texts(denoiser_of(model, server, 4, most_tail=0.01), "ancestral")


def test_the_exact_oracle_over_http(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path))
    ours = load("oracle:mdlm@nano")
    with Canvas(ours) as server:
        total = ours.data.vocabulary().total
        theirs = remote(ours, server.url, "toy", top=total, most_tail=0.0)
        assert sample(theirs, n=2, sampler="ancestral", seed=1) == sample(
            ours, n=2, sampler="ancestral", seed=1
        )
        asked = {"samplers": "ancestral", "tasks": "law", "samples": 4, "tokens_per_step": "all"}
        (here,), (there,) = score(ours, **asked), score(theirs, **asked)
    assert here.answer.samples == there.answer.samples
    assert here.cell != there.cell and there.question.protocol["engine"]["url"] == server.url


@pytest.mark.parametrize(
    ("name", "said"), [("oracle:duo@nano", "conditioned on time"), ("runs", "left-to-right")]
)
def test_models_that_a_canvas_does_not_serve_are_refused(name, said):
    from repro.processes.left_to_right import LeftToRight

    model = load(name) if name != "runs" else lm_worlds.model(LeftToRight())
    with pytest.raises(ValueError, match=said):
        remote(model, "http://localhost:1/v1", "toy", top=4, most_tail=0.1)


def test_what_is_no_token_of_the_vocabulary_is_refused(served):
    model, server = served
    found = denoiser_of(model, server, 4).denoiser
    for text in ("the", "token_id:99999"):
        with pytest.raises(ValueError, match=f"answered '{text}' instead of token_id:N with N below"):
            found._id(text)


# --- wrong answers ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"token_id:1": 0.0, "token_id:2": 0.0}, "probabilities that sum to 2 at a position"),
        ({"token_id:1": 5.0}, "answered 5 as a log-probability, which must be at most 0"),
        ({"token_id:{mask}": 0.0}, "all probability at a position to ids that are never written"),
    ],
)
def test_probabilities_of_no_law_are_refused(row, said):
    """Raw logits, or a network of another vocabulary: the samples would be of another law, or none."""
    like = load("oracle:mdlm@nano")
    row = {name.format(mask=like.data.vocabulary().mask): value for name, value in row.items()}
    with FakeEngine(engine=object()) as fake:
        model = remote(like, fake.url, None, top=8, most_tail=0.5)
        with pytest.raises(ValueError, match=said):
            model.denoiser._filled(row)


def test_a_canvas_holds_all_that_is_to_be_written():
    like = load("oracle:mdlm@nano")
    with Canvas(like) as fake:
        with pytest.raises(ValueError, match=r"5 masked positions lie before the last 3 \(the canvas\)"):
            sample(remote(like, fake.url, None, top=34, most_tail=0.5, canvas=3), gen_length=8, steps=2)
        with pytest.raises(ValueError, match="canvas=0 is too small"):
            remote(like, fake.url, None, top=8, most_tail=0.5, canvas=0)
    with FakeEngine(engine=object(), models=()) as fake, pytest.raises(ValueError, match="serves no model"):
        remote(like, fake.url, None, top=8, most_tail=0.5)
