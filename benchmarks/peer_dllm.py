"""dllm's masked-diffusion sampler and the loss of its trainer beside ours, on one Llama (ZHZisZZ/dllm).

The trainer's object is made without its constructor, which needs an output folder and a data set.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from benchmarks.forwards import forwards_alone
from benchmarks.nets import Sizes, batch
from benchmarks.peer_decoding import Case, tokens
from benchmarks.peer_diffusion import EPS, Seen, training_row
from benchmarks.row import Compared, against
from repro.core.lazy import torch
from repro.objectives.elbo import IndependentElbo
from repro.objectives.objective import GlobalBatch
from repro.processes.absorbing import Absorbing

if TYPE_CHECKING:
    from torch import Tensor

    from repro.models.denoiser import Denoiser
    from repro.processes.process import Scored

SAMPLER, TRAINER = "dllm.core.samplers.mdlm", "dllm.core.trainers.mdlm"
PACKAGES = ("dllm", "dllm.core", "dllm.core.samplers", "dllm.core.trainers", "dllm.utils")
"""Packages whose `__init__`, which imports all of the project, is not run."""


def network(denoiser: Denoiser, seen: Seen) -> Any:
    """The network as transformers gives it, `model(ids, attention_mask).logits` [B, L, V], with the mask's logits at
    -inf: dllm's loss and sampler count the mask id among the ids that may be predicted."""
    from repro.models.attention import Mask

    class Network(torch.nn.Module):
        device = torch.device("cpu")

        def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> SimpleNamespace:
            seen.tokens, seen.t = input_ids, torch.zeros(len(input_ids))
            padded = attention_mask is not None and not attention_mask.all()
            valid = attention_mask.bool() if padded and attention_mask is not None else None
            features = denoiser.encode(input_ids, t=None, attention=Mask(valid))
            return SimpleNamespace(logits=denoiser.logits(features))

    return Network()


def dllm(
    modules: dict[str, Any], repeats: int, case: Case | None = None, rows: int = 8
) -> Iterator[Compared]:
    """The sampler at temperature 0, batch 1 and 4 with prompts of unequal lengths, and a training step."""
    case = case or Case(32_000, 64, 16, 16)
    denoiser = case.denoiser()
    for count in (1, 4):
        yield _sampling(modules[SAMPLER], denoiser, case, count, repeats)
    yield _training(modules[TRAINER], denoiser, case, rows, repeats)


def _sampling(module: Any, denoiser: Denoiser, case: Case, count: int, repeats: int) -> Compared:
    """Preset `low_confidence` against `MDLMSampler.sample` (ZHZisZZ/dllm@ca17675 dllm/core/samplers/mdlm.py:38-245);
    equal means equal tokens."""
    from repro.samplers.decode import decode
    from repro.samplers.plan import ServedPlan
    from repro.samplers.presets import preset

    prompts = [case.prompt_ids()[: case.prompt - row * (case.prompt // 8)] for row in range(count)]
    plan = ServedPlan(gen_length=case.length, block_length=case.block, steps=case.length, cache=None, stop=())
    ids = SimpleNamespace(mask_token_id=case.ids, bos_token_id=0, eos_token_id=0)
    sampler = module.MDLMSampler(model=network(denoiser, Seen()), tokenizer=ids)

    def ours() -> Tensor:
        return decode(
            denoiser, Absorbing(), preset("low_confidence"), plan, prompts, seed=0, names=range(count)
        ).ids

    def theirs() -> Tensor:
        settings = {"steps": case.length, "max_new_tokens": case.length, "block_size": case.block}
        return sampler.sample(prompts, **settings)

    found = against({"ours": ours, "theirs": theirs, "network": forwards_alone(denoiser, ours)}, repeats)
    written = [
        row[len(prompt) :][: case.length]
        for row, prompt in zip(found.results["theirs"], prompts, strict=True)
    ]
    agreement, equal = tokens(found.results["ours"].flatten(), torch.cat(written))
    name = f"MDLMSampler.sample, {case.name().replace('batch 1', f'batch {count}')}"
    return Compared(found.row(name, 1.4, f"{agreement}; {found.bound()}"), equal)


def _training(module: Any, denoiser: Denoiser, case: Case, rows: int, repeats: int) -> Compared:
    """Objective `independent_elbo` against `MDLMTrainer.compute_loss` (ZHZisZZ/dllm@ca17675
    dllm/core/trainers/mdlm.py:128-217)."""
    process, length = Absorbing(), case.prompt + case.length
    of = batch(Sizes(ids=case.ids, mask=case.ids, bos=None, length=length), rows)
    seen = Seen()
    model = network(denoiser, seen)
    trainer = module.MDLMTrainer.__new__(module.MDLMTrainer)
    trainer.processing_class = SimpleNamespace(padding_side="right", mask_token_id=case.ids)
    trainer.scheduler, trainer.time_epsilon = module.LinearAlphaScheduler(), EPS
    trainer.loss_weight_type, trainer.loss_norm_type = "scheduler", "token"
    trainer.right_shift_logits = False
    trainer.meter = SimpleNamespace(update=lambda **given: None)
    weights = trainer._compute_loss_weights

    def recorded(t: Tensor, **given: Any) -> Tensor:
        seen.time = t
        return weights(t=t, **given)

    trainer._compute_loss_weights = recorded

    def scored() -> Scored:
        time = seen.time.double() + 1e-6  # its weight is 1 / (t + 1e-6)
        return process.scored("x0_mean", of.ids, seen.tokens, time, of.candidates, of.vocabulary)

    return training_row(
        f"MDLMTrainer.compute_loss, {case.layers} layers of width {case.width}, V={case.ids:,}, L={length}, B={rows}",
        1.4,
        repeats,
        (denoiser, process, of),
        IndependentElbo(eps=EPS, group=GlobalBatch()),
        lambda: trainer.compute_loss(model, {"input_ids": of.ids, "labels": of.ids}),
        seen,
        scored,
    )
