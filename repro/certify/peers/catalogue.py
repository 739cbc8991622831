"""The samplers of other projects that can be certified: where each one is, how it is set and what it claims.

A claim is what the project says of the sampler: ancestral samplers and orders at temperature 1 claim the law, decoding
at temperature 0 or below 1 claims likely texts. `source` names where.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from repro.certify.peers.diffusion import STANDS_IN
from repro.certify.peers.unmasking import FAST_STANDS_IN
from repro.certify.space import Noise
from repro.certify.verdict import FULL, Effort
from repro.core.errors import nearest
from repro.processes.prediction import Meaning

Level = Literal["full", "vectorised", "rows", "modes"]
_FULL = replace(FULL, rows=10_000, last_rows=50_000, steps=(1, 4, 16, 64), spoiled_rows=0, seconds=900.0)
_VECTORISED = replace(_FULL, row_calls=20, small_calls=200, long_rows=0, rare_rows=0)
_ROWS = replace(_VECTORISED, rows=5_000, last_rows=10_000, steps=(1, 4, 16), row_calls=10, small_calls=100)
EFFORTS: Mapping[Level, Effort] = MappingProxyType(
    {"full": _FULL, "vectorised": _VECTORISED, "rows": _ROWS, "modes": replace(_ROWS, steps=(1, 4, 16, 64))}
)
"""Sample sizes. `full`: with long sentences and rare tokens, for samplers that draw in float32, where rare tokens can
be lost; `vectorised`: without them; `rows`: fewer rows, for samplers that loop over them; `modes`: for a claim of
likely texts, which is one mean."""


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """A sampler of a peer. `file`: in its folder, or a module of the package; `adapter`: module and function of this
    room, which gets the folder and `settings`."""

    name: str
    file: str
    function: str
    adapter: str
    claims: Literal["law", "mode"]
    source: str
    noise: Noise = "absorbing"
    meaning: Meaning = "x0_mean"
    level: Level = "vectorised"
    settings: Mapping[str, Any] = field(default_factory=dict)

    def call(self, folder: Path | None) -> Callable[..., Any]:
        """The sampler as f(space, n, steps, seed) with the attributes of `repro.certify.foreign`."""
        module, _, function = self.adapter.partition(":")
        found = getattr(importlib.import_module(f"repro.certify.peers.{module}"), function)(
            folder, self.settings
        )
        found.__name__ = self.name
        found.claims, found.meaning, found.noises = self.claims, self.meaning, (self.noise,)
        return found


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A project; `package`: name of an installed package, or "" for a checkout. `stands_in`: third-party modules that
    get a stand-in where they are absent."""

    repository: str
    samplers: tuple[Sampler, ...]
    package: str = ""
    stands_in: tuple[str, ...] = ()


def _order(name: str, claims: Literal["law", "mode"], source: str, **settings: Any) -> Sampler:
    """A sampler of LLaDA's `generate`."""
    level: Level = "rows" if claims == "law" else "modes"
    return Sampler(
        name=name,
        file="generate.py",
        function="generate",
        adapter="unmasking:llada",
        claims=claims,
        source=source,
        level=level,
        settings=settings,
    )


def _fast(name: str, claims: Literal["law", "mode"], source: str, **settings: Any) -> Sampler:
    found = _order(name, claims, source, **settings)
    return replace(found, file="llada/generate.py", adapter="unmasking:fast_dllm")


def _dllm(name: str, claims: Literal["law", "mode"], **settings: Any) -> Sampler:
    source = "ZHZisZZ/dllm@ca17675 dllm/core/samplers/mdlm.py:1-3 (after LLaDA's file)"
    found = _order(name, claims, source, **settings)
    file = "dllm/core/samplers/mdlm.py"
    return replace(found, file=file, function="MDLMSampler.sample", adapter="unmasking:dllm")


def _mdlm(name: str, source: str, level: Level = "vectorised", **settings: Any) -> Sampler:
    """A sampler of MDLM's or ReMDM's `Diffusion`."""
    return Sampler(
        name=name,
        file="diffusion.py",
        function="Diffusion._sample",
        adapter="diffusion:mdlm",
        claims="law",
        source=source,
        level=level,
        settings=settings,
    )


def _remdm(name: str, script: str, level: Level = "vectorised", **settings: Any) -> Sampler:
    source = f"arXiv 2503.00307; kuleshov-group/remdm@f830d65 scripts/{script}.sh"
    return _mdlm(name, source, level, **settings)


def _duo(name: str, source: str, level: Level = "vectorised", **settings: Any) -> Sampler:
    """A sampler of Duo's `UniformState`, whose bound is lowest at the leave-one-out conditional."""
    return Sampler(
        name=name,
        file="trainer_base.py",
        function="Diffusion.generate_samples",
        adapter="diffusion:duo",
        claims="mode" if level == "modes" else "law",
        source=source,
        noise="uniform",
        meaning="leave_one_out",
        level=level,
        settings={"class": "DUO_BASE"} | settings,
    )


def _ddim(name: str, source: str, level: Level = "vectorised", **settings: Any) -> Sampler:
    """A sampler of diffusers' `DiscreteDDIMScheduler`."""
    return Sampler(
        name=name,
        file="diffusers.schedulers.scheduling_discrete_ddim",
        function="DiscreteDDIMScheduler.step",
        adapter="installed:scheduler",
        claims="law",
        source=source,
        noise="uniform",
        level=level,
        settings={"class": "DiscreteDDIMScheduler"} | settings,
    )


CLAIMED = {
    "llada": "arXiv 2502.09992 Algorithm 4; ML-GSAI/LLaDA@b7e6c35 generate.py:53",
    "greedy": "ML-GSAI/LLaDA@b7e6c35 generate.py:44 (default temperature 0)",
    "fast": "NVlabs/Fast-dLLM@24cc59e llada/generate.py:70",
    "threshold": "NVlabs/Fast-dLLM@24cc59e README.md:38-39",
    "mdlm": "arXiv 2406.07524; kuleshov-group/mdlm@c112c52 README.md:39-43",
    "duo": "arXiv 2506.10892; s-sahoo/duo@7c9b498 README.md:109",
    "psi": "arXiv 2602.21185; s-sahoo/duo@7c9b498 README.md:109",
    "ddim": "docstring of DiscreteDDIMScheduler (the exact posterior q(x_s | x_t, x0))",
    "corrector": "docstring of step_correct (preserves p_s)",
    "gemma": "docstring of EntropyBoundSampler and LinearTemperatureScheduleLogitsProcessor (temperature .8 to .4)",
}
"""Where a project says what its sampler draws."""
RESCALE = {"low_mode": "max-rescale-0.05", "high_frac": 0.0, "middle_frac": 0.0}
LOOP: dict[str, Any] = {"eta": 0.02, "t_on": 0.55, "t_off": 0.05, "alpha_on": 0.9}
T1: dict[str, Any] = {"temperature": 1.0}
PEERS: Mapping[str, Peer] = MappingProxyType(
    {
        "LLaDA": Peer(
            repository="ML-GSAI/LLaDA",
            samplers=(
                _order("random", "law", CLAIMED["llada"], remasking="random", **T1),
                _order("low_confidence", "law", CLAIMED["llada"], remasking="low_confidence", **T1),
                _order("default", "mode", CLAIMED["greedy"]),
            ),
        ),
        "Fast-dLLM": Peer(
            repository="NVlabs/Fast-dLLM",
            stands_in=FAST_STANDS_IN,
            samplers=(
                _fast("random", "law", CLAIMED["fast"], remasking="random", **T1),
                _fast("low_confidence", "law", CLAIMED["fast"], remasking="low_confidence", **T1),
                _fast("threshold", "mode", CLAIMED["threshold"], threshold=0.9),
            ),
        ),
        "dllm": Peer(
            repository="ZHZisZZ/dllm",
            samplers=(
                _dllm("random", "law", remasking="random", **T1),
                _dllm("stochastic", "law", remasking="random", stochastic_transfer=True, **T1),
                _dllm("low_confidence", "law", remasking="low_confidence", **T1),
                _dllm("default", "mode"),
            ),
        ),
        "mdlm": Peer(
            repository="kuleshov-group/mdlm",
            stands_in=STANDS_IN,
            samplers=(
                _mdlm("ddpm_cache", CLAIMED["mdlm"], "full", predictor="ddpm_cache"),
                _mdlm("ddpm", CLAIMED["mdlm"], predictor="ddpm"),
                _mdlm("analytic", CLAIMED["mdlm"], predictor="analytic"),
            ),
        ),
        "remdm": Peer(
            repository="kuleshov-group/remdm",
            stands_in=STANDS_IN,
            samplers=(
                _remdm("mdlm", "mdlm"),
                _remdm("forward-backward", "fb", sampler="forward-backward"),
                _remdm("remdm-cap", "remdm-cap", sampler="remdm-cap", eta=0.008),
                _remdm("remdm-rescale", "remdm-rescale", sampler="remdm-rescale", eta=0.015),
                _remdm("remdm-loop", "remdm-loop", sampler="remdm-loop", **LOOP),
                _remdm("remdm-conf", "remdm-conf", sampler="remdm-conf", dtype="bfloat16"),
                _remdm("dfm", "dfm", dfm=True),
            ),
        ),
        "duo": Peer(
            repository="s-sahoo/duo",
            stands_in=STANDS_IN,
            samplers=(
                replace(
                    _duo("mdlm_ancestral_cache", CLAIMED["mdlm"], predictor="ancestral_cache"),
                    noise="absorbing",
                    meaning="x0_mean",
                    settings={"class": "MDLM", "predictor": "ancestral_cache"},
                ),
                _duo("duo_ancestral", CLAIMED["duo"]),
                _duo("duo_psi", CLAIMED["psi"], predictor="psi", psi=RESCALE),
                _duo("duo_greedy_tail", "s-sahoo/duo@7c9b498 README.md:111", "modes", noise_removal="greedy"),
            ),
        ),
        "diffusers": Peer(
            repository="huggingface/diffusers",
            package="diffusers",
            samplers=(
                _ddim("ddim", CLAIMED["ddim"]),
                _ddim("ddim_temperature_1", CLAIMED["ddim"], "full", step=T1),
                _ddim(
                    "ddim_corrector_lowest_log_margin",
                    CLAIMED["corrector"],
                    step=T1,
                    corrector_steps=1,
                    corrector_selection="lowest_log_margin",
                ),
                _ddim(
                    "ddim_corrector_random",
                    CLAIMED["corrector"],
                    step=T1,
                    corrector_steps=1,
                    corrector_selection="random",
                ),
                Sampler(
                    name="block_refinement",
                    file="diffusers.schedulers.scheduling_block_refinement",
                    function="BlockRefinementScheduler.step",
                    adapter="installed:scheduler",
                    claims="mode",
                    source="docstring of BlockRefinementScheduler (commits by confidence)",
                    level="modes",
                    settings={"class": "BlockRefinementScheduler"},
                ),
                Sampler(
                    name="entropy_bound",
                    file="diffusers.schedulers.scheduling_entropy_bound",
                    function="EntropyBoundScheduler.step",
                    adapter="installed:scheduler",
                    noise="uniform",
                    claims="mode",
                    source="docstring of EntropyBoundScheduler (temperature .8 to .4)",
                    level="modes",
                    settings={"class": "EntropyBoundScheduler"},
                ),
            ),
        ),
        "transformers": Peer(
            repository="huggingface/transformers",
            package="transformers",
            samplers=(
                Sampler(
                    name="diffusion_gemma",
                    file="transformers.models.diffusion_gemma.generation_diffusion_gemma",
                    function="DiffusionGemmaGenerationMixin.generate",
                    adapter="installed:generation",
                    noise="uniform",
                    claims="mode",
                    source=CLAIMED["gemma"],
                    level="modes",
                ),
            ),
        ),
    }
)


def peer(name: str) -> Peer:
    """The peer of a name; ValueError for an unknown one."""
    if name not in PEERS:
        raise ValueError(f"no peer {name!r}; {nearest(name, list(PEERS))}")
    return PEERS[name]


def load(target: str) -> Callable[..., Any]:
    """The sampler of a target `PEER:SAMPLER=FOLDER` (empty for an installed package)."""
    name, _, folder = target.partition("=")
    of, _, sampler = name.partition(":")
    return {one.name: one for one in peer(of).samplers}[sampler].call(Path(folder) if folder else None)
