"""Training steps and sampling of Duo and MDLM beside the peers' own code.

Both sides use our DiT with the same weights; `Backbone` gives it to a peer as its own class gives its network, with
logits at every position. A peer's object is made without its constructor, which needs a GPU and a tokenizer, with the
attributes that the constructor would set. Both sides draw their own noise, so losses, gradients and posteriors are
compared at the noise that the peer drew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from benchmarks.nets import Sizes, batch
from benchmarks.peer_judge import generative_perplexity
from benchmarks.row import TOLERANCE, Compared, Row, product_share, timed
from repro.certify.peers.diffusion import DUO_SAMPLING, PSI
from repro.core.lazy import torch
from repro.core.schedules import Constant
from repro.objectives.elbo import DuoElbo, Elbo
from repro.objectives.noise import GammaWindow
from repro.objectives.objective import GlobalBatch
from repro.objectives.soft_tokens import Sparse
from repro.processes.absorbing import Absorbing
from repro.processes.uniform import Uniform

if TYPE_CHECKING:
    from torch import Tensor

    from repro.models.denoiser import Denoiser
    from repro.objectives.objective import Batch, Objective
    from repro.processes.process import Diffusion, Scored
    from repro.samplers.decoded import Decoded

EPS = 1e-3
"""alpha(1) and the lowest time of both peers (s-sahoo/duo@7c9b498 configs/config.yaml:56, configs/noise)."""
UNTIL = 500_000
"""Last step of Duo's curriculum (s-sahoo/duo@7c9b498 scripts/train_owt_duo.sh:33)."""
TOP = 10
"""Ids of a soft token in Duo's sparse branch (top_k)."""
WINDOW = GammaWindow(low=-3.5, high=-1.75)  # s-sahoo/duo@7c9b498 configs/algo/duo.yaml:24-25
POINTS = 2001
"""Points of the table from which Duo's code takes T(A), the probability that a token is intact at Gaussian signal level
A; Duo's own table has 100,000."""
DUO = DuoElbo(
    window=WINDOW,
    temperature=Constant(value=1e-3),
    tokens=Sparse(mass=0.9999),
    until=UNTIL,
    eps=EPS,
    group=GlobalBatch(),
)
"""Duo's loss as recipe `duo_owt` has it."""


@dataclass(frozen=True)
class Case:
    """Sizes: `ids` tokens, rows and length of a training batch, rows and steps of sampling, and the DiT; texts that a
    judge reads, and its layers, width and heads (GPT-2's, as both papers have it)."""

    ids: int = 50_257
    rows: int = 8
    length: int = 128
    samples: int = 2
    steps: int = 8
    width: int = 256
    layers: int = 2
    heads: int = 4
    texts: int = 8
    judge: tuple[int, int, int] = (12, 768, 12)

    def name(self) -> str:
        """The sizes of the network and the rows' length as text."""
        return f"V={self.ids:,}, d={self.width}, {self.layers} layers, L={self.length}"

    def network(self, masked: bool) -> tuple[Denoiser, Batch]:
        """A DiT with random weights and a batch of random ids; `masked`: with a mask id after the others, and without
        reading the noise level (MDLM's), else reading it (Duo's)."""
        from repro.core import rng
        from repro.models.backbone import Role
        from repro.models.dit import Dit

        sizes = Sizes(ids=self.ids, mask=self.ids if masked else None, bos=None, length=self.length)
        dit = Dit(
            layers=self.layers,
            width=self.width,
            heads=self.heads,
            ffn=4 * self.width,
            condition=128,
            frequencies=256,
            alpha_end=None if masked else EPS,
            rope_base=10_000.0,
            norm_eps=1e-5,
        )
        denoiser = dit.module(Role(sizes, (self.ids,) if masked else (), "leave_one_out"), 0)
        with torch.no_grad():  # a fresh DiT's output layer is zero
            for number, weight in enumerate(denoiser.parameters()):
                weight += 0.05 * rng.normal(rng.keys(0, rng.INIT, 2, number), *weight.shape)
        return denoiser, batch(sizes, self.rows)


class Seen(SimpleNamespace):
    """What a peer drew and gave to its network: `tokens` and times `t`; `forwards`: number of rows that the network has
    read so far."""

    forwards = 0


def backbone(denoiser: Denoiser, seen: Seen) -> Any:
    """A stand-in for the network of Duo and MDLM that calls `denoiser` and notes its inputs in `seen`: `backbone(x,
    sigma, ...)` gives logits [B, L, V], sigma = -log alpha.

    x: ids [B, L], or Duo's soft tokens, as logits [B, L, V] of their weights or as ids [B, L, k] with `weights`. Soft
    tokens are embedded as by s-sahoo/duo@7c9b498 models/dit.py:388-403.
    """
    from repro.models.attention import Mask
    from repro.models.denoiser import Soft

    class Backbone(torch.nn.Module):
        def forward(
            self, x: Tensor, sigma: Tensor, class_cond: None = None, weights: Tensor | None = None
        ) -> Tensor:
            tokens: Tensor | Soft = x
            if weights is not None:
                tokens = Soft(x, weights.float())
            elif x.ndim == 3:
                tokens = Soft(None, x.softmax(-1).float())
            seen.forwards += len(x)
            seen.tokens, seen.t = tokens, -torch.expm1(-sigma.double()) / (1 - EPS)
            t = seen.t if denoiser.time_conditioned else None
            return denoiser.head().logits(denoiser.encode(tokens, t=t, attention=Mask()))

    return Backbone()


# --- training -----------------------------------------------------------------------------------------------------


def duo(modules: dict[str, Any], repeats: int, case: Case | None = None) -> Iterator[Compared]:
    """Rows against Duo: the training step of recipe `duo_owt`, in the curriculum (our sparse soft tokens against Duo's
    dense ones and Duo's sparse ones) and after it; ancestral sampling; generative perplexity (s-sahoo/duo@7c9b498
    algo.py:298-345,593-636; trainer_base.py:500-540,640-770).

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


def training_row(
    name: str,
    target: float,
    repeats: int,
    ours: tuple[Denoiser, Diffusion, Batch],
    objective: Objective,
    theirs: Callable[[], Tensor],
    seen: Seen,
    scored: Callable[[], Scored],
) -> Compared:
    """The row of a training step, forward and backward: `objective` on `ours` (denoiser, process, batch) against the
    peer's loss `theirs`. They are compared at the noise that the peer drew, at which `scored` gives the terms of our
    loss."""
    from repro.models.attention import Mask
    from repro.models.prediction import Prediction

    denoiser, process, of = ours
    denoiser.train()

    def ours_at_theirs() -> Tensor:
        where, loss, each = scored()
        count = of.candidates.sum()
        weight = torch.ones(len(each[0]), dtype=torch.float64) / count
        return Prediction(denoiser, seen.tokens, seen.t, Mask()).weighted_loss(loss, where, weight, *each)[0]

    def trained(loss: Callable[[], Tensor]) -> tuple[float, list[Tensor]]:
        denoiser.zero_grad()
        value = loss()
        value.backward()
        return value.item(), [weight.grad for weight in denoiser.parameters() if weight.grad is not None]

    def mine() -> float:
        denoiser.zero_grad()
        value = objective(denoiser, process, of).value
        value.backward()
        return value.item()

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        value, gradients = trained(theirs)
        other, others = trained(ours_at_theirs)
        off = abs(other / value - 1)
        off_gradient = max(
            ((a - b).norm() / b.norm()).item() for a, b in zip(others, gradients, strict=True) if b.norm() > 0
        )
        found = timed({"ours": mine, "theirs": lambda: trained(theirs)[0]}, repeats).seconds
        share = product_share(mine)
    seconds, opponent = found["ours"], found["theirs"]
    agreement = (
        f"at the peer's noise the loss differs by {off:.1e}, gradients by {off_gradient:.1e};"
        f" matrix products take {share:.0%} of our time"
    )
    row = Row(name, seconds, opponent, opponent / seconds, target, agreement)
    return Compared(row, max(off, off_gradient) <= TOLERANCE)


def _made(kind: Any) -> Any:
    """An object of a peer's class, a torch module, made without the class's constructor."""
    model = kind.__new__(kind)
    torch.nn.Module.__init__(model)
    return model


def _mdlm(module: Any, case: Case, network: Any) -> Any:
    """A `Diffusion` with the settings of MDLM's scripts on OpenWebText."""
    model = _made(module.Diffusion)
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


def _duo(algo: Any, case: Case, network: Any, mode: str, step: int) -> Any:
    """A `DUO` at optimizer step `step` whose curriculum has the given mode, with the settings of its recipes."""
    from repro.processes import gaussian

    model = _made(algo.DUO)
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


# --- sampling -----------------------------------------------------------------------------------------------------


def _sampling(algo: Any, case: Case, denoiser: Denoiser, process: Uniform, repeats: int) -> Compared:
    """Ancestral sampling with noise removal against Duo's `generate_samples` with as many forward passes."""
    from repro.models.attention import Mask
    from repro.models.prediction import Prediction
    from repro.samplers.ancestral import Ancestral
    from repro.samplers.decode import decode
    from repro.samplers.plan import ServedPlan
    from repro.samplers.tail import DrawnRemoval, LinearTimes, Tail

    denoiser.eval()
    model = _duo(algo, case, backbone(denoiser, Seen()), "simple", 1).eval()
    sampler = Tail(rule=Ancestral(), times=LinearTimes(end=1e-5), removal=DrawnRemoval())
    plan = ServedPlan(gen_length=case.length, block_length=case.length, steps=case.steps, cache=None, stop=())

    def ours() -> Tensor:
        names = range(case.samples)
        return decode(denoiser, process, sampler, plan, [[]] * case.samples, seed=0, names=names).ids

    def theirs() -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return model.generate_samples(case.samples, num_steps=case.steps)

    found = timed({"ours": ours, "theirs": theirs}, repeats)
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
    seconds, opponent = found.seconds["ours"], found.seconds["theirs"]
    name = f"ancestral sampling, {case.steps} steps and noise removal, {case.name()}, batch {case.samples}"
    agreement = (
        f"own draws on both sides; the posteriors of a step differ by {off:.1e} in total variation;"
        f" matrix products take {share:.0%} of our time"
    )
    return Compared(Row(name, seconds, opponent, opponent / seconds, 4.5, agreement), off <= TOLERANCE)


def _cached_sampling(
    model: Any, case: Case, denoiser: Denoiser, process: Absorbing, seen: Seen, repeats: int
) -> Compared:
    """Ancestral sampling with MDLM's greedy noise removal against its `_sample` with predictor ddpm_cache: each skips
    the forwards whose prediction it has, ours for each row and MDLM's for the whole batch."""
    from repro.models.attention import Mask
    from repro.models.prediction import Prediction
    from repro.samplers.ancestral import Ancestral
    from repro.samplers.decode import decode
    from repro.samplers.plan import ServedPlan
    from repro.samplers.tail import GreedyRemoval, LinearTimes, Tail

    denoiser.eval(), model.eval()
    sampler = Tail(rule=Ancestral(), times=LinearTimes(end=1e-5), removal=GreedyRemoval())
    plan = ServedPlan(gen_length=case.length, block_length=case.length, steps=case.steps, cache=None, stop=())

    def ours() -> Decoded:
        names = range(case.samples)
        return decode(denoiser, process, sampler, plan, [[]] * case.samples, seed=0, names=names)

    def theirs() -> tuple[Tensor, int]:
        seen.forwards = 0
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return model._sample(num_steps=case.steps), seen.forwards

    found = timed({"ours": ours, "theirs": theirs}, repeats)
    ids, forwards = found.results["theirs"]
    noisy = ids.where(torch.arange(case.length) % 2 == 0, case.ids)
    where = noisy == case.ids
    t = torch.full((case.samples,), 0.5)
    with torch.no_grad():
        mine = Prediction(denoiser, noisy, t.double(), Mask()).probs(where)
        other, _ = model._ddpm_caching_update(noisy, t[:, None], 0.25)
    off = ((mine - other[where]).abs().sum(-1) / 2).max().item()
    share = product_share(ours)
    seconds, opponent = found.seconds["ours"], found.seconds["theirs"]
    name = f"_sample, ddpm_cache, {case.steps} steps and noise removal, {case.name()}, batch {case.samples}"
    agreement = (
        f"own draws on both sides; predictions at half the tokens differ by {off:.1e} in total variation;"
        f" {found.results['ours'].cost.forwards.sum().item()} and {forwards} forwards of a row;"
        f" matrix products take {share:.0%} of our time"
    )
    return Compared(Row(name, seconds, opponent, opponent / seconds, 1.5, agreement), off <= TOLERANCE)
