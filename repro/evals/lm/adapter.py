"""A model as lm-eval asks it: likelihoods, rolling sums and texts, of diffusion and left-to-right models.

Requests are scored and decoded in shared batches; a draw is keyed by what is asked (likelihoods) or by document
(generation), so neither order nor batch size enters. Averaged weights are used where the recipe pins an average.

`is_greedy` of a likelihood says whether decoding at temperature 0 would write the continuation: for a left-to-right
model whether each token is the argmax; under absorbing noise whether one token a step, the most confident first, writes
it (LLaDA's check); uniform noise revises every token at every step and has no such order: always False.

What a task says of generation: `until` and `max_gen_toks` are always honoured. Where its other fields differ from
the sampler's (temperature, do_sample, ...), the policy "suite" keeps the sampler's and records the field, "task" is an
error.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from repro.core import parts
from repro.evals.decoding import decoded
from repro.evals.likelihood.likelihood import Estimator, Likelihood, Request
from repro.evals.likelihood.network import Network
from repro.evals.likelihood.orders import greedy
from repro.evals.lm.prompts import Overlong, Template, opening, pair, windows
from repro.evals.lm.wishes import LENGTHS, Conflicts, conflicts, length_asked
from repro.evals.work_queue import ALONE, Work
from repro.model import Model
from repro.samplers.plan import Plan, plan_for
from repro.samplers.sampler import Sampler

if TYPE_CHECKING:
    from torch import Tensor

BATCH = 256
REQUESTS = 64
"""Likelihoods of a piece."""
Policy = Literal["suite", "task"]


@dataclass(frozen=True)
class Generation:
    """How texts are made: sampler, the plan (or tokens a step, for texts as long as each task asks), and who wins."""

    sampler: Sampler
    plan: Plan | None
    tokens_per_step: float
    policy: Policy


@dataclass(eq=False)
class Adapter(LM):
    """A model as lm-eval asks it; `estimator` scores likelihoods, `generation` makes texts (None: it makes none)."""

    model: Model
    estimator: Estimator | None
    generation: Generation | None
    overlong: Overlong
    seed: int
    batch: int
    work: Work = ALONE
    template: Template = "chat"
    """`none`: contexts are read as they stand; `chat`: through the data's template, where it has one."""
    scored: dict[tuple[str, ...], Likelihood] = field(default_factory=dict)
    """What each request's arguments were found to be, with standard errors."""
    forwards: list[Tensor] = field(default_factory=list)
    ids: list[Tensor] = field(default_factory=list)
    overridden: Conflicts = field(default_factory=dict)
    """Field -> (what the task asked, what was done)."""

    def __post_init__(self) -> None:
        super().__init__()
        if self.estimator is not None:
            self.estimator.check(self.model.recipe.process)

    # --- likelihood ---------------------------------------------------------------------------------------------

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """(log-likelihood, is_greedy) of (context, continuation) pairs: sums, in nats."""
        asked = [pair(self.model, *request.args, self.overlong, self.template) for request in requests]
        distinct = list({(r.prompt, r.continuation): r for r in asked}.values())
        found = self._score(distinct, self._written)
        known = {
            (r.prompt, r.continuation): (f, bool(f.greedy)) for r, f in zip(distinct, found, strict=True)
        }
        answers = [known[r.prompt, r.continuation] for r in asked]
        self.scored |= {request.args: answer for request, (answer, _) in zip(requests, answers, strict=True)}
        return [(answer.value, greedily) for answer, greedily in answers]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood of whole texts, summed over windows that fit the network's rows."""
        asked = [windows(self.model, request.args[0]) for request in requests]
        found = iter(self._score([window for each in asked for window in each], self._scored))
        sums = []
        for request, each in zip(requests, asked, strict=True):
            mine = [next(found) for _ in each]
            unknown = any(f.se is None for f in mine)
            error = None if unknown else sum(f.se**2 for f in mine if f.se is not None) ** 0.5
            total = Likelihood(sum(f.value for f in mine), error, None, sum(f.forwards for f in mine))
            self.scored[request.args] = total
            sums.append(total.value)
        return sums

    def _score(
        self, requests: Sequence[Request], find: Callable[[list[Request]], list[Likelihood]]
    ) -> list[Likelihood]:
        """One likelihood a request, found in pieces of requests of nearly one length."""
        order = sorted(range(len(requests)), key=lambda i: (len(requests[i].ids), requests[i].ids))
        pieces = self.work.pieces(
            len(order),
            REQUESTS,
            lambda some: [astuple(found) for found in find([requests[order[i]] for i in some])],
        )
        found = [Likelihood(*each) for piece in pieces for each in piece]
        return [answer for _, answer in sorted(zip(order, found, strict=True), key=lambda pair: pair[0])]

    def _scored(self, requests: list[Request]) -> list[Likelihood]:
        network = self._network()
        assert self.estimator is not None
        return self.estimator.score(network, requests, self.seed)

    def _written(self, requests: list[Request]) -> list[Likelihood]:
        """As scored, and whether decoding would write each."""
        found = self._scored(requests)
        if not self.model.recipe.process.masks:
            return found
        written = greedy(self._network(), requests)
        return [replace(f, greedy=w.greedy) for f, w in zip(found, written, strict=True)]

    def _network(self) -> Network:
        """What likelihoods and greedy checks read, guided where the estimator is (as LLaDA's harness does)."""
        if self.estimator is None:
            raise ValueError(
                "this adapter was made for generation; give it an estimator to score likelihoods"
            )
        return self.estimator.network(self.model.denoiser, self.model.recipe.process, self.batch)

    # --- generation ---------------------------------------------------------------------------------------------

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Texts cut at EOS, at `max_gen_toks` ids, and before the first stop string."""
        if self.generation is None:
            raise ValueError("this adapter was made for likelihoods; give it a sampler to generate")
        names = _names(requests)
        groups: dict[tuple, list[int]] = {}
        prompts, wanted = [], []
        for index, request in enumerate(requests):
            context, asked = request.args
            until, most = self._honoured(asked)
            plan = self._plan(most)
            whole = opening(self.model, context, plan.gen_length, self.overlong, self.template)
            prompts.append(whole)
            wanted.append((until, most))
            # the exact denoiser takes no padding; others decode a row alike in any batch
            groups.setdefault((plan, len(whole) if self.model.weights == "exact" else 0), []).append(index)
        texts = [""] * len(requests)
        for (plan, _), members in groups.items():
            members.sort(key=lambda i: len(prompts[i]))
            rows = self._decode(plan, [prompts[i] for i in members], [names[i] for i in members])
            for index, row in zip(members, rows, strict=True):
                texts[index] = self._text(row, *wanted[index])
        return texts

    def _decode(self, plan: Plan, prompts: list[list[int]], names: list[int]) -> list[list[int]]:
        assert self.generation is not None
        sampler, work = self.generation.sampler, self.work
        found = decoded(
            work, self.model, sampler, plan, prompts, seed=self.seed, names=names, batch=self.batch
        )
        self.forwards.append(found.cost.forwards)
        self.ids.append(found.ids)
        return found.ids.tolist()

    def _plan(self, most: int) -> Plan:
        """The plan for a text of at most `most` ids."""
        assert self.generation is not None
        if self.generation.plan is not None:
            return self.generation.plan
        sampler = self.generation.sampler
        block = self.model.denoiser.required_block_size or most
        blocks = -(-most // block)  # what is written beyond `most` is cut off
        steps = blocks * max(1, round(block / self.generation.tokens_per_step))
        return plan_for(
            sampler, blocks * block, block, None if sampler.capabilities.plan == "adaptive" else steps, None
        )

    def _honoured(self, asked: dict[str, Any]) -> tuple[list[str], int]:
        """Stop strings and the most ids; other fields go by the policy. ValueError for a conflict under "task"."""
        assert self.generation is not None
        until = asked.get("until") or []
        ours = None if self.generation.plan is None else self.generation.plan.gen_length
        said = any(asked.get(name) is not None for name in LENGTHS)
        most = length_asked(asked) if ours is None or said else ours
        found = conflicts(asked, self.generation.sampler, ours)
        if found and self.generation.policy == "task":
            name, (theirs, mine) = next(iter(found.items()))
            raise ValueError(
                f"the task asks for {name}={theirs}, the sampler does {mine}; choose a sampler and a length that "
                "agree, or policy=suite to record the difference"
            )
        self.overridden |= found
        return [until] if isinstance(until, str) else list(until), most

    def _text(self, row: list[int], until: Sequence[str], most: int) -> str:
        return before_stops(self.model.data.decode(self._before_end(row, most)), until)

    def _before_end(self, row: list[int], most: int) -> list[int]:
        end = self.model.data.vocabulary().eos
        row = row[:most]
        return row[: row.index(end)] if end in row else row

    def useful(self, row: list[int], until: Sequence[str], most: int) -> int:
        """How many ids of a generated row make the text that is kept."""
        row, spell = self._before_end(row, most), self.model.data.decode
        kept = len(before_stops(spell(row), until))
        if kept == len(spell(row)):
            return len(row)
        return bisect_left(range(len(row)), kept, key=lambda count: len(spell(row[:count])))

    # --- chat ---------------------------------------------------------------------------------------------------

    @property
    def tokenizer_name(self) -> str:
        """Digest of the data part that makes ids of texts: lm-eval keys its cache of prompts by it."""
        return parts.digest(self.model.data)

    def chat_template(self, chat_template: bool | str = False) -> str:
        """The training data's template, which prompts of such a model go through unless `template` is none."""
        return str(parts.leaves(self.model.data).get("template", ""))

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The question of a chat; the template itself is applied when the prompt is encoded.

        The seed's template has one question and one answer: system and user turns become the question, and an assistant
        turn is refused.
        """
        if not self.chat_template():
            raise ValueError("this model's data has no chat template; ask without apply_chat_template")
        for message in chat_history:
            if message["role"] == "assistant":
                raise ValueError(
                    "the chat template holds one question: turn fewshot_as_multiturn off, and leave out gen_prefix"
                )
        return "\n\n".join(message["content"] for message in chat_history)


def _names(requests: Sequence[Instance]) -> list[int]:
    """The rows' names in the stream of draws: the document, and which repetition of it."""
    seen: dict[tuple[int, int], int] = {}
    names = []
    for request in requests:
        document = request.doc_id if request.doc_id is not None else 0
        again = seen.get((document, request.idx), 0)
        seen[document, request.idx] = again + 1
        names.append(document + (again << 40))
    return names


def before_stops(text: str, until: Sequence[str]) -> str:
    """The text before the first stop string."""
    ends = [text.find(stop) for stop in until if stop and stop in text]
    return text[: min(ends)] if ends else text
