"""Animated pictures of recorded decodings of 4x4 sudokus: SVG with CSS, a pure function of trace files, without scripts
or fonts.

    picture([panel("low_confidence", trace), ...])        panels side by side, one board each

A trace is what `python -m repro.sample --trace` writes, with the tokens before the first step as `start`. A position is
*noise* until the sampler writes it (a dot where it is masked), *new* in the step that writes it, *revised* in a step
that replaces a written token, and *settled* otherwise; after the last step all are settled. Where motion is not wanted
(prefers-reduced-motion), and where animation is not supported, the picture shows the final text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

COLUMNS, CELL, GAP, TOP = 4, 30, 34, 46
FRAME, HOLD = 0.4, 2.6
"""Seconds that a step is shown, and the final text in addition."""
STATES = ("noise", "new", "revised", "settled")
MASK = "·"
STYLE = """
text{{font-family:ui-monospace,Menlo,Consolas,monospace;text-anchor:middle;fill:#1d2b3a}}
.title{{font:600 13px system-ui,sans-serif}}.note,.legend{{font:11px system-ui,sans-serif;fill:#51606e}}
.board{{fill:#fff;stroke:#b6c2cd}}.clue{{fill:#e9eff5}}.line{{stroke:#dde4ea}}.box{{stroke:#b6c2cd}}.bar{{fill:#8a97a3}}
.run{{font-size:17px;opacity:0}}.last{{opacity:1}}
.noise{{fill:#a9b4be}}.new{{fill:#0b62c4;font-weight:700}}
.revised{{fill:#b3450b;font-weight:700;text-decoration:underline}}
.legend tspan{{font-weight:700}}
@media (prefers-color-scheme:dark){{text{{fill:#e4ebf2}}.note,.legend{{fill:#a5b2be}}
.board{{fill:#161d24;stroke:#4a5763}}.clue{{fill:#26313b}}.line{{stroke:#2b353f}}.box{{stroke:#4a5763}}
.noise{{fill:#6c7a87}}.new{{fill:#6db3ff}}.revised{{fill:#ff9a5c}}}}
@media (prefers-reduced-motion:no-preference){{.run,.bar{{animation:{seconds:g}s step-end infinite}}
.bar{{animation-timing-function:linear;transform-box:fill-box;transform-origin:left}}
{keyframes}}}"""


@dataclass(frozen=True)
class Panel:
    """One decoding: title, a note below it, the text and state of every position in each frame, and the positions
    whose text the prompt gives (tinted)."""

    title: str
    note: str
    frames: list[list[tuple[str, str]]]
    given: frozenset[int]


def panel(title: str, trace: Mapping[str, Any]) -> Panel:
    """The panel of a trace; ValueError where its steps do not lead to its text."""
    forwards = trace["steps"][-1]["forwards"]
    given = frozenset(i for i, clue in enumerate(trace["prompt"].removesuffix("=")) if clue != ".")
    return Panel(title, f"{forwards} forward pass{'es' * (forwards != 1)}", frames(trace), given)


def frames(trace: Mapping[str, Any]) -> list[list[tuple[str, str]]]:
    """(text, state) of every position before the first step, after each step, and at the end."""
    tokens, written = list(trace["start"]), set()
    found = [[(token, "noise") for token in tokens]]
    for step in trace["steps"]:
        states = {}
        for write in step["writes"]:
            place = write["position"]
            tokens[place] = write["text"]
            states[place] = "revised" if write["revises"] is not None else "new"
            (written.discard if write["text"] == MASK else written.add)(place)
        found.append(
            [(token, states.get(i, "settled") if i in written else "noise") for i, token in enumerate(tokens)]
        )
    if "".join(tokens) != trace["text"]:
        raise ValueError(f"the steps of the trace lead to {''.join(tokens)!r}, its text is {trace['text']!r}")
    return [*found, [(token, "settled") for token in tokens]]


def picture(panels: Sequence[Panel], legend: bool) -> str:
    """The SVG of panels side by side; `legend`: whether a line below explains the colours."""
    seconds = max(len(each.frames) for each in panels) * FRAME + HOLD
    keyframes: dict[str, str] = {}
    step = COLUMNS * CELL + GAP
    rows = -(-len(panels[0].frames[0]) // COLUMNS)
    body = [_panel(each, GAP / 2 + i * step, rows, seconds, keyframes) for i, each in enumerate(panels)]
    total, height = step * len(panels), TOP + rows * CELL + 26 + 24 * legend
    if legend:
        x, y = total / 2, height - 10
        body.append(
            f'<text class="legend" x="{x:g}" y="{y:g}"><tspan class="noise">noise</tspan> · '
            '<tspan class="new">just written</tspan> · <tspan class="revised">revised</tspan> · settled</text>'
        )
    label = "; ".join(f"{each.title}: {''.join(text for text, _ in each.frames[-1])}" for each in panels)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total} {height}" width="{total}"'
        f' height="{height}" role="img" aria-label="{escape(f"Decoding of {label}")}">'
    )
    style = STYLE.format(seconds=seconds, keyframes="\n".join(keyframes.values()))
    return "\n".join([head, f"<style>{style}</style>", *body, "</svg>", ""])


def _panel(shown: Panel, left: float, rows: int, seconds: float, keyframes: dict[str, str]) -> str:
    width, height = COLUMNS * CELL, rows * CELL
    middle = left + width / 2
    out = [
        f'<text class="title" x="{middle:g}" y="18">{escape(shown.title)}</text>',
        f'<text class="note" x="{middle:g}" y="35">{escape(shown.note)}</text>',
        f'<rect class="board" x="{left:g}" y="{TOP}" width="{width}" height="{height}" rx="4"/>',
    ]
    for place in sorted(shown.given):
        x, y = left + place % COLUMNS * CELL, TOP + place // COLUMNS * CELL
        out.append(f'<rect class="clue" x="{x:g}" y="{y}" width="{CELL}" height="{CELL}"/>')
    for i in range(1, COLUMNS):
        kind, x = "box" if i % 2 == 0 else "line", left + i * CELL
        out.append(f'<path class="{kind}" d="M{x:g} {TOP}v{height}"/>')
    for i in range(1, rows):
        kind, y = "box" if i % 2 == 0 else "line", TOP + i * CELL
        out.append(f'<path class="{kind}" d="M{left:g} {y}h{width}"/>')
    last = len(shown.frames) - 1
    for place in range(len(shown.frames[0])):
        x, y = left + (place % COLUMNS + 0.5) * CELL, TOP + (place // COLUMNS + 0.5) * CELL + 6
        for first, end, text, state in _runs([frame[place] for frame in shown.frames]):
            name = f"r{first}_{'e' if end > last else end}"
            keyframes.setdefault(name, _run_keyframes(name, first, None if end > last else end, seconds))
            kind = f"run {state}{' last' * (end > last)}"
            where = f'style="animation-name:{name}" x="{x:g}" y="{y:g}"'
            out.append(f'<text class="{kind}" {where}>{escape(text)}</text>')
    name = f"bar{last}"
    keyframes.setdefault(
        name,
        f"@keyframes {name}{{0%{{transform:scaleX(0)}}{_percent(last, seconds)},100%{{transform:scaleX(1)}}}}",
    )
    bar = f'x="{left:g}" y="{TOP + height + 8}" width="{width}" height="3"'
    return "\n".join([*out, f'<rect class="bar" style="animation-name:{name}" {bar}/>'])


def _runs(states: Sequence[tuple[str, str]]) -> list[tuple[int, int, str, str]]:
    """(first frame, frame after the last, text, state) of each run of equal frames of a position."""
    found: list[tuple[int, int, str, str]] = []
    for i, (text, state) in enumerate(states):
        if found and found[-1][2:] == (text, state):
            found[-1] = (found[-1][0], i + 1, text, state)
        else:
            found.append((i, i + 1, text, state))
    return found


def _percent(frame: int, seconds: float) -> str:
    return f"{100 * frame * FRAME / seconds:.3g}%"


def _run_keyframes(name: str, first: int, end: int | None, seconds: float) -> str:
    """Keyframes of a run that is visible from frame `first` to before frame `end` (None: to the end)."""
    shown = f"{_percent(first, seconds)}{{opacity:1}}"
    before = "0%{opacity:0}" if first else ""
    after = "100%{opacity:1}" if end is None else f"{_percent(end, seconds)},100%{{opacity:0}}"
    return f"@keyframes {name}{{{before}{shown}{after}}}"
