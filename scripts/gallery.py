"""Make the gallery of decoding strategies, docs/gallery.md, and the animated pictures of README and gallery.

    python -m scripts.gallery                    page and pictures, from docs/gallery.toml, traces and certificates
    python -m scripts.gallery --check            exit code 1 if page or a picture is not current
    python -m scripts.gallery --record RUNS      first record missing and outdated traces, with the models in RUNS

Every preset decodes one puzzle with the small model of its noise process. A trace (docs/traces/PRESET.json) is what
`python -m repro.sample --trace` writes, and the tokens before the first step; page and pictures are pure functions of
the files named above.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from repro.core.cli import Parser, run
from repro.core.files import ROOT, write_text
from repro.core.parts import canonical
from repro.core.reading import read_json, read_toml
from repro.data.sudoku import boards
from repro.results import certificates
from repro.samplers.presets import PAPERS, PRESETS, SOURCES
from scripts.denoising import panel, picture

DOCS = ROOT / "docs"
PAGE, ABOUT, TRACES = DOCS / "gallery.md", DOCS / "gallery.toml", DOCS / "traces"
README = DOCS / "images" / "denoising.svg"
PROMPT = ".......43.2.12..="
"""The first puzzle of evals/data/sudoku.jsonl."""
MODELS = {
    "uniform": "duo_nelbo@nano.sudoku",
    "absorbing": "llada@nano.sudoku",
    "left_to_right": "ar@nano.sudoku",
}
"""Noise process -> recipe of the model that shows it; a preset for several processes is shown with the first."""
SHOWN = {
    "greedy": "left to right",
    "low_confidence": "masked diffusion",
    "threshold_0.9": "the same in parallel",
    "ancestral": "uniform diffusion",
}
"""Presets of the README's picture, with their titles there."""


REMEDY = "`python -m scripts.gallery --record RUNS` records it"
CLAIMS = {
    "law": "that its texts follow the model's distribution",
    "mode": "that it seeks likely texts",
    "biased": "no distribution",
}
"""What a preset claims (`repro.samplers.sampler.Claim`), in words."""
HEAD = """# Gallery of decoding strategies

<!-- made by scripts/gallery.py -->

The {count} sampler presets, each with one sentence, its paper, what its
[certificate](certify.md) says, and a recorded decoding of the same 4x4 sudoku, `{prompt}`: the clues line by line
(tinted), then `=`, after which the model writes all 16 cells. Blue digits were written in this step, orange ones
replaced an earlier one, grey ones are noise. It is the first puzzle of `evals/data/sudoku.jsonl`, with seed 0. A
picture shows one decoding, not how good a preset is: for that see [results](results.md).

The models take a minute each on one core:

```sh
{train}
```

`+NAME` adds a logits processor to a preset, and `:field=value` changes a setting:

```sh
python -m repro.sample --ckpt runs/llada@nano.sudoku-s0 --prompt "{prompt}" --sampler ancestral+nucleus:p=0.9 --watch
python -m repro.evals list samplers
python -m repro.evals list processors
```
"""


class Entry(Struct, frozen=True, forbid_unknown_fields=True):
    """What docs/gallery.toml says about a preset: a sentence, and arXiv numbers of papers beside the preset's own."""

    says: str
    also: list[str] = []


def noise_of(name: str) -> str:
    """The noise process with which a preset is shown."""
    return next(noise for noise in MODELS if noise in PRESETS[name].capabilities.processes)


def entries() -> dict[str, Entry]:
    """Entry of each preset, in the order of the registry; ValueError for a preset without one, or the reverse."""
    found = read_toml(ABOUT, dict[str, Entry])
    for name in sorted(PRESETS.keys() ^ found.keys()):
        where = "has no entry" if name in PRESETS else "is no preset, but has an entry"
        raise ValueError(f"{ABOUT}: {name} {where}; correct the file")
    return {name: found[name] for name in PRESETS}


def trace_of(name: str) -> dict[str, Any]:
    """The recorded trace of a preset; ValueError where there is none, or one of other settings or another prompt."""
    path = TRACES / f"{name}.json"
    if not path.is_file():
        raise ValueError(f"{path} is missing; {REMEDY}")
    found = read_json(path, dict)
    wanted = {"sampler": canonical(PRESETS[name]), "recipe": MODELS[noise_of(name)], "prompt": PROMPT}
    for key, value in wanted.items():
        if found.get(key) != value:
            raise ValueError(f"{path}: {key} is {found.get(key)}, not {value}; {REMEDY}")
    return found


def is_stale(name: str) -> bool:
    """Whether the trace of a preset is missing or of other settings."""
    try:
        trace_of(name)
    except ValueError:
        return True
    return False


def record(name: str, folder: Path) -> dict[str, Any]:
    """Decode `PROMPT` with a preset and the model of a run folder, one step a token, and return the trace."""
    from repro.model import load
    from repro.samplers.decode import steps
    from repro.samplers.plan import plan_for
    from repro.samplers.trace import Trace, symbol

    model, rule = load(folder), PRESETS[name]
    ids = model.data.prompt(PROMPT)
    plan = plan_for(rule, model.data.row_length() - len(ids), None, None, None)
    trace, start = Trace(model.data), None
    arguments = (model.denoiser, model.recipe.process, rule, plan, [ids])
    for decoder, frame in steps(*arguments, seed=0, names=[0], confidence=True):
        if start is None:
            start = [symbol(model.data, token) for token in frame.before[0, decoder.start :].tolist()]
        trace.add(decoder, frame)
    made_by = {"checkpoint": model.digest, "recipe": model.recipe.name}
    return {**trace.json(made_by, rule, plan, 0, PROMPT), "start": start}


def files() -> Iterator[tuple[Path, str]]:
    """(path, content) of every derived file."""
    about = entries()
    traces = {name: trace_of(name) for name in about}
    panels = [panel(title, traces[name]) for name, title in SHOWN.items()]
    yield README, picture(panels, legend=True)
    for name, trace in traces.items():
        yield DOCS / "images" / "gallery" / f"{name}.svg", picture([panel(name, trace)], legend=False)
    yield PAGE, page(about, traces)


def page(about: dict[str, Entry], traces: dict[str, dict[str, Any]]) -> str:
    """Text of docs/gallery.md."""
    stored = {one["preset"]: one for one in certificates.read(certificates.FOLDER)}
    rows = [
        HEAD.format(
            count=len(about),
            prompt=PROMPT,
            train="\n".join(
                "python -m repro.recipes {} --scale {}".format(*name.split("@")) for name in MODELS.values()
            ),
        )
    ]
    titles = {
        "absorbing": "Masked diffusion",
        "uniform": "Uniform diffusion",
        "left_to_right": "Left to right",
    }
    for noise, title in titles.items():
        rows.append(f"## {title}\n\nShown with the model `{MODELS[noise]}`.\n")
        rows += [
            _section(name, entry, traces[name], stored)
            for name, entry in about.items()
            if noise_of(name) == noise
        ]
    return "\n".join(rows)


def _section(name: str, entry: Entry, trace: dict[str, Any], stored: dict[str, Any]) -> str:
    own = PAPERS[name]
    numbers = entry.also if own is None else [own, *entry.also]
    links = ", ".join(f"[arXiv {number}](https://arxiv.org/abs/{number})" for number in numbers)
    verdicts = stored[name]["verdicts"] if name in stored else []
    said = "; ".join(f"{each['noise'].replace('_', ' ')}: {each['says']}" for each in verdicts)
    clues = trace["prompt"].removesuffix("=")
    right = trace["text"] in boards() and all(
        c in (".", d) for c, d in zip(clues, trace["text"], strict=True)
    )
    fits = ", ".join(sorted(each.replace("_", " ") for each in PRESETS[name].capabilities.processes))
    return f"""### `{name}`

<img src="images/gallery/{name}.svg" alt="Decoding with {name}" align="right">

{entry.says}

- Paper: {links or "none"}. Settings: {_linked(SOURCES[name])}.
- Noise: {fits}.
- [Certificate](certify.md): claims {CLAIMS[PRESETS[name].claim()]}; {said or "none stored"}.
- Here: {trace["steps"][-1]["forwards"]} forward passes; the board {"is right" if right else "breaks the rules"}.

<br clear="right">
"""


def _linked(source: str) -> str:
    """A source with its anchors of docs/method.md as links."""
    return re.sub(r"docs/(method\.md#([\w-]+))", r"[\2](\1)", source)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns 1 if `--check` finds a stale file, else 0."""
    parser = Parser(
        "python -m scripts.gallery",
        "Make the gallery of decoding strategies and the animated pictures.",
        ["python -m scripts.gallery", "python -m scripts.gallery --check"],
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; say whether page and pictures are current"
    )
    parser.add_argument(
        "--record",
        type=Path,
        metavar="RUNS",
        help="first record traces that are missing or of other settings, with the runs MODEL-s0 of this folder",
    )
    args = parser.parse_args(argv)
    if args.record:
        for name in filter(is_stale, entries()):
            trace = record(name, args.record / f"{MODELS[noise_of(name)]}-s0")
            write_text(TRACES / f"{name}.json", json.dumps(trace, ensure_ascii=False) + "\n")
    made = dict(files())
    pictures = set((DOCS / "images" / "gallery").glob("*.svg")) | set(TRACES.glob("*.json"))
    extra = sorted(path for path in pictures if path.stem not in PRESETS)
    if args.check:
        stale = [path for path, text in made.items() if not path.is_file() or path.read_text("utf-8") != text]
        for path in [*stale, *extra]:
            print(f"{path} is stale; python -m scripts.gallery writes it anew")
        return 1 if stale or extra else 0
    for path in extra:
        path.unlink()
    for path, text in made.items():
        write_text(path, text)
    print(f"wrote {PAGE} and {len(made) - 1} pictures")
    return 0


if __name__ == "__main__":
    run(main, "scripts.gallery")
