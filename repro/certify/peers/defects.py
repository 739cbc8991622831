"""What refused samplers do wrong, one sentence each, found by reading the peers' files after a test had refused them.

The rows of peers.json repeat these sentences (`command.certified`). Line numbers belong to the commit that is named;
another commit may have mended the defect, which the tests would show.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

FIRST = "at temperature 1 the likeliest of the drawn tokens is committed first, so that likely texts come too often"
RACE = "Gumbel noise in float32, from uniform numbers of 24 bits: ids of probability below about 6e-8 are never drawn"
MDLM = f"{RACE} (kuleshov-group/mdlm@c112c52 diffusion.py:24-28)."
DDIM = "huggingface/diffusers@v0.42.1 src/diffusers/schedulers/scheduling_discrete_ddim.py"
DEFECTS: Mapping[tuple[str, str], str] = MappingProxyType(
    {
        ("LLaDA", "low_confidence"): f"{FIRST} (ML-GSAI/LLaDA@b7e6c35 generate.py:93-118).",
        ("Fast-dLLM", "low_confidence"): f"{FIRST} (NVlabs/Fast-dLLM@24cc59e llada/generate.py:237-256).",
        ("dllm", "low_confidence"): f"{FIRST} (ZHZisZZ/dllm@ca17675 dllm/core/samplers/mdlm.py:186-230).",
        ("mdlm", "ddpm_cache"): MDLM,
        ("mdlm", "ddpm"): MDLM,
        ("mdlm", "analytic"): MDLM,
        (
            "remdm",
            "remdm-conf",
        ): "masked positions get remasking rate 0, so that nothing makes up for the tokens that are "
        "masked again: before the last of 64 steps .114 of the tokens are masked where the schedule has .016, and they "
        "are drawn at once (kuleshov-group/remdm@f830d65 diffusion.py:736-743).",
        ("remdm", "dfm"): "with the default nucleus_p of 1, p_x0 is never set (kuleshov-group/remdm@f830d65 "
        "diffusion.py:612-624).",
        (
            "duo",
            "duo_greedy_tail",
        ): "the last step puts the argmax given the other tokens at all positions at once, which "
        "makes sentences hardly likelier (s-sahoo/duo@7c9b498 trainer_base.py:794-796).",
        ("diffusers", "ddim"): f"x0 is the argmax, not a draw, unless a temperature is given ({DDIM}:151).",
        (
            "diffusers",
            "ddim_corrector_lowest_log_margin",
        ): "positions are chosen by the margin of the token that stands "
        f"there, which resampling changes, so that the sweep does not preserve p_s ({DDIM}:236-246).",
    }
)
"""(peer, sampler) -> a sentence on what the sampler does wrong."""
