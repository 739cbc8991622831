"""lm-eval's model interface (`LM`) for an engine, a program that decodes in place of a checkpoint. Requests are made in
chunks of `CHUNK`, and the answers of each finished chunk are stored, so that a killed run loses at most one chunk."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from repro.core.reading import convert
from repro.evals.engines.engine import NO_GREEDY, Api, Completion, Scored, Settings, Unsupported
from repro.evals.lm.adapter import before_stops
from repro.evals.lm.overrides import requested_length
from repro.evals.work_queue import WorkQueue

if TYPE_CHECKING:
    from repro.evals.engines.openai import Server
    from repro.evals.engines.rolling import Windows

CHUNK = 32
"""Number of requests that are made and stored together."""


@dataclass(frozen=True)
class _Likelihood:
    """The log-likelihood of a continuation or a whole text, in nats (`value`), with the fields of an item's stored
    result; `greedy`: whether greedy decoding gives the continuation (None: a whole text, for which this is not asked).
    `se`, its standard error, is 0, and `forwards` None, since an engine does not report forward passes."""

    value: float
    greedy: bool | None
    se: float = 0.0
    forwards: int | None = None


@dataclass(eq=False)
class EngineAdapter(LM):
    """lm-eval's model interface for the server `engine`. `api`: "completions" or "chat"; `seed`: of random draws;
    `work`: queue that splits the requests into chunks; `windows`: how whole texts are cut into windows (None: no task
    scores whole texts); `scored`: likelihoods so far, by (context, continuation) or (text,); `texts`: texts generated
    so far, in order; `refused`: for each of `texts`, whether the engine declined to answer."""

    engine: Server
    api: Api
    seed: int
    work: WorkQueue
    windows: Windows | None = None
    scored: dict[tuple[str, ...], _Likelihood] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)
    refused: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """(log-likelihood in nats, whether greedy decoding gives the continuation) for each request, whose arguments
        are a context and a continuation. Spaces at the end of a context are moved to the continuation. Raises
        Unsupported if the engine does not say which tokens are likely."""
        pairs = [_split(*request.args) for request in requests]

        def find(some: range) -> list[tuple[float, bool]]:
            return [_score(each) for each in self.engine.score([pairs[i] for i in some])]

        chunks = self.work.map_chunks(len(pairs), CHUNK, find, _read_scores)
        scores = [score for chunk in chunks for score in chunk]
        self.scored |= {
            request.args: _Likelihood(*score) for request, score in zip(requests, scores, strict=True)
        }
        return scores

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood in nats of each request's whole text, summed over the windows into which it is cut."""
        assert self.windows is not None, "a rolling task is asked with windows"
        by_text = [self.windows.of(request.args[0]) for request in requests]
        windows = [window for each in by_text for window in each]

        def find(some: range) -> list[float]:
            return [each.value for each in self.engine.score_ids([windows[i] for i in some])]

        chunks = self.work.map_chunks(len(windows), CHUNK, find, _read_values)
        found = iter(value for chunk in chunks for value in chunk)
        sums = [math.fsum(next(found) for _ in each) for each in by_text]
        self.scored |= {
            request.args: _Likelihood(value, None) for request, value in zip(requests, sums, strict=True)
        }
        return sums

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """The generated text of each request (prompt, generation arguments), cut before the first of its stop
        strings."""
        settings = [self._settings(request, number) for number, request in enumerate(requests)]
        prompts = [request.args[0] for request in requests]

        def find(some: range) -> list[tuple[Any, ...]]:
            found = self.engine.complete(
                [prompts[i] for i in some], [settings[i] for i in some], self.api, together=True
            )
            return [(each.text, each.finish, each.refused) for each in found]

        chunks = self.work.map_chunks(len(prompts), CHUNK, find, _read_texts)
        found = [each for chunk in chunks for each in chunk]
        texts = [before_stops(each.text, how.stop) for each, how in zip(found, settings, strict=True)]
        self.texts += texts
        self.refused += [each.refused for each in found]
        return texts

    def _settings(self, request: Instance, number: int) -> Settings:
        asked = request.args[1]
        until = asked.get("until") or []
        temperature = asked.get("temperature")
        drawn = bool(asked.get("do_sample", float(temperature or 0.0) > 0))
        key = hashlib.sha256(f"{self.seed} {number}".encode()).digest()
        return Settings(
            length=requested_length(asked),
            temperature=float(1.0 if temperature is None else temperature) if drawn else 0.0,
            top_p=float(asked.get("top_p") or 1.0) if drawn else 1.0,
            stop=tuple([until] if isinstance(until, str) else until),
            seed=int.from_bytes(key[:4], "big") >> 1,
        )


def _score(found: Scored) -> tuple[float, bool]:
    if found.greedy is None:
        raise Unsupported(NO_GREEDY)
    return found.value, found.greedy


def _split(context: str, continuation: str) -> tuple[str, str]:
    stripped = context.rstrip()
    return stripped, context[len(stripped) :] + continuation


def _read_scores(data: Any, rows: range) -> list[tuple[float, bool]]:
    found = convert(data, list[tuple[float, bool]], "the likelihoods", "request them again")
    return _counted(found, rows)


def _read_values(data: Any, rows: range) -> list[float]:
    return _counted(convert(data, list[float], "the likelihoods", "request them again"), rows)


def _read_texts(data: Any, rows: range) -> list[Completion]:
    found = convert(data, list[tuple[str, str | None, bool]], "the texts", "request them again")
    return [Completion(text, finish, refused=refused) for text, finish, refused in _counted(found, rows)]


def _counted(found: list[Any], rows: range) -> list[Any]:
    if len(found) != len(rows):
        raise ValueError(f"the stored chunk has {len(found)} answers for {len(rows)} requests")
    return found
