"""Samplers by name: presets, `PRESET:field=value` to change a preset, and `+NAME` to add a logits processor.

python -m repro.evals list samplers              lists all names
low_confidence:temperature=1.0                   a changed preset; tables show it under this name
low_confidence+guided:scale=1.0+nucleus:p=0.9    a sampler with two logits processors, which act from left to right
random:temperature=1.0+lookahead:states=8        the same output, fewer sequential passes (`repro.samplers.lookahead`)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

from repro.core import parts, registry
from repro.core.errors import nearest
from repro.core.parts import Part
from repro.samplers.ancestral import Ancestral
from repro.samplers.corrector import Anywhere, Corrected, Doubtful
from repro.samplers.logits_processors import LogitsProcessor, ProcessedSampler
from repro.samplers.lookahead import STATES, Lookahead
from repro.samplers.psi import ConstantSigma, Kappa, MaxCapped, MaxRescaled, Psi, PurePosterior
from repro.samplers.sampler import Sampler
from repro.samplers.tail import DrawnRemoval, GreedyRemoval, HeldTimes, LinearTimes, Tail

P = TypeVar("P", bound=Part)


def _psi(kappa: Kappa) -> Tail:
    """Duo's psi sampler with the schedule `kappa` (weight of the reverse step in the sampler's mixture) at all steps;
    the noise that remains at the end is removed by a draw (`DrawnRemoval`)."""
    rule = Psi(high=kappa, middle=kappa, low=kappa, high_frac=0.0, middle_frac=0.0)
    return Tail(rule=rule, times=LinearTimes(end=1e-5), removal=DrawnRemoval())


COMBINED: dict[str, tuple[Sampler, str, str | None]] = {
    "drawn_tail": (
        Tail(rule=Ancestral(), times=LinearTimes(end=1e-5), removal=DrawnRemoval()),
        "reverse process to 1e-5, then draws what is left: Duo, N + 1 forwards (docs/method.md#uniform-samplers)",
        "2506.10892",
    ),
    "greedy_tail": (
        Tail(rule=Ancestral(), times=LinearTimes(end=1e-5), removal=GreedyRemoval()),
        "reverse process, then the likeliest ids: Duo, greedy; MDLM's loop (docs/method.md#uniform-samplers)",
        "2506.10892",
    ),
    "psi_cap": (
        _psi(MaxCapped(eta=0.01)),
        "noises and denoises, capped: Duo's *_max_capped_remdm.sh, +top_p:p=0.9 (docs/method.md#uniform-samplers)",
        "2602.21185",
    ),
    "psi_rescale": (
        _psi(MaxRescaled(eta=0.05)),
        "noises and denoises: Duo's *_max_rescale_eta.sh, +top_p:p=0.9 (docs/method.md#uniform-samplers)",
        "2602.21185",
    ),
    "psi_loop": (
        Tail(
            rule=Psi(
                high=PurePosterior(),
                middle=ConstantSigma(eta=0.01),
                low=PurePosterior(),
                high_frac=0.45,
                middle_frac=0.5,
            ),
            times=HeldTimes(level=0.1, high=0.45, middle=0.5, end=1e-5),
            removal=DrawnRemoval(),
        ),
        "noises and denoises in a loop: Duo's *_loop_remdm.sh, +top_p:p=0.95 (docs/method.md#uniform-samplers)",
        "2602.21185",
    ),
    "corrector": (
        Corrected(rule=Ancestral(), choice=Anywhere(), sweeps=1, count=1),
        "draws ids again given all others, at positions chosen independently of tokens: exact",
        "2605.22765",
    ),
    "corrector_margin": (
        Corrected(rule=Ancestral(), choice=Doubtful(temperature=1.0), sweeps=1, count=1),
        "draws doubtful ids again: diffusers' DiscreteDDIMScheduler, lowest_log_margin, tau 1",
        "2605.22765",
    ),
}
"""Presets that combine a sampler with other components, such as a schedule of times, each with what it does, the source
of its values and the arXiv number of its paper; those of a single sampler are with its class (`Sampler.presets`)."""


def _collected(
    kind: type[P], combined: Mapping[str, tuple[P, str, str | None]]
) -> dict[str, tuple[P, str, str | None]]:
    """All presets of the class `kind` (`Sampler` or `LogitsProcessor`): name -> (component, what it does and the source
    of its values, arXiv number). The order is that of the registered classes; for each class its own presets come
    first, then those of `combined` (presets that combine several components) whose component is of this class."""
    found: dict[str, tuple[P, str, str | None]] = {}
    for path in registry.PARTS.values():
        cls = registry.resolve(path) if path.startswith("repro.samplers.") else Part
        if not issubclass(cls, kind):
            continue
        own = {
            each.name: (cls(**each.settings), each.source, each.paper)
            for each in vars(cls).get("presets", ())
        }
        for name, each in {**own, **{n: c for n, c in combined.items() if type(c[0]) is cls}}.items():
            assert name not in found, f"two presets are called {name}"
            found[name] = each
    return found


_SAMPLERS = _collected(Sampler, COMBINED)
_PROCESSORS = _collected(LogitsProcessor, {})
PRESETS = {name: sampler for name, (sampler, *_) in _SAMPLERS.items()}
LOGITS_PROCESSORS = {name: processor for name, (processor, *_) in _PROCESSORS.items()}
SOURCES = {name: source for name, (_, source, _) in {**_SAMPLERS, **_PROCESSORS}.items()}
"""For each preset and logits processor, what it does and the source of its values."""
PAPERS = {name: paper for name, (*_, paper) in {**_SAMPLERS, **_PROCESSORS}.items()}
"""For each preset and logits processor, the arXiv number of its paper; None if it has none."""


LISTED = {"preset": "samplers", "logits processor": "processors"}
"""Kind of name -> argument of `python -m repro.evals list` that lists all names of this kind."""


def preset(name: str) -> Sampler:
    """The sampler with the name `PRESET+PROCESSOR+...`, where preset and logits processors are each `NAME` or
    `NAME:field=value,field=value`, and the first processor acts first on the logits. With `+lookahead` or
    `+lookahead:states=m` at the end it runs with lookahead (`repro.samplers.lookahead`).

    Raises ValueError for an unknown preset, logits processor or field, with the most similar valid name, and for a
    logits processor that would change nothing in the sampler.
    """
    base, *names = re.split(r"\+(?=[a-z_])", name)
    if any(text.partition(":")[0] == "lookahead" for text in names[:-1]):
        raise ValueError(f"{name}: lookahead comes last; write +lookahead at the end")
    last = names.pop() if names and names[-1].partition(":")[0] == "lookahead" else None
    found = _derived(base, PRESETS, "preset")
    for processor in reversed([_derived(text, LOGITS_PROCESSORS, "logits processor") for text in names]):
        found = ProcessedSampler(shape=processor, rule=found)
    return found if last is None else _looking_ahead(found, last)


def default_preset(noise: str, likely: bool) -> str:
    """Name of the preset for models with this family of noise (`Process.noise`) if the user chooses none. With
    `likely`, as after a prompt, it is one that seeks a likely text, else one that draws from the model's distribution;
    for uniform noise it is "ancestral" in both cases."""
    if noise == "left_to_right":
        return "greedy" if likely else "sample"
    return "low_confidence" if likely and noise == "absorbing" else "ancestral"


def _looking_ahead(rule: Sampler, text: str) -> Sampler:
    """The sampler `rule` with lookahead over `STATES` states, or over m states if `text` is `lookahead:states=m`
    instead of `lookahead`."""
    pins = parts.parse_overrides(split_pins(text.partition(":")[2])) if ":" in text else {}
    return parts.derive(Lookahead(rule=rule, states=STATES), pins)


def _derived(text: str, table: dict[str, P], kind: str) -> P:
    base, _, overrides = text.partition(":")
    if base not in table:
        raise ValueError(
            f"there is no {kind} {base!r}; {nearest(base, table)} (`python -m repro.evals list {LISTED[kind]}` lists"
            " all with what they do)"
        )
    pins = parts.parse_overrides(split_pins(overrides)) if overrides else {}
    return parts.derive(table[base], pins)


def split_pins(text: str, between: str = ",") -> list[str]:
    """The pieces of `text`, such as "a=1,b=[2,3]", split at every character that is in `between`, except inside square
    brackets and braces."""
    depth, found = 0, [""]
    for letter in text:
        depth += (letter in "[{") - (letter in "]}")
        if letter in between and depth <= 0:
            found.append("")
        else:
            found[-1] += letter
    return found


def describe(sampler: Part) -> str:
    """Registered name and settings of a sampler or logits processor in one line, as `name(field=value, ...)`."""
    pins = ", ".join(f"{name}={value}" for name, value in parts.leaves(sampler).items() if name)
    return f"{parts.part_name(type(sampler))}({pins})"
