"""Cases that spoil one file in every way of `fuzz.mutations`: its text, bytes and kind, and each value in it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fuzz import mutations
from fuzz.machine import Case
from fuzz.mutations import Spoil


def whole(area: str, world: str, file: str, argv: tuple[str, ...], **more: Any) -> Iterator[Case]:
    """Cases that spoil the text, the bytes or the kind of one file."""
    named = (Path(file).name, *more.pop("also", ()))
    for what, spoil in (*mutations.kinds(file), *mutations.texts(file)):
        yield Case(area, f"{file}: {what}", world, argv, named, spoil, **more)


def fields(
    area: str,
    world: str,
    file: str,
    data: Any,
    argv: tuple[str, ...],
    write: Callable[[str, Any], Spoil],
    **more: Any,
) -> Iterator[Case]:
    """Cases that replace or remove each value in a file, whose content is `data`; the message names file or field."""
    also, valid = more.pop("also", ()), more.pop("valid", False)
    for what, place, changed in mutations.values(data):
        places = tuple(str(step) for step in place if isinstance(step, str))[-1:]
        value = mutations.VALUES.get(re.split("[= ]", what)[-1])
        places += (value,) if isinstance(value, str) and value else ()
        right = valid or _right(places[0] if places else "", re.split("[= ]", what)[-1])
        yield Case(
            area,
            f"{file}: {what}",
            world,
            argv,
            (Path(file).name, *places, *also),
            write(file, changed),
            valid=right,
            **more,
        )


def from_json(
    area: str, out: Path, world: str, file: str, argv: tuple[str, ...], **more: Any
) -> Iterator[Case]:
    data = json.loads((out / world / file).read_text("utf-8"))
    yield from whole(area, world, file, argv, **more)
    yield from fields(area, world, file, data, argv, mutations.write_json, **more)
    if isinstance(data, dict):
        named = (Path(file).name, *more.pop("also", ()))
        for what, spoil in mutations.doubled(file):
            yield Case(area, f"{file}: {what}", world, argv, named, spoil, **more)


def resealed(data: Any) -> Any | None:
    """A record with right hashes, as another programme would write it; None where its question cannot be read."""
    from repro.results.record import HASHES, Question, sha256, text

    try:
        asked = Question.read(data["question"])
        data = {**data, **{each: getattr(asked, each) for each in HASHES}}
        return {**data, "sha256": sha256(text({k: v for k, v in data.items() if k != "sha256"}))}
    except (ValueError, KeyError, TypeError):
        return None


RIGHT = (
    (r"ids", r"list"),  # an empty sample is left out, with its count
    (r"seed|step|pad_token_id|bos_token_id|eos_token_id|doc_id", r"0|1e9"),
    (r".*_eps|.*epsilon|rope_theta|.*rope_theta|dropout", r"1\.5|1e9|1e30|0"),
    (r"max_position_embeddings|max_sequence_length|model_length|n_positions", r"1e9"),
    (r"optimizer\.safetensors", r"missing"),  # weights that can be read, and a run that cannot go on
    (r"logits_within|nll_within", r"0|1\.5|1e9|1e30"),
    (r"ids", r"0|1e9|missing"),
    (r"acc", r"-1|0|1\.5|1e9|1e30|true"),
    (r"bos_token|eos_token", r"missing|null"),
    (r"bos_token", r"empty"),  # what a template writes is then empty
    (r"\s*", r"missing"),  # a tokenizer with one piece less
    (r"metric_list", r"null"),  # lm-eval's own metrics of the output type
    (r"rms_norm_eps", r"missing"),  # transformers leaves out defaults
    (r"chat_template", r"text|up"),
    (r"text", r"text|up|empty"),  # a sample with too few ids is left out, with its count
    (r"task|doc_to_text|target_delimiter|version|doc_to_target", r".*"),
    (r"distributed_type", r".*"),  # what accelerate makes of it
    (r"fsdp_reshard_after_forward", r"0|true"),
    (r"of|recorded|defect|says|name|source|claim|statistic|oracle|space|kind", r".*"),
)
"""(setting, names of `mutations.VALUES`) of other values that are right too."""


def _right(field: str, value: str) -> bool:
    return any(re.fullmatch(name, field) and re.fullmatch(values, value) for name, values in RIGHT)
