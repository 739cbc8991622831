"""The samplers of other projects that can be certified: where each one is, with which settings it runs and what it
claims.

A claim is what the project says of the sampler: ancestral samplers, and unmasking in any order at temperature 1, claim
the law; decoding below temperature 1 claims likely texts. `source` names the place of the claim.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from repro.certify.peers.diffusion import STANDS_IN
from repro.certify.peers.unmasking import FAST_STANDS_IN
from repro.certify.space import Noise
from repro.certify.verdict import FULL, Effort
from repro.core.errors import nearest
from repro.processes.prediction import Meaning

Level = Literal["full", "long", "rows", "modes"]
_FULL = replace(FULL, rows=10_000, last_rows=50_000, steps=(1, 4, 16, 64), spoiled_rows=0, seconds=900.0)
_LONG = replace(_FULL, row_calls=20, small_calls=200, rare_rows=0)
_ROWS = replace(
    _LONG, rows=5_000, last_rows=10_000, steps=(1, 4, 16), row_calls=10, small_calls=100, long_rows=0
)
EFFORTS: Mapping[Level, Effort] = MappingProxyType(
    {
        "full": _FULL,
        "long": _LONG,
        "rows": _ROWS,
        "modes": replace(_ROWS, steps=(1, 4, 16, 64)),
    }
)
"""Sample sizes. `full`: with long sentences and rare tokens, which draws in float32 may never give; `long`: without
rare tokens; `rows`: with neither and with fewer rows, for samplers that loop over rows; `modes`: for the claim "mode"
(likely texts), which is tested by a single mean."""


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """A sampler of another project (peer). `file`: path in the peer's folder, or module of its package; `function`:
    name of the sampler in that file; `adapter`: MODULE:FUNCTION in `repro.certify.peers` that makes it callable, from
    the folder and `settings`; `claims`: what the project says that it draws, the law or likely texts ("mode");
    `source`: where the project says so; `law_level`: key in EFFORTS of the sample sizes for the claim "law"."""

    name: str
    file: str
    function: str
    adapter: str
    source: str
    claims: Literal["law", "mode"] = "law"
    noise: Noise = "absorbing"
    meaning: Meaning = "x0_mean"
    law_level: Level = "long"
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def level(self) -> Level:
        """Key in EFFORTS of the sample sizes with which the sampler is certified: `law_level` for the claim "law", else
        `modes`."""
        return self.law_level if self.claims == "law" else "modes"

    def call(self, folder: Path | None) -> Callable[..., Any]:
        """The peer's sampler, from its folder (None: an installed package), as a function f(space, n, steps, seed) that
        draws n sentences, [n, L] ids, of the small language `space` in `steps` steps; with the attributes `claims`,
        `meaning` and `noises` (`repro.certify.foreign`)."""
        module, _, function = self.adapter.partition(":")
        found = getattr(importlib.import_module(f"repro.certify.peers.{module}"), function)(
            folder, self.settings
        )
        found.__name__ = self.name
        found.claims, found.meaning, found.noises = self.claims, self.meaning, (self.noise,)
        return found


@dataclass(frozen=True, kw_only=True)
class Peer:
    """Another project (peer) with its samplers. `package`: name of its package, which may be installed, or "" if a
    checkout is needed. `stands_in`: third-party modules that get a stand-in where they are absent."""

    repository: str
    samplers: tuple[Sampler, ...]
    package: str = ""
    stands_in: tuple[str, ...] = ()


CLAIMED = {
    "llada": "arXiv 2502.09992 Algorithm 4; ML-GSAI/LLaDA@b7e6c35 generate.py:53",
    "greedy": "ML-GSAI/LLaDA@b7e6c35 generate.py:44 (default temperature 0)",
    "fast": "NVlabs/Fast-dLLM@24cc59e llada/generate.py:70",
    "threshold": "NVlabs/Fast-dLLM@24cc59e README.md:38-39",
    "dllm": "ZHZisZZ/dllm@ca17675 dllm/core/samplers/mdlm.py:1-3 (after LLaDA's file)",
    "mdlm": "arXiv 2406.07524; kuleshov-group/mdlm@c112c52 README.md:39-43",
    "remdm": "arXiv 2503.00307; kuleshov-group/remdm@f830d65 scripts/{}.sh",
    "duo": "arXiv 2506.10892; s-sahoo/duo@7c9b498 README.md:109",
    "psi": "arXiv 2602.21185; s-sahoo/duo@7c9b498 README.md:109",
    "greedy_tail": "s-sahoo/duo@7c9b498 README.md:111",
    "ddim": "docstring of DiscreteDDIMScheduler (the exact posterior q(x_s | x_t, x0))",
    "corrector": "docstring of step_correct (preserves p_s)",
    "block": "docstring of BlockRefinementScheduler (commits by confidence)",
    "entropy": "docstring of EntropyBoundScheduler (temperature .8 to .4)",
    "gemma": "docstring of EntropyBoundSampler and LinearTemperatureScheduleLogitsProcessor (temperature .8 to .4)",
}
"""Key of a claim -> where the project says what its sampler draws."""
T1: dict[str, Any] = {"temperature": 1.0}
RANDOM = T1 | {"remasking": "random"}
CONFIDENT = T1 | {"remasking": "low_confidence"}

_llada = partial(
    Sampler, file="generate.py", function="generate", adapter="unmasking:llada", law_level="rows"
)
_fast = partial(_llada, file="llada/generate.py", adapter="unmasking:fast_dllm")
_dllm = partial(
    _llada,
    file="dllm/core/samplers/mdlm.py",
    function="MDLMSampler.sample",
    adapter="unmasking:dllm",
    source=CLAIMED["dllm"],
)
_remdm = partial(Sampler, file="diffusion.py", function="Diffusion._sample", adapter="diffusion:mdlm")
_mdlm = partial(_remdm, source=CLAIMED["mdlm"], law_level="full")
_duo = partial(
    Sampler,
    file="trainer_base.py",
    function="Diffusion.generate_samples",
    adapter="diffusion:duo",
    noise="uniform",
    meaning="leave_one_out",  # where its bound is lowest
)
_scheduler = partial(Sampler, adapter="installed:scheduler", noise="uniform")
_ddim = partial(
    _scheduler,
    file="diffusers.schedulers.scheduling_discrete_ddim",
    function="DiscreteDDIMScheduler.step",
    source=CLAIMED["ddim"],
)
PSI = {"low_mode": "max-rescale-0.05", "high_frac": 0.0, "middle_frac": 0.0}
LOOP: dict[str, Any] = {"eta": 0.02, "t_on": 0.55, "t_off": 0.05, "alpha_on": 0.9}
REMDM: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("mdlm", "mdlm", {}),
    ("forward-backward", "fb", {"sampler": "forward-backward"}),
    ("remdm-cap", "remdm-cap", {"sampler": "remdm-cap", "eta": 0.008}),
    ("remdm-rescale", "remdm-rescale", {"sampler": "remdm-rescale", "eta": 0.015}),
    ("remdm-loop", "remdm-loop", {"sampler": "remdm-loop", **LOOP}),
    ("remdm-conf", "remdm-conf", {"sampler": "remdm-conf", "dtype": "bfloat16"}),
    ("dfm", "dfm", {"dfm": True}),
)
"""Name, script (scripts/SCRIPT.sh) and settings of each of ReMDM's samplers."""
DDIM: dict[str, Any] = {"class": "DiscreteDDIMScheduler"}
DUO: dict[str, Any] = {"class": "DUO_BASE"}
PEERS: Mapping[str, Peer] = MappingProxyType(
    {
        "LLaDA": Peer(
            repository="ML-GSAI/LLaDA",
            samplers=(
                _llada(name="random", source=CLAIMED["llada"], settings=RANDOM),
                _llada(name="low_confidence", source=CLAIMED["llada"], settings=CONFIDENT),
                _llada(name="default", claims="mode", source=CLAIMED["greedy"]),
            ),
        ),
        "Fast-dLLM": Peer(
            repository="NVlabs/Fast-dLLM",
            stands_in=FAST_STANDS_IN,
            samplers=(
                _fast(name="random", source=CLAIMED["fast"], settings=RANDOM),
                _fast(name="low_confidence", source=CLAIMED["fast"], settings=CONFIDENT),
                _fast(
                    name="threshold", claims="mode", source=CLAIMED["threshold"], settings={"threshold": 0.9}
                ),
            ),
        ),
        "dllm": Peer(
            repository="ZHZisZZ/dllm",
            samplers=(
                _dllm(name="random", settings=RANDOM),
                _dllm(name="stochastic", settings=RANDOM | {"stochastic_transfer": True}),
                _dllm(name="low_confidence", settings=CONFIDENT),
                _dllm(name="default", claims="mode"),
            ),
        ),
        "mdlm": Peer(
            repository="kuleshov-group/mdlm",
            stands_in=STANDS_IN,
            samplers=tuple(
                _mdlm(name=name, settings={"predictor": name}) for name in ("ddpm_cache", "ddpm", "analytic")
            ),
        ),
        "remdm": Peer(
            repository="kuleshov-group/remdm",
            stands_in=STANDS_IN,
            samplers=tuple(
                _remdm(name=name, source=CLAIMED["remdm"].format(script), settings=settings)
                for name, script, settings in REMDM
            ),
        ),
        "duo": Peer(
            repository="s-sahoo/duo",
            stands_in=STANDS_IN,
            samplers=(
                _duo(
                    name="mdlm_ancestral_cache",
                    source=CLAIMED["mdlm"],
                    noise="absorbing",
                    meaning="x0_mean",
                    settings={"class": "MDLM", "predictor": "ancestral_cache"},
                ),
                _duo(name="duo_ancestral", source=CLAIMED["duo"], settings=DUO),
                _duo(name="duo_psi", source=CLAIMED["psi"], settings=DUO | {"predictor": "psi", "psi": PSI}),
                _duo(
                    name="duo_greedy_tail",
                    claims="mode",
                    source=CLAIMED["greedy_tail"],
                    settings=DUO | {"noise_removal": "greedy"},
                ),
            ),
        ),
        "diffusers": Peer(
            repository="huggingface/diffusers",
            package="diffusers",
            samplers=(
                _ddim(name="ddim", settings=DDIM),
                _ddim(name="ddim_temperature_1", settings=DDIM | T1, law_level="full"),
                *(
                    _ddim(
                        name=f"ddim_corrector_{selection}",
                        source=CLAIMED["corrector"],
                        settings=DDIM | T1 | {"corrector_steps": 1, "corrector_selection": selection},
                    )
                    for selection in ("lowest_log_margin", "random")
                ),
                _scheduler(
                    name="block_refinement",
                    file="diffusers.schedulers.scheduling_block_refinement",
                    function="BlockRefinementScheduler.step",
                    noise="absorbing",
                    claims="mode",
                    source=CLAIMED["block"],
                    settings={"class": "BlockRefinementScheduler"},
                ),
                _scheduler(
                    name="entropy_bound",
                    file="diffusers.schedulers.scheduling_entropy_bound",
                    function="EntropyBoundScheduler.step",
                    claims="mode",
                    source=CLAIMED["entropy"],
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
                ),
            ),
        ),
    }
)


def peer(name: str) -> Peer:
    """The project called `name` in the catalogue PEERS; ValueError for an unknown name."""
    if name not in PEERS:
        raise ValueError(f"no peer {name!r}; {nearest(name, list(PEERS))}")
    return PEERS[name]


def load(target: str) -> Callable[..., Any]:
    """The sampler that `target` names as PEER:SAMPLER=FOLDER (FOLDER empty: an installed package), as a function
    f(space, n, steps, seed) that draws n sentences, [n, L] ids, of the small language `space` in `steps` steps.
    ValueError if its file cannot be imported or lacks a name that the adapter uses."""
    name, _, folder = target.partition("=")
    of, _, sampler = name.partition(":")
    found = {one.name: one for one in peer(of).samplers}[sampler]
    try:
        return found.call(Path(folder) if folder else None)
    except AttributeError as error:
        raise ValueError(
            f"{found.file} of this version of {of} does not have what sampler {found.function} needs ({error}); give an"
            " older version"
        ) from error
