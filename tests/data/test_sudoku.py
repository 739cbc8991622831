"""4x4 sudoku: boards, law of puzzles, disjoint splits, scoring that accepts any correct answer."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
import torch
import yaml

from repro.core import parts, rng
from repro.data import sudoku as tasks
from repro.data.language import HELDOUT
from repro.data.sudoku import Sudoku, boards, entropy, puzzle_numbers, solutions

DATA = Sudoku(clues_low=5, clues_high=9, rows=4096, heldout=256, seed=0)


def test_boards_are_the_288():
    def units(board):
        lines = [board[i : i + 4] for i in range(0, 16, 4)]
        columns = [board[i::4] for i in range(4)]
        boxes = [board[i : i + 2] + board[i + 4 : i + 6] for i in (0, 2, 8, 10)]
        return lines + columns + boxes

    lines = ["".join(p) for p in itertools.permutations("1234")]
    filled = ("".join(board) for board in itertools.product(lines, repeat=4))
    valid = [
        b
        for b in filled
        if all(len(set(b[i::4])) == 4 for i in range(4)) and all(len(set(u)) == 4 for u in units(b))
    ]
    assert list(boards()) == sorted(valid) and len(valid) == 288


def test_solutions_are_all_boards_that_agree_with_the_clues():
    assert len(solutions("." * 16)) == 288
    assert len(solutions("1" + "." * 15)) == 72
    assert solutions(boards()[7]) == [boards()[7]]
    assert solutions("11" + "." * 14) == []
    with pytest.raises(ValueError, match="is not a puzzle"):
        solutions("12")


def test_entropy_is_the_mean_log_number_of_answers():
    """Against a count over every subset of two cells; ln 288 without clues, 0 with all cells given."""
    pairs = itertools.combinations(range(16), 2)
    nats = [
        math.log(sum(all(board[c] == other[c] for c in pair) for other in boards()))
        for pair in pairs
        for board in boards()[::24]
    ]
    assert entropy(2, 2) == pytest.approx(np.mean(nats) / 16, abs=1e-12)
    assert entropy(0, 0) == pytest.approx(math.log(288) / 16, abs=1e-12) and entropy(16, 16) == 0
    assert entropy(5, 9) == pytest.approx(np.mean([entropy(k, k) for k in range(5, 10)]), abs=1e-15)


def test_entropy_is_that_of_drawn_puzzles():
    """Mean log number of answers of 2,000 drawn puzzles, within 5 standard errors (one seed in 10^6 would fail)."""
    rows = tasks.draw(rng.keys(5, rng.PUZZLE, 0, torch.arange(2000)), 5, 9)
    nats = np.array([math.log(len(solutions(DATA.decode(row)))) / 16 for row in rows[:, :16].tolist()])
    assert abs(nats.mean() - DATA.entropy()) < 5 * nats.std() / len(nats) ** 0.5
    assert DATA.entropy() == pytest.approx(0.0217779, abs=5e-8)


def test_rows_are_puzzles_with_their_answers():
    for rows in DATA.build().values():
        for row, candidates in zip(rows.ids[:100], rows.candidates[:100], strict=True):
            clues, _, answer = DATA.decode(row.tolist()).partition("=")
            assert answer in solutions(clues) and 5 <= 16 - clues.count(".") <= 9
            assert candidates.tolist() == [False] * 17 + [True] * 16


def test_law_of_clues():
    """Chi-square of the number of clues, of their positions and of the board; one key in 10^6 would fail each."""
    from scipy.stats import chi2

    def fits(observed, expected):
        return ((observed - expected) ** 2 / expected).sum() < chi2.isf(1e-6, len(observed) - 1)

    rows = DATA.build()["train"]
    given = rows.ids[:, :16] > 0
    assert fits(np.bincount(given.sum(1), minlength=10)[5:], np.full(5, len(rows) / 5))
    seven = given[given.sum(1) == 7]
    scale = 15 / 16 / (1 - 7 / 16)  # positions without replacement vary less than a multinomial
    assert fits(scale * seven.sum(0), np.full(16, scale * len(seven) * 7 / 16))
    numbers = (rows.ids[:, 17:].astype(np.int64) * 5 ** np.arange(16)).sum(1)
    assert fits(np.unique(numbers, return_counts=True)[1], np.full(288, len(rows) / 288))


def test_no_puzzle_leaks_between_training_heldout_and_task():
    """The second source has only 4,608 puzzles, so that independent draws would overlap."""
    for data in (DATA, Sudoku(clues_low=15, clues_high=15, rows=2000, heldout=500, seed=0)):
        splits = data.build()
        train, heldout = (
            set(puzzle_numbers(torch.from_numpy(splits[s].ids)).tolist()) for s in ("train", "heldout")
        )
        task = set(puzzle_numbers(tasks.task_rows()).tolist())
        assert (
            len(task) == tasks.DOCUMENTS and not train & heldout and not train & task and not heldout & task
        )
        assert splits["train"].example.max() < HELDOUT <= splits["heldout"].example.min()


def test_rows_do_not_depend_on_how_many_are_drawn():
    few = parts.derive(DATA, {"rows": 64}).build()
    assert (few["train"].ids == DATA.build()["train"].ids[:64]).all()


def test_splits_that_cannot_be_disjoint_are_an_error():
    with pytest.raises(ValueError, match="heldout=4000"):
        Sudoku(clues_low=16, clues_high=16, rows=100, heldout=4000, seed=0).build()
    with pytest.raises(ValueError, match="clues 9-5"):
        parts.derive(DATA, {"clues_low": 9, "clues_high": 5}).build()


def test_prompt_takes_a_puzzle_with_or_without_the_equals_sign():
    clues = ".3122....23.34.."
    assert DATA.prompt(clues) == DATA.prompt(clues + "=") == DATA.encode(clues + "=")
    assert DATA.decode([*DATA.prompt(clues), 6, 7]) == clues + "=[MASK][BOS]"
    with pytest.raises(ValueError, match="no answer"):
        DATA.prompt("11" + "." * 14)
    with pytest.raises(ValueError, match="is not a puzzle"):
        DATA.prompt("5" * 16)


def test_task_file_is_current():
    assert tasks.FILE.read_text("utf-8") == tasks.render()


def test_any_correct_answer_scores(tmp_path):
    """lm-eval accepts any of several answers, and rejects a board that contradicts a clue."""
    from lm_eval import simple_evaluate
    from lm_eval.api.model import LM
    from lm_eval.tasks import TaskManager

    answers = {
        d["clues"] + "=": d["answers"] for d in map(json.loads, tasks.FILE.read_text("utf-8").splitlines())
    }
    prompts = list(answers)[:60]

    class LastAnswer(LM):
        """The last of the valid boards; a wrong one for every fifth document."""

        def generate_until(self, requests, disable_tqdm=False):
            replies = []
            for request in requests:
                prompt, options = request.args
                assert options == {"max_gen_toks": 16, "until": [], "do_sample": False}
                wrong = next(board for board in boards() if board not in answers[prompt])
                replies.append(wrong if prompts.index(prompt) % 5 == 0 else answers[prompt][-1])
            return replies

        def loglikelihood(self, requests, disable_tqdm=False):
            raise AssertionError("a generation task")

        loglikelihood_rolling = loglikelihood

    config = yaml.safe_load((tasks.ROOT / "evals" / "tasks" / "sudoku.yaml").read_text("utf-8"))
    files = config["dataset_kwargs"]["data_files"]
    config["dataset_kwargs"] = {
        "data_files": {split: str(tasks.ROOT / path) for split, path in files.items()},
        "cache_dir": str(tmp_path),
    }
    manager = TaskManager(include_defaults=False)
    done = simple_evaluate(
        model=LastAnswer(), tasks=[config], task_manager=manager, limit=60, bootstrap_iters=1
    )
    assert done is not None
    assert done["results"]["sudoku"]["exact_match,none"] == pytest.approx(0.8)
    assert done["results"]["sudoku"]["exact_match_stderr,none"] == pytest.approx((0.8 * 0.2 / 59) ** 0.5)
    several = [sample for sample in done["samples"]["sudoku"] if len(sample["doc"]["answers"]) > 1]
    assert {sample["exact_match"] for sample in several} == {0.0, 1.0}
