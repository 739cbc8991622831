"""A denoising network behind a server, with which any sampler of this suite decodes over HTTP.

    model = remote(load("LLaDA-8B-Base"), "http://localhost:8000/v1", None, top=32, most_tail=0.05, limits=Limits())
    sample(model, sampler="low_confidence", prompt="...")         # also score(model), decode(model.denoiser, ...)

The protocol is that of vllm-project/vllm pull request #57250 (September 2026): a completion request gives the ids of
the tokens being denoised (the canvas, `diffusion_seed_canvas`) and asks for one step that changes none of them
(`diffusion_max_steps` 1, `diffusion_read_only`), and for the k largest log-probabilities at each position of the
canvas, at temperature 1. A step of a sampler makes one such request for each row of the batch.

The probability that the server does not list at a position, 1 minus the sum of the listed ones, is its *tail*. It is
spread evenly over the ids that are not listed, so a draw has the network's own distribution up to a total variation
distance of at most the tail. A tail above `most_tail` is an error; with k = vocabulary size there is none, and samples
are those of the network itself.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

import torch
from msgspec import Struct
from torch import Tensor

from repro.core.parts import sha256, to_json
from repro.evals.engines.http import Connection, Limits
from repro.evals.engines.replies import value_of
from repro.model import Model
from repro.models.attention import KVCache, Mask
from repro.models.denoiser import Denoiser, Head, Soft
from repro.processes.prediction import Role

MOST_WHOLE = 1.01
"""Largest sum of the probabilities of a position that rounding explains."""


class _Logprobs(Struct):
    tokens: list[str]
    top_logprobs: list[dict[str, float]]


class _Choice(Struct):
    logprobs: _Logprobs


class _Reply(Struct):
    choices: list[_Choice]


class _Model(Struct):
    id: str


class _Models(Struct):
    data: list[_Model]


class RemoteDenoiser(Denoiser):
    """The network of a server as a denoiser for decoding. In place of features (hidden states) `encode` returns
    log-probabilities [B, L, V] float64 of B rows, L columns, V ids; they are NaN in columns before the canvas (the
    columns being denoised), for which the server predicts nothing. The weight of the output layer, which no sampler
    reads, is NaN too, so a loss or likelihood computed from it is NaN.

    `canvas`: largest number of columns that are denoised at once (None: a whole row); earlier columns are the request's
    prompt. `top`: number of log-probabilities read at each position; `most_tail`: largest accepted tail, where the tail
    of a position is the probability that the server does not list. `tail`: the largest tail so far; `tail_sum`: sum of
    the tails of the `positions` positions read so far.
    """

    supports_kv_cache = False

    def __init__(
        self, role: Role, connection: Connection, name: str, canvas: int | None, top: int, most_tail: float
    ) -> None:
        super().__init__(role)
        if not 1 <= top <= self.vocabulary.total:
            raise ValueError(
                f"top={top} is not between 1 and the {self.vocabulary.total} ids of the vocabulary;"
                " give such a number"
            )
        if canvas is not None and canvas < 1:
            raise ValueError(f"canvas={canvas} is too small; give 1 or more, or None for whole rows")
        if not 0 <= most_tail <= 1:
            raise ValueError(f"most_tail={most_tail} is no probability; give 0 to 1")
        self.connection, self.name, self.canvas = connection, name, canvas
        self.top, self.most_tail = top, most_tail
        self.tail, self.tail_sum, self.positions = 0.0, 0.0, 0
        self.served_by = {
            "protocol": "vllm-project/vllm#57250",
            "url": connection.url,
            "model": name,
            "canvas": canvas,
            "top": top,
            "tail": "spread evenly over unlisted ids",
        }

    def encode(
        self,
        tokens: Tensor | Soft,
        *,
        t: Tensor | None,
        attention: Mask,
        positions: Tensor | None = None,
        kv_cache: KVCache | None = None,
    ) -> Tensor:
        if isinstance(tokens, Soft) or kv_cache is not None:
            raise ValueError(
                "a server takes token ids, not soft tokens, and offers no KV cache to samplers; use a sampler"
                " without soft tokens, and leave out --cache"
            )
        rows = tokens.tolist()
        starts = [0] * len(rows) if attention.valid is None else (~attention.valid).sum(1).tolist()
        width = tokens.shape[1] - max(starts) if self.canvas is None else self.canvas
        bodies = [self._body(row[start:], width) for row, start in zip(rows, starts, strict=True)]
        replies = self.connection.post_all("completions", bodies, _Reply)
        found = torch.full((*tokens.shape, self.vocabulary.total), math.nan, dtype=torch.float64)
        for row, (body, reply) in enumerate(zip(bodies, replies, strict=True)):
            logp = self._read(reply, len(body["vllm_xargs"]["diffusion_seed_canvas"]))
            found[row, tokens.shape[1] - len(logp) :] = logp
        return found.to(tokens.device)

    def head(self) -> Head:
        total = self.vocabulary.total
        weight = torch.full((1, 1), math.nan, dtype=torch.float64, device=self.device)
        return Head(weight.expand(total, total), None, self.forbidden)

    def raw_logits(self, features: Tensor) -> Tensor:
        return features.clone()

    def _body(self, ids: Sequence[int], width: int) -> dict[str, Any]:
        """The JSON body of the request for one row of ids: the last `width` ids are the canvas (the positions being
        denoised), and all before them are the prompt. ValueError if the prompt has a mask, since the server predicts no
        token in the prompt."""
        prompt, canvas = list(ids[: max(0, len(ids) - width)]), list(ids[-width:])
        if masked := sum(each == self.vocabulary.mask for each in prompt):
            raise ValueError(
                f"{masked} masked positions lie before the last {width} (the canvas), the only ones that the server"
                " denoises; give a larger canvas, or generate fewer tokens"
            )
        read = {"diffusion_max_steps": 1, "diffusion_read_only": True}
        return {
            "model": self.name,
            "prompt": prompt,
            "max_tokens": len(canvas),
            "temperature": 1.0,
            "logprobs": self.top,
            "return_tokens_as_token_ids": True,
            "vllm_xargs": {
                "diffusion_seed_canvas": canvas,
                "diffusion_canvas_length": len(canvas),
                **read,
            },
        }

    def _read(self, reply: _Reply, width: int) -> Tensor:
        """Log-probabilities [width, V] of a canvas (the positions being denoised), from a server's reply; ValueError if
        the reply has another number of positions, a token that is no id of the vocabulary, or a position where the
        listed probabilities sum to less than 1 - `most_tail`."""
        rows = reply.choices[0].logprobs.top_logprobs if len(reply.choices) == 1 else []
        if len(rows) != width:
            raise ValueError(
                f"{self.connection.url} answered {len(rows)} positions for the {width} tokens being denoised; use a"
                " server that implements vllm-project/vllm pull request #57250"
            )
        return torch.stack([self._filled(row) for row in rows])

    def _filled(self, listed: dict[str, float]) -> Tensor:
        """Log-probabilities [V] of one position from those that the reply lists (`listed`: token -> log-probability);
        the tail, which is the probability not listed, is spread evenly over the other ids. ValueError if the listed
        probabilities sum to more than 1 (up to rounding), if the tail is above `most_tail`, or if no id that a sampler
        may write gets any probability."""
        total = self.vocabulary.total
        ids = torch.tensor([self._id(text) for text in listed], dtype=torch.int64)
        logp = torch.tensor([value_of(each) for each in listed.values()], dtype=torch.float64)
        rest = torch.ones(total, dtype=torch.bool)
        rest[ids] = False
        whole = logp.exp().sum().item()
        if whole > MOST_WHOLE:
            raise ValueError(
                f"{self.connection.url} answered probabilities that sum to {whole:.3g} at a position; it must give"
                " log-probabilities at temperature 1"
            )
        tail = min(1.0, max(0.0, 1.0 - whole)) if rest.any() else 0.0
        self.tail, self.tail_sum, self.positions = (
            max(self.tail, tail),
            self.tail_sum + tail,
            self.positions + 1,
        )
        if tail > self.most_tail:
            raise ValueError(
                f"the {len(listed)} probabilities that {self.connection.url} lists for a position leave out a"
                f" probability of {tail:.3g}, more than most_tail={self.most_tail:g}; raise `top` (in vLLM up to"
                " --max-logprobs) or most_tail"
            )
        unlisted = int((rest & ~self.forbidden.cpu()).sum())
        share = math.log(tail / unlisted) if tail > 0 and unlisted else -math.inf
        found = torch.full((total,), share, dtype=torch.float64)
        found[ids] = logp
        if found[~self.forbidden.cpu()].max() == -math.inf:
            raise ValueError(
                f"{self.connection.url} gives all probability at a position to ids that are never written, such as the"
                " mask; it must serve a model with this vocabulary"
            )
        return found

    def _id(self, text: str) -> int:
        found = re.fullmatch(r"token_id:(\d{1,9})", text)
        if found is None or int(found[1]) >= self.vocabulary.total:
            raise ValueError(
                f"{self.connection.url} answered {text!r} instead of token_id:N with N below"
                f" {self.vocabulary.total}; it must support return_tokens_as_token_ids and serve a model with this"
                " vocabulary"
            )
        return int(found[1])


def remote(
    like: Model,
    url: str,
    name: str | None,
    *,
    top: int,
    most_tail: float,
    canvas: int | None = None,
    limits: Limits | None = None,
) -> Model:
    """The model of the server at `url`, with vocabulary, data and noise process of `like`, whose weights are not used.

    `name`: name of the model in requests (None: the server's first); `top`: number of log-probabilities read at each
    position; `most_tail`: the largest probability that they may leave out; `canvas`: largest number of columns that are
    denoised at once (None: a whole row); `limits`: time-out, retries and requests at once (None: `Limits()`). Records
    made with the model name the server. ValueError for a left-to-right or time-conditioned model, whose predictions
    need more than the protocol has.
    """
    if like.recipe.process.causal or like.denoiser.time_conditioned:
        raise ValueError(
            f"{like.recipe.name} is {'left-to-right' if like.recipe.process.causal else 'conditioned on time'};"
            " a server can stand in only for a masked diffusion model without a time input: give such a checkpoint"
        )
    connection = Connection(url, limits or Limits())
    name = name or next((each.id for each in connection.get("models", _Models).data), None)
    if name is None:
        raise ValueError(f"{connection.url} serves no model; give another address, or the model's name")
    denoiser = RemoteDenoiser(like.recipe.role(), connection, name, canvas, top, most_tail)
    digest = sha256(to_json(denoiser.served_by))
    return dataclasses.replace(like, denoiser=denoiser.eval(), digest=digest, folder=None)
