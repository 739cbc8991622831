"""Likelihoods beside peers' own code: LLaDA's Monte Carlo estimate, and lm-eval's HFLM for causal networks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from benchmarks import peer_decoding
from benchmarks.likelihood import DRAWN, LENGTHS
from benchmarks.nets import Sizes, llama
from benchmarks.peer_decoding import LLADA, Case, Network
from benchmarks.row import Compared, against
from repro.evals.likelihood.batched import BatchedDenoiser
from repro.evals.likelihood.likelihood import LikelihoodRequest
from repro.evals.likelihood.orders import NextToken

if TYPE_CHECKING:
    from repro.models.denoiser import Denoiser

TOLERANCE = 2e-4
"""Largest difference in nats between two exact log-likelihoods of one continuation."""
ERRORS = 4.0
"""Largest difference between two Monte Carlo estimates, in standard errors of their difference."""


def llada(modules: dict[str, Any], repeats: int) -> Iterator[Compared]:
    """All rows against LLaDA: its `generate`, and its `get_log_likelihood`."""
    for case, target in LLADA.items():
        yield peer_decoding.llada(modules["generate.py"].generate, case, target, repeats)
    yield monte_carlo(modules["get_log_likelihood.py"].get_log_likelihood, Case(32_000, 20, 15, 15), repeats)


def monte_carlo(get_log_likelihood: Any, case: Case, repeats: int) -> Compared:
    """128 draws per continuation of `LENGTHS` tokens against LLaDA's `get_log_likelihood` (ML-GSAI/LLaDA@b7e6c35
    get_log_likelihood.py:47-85), which draws its own masks."""
    from repro.core import rng
    from repro.core.lazy import torch
    from repro.processes.absorbing import Absorbing

    denoiser = case.denoiser()
    requests = []
    for row, length in enumerate(LENGTHS):
        drawn = rng.uniform(rng.keys(0, rng.SENTENCE, 0, row), case.prompt + length) * case.ids
        ids = drawn.long().tolist()
        requests.append(LikelihoodRequest(tuple(ids[: case.prompt]), tuple(ids[case.prompt :]), row))

    def ours() -> list[Any]:
        return DRAWN.score(BatchedDenoiser(denoiser, Absorbing(), 64), requests, seed=0)

    def theirs() -> list[float]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return [
                get_log_likelihood(
                    Network(denoiser),
                    torch.tensor(request.prompt),
                    torch.tensor(request.continuation),
                    mc_num=DRAWN.draws,
                    batch_size=DRAWN.batch,
                    mask_id=case.ids,
                )
                for request in requests
            ]

    found = against({"ours": ours, "theirs": theirs}, repeats)
    off = max(
        abs(own.value - other) / (2**0.5 * own.se)
        for own, other in zip(found.results["ours"], found.results["theirs"], strict=True)
    )
    name = (
        f"get_log_likelihood.py, V={case.ids // 1000}k, prompt {case.prompt},"
        f" continuations of {', '.join(map(str, LENGTHS))}, {DRAWN.draws} draws each"
    )
    agreement = f"own draws on both sides; estimates differ by at most {off:.1f} standard errors"
    return Compared(found.row(name, 2.0, agreement), off <= ERRORS)


def hflm(modules: dict[str, Any], repeats: int, case: Case | None = None) -> Iterator[Compared]:
    """Log-likelihoods of 60 continuations (15 contexts with 4 choices each) against lm-eval's `HFLM` on the same causal
    network, at batch 1 and 8. Both are given token ids."""
    from repro.processes.left_to_right import LeftToRight

    case = case or Case(8_000, 64, 16, 0, width=256, layers=6, ffn=688, heads=4)
    process = LeftToRight()
    sizes = Sizes(ids=case.ids, mask=None, bos=None, length=case.prompt + case.length)
    denoiser = llama(sizes, process, case.width, case.layers, case.ffn, case.heads)
    requests = _choices(case)
    model = _hflm(denoiser, case)
    asked = [((str(r.prompt), str(r.continuation)), list(r.prompt), list(r.continuation)) for r in requests]
    for batch, target in ((1, 1.0), (8, 1.2)):

        def ours(batch: int = batch) -> list[Any]:
            return NextToken().score(BatchedDenoiser(denoiser, process, batch), requests, seed=0)

        def theirs(batch: int = batch) -> list[tuple[float, bool]]:
            model.batch_size_per_gpu = batch
            return model._loglikelihood_tokens(asked, disable_tqdm=True)

        found = against({"ours": ours, "theirs": theirs}, repeats)
        pairs = list(zip(found.results["ours"], found.results["theirs"], strict=True))
        off = max(abs(own.value - value) for own, (value, _) in pairs)
        greedy = all(own.greedy == other for own, (_, other) in pairs)
        name = (
            f"HFLM, {len(requests)} requests, V={case.ids // 1000}k, prompts of {case.prompt // 4} to"
            f" {case.prompt - 1}, continuations of 1 to {case.length - 1}, batch {batch}"
        )
        agreement = f"nats differ by {off:.1e}, greedy flags {'equal' if greedy else 'differ'}"
        yield Compared(found.row(name, target, agreement), greedy and off <= TOLERANCE)


def _choices(case: Case) -> list[LikelihoodRequest]:
    """15 contexts of a quarter of `case.prompt` tokens up to all of them but one, each with 4 continuations."""
    from repro.core import rng

    requests = []
    for item in range(15):
        drawn = rng.uniform(rng.keys(0, rng.SENTENCE, 0, item), case.prompt + 4 * (case.length + 1)).tolist()
        context, choices = drawn[: case.prompt], drawn[case.prompt :]
        context = context[: int(case.prompt * (0.25 + 0.75 * context[0]))]
        for start in range(0, len(choices), case.length + 1):
            size, *ids = choices[start : start + case.length + 1]
            ids = ids[: 1 + int((case.length - 1) * size)]
            prompt, continuation = ([int(u * case.ids) for u in part] for part in (context, ids))
            requests.append(LikelihoodRequest(tuple(prompt), tuple(continuation), len(requests)))
    return requests


def _hflm(denoiser: Denoiser, case: Case) -> Any:
    """lm-eval's `HFLM` of transformers' own Llama with the same weights; the tokenizer is not used."""
    from lm_eval.models.huggingface import HFLM
    from tokenizers import Tokenizer, models
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

    network: Any = denoiser.network
    config = type(network.config)(**network.config.to_dict())
    config.is_causal = True
    copy = LlamaForCausalLM(config).eval()
    copy.load_state_dict(network.state_dict())
    words = Tokenizer(models.WordLevel({"<s>": 0}, unk_token="<s>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", pad_token="<s>")
    return HFLM(
        pretrained=copy, tokenizer=tokenizer, max_length=case.prompt + case.length, batch_size=1, device="cpu"
    )
