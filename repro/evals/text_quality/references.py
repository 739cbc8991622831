"""Real texts that samples are compared with where no held-out rows are: a file of them, a line `{"text": ...}`.

    reference = load_reference("owt_valid.jsonl")      a path, or a name in `runs/`
    beside(judge, rule, settings, reference, rows, seed)

Of 2 n texts in a keyed order n are what the samples are compared with, and the next n stand for real text: their
gen_ppl and MAUVE (real against real at the same n) are under `true_`. A text is read as it stands, in the judge's own
tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from repro.core import rng
from repro.core.files import file_digest, json_lines, runs
from repro.core.parts import part
from repro.evals.task import Answer, Ask
from repro.evals.text_quality.gen_ppl import Rule, judged
from repro.evals.text_quality.judges import Judge, load_judge
from repro.evals.text_quality.mauve import Mauve
from repro.evals.text_quality.mauve_tasks import Likened, by_sample, likened
from repro.evals.text_quality.quality import generated, read_by
from repro.evals.text_quality.samples import Ids, Metric
from repro.evals.work_queue import Work
from repro.evals.workload import Workload, of_texts
from repro.model import Model


class _Text(msgspec.Struct, frozen=True):
    text: str


@dataclass(frozen=True)
class Reference:
    """Texts in the file's order, and its SHA-256."""

    name: str
    digest: str
    texts: tuple[str, ...]

    def sides(self, count: int) -> tuple[list[str], list[str]]:
        """`count` texts to compare with and as many others; ValueError where there are too few."""
        if len(self.texts) < 2 * count:
            raise ValueError(
                f"{self.name} holds {len(self.texts)} texts; MAUVE of {count} samples takes {2 * count}, half of them "
                "for real text against real text"
            )
        order = rng.permutation(0, rng.QUOTED, 0, len(self.texts))[: 2 * count].tolist()
        chosen = [self.texts[i] for i in order]
        return chosen[:count], chosen[count:]


def find_reference(name: str | Path) -> Path:
    """Where a file of texts lies; ValueError when it is in neither place."""
    for path in (Path(name), runs() / name):
        if path.is_file():
            return path
    raise ValueError(
        f"no file {str(name)!r} of reference texts, neither here nor in {runs()}; give one, a text a line"
    )


def load_reference(name: str | Path) -> Reference:
    """The texts of a file at a path, or of that name in `runs/`; ValueError `FILE:LINE: what` for one that is none."""
    return _opened(find_reference(name).resolve())


@lru_cache(maxsize=1)
def _opened(path: Path) -> Reference:
    texts = []
    for number, line in enumerate(json_lines(path), start=1):
        try:
            texts.append(msgspec.json.decode(line, type=_Text).text)
        except msgspec.DecodeError as error:
            raise ValueError(f"{path}:{number}: {error}") from None
    return Reference(path.name, file_digest(path), tuple(texts))


def beside(
    judge: Judge, rule: Rule, settings: Sequence[Mauve], reference: Reference, rows: Sequence[Ids], seed: int
) -> dict[str, Metric]:
    """MAUVE of samples, in the judge's ids, against the reference; gen_ppl and MAUVE of as many real texts."""
    against, real = ([judge.encode(text) for text in side] for side in reference.sides(len(rows)))
    found: dict[str, Metric] = {"true_gen_ppl": judged(real, judge, rule).perplexity()}
    return found | likened(judge, settings, against, {"": rows, "true_": real}, seed)


@part
class OpenMauve(Likened):
    """`open_generation` with MAUVE against the texts of a file, `reference` its name in `runs/`."""

    reference: str
    length: int
    generates = True

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

    def workload(self, model: Model, ask: Ask) -> Workload:
        return of_texts(self.samples, model, ask, 0)

    def shared(self, model: Model, ask: Ask, work: Work) -> Answer:
        reference, judge = load_reference(self.reference), load_judge(self.judge)
        reference.sides(self.count(ask))  # before the slow part
        found = generated(self, model, ask, work)
        work.join()
        assert found.items is not None
        rows = read_by(judge, model, [item["ids"] for item in found.items], self.retokenise)
        metrics = found.metrics | beside(judge, self.rule, self.mauve, reference, rows, ask.seed)
        return replace(found, metrics=metrics, curve=by_sample(found.items))
