"""Duo with a clean prompt: the network reads prompts uncorrupted, and answers as under the recipe's own loss."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from helpers.spaces import Words, llama
from torch import Tensor

from repro.core.parts import canonical, derive
from repro.models.attention import Mask
from repro.models.denoiser import Soft
from repro.objectives.clean_prompt import CleanPrompt, answers
from repro.objectives.objective import Batch, RowGroup
from repro.objectives.soft_tokens import Dense
from repro.objectives.sym_kl import SymKL, closed_form
from repro.processes.uniform import Uniform
from repro.recipes.command import select
from repro.recipes.scale import by_name

V, SEP = 13, 9
PROCESS = Uniform(alpha_end=1e-3, eps=1e-3)
IDS = torch.tensor([[1, 2, SEP, 4, 5, SEP, 0, 0], [3, SEP, 1, 1, SEP, 2, SEP, 0], [5, 5, 5, 5, 5, 5, 5, 5]])
CANDIDATES = torch.arange(8) < torch.tensor([[6], [7], [8]])
"""Two padded chats, the second with a separator within its answer, and a prompt that fills its row."""
ANSWERS = torch.tensor([[0, 0, 0, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1, 1, 0], [0] * 8]).bool()


def batch() -> Batch:
    vocabulary = dataclasses.replace(Words(size=V, length=8).vocabulary(), eos=SEP)
    return Batch(
        ids=IDS,
        candidates=CANDIDATES,
        attention=Mask(),
        index=torch.arange(3),
        step=0,
        seed=5,
        vocabulary=vocabulary,
        step_examples=torch.arange(3),
        step_candidates=CANDIDATES.sum(1),
    )


def whole() -> SymKL:
    loss = by_name("duo").objective
    assert isinstance(loss, SymKL)
    # noise and temperature at which every weight of a soft token is above 0
    pins = {"tokens": Dense(), "noise.low": 0.3, "noise.high": 0.9, "temperature.start": 1.0}
    return derive(loss, {**pins, "group": RowGroup(rows=2)})


def read(loss: SymKL | CleanPrompt, monkeypatch: pytest.MonkeyPatch) -> tuple[Tensor, Tensor, Tensor]:
    """The network's input [B, L, V], its logits and the loss."""
    network, seen = llama("bidirectional", PROCESS, Words(size=V, length=8)), []
    encode = network.encode

    def spy(tokens: Soft, **rest) -> Tensor:
        seen.extend([tokens.weights, encode(tokens, **rest)])
        return seen[1]

    monkeypatch.setattr(network, "encode", spy)
    value = loss(network, PROCESS, batch())
    assert value.tokens == int((ANSWERS if isinstance(loss, CleanPrompt) else CANDIDATES).sum())
    logits = network.head().first(V).logits(seen[1])
    return seen[0], logits, value.value


def test_answers_begin_after_the_first_separator():
    assert torch.equal(answers(batch()), ANSWERS)


def test_prompts_are_clean_and_answers_corrupted_as_before(monkeypatch):
    """Bitwise the soft tokens of the plain loss in answers, one-hot tokens elsewhere."""
    plain, _, _ = read(whole(), monkeypatch)
    given, _, _ = read(CleanPrompt(loss=whole()), monkeypatch)
    clean = torch.nn.functional.one_hot(IDS, V).float()
    assert torch.equal(given[~ANSWERS], clean[~ANSWERS])
    assert torch.equal(given[ANSWERS], plain[ANSWERS])
    assert not torch.equal(plain[CANDIDATES & ~ANSWERS], clean[CANDIDATES & ~ANSWERS])
    assert (given[ANSWERS] != clean[ANSWERS]).any(-1).all()


def test_the_loss_is_the_answers_share_of_the_group_s_mean(monkeypatch):
    """Summed over answers and divided by all candidates of the group (docs/method.md#uniform-script)."""
    loss = whole()
    _, logits, value = read(CleanPrompt(loss=loss), monkeypatch)
    from repro.objectives.sym_kl import corrupted

    _, t = corrupted(batch(), loss.noise, loss.temperature, loss.tokens)
    scale = t / (V * (1 - t) + t)
    tokens = closed_form(logits.flatten(0, 1), IDS.flatten(), loss.floor)[0].view(3, 8) * scale[:, None]
    groups = [(tokens * ANSWERS)[rows].sum() / CANDIDATES[rows].sum() for rows in (slice(0, 2), slice(2, 3))]
    assert value.item() == pytest.approx(sum(g.item() for g in groups) / 2, rel=1e-5)
    assert groups[1] == 0, "a row without an answer adds nothing"


def test_it_has_the_class_attributes_of_its_loss():
    for name in ("meaning", "processes", "score"):
        assert getattr(CleanPrompt, name) == getattr(SymKL, name)


def test_data_without_a_separator_is_refused():
    vocabulary = Words(size=V, length=8).vocabulary()
    with pytest.raises(ValueError, match=r"no separator \(eos\) after its prompts; use objective sym_kl"):
        answers(dataclasses.replace(batch(), vocabulary=vocabulary))


def test_the_command_of_the_docstring_works():
    """As printed there, without the shell's quotes; the loss is the registered recipe's."""
    from repro.objectives import clean_prompt

    assert clean_prompt.__doc__
    written = clean_prompt.__doc__.partition("--set '")[2].partition("'")[0].replace("\n", " ")
    recipe = select(by_name("duo"), "full", [written])
    assert recipe.objective == CleanPrompt(loss=by_name("duo").objective)
    assert recipe.name.startswith("duo+") and recipe.objective.processes == frozenset({"uniform"})
    assert json.loads(json.dumps(canonical(recipe.objective)))["part"] == "clean_prompt"
