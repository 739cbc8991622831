"""Comparison of an lm-eval task's generation arguments (`generation_kwargs` of its YAML) with the settings of the
sampler and its decoding plan.

Stop strings and lengths are always applied. For the other arguments the policy "suite" uses the sampler's setting and
stores the difference in the result's record (argument -> requested value, value used); the policy "task" raises
ValueError.
"""

from __future__ import annotations

from typing import Any

from repro.core import parts
from repro.samplers.sampler import Sampler

SAMPLING_FIELDS = ("do_sample", "temperature")
LENGTH_FIELDS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""Generation arguments that set the maximum length, in order of priority (lm-eval 0.4.13
lm_eval/models/utils.py:684)."""
DEFAULT_LENGTH = 256
"""lm-eval's maximum number of generated tokens for a task that sets none (lm-eval 0.4.13
lm_eval/models/utils.py:659)."""
Conflicts = dict[str, tuple[Any, Any]]
"""Generation argument -> (value that the task requests, value used)."""


def has_length(arguments: dict[str, Any]) -> bool:
    """Whether the generation arguments (name -> value) set a maximum number of generated tokens."""
    return any(arguments.get(name) is not None for name in LENGTH_FIELDS)


def requested_length(arguments: dict[str, Any]) -> int:
    """Maximum number of generated tokens that the generation arguments (name -> value) set, or lm-eval's default,
    256."""
    lengths = (int(arguments[name]) for name in LENGTH_FIELDS if arguments.get(name) is not None)
    return next(lengths, DEFAULT_LENGTH)


def conflicts(arguments: dict[str, Any], sampler: Sampler, max_length: int | None) -> Conflicts:
    """Generation argument -> (value that the task requests, value used), for each of `arguments` (name -> value) that
    differs from the sampler's settings or has no counterpart there (used: None), and for a requested length of more
    than the decoding plan's `max_length` tokens (None: the plan takes the task's length)."""
    known = (*SAMPLING_FIELDS, *LENGTH_FIELDS, "until")
    found: Conflicts = {name: (value, None) for name, value in arguments.items() if name not in known}
    temperature = float(parts.leaves(sampler).get("temperature", 1.0))
    do_sample = arguments.get("do_sample")
    if do_sample is False and temperature > 0:
        found["do_sample"] = (False, f"temperature {temperature}")
    elif do_sample is not False and arguments.get("temperature", temperature) != temperature:
        found["temperature"] = (arguments["temperature"], temperature)
    elif do_sample and temperature == 0:
        found["do_sample"] = (True, "temperature 0")
    if max_length is not None and has_length(arguments) and requested_length(arguments) > max_length:
        found["max_gen_toks"] = (requested_length(arguments), max_length)
    return found
