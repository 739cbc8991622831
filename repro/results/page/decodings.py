"""Recorded decodings of the settings that the page plots (docs/traces/items, written by scripts/items.py), as frames.

A position is *noise* until the sampler writes it, *new* in the step that writes it, *revised* in a step that replaces a
written token, and *settled* otherwise. A frame holds the text and one letter of n, w, r, s for each position.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from repro.core.files import ROOT
from repro.core.reading import read_json
from repro.results.record import Labels, Record

FORMAT = 1
FOLDER = ROOT / "docs" / "traces" / "items"
MASK = "·"
TRAIN_SEED = 0
"""Train seed of the networks whose decodings of sudokus are recorded."""
REMEDY = "python -m scripts.items --record RUNS writes it again"
LAWS = {
    "absorbing": (
        *("ancestral", "random:temperature=1.0", "entropy:temperature=1.0", "low_confidence:temperature=1.0"),
        *("low_confidence", "remdm_conf", "forward_backward"),
    ),
    "uniform": ("ancestral", "corrector", "corrector_margin", "greedy_tail", "renoise"),
}
"""Presets whose exact output law the page plots, by noise process: at most eight lines a plot."""
SPACE = "27 sentences"


def is_plotted(preset: str, number: Mapping[str, Any]) -> bool:
    """Whether the page plots `number`, one of the statistics in the certificate of the sampler preset `preset`: it does
    if the statistic is the total variation from the true distribution on the language of 27 sentences, measured with
    the exact denoiser, and the preset is one of LAWS."""
    wanted = {"oracle": "exact", "statistic": "total variation", "space": SPACE}
    return preset in LAWS.get(number["noise"], ()) and all(number[k] == v for k, v in wanted.items())


def is_timed_sudoku(record: Record) -> bool:
    """Whether a record holds accuracy and decoding speed on the sudokus of evals/data/sudoku.jsonl."""
    task = record.question.task
    return task.get("part") == "decoding_speed" and task["of"].get("task") == "sudoku"


def law_path(noise: str, preset: str, steps: int | None) -> Path:
    """Path of the file of decodings by a preset in `steps` steps (None: adaptive) on the language of 27 sentences under
    a noise process (`absorbing` or `uniform`)."""
    return FOLDER / "sentences" / _file_name(noise, preset, "adaptive" if steps is None else str(steps))


def sudoku_path(labels: Labels) -> Path:
    """Path of the file of sudoku decodings by the recipe, preset and tokens per step that a record's labels name."""
    return (
        FOLDER
        / "sudoku"
        / _file_name(labels.recipe, labels.preset or "", labels.tokens_per_step or "adaptive")
    )


def _file_name(*words: str) -> str:
    return re.sub(r"[^\w@.=+-]", "_", ".".join(words), flags=re.ASCII) + ".json"


def dumped(content: Mapping[str, Any]) -> str:
    """Text of a file of decodings: JSON with one line for each item."""
    head = json.dumps({k: v for k, v in content.items() if k != "items"}, allow_nan=False)
    items = (
        json.dumps(each, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
        for each in content["items"]
    )
    return f'{head[:-1]}, "items": [\n' + ",\n".join(items) + "\n]}\n"


def decoded(path: Path, wanted: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """The items (decoded texts) of a file of decodings, each with its `frames`; None if there is no such file, or if
    fields of the file differ from those in `wanted` (field -> value), as settings of another version do. ValueError if
    the steps of an item do not lead to its text."""
    if not path.is_file():
        return None
    stored = read_json(path, dict, REMEDY)
    if any(stored.get(key) != value for key, value in wanted.items()):
        return None
    return [
        {
            **{name: each[name] for name in ("item", "prompt", "right", "text")},
            "frames": frames(each, path),
        }
        for each in stored["items"]
    ]


def frames(item: Mapping[str, Any], path: Path) -> list[dict[str, Any]]:
    """Frames of an item (decoded text) of a file of decodings: before the first step, after each step, and at the end.

    A frame holds the text `t`, the state letters `s` (see the module), the number `f` of forward passes so far, the
    probability `p` of each token that the step wrote, by position, the KL divergence `k` in nats of the true joint law
    of these positions from the step's independent draws, and the number `b` of sudoku boards that still agree with the
    text; `k` and `b` are None where they are not defined. `path`: the file, for messages.
    """
    tokens, written = list(item["start"]), set[int]()
    found: list[dict[str, Any]] = [
        {"t": item["start"], "s": "n" * len(tokens), "f": 0, "p": {}, "k": None, "b": None}
    ]
    for step in item["steps"]:
        states = {}
        for place, token, _, revised in step["writes"]:
            tokens[place] = token
            states[place] = "r" if revised else "w"
            (written.discard if token == MASK else written.add)(place)
        letters = (states.get(i, "s") if i in written else "n" for i in range(len(tokens)))
        found.append(
            {
                **{"t": "".join(tokens), "s": "".join(letters), "f": step["forwards"]},
                **{"p": {str(place): sure for place, _, sure, _ in step["writes"]}},
                **{"k": step["kl"], "b": step["fits"]},
            }
        )
    if "".join(tokens) != item["text"]:
        raise ValueError(
            f"{path}: the steps of item {item['item']} lead to {''.join(tokens)!r}, its text is {item['text']!r};"
            f" {REMEDY}"
        )
    last = found[-1]
    return [*found, {**last, "s": "s" * len(tokens), "p": {}, "k": None}]
