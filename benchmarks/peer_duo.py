"""Training steps, sampling and generative perplexity beside Duo's own code (s-sahoo/duo)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from benchmarks.peer_diffusion import EPS, Case, Seen, ancestral, backbone, made, training_row
from benchmarks.peer_judge import generative_perplexity
from benchmarks.row import TOLERANCE, Compared, against, product_share
from repro.certify.peers.diffusion import DUO_SAMPLING, PSI
from repro.core.lazy import torch
from repro.core.schedules import Constant
from repro.objectives.elbo import DuoElbo
from repro.objectives.noise import GammaWindow
from repro.objectives.objective import GlobalBatch
from repro.objectives.soft_tokens import Sparse
from repro.processes.uniform import Uniform

if TYPE_CHECKING:
    from torch import Tensor

    from repro.models.denoiser import Denoiser
    from repro.processes.process import Scored

UNTIL = 500_000
"""Last step of Duo's curriculum (s-sahoo/duo@7c9b498 scripts/train_owt_duo.sh:33)."""
TOP = 10
"""Ids of a soft token in Duo's sparse branch (top_k)."""
WINDOW = GammaWindow(low=-3.5, high=-1.75)  # s-sahoo/duo@7c9b498 configs/algo/duo.yaml:20-21
POINTS = 2001
"""Points of the table of T(A) that Duo reads; its own has 100,000."""
DUO = DuoElbo(
    window=WINDOW,
    temperature=Constant(value=1e-3),
    tokens=Sparse(mass=0.9999),
    until=UNTIL,
    eps=EPS,
    group=GlobalBatch(),
)
"""Duo's loss as recipe `duo_owt` has it."""


def duo(modules: dict[str, Any], repeats: int, case: Case | None = None) -> Iterator[Compared]:
    """Our step of recipe `duo_owt` (sparse soft tokens) against Duo's with dense and with sparse ones, both after the
    curriculum, and ancestral sampling (s-sahoo/duo@7c9b498 algo.py:298-345,593-636; trainer_base.py:500-540,640-770).

    The peer's `nll` is called itself: `_loss` of the same commit passes it one argument more than it takes.
    """
    case = case or Case()
    process = Uniform(alpha_end=EPS, eps=EPS)
    denoiser, of = case.network(masked=False)
    # target, mode of the curriculum and optimizer step of the three training rows
    rows = (
        ("dense soft tokens", 2.5, "simple", 1),
        (f"its sparse soft tokens, top_k {TOP}", 1.5, "efficient_cached", 1),
        ("after the curriculum", 1.3, "simple", UNTIL + 1),
    )
    for name, target, mode, step in rows:
        seen = Seen()
        model = _duo(modules["algo"], case, backbone(denoiser, seen), mode, step)
        inner = model.nll_per_token

        def nll_per_token(inner: Any = inner, seen: Seen = seen, **given: Any) -> Tensor:
            seen.given = given
            return inner(**given)

        model.nll_per_token = nll_per_token

        def scored(seen: Seen = seen) -> Scored:
            given = seen.given
            alpha, slope = (
                given[of].double().expand(given["xt"].shape).flatten() for of in ("alpha_t", "dalpha_t")
            )
            every = process.scored(
                "leave_one_out", given["x0"], given["xt"], seen.t, of.candidates, of.vocabulary
            )
            return every._replace(each=(given["x0"].flatten(), given["xt"].flatten(), alpha, slope))

        yield training_row(
            f"training step, {name}, {case.name()}, B={case.rows}",
            target,
            repeats,
            (denoiser, process, replace(of, step=step)),
            DUO,
            lambda model=model: model.nll(of.ids, None, None, True).mean(),
            seen,
            scored,
        )
    yield _sampling(modules["algo"], case, denoiser, process, repeats)
    yield generative_perplexity(modules["algo"].trainer_base.metrics, case, repeats)


def _duo(algo: Any, case: Case, network: Any, mode: str, step: int) -> Any:
    """A `DUO` at optimizer step `step` whose curriculum has the given mode, with the settings of its recipes."""
    from repro.processes import gaussian

    model = made(algo.DUO)
    gamma = torch.linspace(WINDOW.low, WINDOW.high, POINTS, dtype=torch.float64)
    probability, slope = gaussian.argmax_probability((-gamma / 2).exp(), case.ids)
    model.integral_cache = {
        "pt": probability.float(),
        "grad_pt": slope.float(),
        "num_points": POINTS,
        "gamma_min": WINDOW.low,
        "gamma_max": WINDOW.high,
    }
    curriculum = SimpleNamespace(mode=mode, top_k=TOP)
    sampling = SimpleNamespace(**DUO_SAMPLING, psi=SimpleNamespace(**PSI))
    model.config = SimpleNamespace(algo=SimpleNamespace(curriculum=curriculum), sampling=sampling)
    model.vocab_size, model.num_tokens, model.p_nucleus = case.ids, case.length, 1.0
    model.gamma_min, model.gamma_max = WINDOW.low, WINDOW.high
    model.gumbel_tau_log10_start = model.gumbel_tau_log10_end = -3.0
    model.curriculum_start, model.curriculum_end, model.global_step = 0, UNTIL, step
    model.antithetic_sampling, model.sampling_eps, model.T, model.loss_type = True, EPS, 0, "elbo"
    model.time_conditioning, model.ignore_bos, model.sampler = True, False, "ancestral"
    model.class_conditional, model.num_classes = False, None
    model.noise = algo.trainer_base.LogLinear(EPS)
    model.backbone = network
    return model


def _sampling(algo: Any, case: Case, denoiser: Denoiser, process: Uniform, repeats: int) -> Compared:
    """Ancestral sampling with noise removal against `generate_samples`, with as many forwards."""
    from repro.models.attention import Mask
    from repro.models.prediction import Prediction
    from repro.samplers.tail import DrawnRemoval

    model = _duo(algo, case, backbone(denoiser, Seen()), "simple", 1).eval()
    ours = ancestral(case, denoiser, process, DrawnRemoval())

    def theirs() -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return model.generate_samples(case.samples, num_steps=case.steps)

    found = against({"ours": ours, "theirs": theirs}, repeats)
    ids = found.results["theirs"]
    t, s = (torch.full((case.samples,), time, dtype=torch.float64) for time in (0.5, 0.25))
    with torch.no_grad():
        every = torch.ones_like(ids, dtype=torch.bool)
        mine = process.posterior(ids, Prediction(denoiser, ids, t, Mask()), t, s, every)
        alphas = [process.alpha(time).float()[:, None] for time in (t, s)]
        sigma = model._sigma_from_alphat(alphas[0])
        _, other = model._get_posterior_from_xt(ids, sigma, None, alpha_t=alphas[0], alpha_s=alphas[1])
        off = ((mine - other.flatten(0, 1)).abs().sum(-1) / 2).max().item()
        share = product_share(ours)
    name = f"ancestral sampling, {case.steps} steps and noise removal, {case.name()}, batch {case.samples}"
    agreement = (
        f"own draws on both sides; the posteriors of a step differ by {off:.1e} in total variation;"
        f" matrix products take {share:.0%} of our time"
    )
    return Compared(found.row(name, 4.5, agreement), off <= TOLERANCE)
