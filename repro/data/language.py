"""Synthetic languages with known probabilities (*oracle* languages): small hidden Markov models whose conditionals are
exact, also under noise.

Recipes train on them at scale `nano`, and samplers are tested on them: log-likelihood, next-token distributions and the
distribution of each clean token given a noisy sequence (with or without its own noisy token) come from one forward and
backward pass in float64 (`repro.data.hmm`). A language is a committed table, `evals/data/languages/NAME.json`:

    strong    16 states, 32 symbols, rows of 32 tokens; 2 successors and 3 emissions per state
    lexicon   16 words of 2 to 5 letters, spelt in full, the next word uniform; 16 letters, rows of 60 tokens

    python -m repro.data.language        # rewrite both tables with newly estimated entropies (about one minute)

Entropies are in nats.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from repro.core import rng
from repro.core.cli import Parser, run
from repro.core.errors import UnknownSymbol, nearest
from repro.core.files import ROOT, write_source
from repro.core.lazy import torch
from repro.core.parts import part, sha256
from repro.data.corpus import Data, Rows, Vocabulary
from repro.data.hmm import Hmm

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = ROOT / "evals" / "data" / "languages"
HELDOUT = 1 << 40
"""Name of the first held-out row; training rows are named from 0, so that the splits share no random key."""
CHUNK = 1 << 12
"""Number of rows drawn at once; results do not depend on it."""


def estimate_entropy(hmm: Hmm, seed: int, count: int) -> tuple[float, float]:
    """(estimated entropy of the language `hmm` in nats per token, its standard error): the mean of -log p(x) / L over
    `count` rows of L tokens drawn by `seed`. The entropy of a hidden Markov model has no closed form.

    These rows are drawn with random keys of step 1, training and held-out rows with keys of step 0
    (`repro.core.rng.keys`), so that the estimate is independent of the latter.
    """
    keys = rng.keys(seed, rng.SENTENCE, 1, torch.arange(count))
    nll = torch.cat([-hmm.log_likelihood(hmm.sample(chunk)) for chunk in keys.split(CHUNK)]) / hmm.length
    return nll.mean().item(), (nll.std() / count**0.5).item()


# --- symbols ------------------------------------------------------------------------------------------------


def read_symbols(text: str, symbols: str) -> list[int]:
    """Ids of a text, one per character; UnknownSymbol names a character that is not one of `symbols`."""
    for character in text:
        if character not in symbols:
            shown = f" in {text[:40]!r}" if len(text) > 1 else ""
            raise UnknownSymbol(
                f"no symbol {character!r}{shown}; change it: this model reads {len(symbols)} symbols, {symbols!r}"
            )
    return [symbols.index(character) for character in text]


def spell(ids: Sequence[int], symbols: str) -> str:
    """Text of ids: id i is the character `symbols[i]`, the two ids after the symbols are [MASK] and [BOS]; ValueError
    for larger ids."""
    shown = [*symbols, "[MASK]", "[BOS]"]
    for token in ids:
        if not 0 <= token < len(shown):
            raise ValueError(f"no id {token} in this vocabulary; give 0 to {len(shown) - 1}")
    return "".join(shown[token] for token in ids)


# --- the data source ----------------------------------------------------------------------------------------


@part
class Language(Data):
    """Rows drawn independently from a synthetic language with known probabilities; every position is a candidate
    (corrupted and scored). `table`: name of the language; `table_sha256`: SHA-256 of its table; `rows`, `heldout`:
    numbers of training and held-out rows; `seed`: random seed of the draw."""

    table: str
    table_sha256: str
    rows: int
    heldout: int
    seed: int

    def hmm(self) -> Hmm:
        """The hidden Markov model of the language. Raises ValueError where the table's SHA-256 is not
        `table_sha256`."""
        return _hmm(self.table, self.table_sha256)

    def entropy(self) -> float:
        """Entropy of the language in nats per token, as estimated by `estimate_entropy` and stored in the table."""
        return _load(self.table, self.table_sha256)["entropy"]

    def entropy_se(self) -> float:
        """Standard error of `entropy`, in nats per token."""
        return _load(self.table, self.table_sha256)["entropy_se"]

    def vocabulary(self) -> Vocabulary:
        size = len(self._symbols())
        return Vocabulary(size=size, total=size + 2, mask=size, bos=size + 1, eos=None, pad=None)

    def row_length(self) -> int:
        return _load(self.table, self.table_sha256)["length"]

    def expected_rows(self) -> int:
        return self.rows

    def build(self) -> dict[Literal["train", "heldout"], Rows]:
        return {"train": self._draw(0, self.rows), "heldout": self._draw(HELDOUT, self.heldout)}

    def encode(self, text: str) -> list[int]:
        return read_symbols(text, self._symbols())

    def decode(self, ids: Sequence[int]) -> str:
        return spell(ids, self._symbols())

    def _symbols(self) -> str:
        return _load(self.table, self.table_sha256)["symbols"]

    def _draw(self, first: int, count: int) -> Rows:
        example = torch.arange(first, first + count)
        keys = rng.keys(self.seed, rng.SENTENCE, 0, example)
        ids = torch.cat([self.hmm().sample(chunk) for chunk in keys.split(CHUNK)]).to(torch.uint8).numpy()
        return Rows(ids=ids, candidates=ids >= 0, example=example.numpy())


@functools.lru_cache
def _load(name: str, digest: str) -> dict[str, Any]:
    """Content of the committed JSON table of the language `name`; ValueError where the file's SHA-256 is not
    `digest`."""
    if name not in DRAWN:
        raise ValueError(f"no language {name!r}; {nearest(name, DRAWN)}")
    text = (FOLDER / f"{name}.json").read_text("utf-8")
    if sha256(text) != digest:
        raise ValueError(
            f"table_sha256={digest!r}, but table {name!r} has {sha256(text)!r}; set table_sha256 to this, or restore"
            " the table"
        )
    return json.loads(text)


@functools.lru_cache
def _hmm(name: str, digest: str) -> Hmm:
    return assemble(_load(name, digest))


# --- tables -------------------------------------------------------------------------------------------------


def assemble(table: dict[str, Any]) -> Hmm:
    """Hidden Markov model of a table (content of a language's JSON file). Each distribution p over n outcomes is
    smoothed to (1 - eps) p + eps / n, eps the table's `smoothing`, so that every row has a probability above 0."""
    states = table["states"]
    names = [str(index) for index in range(len(states))]

    def smoothed(laws: list[dict[str, float]], over: Sequence[str]) -> Tensor:
        dense = torch.tensor([[law.get(name, 0.0) for name in over] for law in laws], dtype=torch.float64)
        return (1 - table["smoothing"]) * dense + table["smoothing"] / len(over)

    return Hmm(
        initial=smoothed([dict(zip(names, (state["start"] for state in states), strict=True))], names)[0],
        transition=smoothed([state["to"] for state in states], names),
        emission=smoothed([state["emit"] for state in states], table["symbols"]),
        length=table["length"],
    )


def draw_strong(seed: int) -> dict[str, Any]:
    """Table (see `assemble`) of the hidden Markov model `strong`: 16 states with 2 successors and 3 emitted symbols
    each, drawn by the random `seed`. Probabilities of successors and of symbols are draws uniform on (.1, 1), divided
    by their sum."""
    symbols, states = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 16
    rows = torch.arange(states)

    def laws(step: int, names: Sequence[str], count: int) -> list[dict[str, float]]:
        order = rng.uniform(rng.keys(seed, rng.LANGUAGE, step, rows), len(names)).argsort(-1)[:, :count]
        weights = 0.1 + 0.9 * rng.uniform(rng.keys(seed, rng.LANGUAGE, step + 1, rows), count)
        return [
            {names[i]: w / sum(weight) for i, w in sorted(zip(chosen, weight, strict=True))}
            for chosen, weight in zip(order.tolist(), weights.tolist(), strict=True)
        ]

    successors = laws(0, [str(index) for index in range(states)], 2)
    emissions = laws(2, symbols, 3)
    pairs = zip(successors, emissions, strict=True)
    return {
        "name": "strong",
        "seed": seed,
        "length": 32,
        "symbols": symbols,
        "smoothing": 1e-3,
        "states": [{"start": 1 / states, "to": to, "emit": emit} for to, emit in pairs],
    }


def draw_lexicon(seed: int) -> dict[str, Any]:
    """Table of the language `lexicon`: 16 distinct words drawn by the random `seed`, four each with 2, 3, 4 and 5
    letters; a state is one letter of one word."""
    symbols, words = "abcdefghijklmnop", []
    for attempt in range(1 << 10):
        u = rng.uniform(rng.keys(seed, rng.LANGUAGE, 0, attempt), 5).tolist()
        word = "".join(symbols[int(16 * value)] for value in u[: 2 + len(words) // 4])
        words += [word] if word not in words else []
        if len(words) == 16:
            break
    starts, states = [], []
    for word in words:
        starts.append(str(len(states)))
        for letter in word:
            states.append({"start": 0.0, "to": {str(len(states) + 1): 1.0}, "emit": {letter: 1.0}})
    for start, word in zip(map(int, starts), words, strict=True):
        states[start]["start"] = 1 / 16
        states[start + len(word) - 1]["to"] = dict.fromkeys(starts, 1 / 16)
    return {
        "name": "lexicon",
        "seed": seed,
        "words": " ".join(words),
        "length": 60,
        "symbols": symbols,
        "smoothing": 1e-3,
        "states": states,
    }


DRAWN = {
    "strong": functools.partial(draw_strong, seed=486),
    "lexicon": functools.partial(draw_lexicon, seed=0),
}
"""Language name -> function that draws its table. Of the seeds below 6,000, 486 gives the language that is nearest to
an entropy of 1.68, a bigram entropy of 1.86 and a unigram entropy of 3.03 nats."""


def render(table: dict[str, Any], entropy: float, error: float) -> str:
    """JSON text of a table, one line per field and per state, with its estimated `entropy` and the standard `error` of
    the estimate, in nats per token."""
    fields = table | {"entropy": round(entropy, 6), "entropy_se": round(error, 6)}
    head = [f" {json.dumps(key)}: {json.dumps(value)}," for key, value in fields.items() if key != "states"]
    states = ",\n".join(f"  {json.dumps(state)}" for state in table["states"])
    return "\n".join(["{", *head, ' "states": [', states, " ]", "}", ""])


def main(argv: Sequence[str] | None = None) -> int:
    """Rewrite the committed tables of both languages."""
    about = "Rewrite the tables in evals/data/languages."
    Parser("python -m repro.data.language", about, ["python -m repro.data.language"]).parse_args(argv)
    for name, draw in DRAWN.items():
        table = draw()
        entropy, error = estimate_entropy(assemble(table), seed=0, count=1 << 20)
        write_source(FOLDER / f"{name}.json", render(table, entropy, error))
    return 0


if __name__ == "__main__":
    run(main, "repro.data.language")
