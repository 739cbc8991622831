"""Lossless lookahead: the tokens are those of one position per step, in fewer rounds (docs/method.md#lookahead)."""

from __future__ import annotations

import pytest
import torch
from helpers.decodings import ABSORBING, BLOCK, CAUSAL, LENGTH, NETWORKS, PROMPTS, TOY
from helpers.spaces import llama, total_variation
from torch import Tensor

from repro.certify.long import strong
from repro.certify.oracle import CausalOracle, oracle_denoiser
from repro.certify.space import HmmSource, tiny
from repro.samplers.decode import decode, steps
from repro.samplers.decoded import Decoded
from repro.samplers.law import law
from repro.samplers.lookahead import Lookahead
from repro.samplers.plan import Plan, PrefixCache, ServedPlan
from repro.samplers.presets import preset
from repro.samplers.sampler import State

ORDERED = ["random", "low_confidence", "margin", "entropy"]
TEMPERATURES = pytest.mark.parametrize("temperature", [0.0, 1.0])


@pytest.fixture
def one_too_many(monkeypatch):
    """Lookahead that is wrong on purpose: it also accepts a guess after the first correction."""
    right = Lookahead.step

    def step(self: Lookahead, state: State) -> Tensor:
        ids = right(self, state)
        assert state.memory is not None
        left = state.process.open(ids, state.active, state.prediction.vocabulary).sum(1)
        guess = state.prediction.draft(state.memory)
        return self.rule.step(state.later(ids, state.active.sum(1) - left, guess))

    monkeypatch.setattr(Lookahead, "step", step)


def plan(length: int, block: int, ahead: bool) -> Plan:
    return Plan(gen_length=length, block_length=block, steps=None if ahead else length)


def both(network, process, name: str, length: int, block: int, prompts) -> tuple[Decoded, Decoded]:
    """The texts one at a time, and with lookahead."""
    one = decode(
        network, process, preset(name), plan(length, block, False), prompts, seed=0, names=range(len(prompts))
    )
    rule = preset(f"{name}+lookahead:states=4")
    ahead = decode(
        network, process, rule, plan(length, block, True), prompts, seed=0, names=range(len(prompts))
    )
    return one, ahead


# --- the same tokens ----------------------------------------------------------------------------------------
@TEMPERATURES
@pytest.mark.parametrize("name", ORDERED)
def test_oracle_sentences_are_equal(name, temperature):
    hmm = strong()
    network = oracle_denoiser("absorbing", HmmSource(hmm))
    name = f"{name}:temperature={temperature}"
    one, ahead = both(network, network.process, name, hmm.length, hmm.length, [[]] * 20)
    assert torch.equal(one.ids, ahead.ids)
    assert (ahead.cost.rounds < one.cost.rounds).all()


@TEMPERATURES
@pytest.mark.parametrize("block", [BLOCK, LENGTH])
@pytest.mark.parametrize("name", ORDERED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_texts_of_a_network_are_equal_in_blocks_after_prompts(name, temperature, block, dtype):
    network = NETWORKS["llama"]().to(dtype)
    one, ahead = both(network, ABSORBING, f"{name}:temperature={temperature}", LENGTH, block, PROMPTS)
    assert torch.equal(one.ids, ahead.ids)


@TEMPERATURES
@pytest.mark.parametrize("block", [BLOCK, LENGTH])
def test_left_to_right_texts_are_equal(temperature, block):
    network = llama("causal", CAUSAL, TOY)
    one, ahead = both(network, CAUSAL, f"sample:temperature={temperature}", LENGTH, block, PROMPTS)
    assert torch.equal(one.ids, ahead.ids)


def test_logits_processors_act_inside():
    network = NETWORKS["llama"]()
    for name in ("random:temperature=1.0+nucleus:p=0.8", "entropy:temperature=1.0+order_temperature"):
        one, ahead = both(network, ABSORBING, name, LENGTH, LENGTH, PROMPTS)
        assert torch.equal(one.ids, ahead.ids)


def test_a_stop_id_ends_the_same_texts():
    for process, network, name in (
        (ABSORBING, NETWORKS["llama"](), "random:temperature=1.0"),
        (CAUSAL, llama("causal", CAUSAL, TOY), "sample"),
    ):
        made = [
            decode(
                network,
                process,
                preset(text),
                ServedPlan(gen_length=LENGTH, block_length=BLOCK, steps=count, cache=None, stop=(2, 7)),
                PROMPTS * 4,
                seed=0,
                names=range(12),
            )
            for text, count in ((name, LENGTH), (f"{name}+lookahead", None))
        ]
        assert torch.equal(made[0].ids, made[1].ids) and (made[0].ids == 2).any()
        assert made[0].cost.filled.any() and made[1].cost.filled.any()


@pytest.mark.usefixtures("one_too_many")
def test_one_token_too_many_changes_the_texts():
    """The same comparisons fail for lookahead that accepts one more token than was verified."""
    hmm = strong()
    network = oracle_denoiser("absorbing", HmmSource(hmm))
    one, ahead = both(network, network.process, "random:temperature=1.0", hmm.length, hmm.length, [[]] * 20)
    assert not torch.equal(one.ids, ahead.ids)


# --- the law ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", [*(f"{name}:temperature=1.0" for name in ORDERED), "sample"])
def test_the_law_is_that_of_the_rule(name):
    """By enumeration of all draws, with the numbers that drafts and verification share."""
    source = tiny(3)
    known = oracle_denoiser("absorbing", source)
    network, process = (CausalOracle(source), CAUSAL) if name == "sample" else (known, known.process)
    rule = preset(name)
    one = law(network, process, rule, plan(3, 3, False))
    assert (
        total_variation(law(network, process, Lookahead(rule=rule, states=3), plan(3, 3, True)), one) < 1e-12
    )


@pytest.mark.usefixtures("one_too_many")
def test_one_token_too_many_changes_the_law():
    network, rule = oracle_denoiser("absorbing", tiny(3)), preset("random:temperature=1.0")
    one = law(network, network.process, rule, plan(3, 3, False))
    wrong = law(network, network.process, Lookahead(rule=rule, states=3), plan(3, 3, True))
    assert total_variation(wrong, one) > 1e-3


# --- the cost -----------------------------------------------------------------------------------------------
def test_every_round_commits_one_to_states_tokens():
    network = NETWORKS["llama"]()
    for name in ORDERED:
        rule, written = (
            preset(f"{name}:temperature=1.0+lookahead:states=3"),
            torch.zeros(3, dtype=torch.int64),
        )
        rounds = torch.zeros(3, dtype=torch.int64)
        for _, frame in steps(
            network, ABSORBING, rule, plan(LENGTH, BLOCK, True), PROMPTS, seed=1, names=range(3)
        ):
            new, now = frame.changed.sum(1), frame.cost.rounds.clone()
            assert ((new >= now - rounds) & (new <= 3 * (now - rounds))).all()
            written, rounds = written + new, now
        assert (written == LENGTH).all()


def test_costs_are_those_of_each_row_alone():
    """Rows advance at their own speeds, and no row pays for another."""
    for process, network, name in (
        (ABSORBING, NETWORKS["llama"](), "low_confidence:temperature=1.0+lookahead"),
        (CAUSAL, llama("causal", CAUSAL, TOY), "sample+lookahead"),
    ):
        prompts = [[3, 1, 4], [1, 5, 9], [2, 6, 5]]
        made = plan(LENGTH, LENGTH, True)
        together = decode(network, process, preset(name), made, prompts, seed=0, names=range(3))
        assert len(together.cost.token_forwards.unique()) > 1
        for row, prompt in enumerate(prompts):
            alone = decode(network, process, preset(name), made, [prompt], seed=0, names=[row])
            assert torch.equal(alone.ids[0], together.ids[row])
            for count in ("rounds", "forwards", "token_forwards", "further"):
                assert getattr(alone.cost, count)[0] == getattr(together.cost, count)[row], count


def test_forwards_are_counted_as_the_network_makes_them():
    """Every state that passes the layers counts, in both families; the rounds are the calls of the network."""
    for process, network, name in (
        (ABSORBING, NETWORKS["llama"](), "margin+lookahead:states=4"),
        (CAUSAL, llama("causal", CAUSAL, TOY), "greedy+lookahead:states=4"),
    ):
        shapes, encode = [], network.encode

        def counted(tokens, shapes=shapes, encode=encode, **rest):
            shapes.append(tuple(tokens.shape))
            return encode(tokens, **rest)

        network.encode = counted
        found = decode(
            network, process, preset(name), plan(LENGTH, LENGTH, True), [[3, 1]], seed=0, names=[0]
        )
        assert found.cost.rounds.item() == len(shapes)
        assert found.cost.forwards.item() == sum(rows for rows, _ in shapes)
        assert found.cost.token_forwards.item() == sum(rows * columns for rows, columns in shapes)
        assert found.cost.further.item() == 0


# --- what it refuses ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("random+lookahead:states=1", "states=1 guesses no later tokens; give 2 or more"),
        ("threshold_0.9+lookahead", "one position per step .*not for threshold; leave lookahead out"),
        ("random+rounded_quotas+lookahead", "leave rounded_quotas out"),
        ("low_confidence+guided+lookahead", "leave guided out"),
        ("random+lookahead+nucleus", "lookahead comes last"),
        ("random+lookahead:m=3", "no setting 'm'"),
    ],
)
def test_what_cannot_look_ahead_is_refused(name, message):
    with pytest.raises(ValueError, match=message):
        preset(name)


def test_several_tokens_per_step_and_approximate_caches_are_refused():
    network, rule = NETWORKS["llama"](), preset("random+lookahead")
    cached = ServedPlan(
        gen_length=LENGTH, block_length=BLOCK, steps=None, cache=PrefixCache(refresh=None), stop=()
    )
    for made, message in (
        (plan(LENGTH, LENGTH, False), "takes no number of steps; leave out steps=12"),
        (cached, "leave out the cache 'prefix_cache'"),
    ):
        with pytest.raises(ValueError, match=message):
            decode(network, ABSORBING, rule, made, PROMPTS, seed=0, names=range(3))
    with pytest.raises(ValueError, match="leave out \\+lookahead"):
        list(
            steps(
                *(network, ABSORBING, rule, plan(LENGTH, LENGTH, True), PROMPTS),
                seed=0,
                names=range(3),
                confidence=True,
            )
        )
