"""Our own decoding of a left-to-right checkpoint as an engine (a program that decodes), which answers as a server does.

Texts are decoded by the shared loop (`repro.samplers.decode`); their log-probabilities are computed afterwards by one
forward of the whole text, so they do not come from the KV cache that decoding used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from repro.core.lazy import torch
from repro.evals.engines.engine import Api, Completion, Scored, Settings, Token, Unsupported, total
from repro.evals.lm.adapter import before_stops
from repro.evals.lm.prompts import encode_prompt, generation_prompt, has_chat_template, likelihood_request
from repro.model import Model
from repro.samplers.decode import decode
from repro.samplers.plan import ServedPlan
from repro.samplers.presets import preset

if TYPE_CHECKING:
    from torch import Tensor

BATCH = 64
"""Largest number of rows that are decoded together."""


@dataclass(frozen=True)
class Local:
    """A left-to-right `model` as an engine (a program that decodes), which answers as a server does; ValueError for a
    diffusion model, which writes tokens in no fixed order, so that they cannot be compared one by one with those of
    another engine."""

    model: Model

    def __post_init__(self) -> None:
        if not self.model.recipe.process.causal:
            raise ValueError(
                f"{self.model.recipe.name} is a diffusion model, which writes tokens in no fixed order, so they cannot"
                " be compared one by one; give a left-to-right model (recipe ar, or released weights of a causal"
                " network)"
            )

    @property
    def name(self) -> str:
        return f"{self.model.recipe.name} decoded here in {self.model.precision}"

    def complete(
        self, prompts: Sequence[str], settings: Sequence[Settings], api: Api, together: bool = True
    ) -> list[Completion]:
        """One completion for each prompt, each with its settings, whose seed selects the random stream of the text.

        `api` "chat": prompts are put into the model's chat template; `together`: whether texts are decoded in batches.
        Raises Unsupported for "chat" if the model has no template.
        """
        if api == "chat" and not has_chat_template(self.model):
            raise Unsupported(f"{self.model.recipe.name} has no chat template")
        groups: dict[tuple[int, float, float], list[int]] = {}
        for row, how in enumerate(settings):
            groups.setdefault((how.length, how.temperature, how.top_p), []).append(row)
        found: dict[int, Completion] = {}
        size = BATCH if together else 1
        for rows in groups.values():
            for start in range(0, len(rows), size):
                some = rows[start : start + size]
                made = self._decoded([prompts[row] for row in some], [settings[row] for row in some], api)
                found |= dict(zip(some, made, strict=True))
        return [found[row] for row in range(len(prompts))]

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Scored]:
        """The log-likelihood of each continuation, given (context, continuation) pairs, by one forward pass for each;
        ValueError for a pair that is longer than the model's context, and for a continuation without tokens."""
        found = []
        for context, continuation in pairs:
            asked = likelihood_request(self.model, context, continuation, "error", "none")
            logp = self._logp(asked.ids, len(asked.prompt))
            found.append(total(self._tokens(asked.continuation, logp, 1), self.name))
        return found

    def _decoded(self, prompts: Sequence[str], settings: Sequence[Settings], api: Api) -> list[Completion]:
        how, model = settings[0], self.model
        template = "chat" if api == "chat" else "none"
        asked = [generation_prompt(model, each, how.length, "error", template) for each in prompts]
        eos = model.data.vocabulary().eos
        stops = tuple(dict.fromkeys((*model.stop_ids, *([] if eos is None else [eos]))))
        plan = ServedPlan(
            gen_length=how.length, block_length=how.length, steps=how.length, cache=None, stop=stops
        )
        names = [each.seed for each in settings]
        rule = preset(_rule(how))
        rows = decode(
            model.denoiser, model.recipe.process, rule, plan, asked, seed=0, names=names
        ).ids.tolist()
        return [
            self._completion(encode_prompt(model, prompt, template), row, how)
            for prompt, row, how in zip(prompts, rows, settings, strict=True)
        ]

    def _completion(self, prompt: list[int], row: list[int], how: Settings) -> Completion:
        ids = self.model.before_stop(row)
        whole = self.model.data.text(ids)
        text = before_stops(whole, how.stop)
        finish = "stop" if len(ids) < len(row) or len(text) < len(whole) else "length"
        tokens: tuple[Token, ...] = ()
        if how.top and ids:
            tokens = tuple(self._tokens(ids, self._logp((*prompt, *ids), len(prompt)), how.top))
            kept, length = 0, 0
            while kept < len(tokens) and length < len(text):
                length += len(tokens[kept].text)
                kept += 1
            tokens = tokens[:kept]
        return Completion(text, finish, tokens, len(prompt))

    def _logp(self, ids: Sequence[int], start: int) -> Tensor:
        """Log-probabilities [n, V] float64 at the n positions of `ids` from index `start` on, each given the ids before
        it; V: vocabulary size."""
        from repro.models.attention import Mask

        denoiser = self.model.denoiser
        with torch.no_grad():
            row = torch.tensor([ids[:-1]], device=denoiser.device)
            features = denoiser.encode(row, t=None, attention=Mask())[0, start - 1 :]
            return denoiser.logits(features).cpu().double().log_softmax(-1)

    def _tokens(self, ids: Sequence[int], logp: Tensor, top: int) -> list[Token]:
        best = logp.topk(min(max(top, 2), logp.shape[1]))
        found = []
        for at, (token, text) in enumerate(zip(ids, self._texts(ids), strict=True)):
            likely: dict[str, float] = {}
            for other, value in zip(best.indices[at].tolist(), best.values[at].tolist(), strict=True):
                likely.setdefault(self.model.data.decode([other]), value)  # parts of characters look alike
            found.append(Token(text, logp[at, token].item(), likely))
        return found

    def _texts(self, ids: Sequence[int]) -> list[str]:
        """The text that each id adds to that of the ids before it; an id of only part of a character adds U+FFFD."""
        wholes = ["", *(self.model.data.decode(ids[: n + 1]) for n in range(len(ids)))]
        return [after[len(before) :] for before, after in pairwise(wholes)]


def _rule(how: Settings) -> str:
    """Name of the sampler preset that has the temperature and `top_p` of the settings `how`."""
    if how.temperature == 0:
        return "greedy"
    cut = "" if how.top_p == 1 else f"+top_p:p={how.top_p}"
    return f"sample:temperature={float(how.temperature)}{cut}"
