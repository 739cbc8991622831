"""Implementation of lm-eval's model interface (`lm_eval.api.model.LM`) for diffusion and left-to-right models.

Requests are scored and decoded in shared batches. Random draws are keyed by the request's ids (likelihoods) or by the
document (generation), so results depend on neither order nor batch size. Averaged weights (EMA) are used where the
recipe has them.

With a log-likelihood lm-eval wants `is_greedy`: whether decoding at temperature 0 produces the continuation. For a
left-to-right model: each token is the argmax. For absorbing noise: unmasking one token per step, the most confident
first, produces the continuation (LLaDA's check, docs/method.md#llada-likelihood). Under uniform noise every token is
revised at every step, so no order of the tokens can be checked: always False.

Of a task's generation arguments `until` and `max_gen_toks` are always applied; for the others see
`repro.evals.lm.overrides`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from repro.core import parts
from repro.core.errors import naming
from repro.core.reading import convert
from repro.evals.decoding import decoded
from repro.evals.likelihood.batched import BatchedDenoiser
from repro.evals.likelihood.likelihood import Estimator, Likelihood, LikelihoodRequest
from repro.evals.likelihood.orders import greedy
from repro.evals.lm.overrides import Conflicts, conflicts, has_length, requested_length
from repro.evals.lm.prompts import Overlong, Template, generation_prompt, likelihood_request, rolling_windows
from repro.evals.work_queue import SERIAL, WorkQueue
from repro.model import Model
from repro.samplers.plan import Cache, Plan, plan_for
from repro.samplers.sampler import Sampler

if TYPE_CHECKING:
    from torch import Tensor

BATCH = 256
REQUESTS = 64
"""Number of likelihood requests in one chunk of work (the amount that a process computes and stores at once)."""
Policy = Literal["suite", "task"]


@dataclass(frozen=True)
class Generation:
    """Settings of text generation: the sampler, and the decoding plan (lengths, steps, cache). With `plan` None the
    length is the one that each request sets, and `tokens_per_step` tokens are decoded per step. `policy`: where the
    task's generation arguments and the sampler's settings differ, "suite" uses the sampler's, "task" raises
    ValueError."""

    sampler: Sampler
    plan: Plan | None
    tokens_per_step: float
    policy: Policy
    block_length: int | None = None
    """Ids per block where `plan` is None; None: one block, or what the network requires."""
    steps: int | None = None
    """Steps over all blocks where `plan` is None, instead of `tokens_per_step`."""
    cache: Cache | None = None
    """KV cache where `plan` is None."""


@dataclass(eq=False)
class Adapter(LM):
    """lm-eval's model interface for a `model` as `repro.load` returns it. `estimator` (of likelihoods) and `generation`
    (settings of text generation) may each be None, if the task does not need it; `seed`: of the random draws; `batch`:
    most rows per forward pass; `overlong`: whether a request beyond the model's maximum length raises ValueError
    ("error") or is truncated on the left ("truncate"); `work`: queue by which processes share the requests."""

    model: Model
    estimator: Estimator | None
    generation: Generation | None
    overlong: Overlong
    seed: int
    batch: int
    work: WorkQueue = SERIAL
    template: Template = "chat"
    """`none`: contexts are read as they are; `chat`: formatted with the data's template, where it has one."""
    scored: dict[tuple[str, ...], Likelihood] = field(default_factory=dict)
    """Log-likelihoods computed so far, with standard errors, by the arguments of lm-eval's request."""
    forwards: list[Tensor] = field(default_factory=list)
    """Number of forward passes of each generated row, one tensor per group of requests that were decoded together."""
    ids: list[Tensor] = field(default_factory=list)
    """Generated ids [rows, length], one tensor per group as in `forwards`."""
    overridden: Conflicts = field(default_factory=dict)
    """Generation arguments that were not followed: argument -> (value that the task requests, value used)."""

    def __post_init__(self) -> None:
        super().__init__()
        if self.estimator is not None:
            self.estimator.check(self.model.recipe.process)

    # --- likelihood ---------------------------------------------------------------------------------------------

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """(log-likelihood in nats, is_greedy) of each request, whose arguments are (context, continuation). The
        log-likelihood is a sum over the continuation's tokens; is_greedy: whether decoding at temperature 0 produces
        the continuation. ValueError for a request that is too long or has no continuation."""
        encoded = []
        for request in requests:
            with naming(_place(request)):
                encoded.append(likelihood_request(self.model, *request.args, self.overlong, self.template))
        distinct = {(r.prompt, r.continuation): r for r in encoded}
        found = self._score(list(distinct.values()), self._likelihoods_with_greedy)
        known = {key: (each, bool(each.greedy)) for key, each in zip(distinct, found, strict=True)}
        answers = [known[r.prompt, r.continuation] for r in encoded]
        self.scored |= {request.args: answer for request, (answer, _) in zip(requests, answers, strict=True)}
        return [(answer.value, greedily) for answer, greedily in answers]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood, in nats, of each request's whole text (its only argument), summed over windows that fit the
        model's maximum length."""
        by_text = []
        for request in requests:
            with naming(_place(request)):
                by_text.append(rolling_windows(self.model, request.args[0]))
        found = iter(self._score([window for each in by_text for window in each], self._likelihoods))
        sums = []
        for request, each in zip(requests, by_text, strict=True):
            mine = [next(found) for _ in each]
            unknown = any(f.se is None for f in mine)
            error = None if unknown else sum(f.se**2 for f in mine if f.se is not None) ** 0.5
            total = Likelihood(sum(f.value for f in mine), error, None, sum(f.forwards for f in mine))
            self.scored[request.args] = total
            sums.append(total.value)
        return sums

    def _score(
        self,
        requests: Sequence[LikelihoodRequest],
        find: Callable[[list[LikelihoodRequest]], list[Likelihood]],
    ) -> list[Likelihood]:
        """One likelihood per request, in the order of the requests; the function `find` computes them, called with
        chunks of at most REQUESTS requests of similar length."""
        order = sorted(range(len(requests)), key=lambda i: (len(requests[i].ids), requests[i].ids))
        chunks = self.work.map_chunks(
            len(order),
            REQUESTS,
            lambda some: [astuple(found) for found in find([requests[order[i]] for i in some])],
            _read,
        )
        found = [likelihood for chunk in chunks for likelihood in chunk]
        return [answer for _, answer in sorted(zip(order, found, strict=True), key=lambda pair: pair[0])]

    def _likelihoods(self, requests: list[LikelihoodRequest]) -> list[Likelihood]:
        network = self._network()
        assert self.estimator is not None
        return self.estimator.score(network, requests, self.seed)

    def _likelihoods_with_greedy(self, requests: list[LikelihoodRequest]) -> list[Likelihood]:
        """One likelihood per request, with `greedy` set to whether decoding at temperature 0 produces the
        continuation."""
        found = self._likelihoods(requests)
        if not self.model.recipe.process.masks:
            return found
        checked = greedy(self._network(), requests)
        return [replace(f, greedy=check.greedy) for f, check in zip(found, checked, strict=True)]

    def _network(self) -> BatchedDenoiser:
        """The model's denoiser, wrapped for likelihoods and for the check of greedy decoding; in both it uses
        classifier-free guidance if the estimator does, as in LLaDA's harness. ValueError without an estimator."""
        if self.estimator is None:
            raise ValueError(
                "this task scores likelihoods, and no estimator is given; give one, estimator=NAME (in --model_args)"
            )
        return self.estimator.batched(self.model.denoiser, self.model.recipe.process, self.batch)

    # --- generation ---------------------------------------------------------------------------------------------

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Generated text of each request, whose arguments are (context, generation arguments). A text ends at EOS, at
        `max_gen_toks` ids, or before the first stop string (`until`). ValueError without a sampler, and for a request
        that is too long."""
        if self.generation is None:
            raise ValueError(
                "this task generates text, and no sampler is given; give one, sampler=PRESET (in --model_args)"
            )
        names = _row_names(requests)
        groups: dict[tuple, list[int]] = {}
        prompts, limits = [], []
        for index, request in enumerate(requests):
            context, arguments = request.args
            limits.append(self._limits(arguments))
            plan = self._plan(limits[-1][1])
            with naming(_place(request)):
                prompt = generation_prompt(self.model, context, plan.gen_length, self.overlong, self.template)
            prompts.append(prompt)
            # the exact denoiser takes no padding; other networks decode a row identically in any batch
            groups.setdefault((plan, len(prompt) if self.model.weights == "exact" else 0), []).append(index)
        texts = [""] * len(requests)
        for (plan, _), members in groups.items():
            members.sort(key=lambda i: len(prompts[i]))
            rows = self._decode(plan, [prompts[i] for i in members], [names[i] for i in members])
            for index, row in zip(members, rows, strict=True):
                texts[index] = self._text(row, *limits[index])
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

    def _plan(self, length: int) -> Plan:
        """The decoding plan (lengths, steps, cache): that of the settings `generation`, or, if they have none, one for
        a text of at most `length` ids."""
        assert self.generation is not None
        if self.generation.plan is not None:
            return self.generation.plan
        sampler = self.generation.sampler
        block = self.generation.block_length or self.model.denoiser.required_block_size or length
        blocks = -(-length // block)  # ids beyond `length` are cut off
        steps = self.generation.steps
        if steps is None and sampler.capabilities.plan != "adaptive":
            steps = blocks * max(1, round(block / self.generation.tokens_per_step))
        return plan_for(sampler, blocks * block, block, steps, self.generation.cache)

    def _limits(self, arguments: dict[str, Any]) -> tuple[list[str], int]:
        """(stop strings, maximum number of ids) of a text, from the generation arguments of lm-eval's request
        (`arguments`, name -> value). Other arguments that differ from the sampler's settings are recorded in the
        attribute `overridden` (policy "suite") or raise ValueError (policy "task")."""
        assert self.generation is not None
        until = arguments.get("until") or []
        planned = None if self.generation.plan is None else self.generation.plan.gen_length
        length = requested_length(arguments) if planned is None or has_length(arguments) else planned
        found = conflicts(arguments, self.generation.sampler, planned)
        if found and self.generation.policy == "task":
            name, (requested, used) = next(iter(found.items()))
            raise ValueError(
                f"the task requests {name}={requested}, the sampler uses {used}; choose a sampler and a length that"
                " agree, or follow the sampler with policy=suite (in --model_args, or as the `policy` of the suite's"
                " task)"
            )
        self.overridden |= found
        return [until] if isinstance(until, str) else list(until), length

    def _text(self, row: list[int], until: Sequence[str], length: int) -> str:
        return before_stops(self.model.data.text(self._before_eos(row, length)), until)

    def _before_eos(self, row: list[int], length: int) -> list[int]:
        return self.model.before_stop(row[:length])

    def useful(self, row: list[int], until: Sequence[str], length: int) -> int:
        """Number of ids at the start of a generated row that make up its text, which ends at EOS, after `length` ids,
        or before the first of the stop strings `until`."""
        row, decode = self._before_eos(row, length), self.model.data.text
        kept = len(before_stops(decode(row), until))
        if kept == len(decode(row)):
            return len(row)
        return bisect_left(range(len(row)), kept, key=lambda count: len(decode(row[:count])))

    # --- chat ---------------------------------------------------------------------------------------------------

    @property
    def tokenizer_name(self) -> str:
        """SHA-256 of the settings of the model's data, which fix how texts are encoded; lm-eval uses it as a key of its
        cache of requests."""
        return parts.digest(self.model.data)

    def chat_template(self, chat_template: bool | str = False) -> str:
        """Chat template of the model's training data, or an empty string if it has none; the argument is ignored."""
        return str(parts.leaves(self.model.data).get("template", ""))

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The contents of system and user messages (`role`, `content`), joined to one prompt by blank lines. The chat
        template is applied later, when the prompt is encoded; `add_generation_prompt` is ignored.

        The template has one user turn and one answer, so an assistant message raises ValueError; so does a call for a
        model whose data has no chat template.
        """
        if not self.chat_template():
            raise ValueError("this model's data has no chat template; leave out --apply_chat_template")
        for message in chat_history:
            if message["role"] == "assistant":
                raise ValueError(
                    "the chat template has a single user turn, so it takes no assistant message; turn"
                    " --fewshot_as_multiturn off, and leave gen_prefix out of the task's YAML"
                )
        return "\n\n".join(message["content"] for message in chat_history)


def _read(data: Any, rows: range) -> list[Likelihood]:
    """The likelihoods of a chunk of requests from the JSON that its file holds (`data`, the fields of one `Likelihood`
    per request); ValueError unless there is one for each of `rows` (the requests' numbers), with values of the right
    types."""
    kind = list[tuple[float, float | None, float | None, int, bool | None]]
    found = convert(data, kind, "the likelihoods", "compute them again")
    if len(found) != len(rows):
        raise ValueError(f"the stored chunk has {len(found)} likelihoods for {len(rows)} requests")
    return [Likelihood(*each) for each in found]


def _place(request: Instance) -> str:
    """Task and document of a request, as text for error messages; documents are numbered from 0, as in the stored
    per-item results."""
    return f"task {request.task_name}, document {request.doc_id}"


def _row_names(requests: Sequence[Instance]) -> list[int]:
    """Integer keys of the random draws, one per request: the number of its document, plus 2^40 times the number of
    earlier requests with the same document and the same `idx` (repetitions of one request)."""
    seen: dict[tuple[int, int], int] = {}
    names = []
    for request in requests:
        document = request.doc_id if request.doc_id is not None else 0
        again = seen.get((document, request.idx), 0)
        seen[document, request.idx] = again + 1
        names.append(document + (again << 40))
    return names


def before_stops(text: str, until: Sequence[str]) -> str:
    """The text before the first occurrence of a stop string of `until`, or the whole text without one."""
    ends = [text.find(stop) for stop in until if stop and stop in text]
    return text[: min(ends)] if ends else text
