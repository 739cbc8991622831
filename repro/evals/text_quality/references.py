"""Reference texts for MAUVE of models that have no held-out rows, from a file of lines `{"text": ...}`.

    reference = load_reference("owt_valid.jsonl")      a path, or a name in `runs/`
    compare_with_reference(judge, rule, settings, reference, rows, seed, work)

For n samples, 2 n texts of the file are drawn in a fixed random order. The first n are the reference; gen_ppl and MAUVE
of the other n (real against real text at the same n) are reported with the metric prefix `true_`. Texts are not
changed, and are tokenised by the judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from repro.core import rng
from repro.core.files import file_digest, runs
from repro.core.parts import part
from repro.core.reading import read_json_lines
from repro.evals.task import Answer, Ask
from repro.evals.text_quality.gen_ppl import Rule, score_texts
from repro.evals.text_quality.judges import Judge, load_judge
from repro.evals.text_quality.mauve import Mauve
from repro.evals.text_quality.mauve_tasks import MauveTask, mauve_by_kind, sample_curves
from repro.evals.text_quality.quality import generate_and_score, judge_ids
from repro.evals.text_quality.samples import Ids, Metric
from repro.evals.work_queue import WorkQueue
from repro.model import Model


class _Text(msgspec.Struct, frozen=True):
    text: str


@dataclass(frozen=True)
class ReferenceTexts:
    """The real `texts` of a file, in the file's order, with the file's `name` and its SHA-256 `digest`."""

    name: str
    digest: str
    texts: tuple[str, ...]

    def split(self, count: int) -> tuple[list[str], list[str]]:
        """(reference, real texts to compare with it), two disjoint lists of `count` texts each, drawn in a fixed random
        order; ValueError if the file holds fewer than 2 * `count` texts, or if one of those drawn is empty."""
        if len(self.texts) < 2 * count:
            raise ValueError(
                f"{self.name} holds {len(self.texts)} texts; MAUVE of {count} samples needs {2 * count}, since it also "
                "compares real with real text; add texts or use fewer samples"
            )
        order = rng.permutation(0, rng.QUOTED, 0, len(self.texts))[: 2 * count].tolist()
        for i in order:
            if not self.texts[i]:
                raise ValueError(
                    f"{self.name}:{i + 1}: the text is empty and has no hidden state; remove the line"
                )
        chosen = [self.texts[i] for i in order]
        return chosen[:count], chosen[count:]


def find_reference(name: str | Path) -> Path:
    """Path of the file of reference texts `name`, given as a path or as a name in `runs/`; ValueError if neither
    exists."""
    for path in (Path(name), runs() / name):
        if path.is_file():
            return path
    raise ValueError(
        f"no file {str(name)!r} of reference texts, neither at that path nor in {runs()}; give a file of lines "
        '{"text": ...}'
    )


def load_reference(name: str | Path) -> ReferenceTexts:
    """The reference texts in the file `name`, given as a path or as a name in `runs/`; ValueError if there is no such
    file, and ValueError `FILE:LINE: ...` for an invalid line."""
    return _opened(find_reference(name).resolve())


@lru_cache(maxsize=1)
def _opened(path: Path) -> ReferenceTexts:
    texts = tuple(row.text for row in read_json_lines(path, _Text, 'give lines {"text": ...}'))
    return ReferenceTexts(path.name, file_digest(path), texts)


def compare_with_reference(
    judge: Judge,
    rule: Rule,
    settings: Sequence[Mauve],
    reference: ReferenceTexts,
    rows: Sequence[Ids],
    seed: int,
    work: WorkQueue,
) -> dict[str, Metric]:
    """Metrics, by name, that compare the samples `rows` (in the judge's ids) with texts of `reference`: MAUVE with each
    of the `settings`, and, with the prefix `true_`, gen_ppl (under the scoring rule `rule`) and MAUVE of equally many
    other real texts. `seed`: random seed of the clusterings. Processes share the judge's work through `work`; one of
    them (`work.join`) makes the clusterings. Raises Busy while other processes score texts."""
    against, real = ([judge.encode(text) for text in side] for side in reference.split(len(rows)))
    found: dict[str, Metric] = {"true_gen_ppl": score_texts(real, judge, rule, work).perplexity()}
    return found | mauve_by_kind(judge, settings, against, {"": rows, "true_": real}, seed, work)


@part
class OpenMauve(MauveTask):
    """MAUVE against real texts in the file `reference` (its path, or its name in `runs/`), generative perplexity under
    a judge (a causal language model), entropy and distinct n-grams of `samples` rows of `length` ids that are generated
    without a prompt."""

    reference: str
    length: int
    generates = True
    needs_draws = True

    def skip(self, model: Model) -> str | None:
        try:
            find_reference(self.reference)
        except ValueError as error:
            return str(error)
        return super().skip(model)

    def protocol(self) -> dict[str, Any]:
        found = load_reference(self.reference)
        texts = {"reference": found.name, "reference_digest": found.digest}
        return super().protocol() | {"draws": "float64", **texts}

    def gen_length(self, model: Model) -> int:
        return self.length

    def shared(self, model: Model, ask: Ask, work: WorkQueue) -> Answer:
        reference, judge = load_reference(self.reference), load_judge(self.judge)
        reference.split(self.count(ask))  # before the slow part
        found = generate_and_score(self, model, ask, work)
        assert found.items is not None
        rows = judge_ids(judge, model, [item["ids"] for item in found.items], self.retokenise)
        metrics = found.metrics | compare_with_reference(
            judge, self.rule, self.mauve, reference, rows, ask.seed, work
        )
        return replace(found, metrics=metrics, curve=sample_curves(found.items))
