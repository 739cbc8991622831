"""Record the decodings that the results page shows step by step, in docs/traces/items (read by `repro.results.page`).

    python -m scripts.items                     those of the 27 sentences, whose law and denoiser are exact
    python -m scripts.items --record RUNS       also those of the first sudokus, by the networks of RUNS
    python -m scripts.items --check             exit code 1 if a file of a plotted setting is missing or outdated

Every setting that the page plots has a file: the evaluation's own puzzles, seed and random streams, so that a network
with the digest of the record writes what was scored. A network that was trained again writes nearly the same. In each
file `items` holds

    {"item", "prompt", "start", "text", "right",
     "steps": [{"forwards", "writes": [[position, text, probability, revised]], "kl", "fits"}]}

`kl`: what the step loses by writing its positions independently, in nats, where the law is known and the rule never
revises (`repro.certify.reference`): KL of the true law of these positions, given what is written, from the product of
the denoiser's probabilities; under uniform noise that of the whole reverse step. `fits`: sudoku boards that still agree
with all that is written. Both are null where they are not defined, and so
is `right`, whether the text solves the puzzle of the prompt.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro.certify.oracle import oracle_denoiser
from repro.certify.presets import NOISE_FLOOR
from repro.certify.reference import step_losses, written_loss
from repro.certify.space import Noise, code, tiny
from repro.core import parts
from repro.core.cli import Parser, run
from repro.core.files import ROOT, write_text
from repro.core.lazy import torch
from repro.data.sudoku import CELLS, FILE, solutions
from repro.processes.left_to_right import OPEN
from repro.results import certificates
from repro.results.page import decodings
from repro.results.store import RAW, collect
from repro.samplers.ancestral import Ancestral
from repro.samplers.decode import steps
from repro.samplers.plan import Plan
from repro.samplers.presets import preset

if TYPE_CHECKING:
    from torch import Tensor

    from repro.model import Model
    from repro.processes.process import Process
    from repro.results.record import Record
    from repro.samplers.decoded import Frame
    from repro.samplers.decoder import Decoder
    from repro.samplers.sampler import Sampler

PUZZLES = 10
"""Number of documents of evals/data/sudoku.jsonl, from the first, whose decodings are recorded."""
DRAWS = 4
"""Number of decodings of each setting on the 27 sentences."""
LETTERS = "abc"
Loss = Callable[["Decoder", "Frame"], float | None]
"""The exact KL of a step, None where it is not defined."""


def recorded(
    denoiser: Any, process: Process, rule: Sampler, plan: Plan, prompt: list[int], name: int
) -> Iterator[tuple[Decoder, Frame]]:
    """The steps of one text, decoded with sampling seed 0 and the random stream `name`."""
    return steps(denoiser, process, rule, plan, [prompt], seed=0, names=[name], confidence=True)


def item(
    number: int,
    prompt: str,
    frames: Iterator[tuple[Decoder, Frame]],
    letter: Callable[[int], str],
    mask: int | None,
    loss: Loss,
    fits: Callable[[Sequence[str]], int | None],
) -> dict[str, Any]:
    """One entry of `items` (see the module). `letter`: text of an id; `mask`: id that stands for an unwritten token."""
    start, made, decided = "", [], set[int]()
    row: list[str] = []
    for decoder, frame in frames:
        before, after = (ids[0, decoder.start : decoder.stop].tolist() for ids in (frame.before, frame.ids))
        if not made:
            row = [letter(token) for token in before]
            start = "".join(row)
        writes = []
        for place in frame.changed[0, decoder.start : decoder.stop].nonzero()[:, 0].tolist():
            assert frame.confidence is not None
            sure = float(f"{float(frame.confidence[0, decoder.start + place]):.4g}")
            row[place] = letter(after[place])
            writes.append([place, row[place], sure, int(place in decided)])
            (decided.discard if after[place] == mask else decided.add)(place)
        kl = loss(decoder, frame)
        made.append(
            {
                "forwards": int(frame.cost.forwards[0]),
                "writes": writes,
                "kl": None if kl is None else 0.0 if kl < NOISE_FLOOR else float(f"{kl:.4g}"),
                "fits": fits(row),
            }
        )
    text = "".join(row)
    right = text in solutions(prompt) if prompt else None
    return {"item": number, "prompt": prompt, "start": start, "steps": made, "text": text, "right": right}


def listed_loss(texts: Tensor, weights: Tensor, mask: int | None) -> Loss:
    """`written_loss` of a step under a law of listed texts."""

    def loss(decoder: Decoder, frame: Frame) -> float | None:
        before = frame.before[0, decoder.start : decoder.stop]
        before = torch.where((before == mask) | (before == OPEN), -1, before)
        where = frame.changed[0, decoder.start : decoder.stop].nonzero()[:, 0]
        if not len(where):
            return 0.0
        return written_loss(texts, weights, before, where, frame.result.prediction.probs(frame.changed))

    return loss


def no_loss(decoder: Decoder, frame: Frame) -> None:
    """The `Loss` (always None) of a rule for whose steps no exact reference is known."""


# --- 27 sentences -------------------------------------------------------------------------------------------


def law_files() -> Iterator[tuple[Path, dict[str, Any]]]:
    """(path, content) of every setting on the 27 sentences."""
    for stored in certificates.read(certificates.FOLDER):
        for number in stored["numbers"]:
            if decodings.is_plotted(stored["preset"], number):
                yield (
                    decodings.law_path(number["noise"], stored["preset"], number["steps"]),
                    law_file(stored["preset"], number["noise"], number["steps"]),
                )


def law_file(name: str, noise: str, steps_taken: int | None) -> dict[str, Any]:
    """The decodings of a preset in a number of steps (None: adaptive), by the exact denoiser of the 27 sentences."""
    source, rule = tiny(3), preset(name)
    plan = Plan(gen_length=source.length, block_length=source.length, steps=steps_taken)
    denoiser = oracle_denoiser("absorbing" if noise == "absorbing" else "uniform", source)
    mask = source.vocab if noise == "absorbing" else None
    if noise in rule.capabilities.revises and not isinstance(rule, Ancestral):
        loss: Loss = no_loss
    elif noise == "uniform":
        loss = _uniform_loss if isinstance(rule, Ancestral) else no_loss
    else:
        loss = listed_loss(source.sentences, source.law, mask)
    made = []
    for draw in range(DRAWS):
        frames = recorded(denoiser, denoiser.process, rule, plan, [], draw)
        made.append(item(draw, "", frames, _letter, mask, loss, lambda row: None))
    return {
        "format": decodings.FORMAT,
        "space": decodings.SPACE,
        "noise": noise,
        "preset": name,
        "sampler": parts.canonical(rule),
        "plan": parts.canonical(plan),
        "seed": 0,
        "items": made,
    }


def _letter(token: int) -> str:
    return LETTERS[token] if 0 <= token < len(LETTERS) else decodings.MASK


def _uniform_loss(decoder: Decoder, frame: Frame) -> float:
    t, s = 1 - frame.at.step / frame.at.steps, 1 - (frame.at.step + 1) / frame.at.steps
    noise: Noise = "uniform"
    before = frame.before[:, decoder.start : decoder.stop]
    return step_losses(tiny(3), noise, t, s)[code(before, tiny(3).vocab)].item()


# --- sudoku -------------------------------------------------------------------------------------------------


def sudoku_file(model: Model, record: Record) -> dict[str, Any]:
    """The decodings of the first puzzles at the setting of a record of decoding speed."""
    question, labels = record.question, record.labels
    rule, plan = parts.read(question.sampler), parts.read(question.plan, Plan)
    mask = model.data.vocabulary().mask
    lines = FILE.read_text("utf-8").splitlines()[:PUZZLES]
    revises = bool(rule.capabilities.revises & {noise_of(model)}) or noise_of(model) == "uniform"
    made = []
    for document, line in enumerate(lines):
        clues = json.loads(line)["clues"]
        boards = torch.tensor([[int(cell) for cell in board] for board in solutions(clues)])
        even = torch.full((len(boards),), 1 / len(boards), dtype=torch.float64)
        frames = recorded(
            model.denoiser, model.recipe.process, rule, plan, model.data.prompt(clues + "="), document
        )

        def letter(token: int) -> str:
            return decodings.MASK if token in (OPEN, mask) else model.data.decode([token])

        def fits(row: Sequence[str], clues: str = clues) -> int | None:
            agree = (
                all(a in (decodings.MASK, b) for a, b in zip(row, each, strict=True))
                for each in solutions(clues)
            )
            return None if revises else sum(agree)

        loss = no_loss if revises else listed_loss(boards, even, mask)
        made.append(item(document, clues, frames, letter, mask, loss, fits))
        assert len(made[-1]["text"]) == CELLS
    return {
        "format": decodings.FORMAT,
        "checkpoint": model.digest,
        "recipe": labels.recipe,
        "preset": labels.preset,
        "tokens_per_step": labels.tokens_per_step,
        "sampler": question.sampler,
        "plan": question.plan,
        "seed": question.seed,
        "items": made,
    }


def noise_of(model: Model) -> str:
    """Name of the noise process of a model, as capabilities of samplers name it."""
    return model.recipe.process.noise


def first_seed() -> list[Record]:
    """The records of decoding speed on sudoku of the recorded train seed, one for each setting."""
    return [
        r
        for r in collect(RAW)
        if decodings.is_timed_sudoku(r) and r.question.checkpoint.seed == decodings.TRAIN_SEED
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns 1 if `--check` finds a file missing or of other settings, else 0."""
    parser = Parser(
        "python -m scripts.items",
        "Record the decodings that the results page shows step by step.",
        ["python -m scripts.items", "python -m scripts.items --record runs"],
    )
    parser.add_argument(
        "--record",
        type=Path,
        help="folder of runs RECIPE@nano.sudoku-s0: record the sudokus with them as well",
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit code 1 if a file is not current"
    )
    arguments = parser.parse_args(argv)
    if arguments.check:
        return check()
    for path, content in law_files():
        write_text(path, decodings.dumped(content))
    if arguments.record is not None:
        from repro.model import load

        models: dict[str, Model] = {}
        for record in first_seed():
            name = record.labels.recipe
            if name not in models:
                models[name] = load(arguments.record / f"{name}-s{decodings.TRAIN_SEED}")
            write_text(
                decodings.sudoku_path(record.labels), decodings.dumped(sudoku_file(models[name], record))
            )
    return 0


def check() -> int:
    """Print a line for each file that is missing or not current; returns the exit code."""
    old = [path for path, content in law_files() if not same(path, decodings.dumped(content))]
    for record in first_seed():
        path = decodings.sudoku_path(record.labels)
        stored = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        wanted = {"sampler": record.question.sampler, "plan": record.question.plan}
        old += [path] if any(stored.get(key) != value for key, value in wanted.items()) else []
    for path in old:
        print(f"{path.relative_to(ROOT)} is not current; python -m scripts.items --record RUNS records it")
    return 1 if old else 0


def same(path: Path, text: str) -> bool:
    """Whether a file has this text."""
    return path.is_file() and path.read_text("utf-8") == text


if __name__ == "__main__":
    run(main, "scripts.items")
