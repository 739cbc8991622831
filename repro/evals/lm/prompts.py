"""What lm-eval asks in text, as ids: prompts, pairs of prompt and continuation, windows of a long text.

Trailing spaces of a context move to the continuation, and a continuation is what the whole text's ids have beyond the
context's, as in lm-eval and LLaDA (docs/method.md#llada-likelihood); behind a template the continuation is encoded by
itself. A left-to-right model reads BOS in front. An empty context gives a diffusion model its rows' own boundary id
(BOS or EOS, where that is a token of its language), else nothing: its rows begin bare.

A request longer than the network's rows is an error, or loses the left of its prompt where `overlong` is "truncate". It
never scores 0, which would be the best score of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from repro.core.parts import leaves
from repro.evals.likelihood.likelihood import Request
from repro.model import Model

Overlong = Literal["error", "truncate"]
Template = Literal["none", "chat"]


def causal(model: Model) -> bool:
    return model.recipe.process.causal


def room(model: Model) -> int:
    """Most ids of prompt and continuation; a causal network does not read the last one."""
    return model.data.row_length() + causal(model)


def front(model: Model) -> list[int]:
    """Ids that stand before an empty context."""
    vocabulary = model.data.vocabulary()
    if causal(model):
        if vocabulary.bos is None:
            raise ValueError("a left-to-right model needs a BOS id and this data source has none")
        return [vocabulary.bos]
    for boundary in (vocabulary.bos, vocabulary.eos):
        if boundary is not None and boundary < vocabulary.size:
            return [boundary]
    return []


def templated(model: Model) -> bool:
    """Whether the model's data puts a question into a template."""
    return "template" in leaves(model.data)


def encoded(model: Model, context: str, template: Template) -> list[int]:
    """A context as the data's prompts are, through its template unless that is `none`."""
    if template == "none" and templated(model):
        return [*front(model), *model.data.encode(context)]
    return list(model.data.prompt(context))


def prompt(model: Model, context: str, template: Template) -> list[int]:
    """What the network reads for a context: its template, and BOS for a left-to-right model."""
    ids = encoded(model, context, template)
    if causal(model):
        return [*front(model), *ids]
    return ids or front(model)


def pair(
    model: Model, context: str, continuation: str, overlong: Overlong, template: Template = "chat"
) -> Request:
    """A context and its continuation as a request; ValueError when it does not fit."""
    stripped = context.rstrip()
    context, continuation = stripped, context[len(stripped) :] + continuation
    before, plain = prompt(model, context, template), list(model.data.encode(context))
    if before[len(before) - len(plain) :] == plain:
        after = list(model.data.encode(context + continuation))[len(plain) :]
    else:  # a template stands between the two
        after = list(model.data.encode(continuation))
    if not after:
        raise ValueError(f"continuation {continuation!r} has no ids of its own after {context[-20:]!r}")
    return Request.of(cut(model, before, len(after), overlong), after)


def cut(model: Model, before: Sequence[int], after: int, overlong: Overlong) -> list[int]:
    """A prompt that leaves room for `after` ids: as it is, or without its left; ValueError says what is too long."""
    keep = room(model) - after
    if len(before) <= keep:
        return list(before)
    if keep < 0 or (keep == 0 and causal(model)):
        raise ValueError(f"{after} ids do not fit into rows of {room(model)}, even without a prompt")
    if overlong == "error":
        raise ValueError(
            f"a prompt of {len(before)} and {after} ids more do not fit into rows of {room(model)}; shorten it, or let "
            "overlong=truncate drop the prompt's left"
        )
    return list(before[len(before) - keep :])


def opening(
    model: Model, context: str, after: int, overlong: Overlong, template: Template = "chat"
) -> list[int]:
    """The prompt of a text of `after` ids that the decoding loop is to write; it puts a causal model's BOS in front."""
    ids = encoded(model, context, template)
    if causal(model):
        return cut(model, ids, after + 1, overlong)
    return cut(model, ids or front(model), after, overlong)


def windows(model: Model, text: str) -> list[Request]:
    """A text of any length as requests that score each of its ids once; later windows read the id before them.

    A diffusion model's rows hold prompt and continuation, so its windows are an id shorter than a causal model's.
    """
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    absent = -1  # stands for a prefix that this model does not have
    prefix = front(model) or [absent]
    rolled = get_rolling_token_windows(
        token_list=list(model.data.encode(text)),
        prefix_token=prefix[0],
        max_seq_len=room(model) - 1,
        context_len=1,
    )
    pairs = map(make_disjoint_window, rolled)
    return [Request.of([token for token in before if token != absent], after) for before, after in pairs]
