"""Generation tasks of lm-eval through our model interface beside Fast-dLLM's own, on one network and one tokenizer."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.forwards import forwards_alone
from benchmarks.nets import llama
from benchmarks.peer_decoding import Network
from benchmarks.row import Compared, against

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

    from repro.model import Model
    from repro.samplers.plan import Cache

STOP = "\n\n"
"""Stop string of the questions."""


@dataclass(frozen=True)
class Questions:
    """Sizes of the comparison: number of questions, characters of each prompt, generated ids (one a step), block."""

    count: int = 4
    characters: int = 100
    length: int = 32
    block: int = 16
    width: int = 512
    layers: int = 8
    ffn: int = 1376
    heads: int = 8

    def model(self) -> Model:
        """A bidirectional Llama with random weights that reads the ids of `llada@micro`."""
        from repro.model import Model
        from repro.recipes.scale import by_name

        of = by_name("llada@micro")
        network = llama(of.data, of.process, self.width, self.layers, self.ffn, self.heads)
        return Model(of, network, "raw", "0" * 64, 0, 0, of.data, None, None)

    def requests(self) -> list[Instance]:
        """lm-eval's requests, one a question: `characters` random letters and spaces, with the stop string `STOP`."""
        from lm_eval.api.instance import Instance

        from repro.core import rng

        found = []
        for row in range(self.count):
            drawn = rng.uniform(rng.keys(0, rng.SENTENCE, 0, row), self.characters).tolist()
            text = "".join(" etaoinshrdlu"[int(13 * u)] for u in drawn)
            arguments = (text, {"until": [STOP], "max_gen_toks": self.length})
            found.append(Instance("generate_until", {}, arguments, 0, ("questions", row, 1)))
        return found


def fast_harness(module: Any, repeats: int, questions: Questions | None = None) -> Iterator[Compared]:
    """Our `generate_until` against that of Fast-dLLM's harness (NVlabs/Fast-dLLM@24cc59e llada/eval_llada.py:275-353),
    without a cache and with its dual cache; equal means equal texts. Its object is made without its constructor, which
    loads weights by `from_pretrained`."""
    from repro.samplers.plan import DualCache

    questions = questions or Questions()
    model = questions.model()
    for cache, target in ((None, 1.0), (DualCache(refresh=None), 1.3)):
        yield _generation(module, model, questions, cache, target, repeats)


def _generation(
    module: Any, model: Model, questions: Questions, cache: Cache | None, target: float, repeats: int
) -> Compared:
    """The row of one cache setting. The peer answers one question at a time, having no batches; we answer all in
    one."""
    from repro.evals.lm.adapter import Adapter, Generation
    from repro.samplers.plan import ServedPlan
    from repro.samplers.presets import preset

    requests = questions.requests()
    plan = ServedPlan(
        gen_length=questions.length,
        block_length=questions.block,
        steps=questions.length,
        cache=cache,
        stop=(),
    )
    generation = Generation(preset("low_confidence"), plan, 1.0, "suite")
    harness = _harness(module, model, questions, cache is not None)

    def ours() -> list[str]:
        adapter = Adapter(model, None, generation, "error", seed=0, batch=len(requests))
        return adapter.generate_until(requests)

    def theirs() -> list[str]:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return harness.generate_until(requests)

    found = against(
        {"ours": ours, "theirs": theirs, "network": forwards_alone(model.denoiser, ours)}, repeats
    )
    same = [mine == other for mine, other in zip(found.results["ours"], found.results["theirs"], strict=True)]
    agreement = f"{sum(same)} of {len(same)} texts equal; {found.bound()}"
    vocabulary = f"V={model.data.vocabulary().size:,}"
    name = (
        f"LLaDAEvalHarness.generate_until, {'no' if cache is None else 'dual'} cache, {vocabulary},"
        f" {len(same)} questions, block {questions.block}, gen {questions.length} (ours in one batch)"
    )
    return Compared(found.row(name, target, agreement), all(same))


def _harness(module: Any, model: Model, questions: Questions, dual: bool) -> Any:
    """Fast-dLLM's harness around our network and tokenizer; `dual`: with its dual cache."""
    data, kind = model.data, module.LLaDAEvalHarness

    class Tokenizer:
        def __call__(self, text: str) -> dict[str, list[int]]:
            return {"input_ids": data.encode(text)}

        def decode(self, ids: Any, skip_special_tokens: bool) -> str:
            return data.text(ids.tolist())

    harness = kind.__new__(kind)
    vars(harness).update(
        model=Network(model.denoiser),
        tokenizer=Tokenizer(),
        _device=model.denoiser.home,
        mask_id=data.vocabulary().mask,
        steps=questions.length,
        gen_length=questions.length,
        block_length=questions.block,
        remasking="low_confidence",
        use_cache=dual,
        dual_cache=dual,
        threshold=None,
        save_dir=None,
        show_speed=False,
        is_instruct=False,
    )
    return harness
