"""Sudoku on a 4x4 board: a task whose puzzles, answers and entropy can be enumerated.

A board has each of 1-4 once in every line, column and 2x2 box; there are 288 boards. A row of data is 16 clue cells
('.' for an empty one), '=', and the 16 cells of a filled board, line by line:

    .3122....23.34..=4312214312343421    the 16 cells after '=' are corrupted and scored

A puzzle with few clues has several correct answers.

    python -m repro.data.sudoku    # rewrite evals/data/sudoku.jsonl, the documents of evals/tasks/sudoku.yaml

Symbols: n puzzles; k clues of a puzzle; u uniform draws.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from repro.core import rng
from repro.core.cli import Parser, run
from repro.core.files import ROOT, write_source
from repro.core.lazy import torch
from repro.core.parts import part
from repro.data.corpus import Data, Rows, Vocabulary
from repro.data.language import HELDOUT, read_symbols, spell

if TYPE_CHECKING:
    from torch import Tensor

FILE = ROOT / "evals" / "data" / "sudoku.jsonl"
SYMBOLS = ".1234="
CELLS = 16
LENGTH = 2 * CELLS + 1
DOCUMENTS = 500
TASK = 1 << 41
"""Name of the first puzzle of the evaluation task; held-out rows are named from HELDOUT, training rows from 0."""
TASK_SEED, TASK_CLUES = 0, (5, 9)
ATTEMPTS = 64
"""Largest number of draws of a row until its puzzle is in no other split; 60,000 rows of 5-9 clues need two."""


# --- boards and their answers -------------------------------------------------------------------------------


@functools.lru_cache
def boards() -> tuple[str, ...]:
    """The 288 filled boards, 16 digits each, in lexicographic order."""
    found = [""]
    for cell in range(CELLS):
        peers = [other for other in range(cell) if _share_unit(cell, other)]
        found = [
            board + digit for board in found for digit in "1234" if all(board[p] != digit for p in peers)
        ]
    return tuple(found)


def _share_unit(cell: int, other: int) -> bool:
    """Whether two cells are in the same line, column or box."""
    (line, column), (other_line, other_column) = divmod(cell, 4), divmod(other, 4)
    same_box = line // 2 == other_line // 2 and column // 2 == other_column // 2
    return line == other_line or column == other_column or same_box


def solutions(clues: str) -> list[str]:
    """Every board that agrees with a puzzle of 16 clue cells; ValueError unless each cell is '.' or '1' to '4'."""
    if len(clues) != CELLS or not set(clues) <= set(".1234"):
        raise ValueError(
            f"{clues!r} is not a puzzle; give {CELLS} cells of '.', '1', '2', '3', '4', line by line"
        )
    return [
        board
        for board in boards()
        if all(clue in (".", cell) for clue, cell in zip(clues, board, strict=True))
    ]


@functools.lru_cache
def entropy(clues_low: int, clues_high: int) -> float:
    """Exact entropy of the answer given the clues, in nats per answer token (16 tokens per puzzle).

    Given the clues all agreeing boards are equally likely, so this is the mean of log(number of agreeing boards) over
    boards, over subsets of k cells, and over k in clues_low..clues_high.
    """
    clues = np.bitwise_count(np.arange(1 << CELLS))
    nats = np.log(_agreeing()).mean(0) / CELLS
    return float(np.mean([nats[clues == k].mean() for k in range(clues_low, clues_high + 1)]))


def _agreeing() -> np.ndarray:
    """Number of boards that agree with a given board on a set of cells, [12 boards, 2^16 sets] (bit i of a set: cell
    i).

    Only for the 12 boards that start with 1234; the others are these with digits renamed, which have the same counts.
    """
    cells = np.array([list(board) for board in boards()])
    first = cells[[board.startswith("1234") for board in boards()]]
    same = ((first[:, None] == cells) << np.arange(CELLS)).sum(-1)
    count = np.stack([np.bincount(row, minlength=1 << CELLS) for row in same])
    for bit in range(CELLS):  # sums over supersets, one cell at a time
        halves = count.reshape(len(count), -1, 2, 1 << bit)
        halves[:, :, 0] += halves[:, :, 1]
    return count


# --- the data source ----------------------------------------------------------------------------------------


@part
class Sudoku(Data):
    """Rows of a puzzle and its answer: a uniformly drawn board, of which a uniformly drawn number of cells (clues_low
    to clues_high) at uniformly drawn places are given as clues. The 16 cells of the answer are candidates (corrupted
    and scored). `rows`, `heldout`: numbers of training and held-out rows; `seed`: random seed of the draw.

    No puzzle of the evaluation task (evals/data/sudoku.jsonl) occurs in either split, and no held-out puzzle in the
    training rows.
    """

    clues_low: int
    clues_high: int
    rows: int
    heldout: int
    seed: int

    def entropy(self) -> float:
        """Exact entropy of the answer given the clues, in nats per answer token."""
        return entropy(self.clues_low, self.clues_high)

    def vocabulary(self) -> Vocabulary:
        return Vocabulary(size=6, total=8, mask=6, bos=7, eos=None, pad=None)

    def row_length(self) -> int:
        return LENGTH

    def expected_rows(self) -> int:
        return self.rows

    def build(self) -> dict[Literal["train", "heldout"], Rows]:
        """Rows of both splits. Raises ValueError for a wrong range of clues, and where there are too few puzzles for
        disjoint splits."""
        if not 0 <= self.clues_low <= self.clues_high <= CELLS:
            raise ValueError(
                f"clues {self.clues_low}-{self.clues_high} are no range; give 0 <= clues_low <= clues_high <= {CELLS}"
            )
        reserved = puzzle_numbers(task_rows())
        heldout = self._draw(HELDOUT, self.heldout, reserved)
        train = self._draw(0, self.rows, torch.cat([reserved, puzzle_numbers(torch.from_numpy(heldout.ids))]))
        return {"train": train, "heldout": heldout}

    def encode(self, text: str) -> list[int]:
        return read_symbols(text, SYMBOLS)

    def decode(self, ids: Sequence[int]) -> str:
        return spell(ids, SYMBOLS)

    def prompt(self, text: str) -> list[int]:
        """The 17 token ids of a puzzle: 16 clue cells and '=', which `text` may leave out; ValueError where no board
        agrees with the clues."""
        clues = text.removesuffix("=")
        if not solutions(clues):
            raise ValueError(f"{clues!r} has no answer: no board agrees with its clues; change a clue")
        return self.encode(clues + "=")

    def _draw(self, first: int, count: int, reserved: Tensor) -> Rows:
        """`count` rows, whose names (`Rows.example`) are `first`, `first` + 1, ... A row is drawn again, from its next
        random key, while the number of its puzzle is in `reserved`."""
        example = torch.arange(first, first + count)
        ids = torch.empty(count, LENGTH, dtype=torch.int64)
        again = torch.ones(count, dtype=torch.bool)
        for attempt in range(ATTEMPTS):
            keys = rng.keys(self.seed, rng.PUZZLE, attempt, example[again])
            ids[again] = draw(keys, self.clues_low, self.clues_high)
            again = torch.isin(puzzle_numbers(ids), reserved)
            if not again.any():
                break
        else:
            clues = f"{self.clues_low}-{self.clues_high}"
            raise ValueError(
                f"heldout={self.heldout} leaves no puzzle of {clues} clues to train on; give a smaller heldout"
            )
        candidates = np.tile(np.arange(LENGTH) > CELLS, (count, 1))
        return Rows(ids=ids.numpy(), candidates=candidates, example=example.numpy())


def draw(keys: Tensor, clues_low: int, clues_high: int) -> Tensor:
    """Rows of ids [n, 33], one per random key [n], with clues_low to clues_high clues each."""
    u = rng.uniform(keys, 2 + CELLS)
    clues = clues_low + (u[:, 0] * (clues_high - clues_low + 1)).long()
    digits = torch.tensor([read_symbols(board, SYMBOLS) for board in boards()])
    answer = digits[(u[:, 1] * len(digits)).long()]
    order = u[:, 2:].argsort(-1).argsort(-1)
    given = torch.where(order < clues[:, None], answer, SYMBOLS.index("."))
    equals = torch.full((len(keys), 1), SYMBOLS.index("="))
    return torch.cat([given, equals, answer], 1)


def puzzle_numbers(ids: Tensor) -> Tensor:
    """Number that identifies each puzzle, [n], from rows [n, 33]: its clue cells as digits in base 5."""
    return (ids[:, :CELLS].long() * 5 ** torch.arange(CELLS)).sum(1)


# --- the task file ------------------------------------------------------------------------------------------


def task_rows() -> Tensor:
    """The puzzles of the evaluation task as rows of ids [500, 33]."""
    return draw(rng.keys(TASK_SEED, rng.PUZZLE, 0, torch.arange(TASK, TASK + DOCUMENTS)), *TASK_CLUES)


def render() -> str:
    """Text of evals/data/sudoku.jsonl, the file of the evaluation task, one line per puzzle: {"clues": 16 cells,
    "answers": every valid board}."""
    puzzles = [spell(row, SYMBOLS) for row in task_rows()[:, :CELLS].tolist()]
    return "".join(json.dumps({"clues": clues, "answers": solutions(clues)}) + "\n" for clues in puzzles)


def main(argv: Sequence[str] | None = None) -> int:
    """Rewrite the committed file of the evaluation task."""
    about = "Rewrite the file of puzzles in evals/data."
    Parser("python -m repro.data.sudoku", about, ["python -m repro.data.sudoku"]).parse_args(argv)
    write_source(FILE, render())
    return 0


if __name__ == "__main__":
    run(main, "repro.data.sudoku")
