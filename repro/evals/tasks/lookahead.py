"""Tasks that compare decoding several tokens at once with one token per step (docs/method.md#lookahead).

For lossless lookahead (which must write the same text in fewer sequential forward passes) they measure the cost and
check that it changes nothing (share of equal texts); for samplers that write several tokens per step they measure how
much of the text changes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from repro.core import rng
from repro.core.lazy import torch
from repro.core.parts import part
from repro.data.corpus import prepared
from repro.data.language import Language
from repro.evals.decoding import decoded
from repro.evals.task import Answer, Ask, Task, generated, mean_metric
from repro.evals.work_queue import WorkQueue
from repro.model import Model
from repro.samplers.lookahead import Lookahead
from repro.samplers.presets import preset

if TYPE_CHECKING:
    from repro.samplers.decoded import Decoded
    from repro.samplers.plan import Plan
    from repro.samplers.sampler import Sampler


@part
class LookaheadCost(Task):
    """Cost of lossless lookahead, which decodes the same text in fewer sequential forward passes: each pass takes up to
    m *states* of the text as one batch, the text so far and guesses of it after one, two, ... further steps. `rows`
    texts are decoded one token per step, and again with lookahead for each m in `states`.

    The prompts, of one length, are the beginnings of held-out rows, up to the first position that is scored in some row
    (not part of its prompt); they are empty if the first position is scored. Metrics for each m: `rounds_m`, sequential
    forward passes per token (all states of a text count as one pass); `forwards_m`, states forwarded per token;
    `tokens_m`, tokens forwarded, relative to decoding one token per step; `equal_m`, the share of texts all tokens of
    which equal those of the text that was decoded one token per step.
    """

    rows: int
    states: tuple[int, ...]
    generates = True

    def protocol(self) -> dict[str, Any]:
        return {
            "reference": "one token per step, same draws",
            "equal": "all tokens of a text",
            "unit": "per token",
        }

    def gen_length(self, model: Model) -> int:
        return model.data.row_length() - len(self._prompts(model, 1)[0])

    def _prompts(self, model: Model, count: int) -> list[list[int]]:
        if isinstance(
            model.data, Language
        ):  # all positions are candidates, and an exact denoiser needs no corpus
            return [[]] * count
        first = int(prepared(model.data).heldout.candidates.argmax(1).min())
        return quoted(model, count, first).tolist()

    def shared(self, model: Model, ask: Ask, work: WorkQueue) -> Answer:
        """Result of decoding at most `ask.limit` texts one token per step and with lookahead: the metrics that compare
        the two for each number of states, and the cost of one token per step; processes share the work through the
        queue `work`.

        Raises ValueError for several tokens per step, and for a sampler that cannot look ahead.
        """
        assert ask.sampler is not None and ask.plan is not None
        if ask.plan.steps != ask.plan.gen_length:
            raise ValueError(
                f"task {self.name!r} compares with one token per step, but this plan has {ask.plan.steps} steps for"
                f" {ask.plan.gen_length} tokens; give --tokens-per-step 1"
            )
        onward = dataclasses.replace(ask.plan, steps=None)
        ahead = {m: Lookahead(rule=ask.sampler, states=m) for m in self.states}
        one = self._decoded(model, ask, work, ask.sampler, ask.plan)
        found = {m: self._decoded(model, ask, work, rule, onward) for m, rule in ahead.items()}
        work.join()
        return generated(one.ids, one.cost.forwards, compared(one, found))

    def _decoded(self, model: Model, ask: Ask, work: WorkQueue, sampler: Sampler, plan: Plan) -> Decoded:
        prompts = self._prompts(model, ask.at_most(self.rows))
        names = range(len(prompts))
        return decoded(work, model, sampler, plan, prompts, seed=ask.seed, names=names, batch=work.batch)


@part
class PromptedLookahead(LookaheadCost):
    """Cost of lossless lookahead (guessing the next steps of a text and verifying the guesses in one forward pass, so
    that the same text takes fewer passes) on running text, whose held-out rows have no part marked as prompt: each text
    continues the first `prompt` ids of a row by `length` ids. Other settings and metrics are those of
    `LookaheadCost`."""

    prompt: int
    length: int

    def gen_length(self, model: Model) -> int:
        return self.length

    def _prompts(self, model: Model, count: int) -> list[list[int]]:
        return quoted(model, count, self.prompt).tolist()


@part
class ParallelAgreement(Task):
    """Agreement of texts from a sampler that writes several tokens per step with texts from the sampler preset
    `reference` at one token per step: `rows` texts each, which continue the first `prompt` ids of a held-out row by
    `length` ids.

    Metrics: `equal`, share of texts that equal the reference's text in all tokens; `same`, share of tokens that equal
    the reference's token at the same position; `right` and `reference_right`, share of the sampler's and of the
    reference's tokens that equal those of the held-out row.
    """

    rows: int
    prompt: int
    length: int
    reference: str
    generates = True

    def protocol(self) -> dict[str, Any]:
        return {"reference": "one token per step, same draws", "tokens": "by position", "unit": "per text"}

    def gen_length(self, model: Model) -> int:
        return self.length

    def shared(self, model: Model, ask: Ask, work: WorkQueue) -> Answer:
        """Result of continuing the beginnings of at most `ask.limit` held-out texts twice: with the sampler and plan in
        `ask`, and one token per step with the sampler preset that the task's field `reference` names. Metrics: the
        shares of tokens and texts in which the two continuations agree, the shares of tokens that equal the held-out
        text, and the cost of the sampler in `ask`. Processes share the work through the queue `work`. ValueError for an
        unknown preset."""
        assert ask.sampler is not None and ask.plan is not None
        count = ask.at_most(self.rows)
        texts = torch.from_numpy(quoted(model, count, self.prompt + self.length))
        prompts, true = texts[:, : self.prompt].tolist(), texts[:, self.prompt :]
        singly = dataclasses.replace(ask.plan, steps=self.length)
        one, found = (
            decoded(work, model, rule, plan, prompts, seed=ask.seed, names=range(count), batch=work.batch)
            for rule, plan in ((preset(self.reference), singly), (ask.sampler, ask.plan))
        )
        work.join()
        shares = {
            "same": found.ids == one.ids,
            "right": found.ids == true,
            "reference_right": one.ids == true,
        }
        metrics = {"equal": mean_metric(shares["same"].all(1).double())}
        metrics |= {name: mean_metric(each.double().mean(1)) for name, each in shares.items()}
        return generated(found.ids, found.cost.forwards, metrics)


def quoted(model: Model, count: int, length: int) -> np.ndarray:
    """The first `length` ids of `count` held-out rows of the model's corpus, [count, length], in a fixed random order,
    so that all models of one corpus get the same rows. ValueError if the corpus has fewer or shorter rows."""
    heldout = prepared(model.data).heldout
    if count > len(heldout) or length > heldout.ids.shape[1]:
        raise ValueError(
            f"the task needs {count} held-out rows of {length} ids; the data has {len(heldout)} rows of"
            f" {heldout.ids.shape[1]} ids; give a smaller --limit, or a task with shorter texts"
        )
    rows = rng.permutation(0, rng.QUOTED, 1, len(heldout)).numpy()[:count]
    return heldout.ids[rows, :length].astype(np.int64)


def compared(one: Decoded, found: Mapping[int, Decoded]) -> dict[str, tuple[float, float | None, int]]:
    """What lookahead costs compared with one token per step, for each number m of states (the text so far and guesses
    of its continuation, forwarded together): metrics `rounds_m`, `forwards_m`, `tokens_m` and `equal_m` (see
    `LookaheadCost`), name -> (mean over texts, standard error, number of texts).

    `one`: texts decoded one token per step, with their cost; `found`: number of states -> the same texts decoded with
    lookahead.
    """
    length, metrics = one.ids.shape[1], {}
    for m, each in found.items():
        metrics[f"rounds_{m}"] = mean_metric(each.cost.rounds.double() / length)
        metrics[f"forwards_{m}"] = mean_metric(each.cost.forwards.double() / length)
        relative = each.cost.token_forwards.double() / one.cost.token_forwards
        metrics[f"tokens_{m}"] = mean_metric(relative)
        metrics[f"equal_{m}"] = mean_metric((each.ids == one.ids).all(1).double())
    return metrics
