"""What a task of lm-eval asks of generation, and where the sampler and its plan do something else.

Stop strings and lengths are always honoured. Of the rest the policy "suite" keeps the sampler's and says so in the
question's protocol (field -> what was asked, what is done), "task" is an error.
"""

from __future__ import annotations

from typing import Any

from repro.core import parts
from repro.samplers.sampler import Sampler

GREEDY = ("do_sample", "temperature")
LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
DEFAULT_LENGTH = 256
"""lm-eval's, where a task does not say."""
Conflicts = dict[str, tuple[Any, Any]]


def length_asked(asked: dict[str, Any]) -> int:
    """The most ids that a task asks for."""
    lengths = [int(asked[name]) for name in LENGTHS if asked.get(name) is not None]
    return lengths[0] if lengths else DEFAULT_LENGTH


def conflicts(asked: dict[str, Any], sampler: Sampler, most: int | None) -> Conflicts:
    """Field -> (what the task asks, what is done); `most`: ids that a plan has room for (None: as many as asked)."""
    known = (*GREEDY, *LENGTHS, "until")
    found: Conflicts = {name: (value, None) for name, value in asked.items() if name not in known}
    temperature = float(parts.leaves(sampler).get("temperature", 1.0))
    if asked.get("do_sample") is False and temperature > 0:
        found["do_sample"] = (False, f"temperature {temperature}")
    elif asked.get("do_sample") is not False and asked.get("temperature", temperature) != temperature:
        found["temperature"] = (asked["temperature"], temperature)
    elif asked.get("do_sample") and temperature == 0:
        found["do_sample"] = (True, "temperature 0")
    said = any(asked.get(name) is not None for name in LENGTHS)
    if most is not None and said and length_asked(asked) > most:
        found["max_gen_toks"] = (length_asked(asked), most)
    return found
