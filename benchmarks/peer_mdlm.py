"""A training step and sampling beside MDLM's own code (kuleshov-group/mdlm)."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from benchmarks.peer_diffusion import EPS, Case, Seen, ancestral, backbone, made, training_row
from benchmarks.row import TOLERANCE, Compared, against, product_share
from repro.core.lazy import torch
from repro.objectives.elbo import Elbo
from repro.objectives.objective import GlobalBatch
from repro.processes.absorbing import Absorbing

if TYPE_CHECKING:
    from torch import Tensor

    from repro.models.denoiser import Denoiser


def mdlm(modules: dict[str, Any], repeats: int, case: Case | None = None) -> Iterator[Compared]:
    """Our step of recipe `mdlm_owt`, and our sampling, which skips forwards, against MDLM's with cached predictions
    (kuleshov-group/mdlm@c112c52 diffusion.py:847-916,592-610,658-698)."""
    case = case or Case()
    process = Absorbing()
    denoiser, of = case.network(masked=True)
    seen = Seen()
    model = _mdlm(modules["diffusion"], case, backbone(denoiser, seen))
    inner = model._sample_t

    def sample_t(n: int, device: Any) -> Tensor:
        seen.time = inner(n, device)
        return seen.time

    model._sample_t = sample_t
    yield training_row(
        f"training step, {case.name()}, B={case.rows}",
        2.2,
        repeats,
        (denoiser, process, of),
        Elbo(eps=EPS, group=GlobalBatch()),
        lambda: model._loss(of.ids, torch.ones_like(of.ids)).loss,
        seen,
        lambda: process.scored(
            denoiser.meaning, of.ids, seen.tokens, seen.time, of.candidates, of.vocabulary
        ),
    )
    yield _cached_sampling(model, case, denoiser, process, seen, repeats)


def _mdlm(module: Any, case: Case, network: Any) -> Any:
    """A `Diffusion` with the settings of MDLM's scripts on OpenWebText."""
    model = made(module.Diffusion)
    model.config = SimpleNamespace(
        model=SimpleNamespace(length=case.length),
        noise=SimpleNamespace(type="loglinear"),
        loader=SimpleNamespace(eval_batch_size=case.samples),
        sampling=SimpleNamespace(noise_removal=True),
    )
    model.parameterization, model.T, model.time_conditioning = "subs", 0, False
    model.antithetic_sampling, model.importance_sampling, model.change_of_variables = True, False, False
    model.mask_index, model.neg_infinity, model.sampling_eps = case.ids, -1000000.0, EPS
    model.sampler = "ddpm_cache"
    model.noise = module.noise_schedule.LogLinearNoise()
    model.backbone = network
    return model


def _cached_sampling(
    model: Any, case: Case, denoiser: Denoiser, process: Absorbing, seen: Seen, repeats: int
) -> Compared:
    """Ancestral sampling with MDLM's greedy noise removal against its `_sample` with predictor ddpm_cache: each skips
    the forwards whose prediction it has, ours for each row and MDLM's for the whole batch."""
    from repro.models.attention import Mask
    from repro.models.prediction import Prediction
    from repro.samplers.tail import GreedyRemoval

    model.eval()
    ours = ancestral(case, denoiser, process, GreedyRemoval())

    def theirs() -> tuple[Tensor, int]:
        seen.forwards = 0
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return model._sample(num_steps=case.steps), seen.forwards

    found = against({"ours": ours, "theirs": theirs}, repeats)
    ids, forwards = found.results["theirs"]
    noisy = ids.where(torch.arange(case.length) % 2 == 0, case.ids)
    where = noisy == case.ids
    t = torch.full((case.samples,), 0.5)
    with torch.no_grad():
        mine = Prediction(denoiser, noisy, t.double(), Mask()).probs(where)
        other, _ = model._ddpm_caching_update(noisy, t[:, None], 0.25)
    off = ((mine - other[where]).abs().sum(-1) / 2).max().item()
    share = product_share(ours)
    name = f"_sample, ddpm_cache, {case.steps} steps and noise removal, {case.name()}, batch {case.samples}"
    agreement = (
        f"own draws on both sides; predictions at half the tokens differ by {off:.1e} in total variation;"
        f" {found.results['ours'].cost.forwards.sum().item()} and {forwards} forwards of a row;"
        f" matrix products take {share:.0%} of our time"
    )
    return Compared(found.row(name, 1.5, agreement), off <= TOLERANCE)
