"""Small corpora as perplexity tasks."""

from types import SimpleNamespace

import torch

from helpers import spaces
from repro.core.parts import part
from repro.data.corpus import UNRESOLVED, Data, Vocabulary
from repro.data.documents import AllFiles
from repro.data.language import read_symbols
from repro.evals.perplexity.corpus import Perplexity
from repro.evals.task import Ask
from repro.model import Model

ASK = Ask(None, None, 0, None)


def written(tmp_path, *texts, name="own.txt") -> AllFiles:
    (tmp_path / name).write_text("\n\n".join(texts), "utf-8")
    return AllFiles(path=str(tmp_path / name), sha256=UNRESOLVED)


def task_of(documents, packing, length, counts="text", passes=4, tokenizer="own", name="own") -> Perplexity:
    return Perplexity(
        name=name,
        corpus=name,
        documents=documents,
        packing=packing,
        length=length,
        passes=passes,
        tokenizer=tokenizer,
        counts=counts,
    )


A, B, E, P = range(4)


@part
class Spelt(Data):
    """Letters a and b, an end E and padding P: four ids, then the mask."""

    length: int

    def vocabulary(self) -> Vocabulary:
        return Vocabulary(size=4, total=6, mask=4, bos=None, eos=E, pad=None, filler=P)

    def row_length(self) -> int:
        return self.length

    def encode(self, text):
        return read_symbols(text, "ab")


def model(process, denoiser, data) -> Model:
    recipe = SimpleNamespace(process=process, name="toy", data=data, digest=lambda: "toy", score="exact")
    return Model(recipe, denoiser, "raw", "toy", 0, 0, data, None, None)


def blind(process, length=4) -> Model:
    """A network with uniform predictions: ln 4 nats a token."""
    words = spaces.Words(size=4, length=length)
    uniform = spaces.Known(words, process, "leave_one_out", lambda ids, t: torch.full((*ids.shape, 4), 0.25))
    return model(process, uniform, Spelt(length=length))
