"""Encoding of lm-eval's text requests as token ids: prompts, (prompt, continuation) pairs, and windows over long texts.

Trailing spaces of a context move to the continuation, and the continuation's ids are those of the whole text beyond
those of the context, as in lm-eval (0.4.13 lm_eval/api/model.py:393) and LLaDA (docs/method.md#llada-likelihood).
If a chat template adds ids between context and continuation, the continuation is encoded by itself. Left-to-right
models read BOS first. For an empty context a diffusion model reads the id that its training rows begin with (BOS or
EOS, where that is a token of its vocabulary), else nothing.

A request longer than the model's maximum sequence length raises ValueError, or its prompt is truncated on the left
where `overlong` is "truncate". Such a request never scores 0, which would be the highest possible log-likelihood
(docs/method.md#peer-defect-3).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from repro.core.parts import leaves
from repro.evals.likelihood.likelihood import LikelihoodRequest
from repro.model import Model

Overlong = Literal["error", "truncate"]
Template = Literal["none", "chat"]


def max_request_length(model: Model) -> int:
    """Maximum number of ids of prompt and continuation together: the length of the model's rows, and one more for a
    causal network, which does not read the last id."""
    return model.data.row_length() + model.recipe.process.causal


def prefix_ids(model: Model) -> list[int]:
    """The ids that the network reads for an empty context, one or none; ValueError for a left-to-right model that has
    neither BOS nor EOS."""
    vocabulary = model.data.vocabulary()
    if model.recipe.process.causal:
        return [vocabulary.first]
    for boundary in (vocabulary.bos, vocabulary.eos):
        if boundary is not None and boundary < vocabulary.size:
            return [boundary]
    return []


def has_chat_template(model: Model) -> bool:
    """Whether the model's data (its tokenizer with its settings) formats prompts with a chat template."""
    return "template" in leaves(model.data)


def encode_prompt(model: Model, context: str, template: Template) -> list[int]:
    """The ids that the network reads for a context, in the model's chat template (if it has one) unless `template` is
    "none".

    A left-to-right network of this suite reads BOS before every row. For released weights the tokenizer decides: BOS
    before every text or, as in lm-eval (0.4.13 lm_eval/models/huggingface.py:870), only before an empty one.
    """
    vocabulary = model.data.vocabulary()
    plain = template == "none" and has_chat_template(model)
    ids = list(model.data.encode(context) if plain else model.data.prompt(context))
    if not model.recipe.process.causal:
        return [*prefix_ids(model), *ids] if plain else ids or prefix_ids(model)
    if vocabulary.bos_rule == "row" or not ids:
        return [vocabulary.first, *ids]
    return [vocabulary.first, *ids] if vocabulary.bos_rule == "text" and ids[0] != vocabulary.bos else ids


def likelihood_request(
    model: Model, context: str, continuation: str, overlong: Overlong, template: Template = "chat"
) -> LikelihoodRequest:
    """The likelihood request (token ids) of a context, in the model's chat template unless `template` is "none", and a
    continuation. A prompt that is too long is truncated on the left if `overlong` is "truncate", else it raises
    ValueError; so do a continuation that is too long by itself and one without ids."""
    stripped = context.rstrip()
    context, continuation = stripped, context[len(stripped) :] + continuation
    before, plain = encode_prompt(model, context, template), list(model.data.encode(context))
    if before[len(before) - len(plain) :] == plain:
        after = list(model.data.encode(context + continuation))[len(plain) :]
    else:  # the template adds ids between the two
        after = list(model.data.encode(continuation))
    if not after:
        raise ValueError(
            f"continuation {continuation!r} adds no token id after {context[-20:]!r}; give a continuation with text"
        )
    return LikelihoodRequest.of(fit_prompt(model, before, len(after), overlong), after)


def fit_prompt(model: Model, prompt: Sequence[int], new: int, overlong: Overlong) -> list[int]:
    """The ids `prompt`, truncated on the left if they and `new` more ids (to score or generate) exceed the model's
    maximum length; ValueError if `overlong` is "error" and they do, or if `new` ids do not fit even without a
    prompt."""
    longest = max_request_length(model)
    keep = longest - new
    if len(prompt) <= keep:
        return list(prompt)
    if keep < 0 or (keep == 0 and model.recipe.process.causal):
        raise ValueError(
            f"{new} ids to score or generate exceed the model's maximum of {longest}, even without a prompt; make them"
            " fewer"
        )
    if overlong == "error":
        raise ValueError(
            f"a prompt of {len(prompt)} ids and {new} more to score or generate exceed the model's maximum of"
            f" {longest}; shorten the prompt, or drop ids at its left with overlong=truncate (in --model_args, or as"
            " the `overlong` of the suite's task)"
        )
    return list(prompt[len(prompt) - keep :])


def generation_prompt(
    model: Model, context: str, new: int, overlong: Overlong, template: Template = "chat"
) -> list[int]:
    """Token ids of the prompt for generating `new` ids after a context, without the BOS that the decoding loop puts
    before every row. The context is in the model's chat template (if it has one) unless `template` is "none". A prompt
    that is too long is truncated on the left if `overlong` is "truncate", else it raises ValueError."""
    ids = encode_prompt(model, context, template)
    if not model.recipe.process.causal:
        return fit_prompt(model, ids, new, overlong)
    if model.data.vocabulary().bos_rule == "row":
        return fit_prompt(model, ids[1:], new + 1, overlong)
    # lm-eval truncates to max_length - new, though the last id is never read
    return fit_prompt(model, ids, new + (overlong == "truncate"), overlong)


def rolling_windows(model: Model, text: str) -> list[LikelihoodRequest]:
    """Likelihood requests, one per window of a text of any length, that together score each id of the text once
    (rolling log-likelihood). The prompt of every window after the first is one id, the one before its continuation.

    The windows are lm-eval's (0.4.13 lm_eval/utils.py:335). A diffusion model reads prompt and continuation, a causal
    model all but the last id, so a diffusion model's windows are one id shorter.
    """
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    vocabulary, ids = model.data.vocabulary(), list(model.data.encode(text))
    if model.recipe.process.causal and vocabulary.bos_rule == "text" and ids[:1] != [vocabulary.bos]:
        ids = [vocabulary.first, *ids]  # the BOS of this tokenizer, which lm-eval scores like any other id
    absent = -1  # placeholder of a prefix that this model does not have
    prefix = prefix_ids(model) or [absent]
    rolled = get_rolling_token_windows(
        token_list=ids,
        prefix_token=prefix[0],
        max_seq_len=max_request_length(model) - 1,
        context_len=1,
    )
    pairs = map(make_disjoint_window, rolled)
    return [
        LikelihoodRequest.of([token for token in before if token != absent], after) for before, after in pairs
    ]
