"""Judges of text: a causal checkpoint of ours, or a causal LM in transformers' layout (a folder).

    judge = load_judge("runs/ar@nano.text-s0")
    judge.logp([judge.encode("We the people")])       one array of log-probabilities, nats

A judge that is named and not given as a path (in a suite) lies in `runs/NAME`. Its digest is the checkpoint's, or that
of the folder's configuration, tokenizer and weights: a path enters no question.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from repro.core import parts
from repro.core.files import file_digest, runs
from repro.core.lazy import torch
from repro.data.corpus import Data
from repro.evals.text_quality.gen_ppl import Reader
from repro.evals.text_quality.mauve import State
from repro.evals.text_quality.samples import Ids
from repro.model import Model, load

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LOGITS = 1 << 27
"""Most logits of one forward (a gigabyte in float64)."""
END = "<|endoftext|>"
"""How a text writes the end of a document for a checkpoint of ours (GPT-2's mark)."""


class Judge(Reader):
    """Kind: a judge that also reads text."""

    end: str | None
    """How a text writes `eos`; None where the judge knows no end."""
    device: str
    """Type of the device that it runs on."""
    longest: int
    """Most ids that `features` reads of a text."""

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Text -> the judge's ids."""

    @abstractmethod
    def reads(self, data: Data) -> bool:
        """Whether ids of this data mean to the judge what they mean to a model of it."""

    @abstractmethod
    def features(self, windows: Sequence[Ids], state: State) -> np.ndarray:
        """Hidden state of the last layer after the last id of each window, or the mean of those after each id, float64
        [n, D]. ValueError for an empty window and for one longer than it reads."""


class OurJudge(Judge):
    """A left-to-right model of ours: BOS in front of every window, so each id has a likelihood."""

    def __init__(self, model: Model) -> None:
        if not model.recipe.process.causal:
            raise ValueError(f"{model.recipe.name} is not left to right, so it cannot judge; give an ar one")
        vocabulary = model.data.vocabulary()
        self.model, self.name, self.digest = model, model.recipe.name, model.digest
        self.device = model.denoiser.home.type
        self.longest = model.data.row_length() - 1  # BOS takes one of the row's places
        known = vocabulary.eos is not None and vocabulary.eos < vocabulary.size
        self.eos, self.end = (vocabulary.eos, END) if known else (None, None)

    def encode(self, text: str) -> list[int]:
        if self.end is None:
            return list(self.model.data.encode(text))
        assert self.eos is not None
        ids: list[int] = []
        for i, piece in enumerate(text.split(self.end)):
            ids += [self.eos] * (i > 0) + list(self.model.data.encode(piece))
        return ids

    def reads(self, data: Data) -> bool:
        return parts.digest(data) == parts.digest(self.model.data)

    def logp(self, windows: Sequence[Ids]) -> list[np.ndarray]:
        from repro.models.attention import Mask

        denoiser, vocabulary = self.model.denoiser, self.model.data.vocabulary()
        process = self.model.recipe.process

        def read(rows: Tensor) -> Tensor:
            t = torch.zeros(len(rows), device=rows.device) if denoiser.time_conditioned else None
            features = denoiser.encode(process.inputs(rows, vocabulary), t=t, attention=Mask())
            return denoiser.logits(features)

        _within(windows, self.model.data.row_length(), vocabulary.size, self.name)
        return _by_length(windows, vocabulary.total, read, denoiser.home)

    def features(self, windows: Sequence[Ids], state: State) -> np.ndarray:
        from repro.models.attention import Mask

        denoiser, vocabulary = self.model.denoiser, self.model.data.vocabulary()
        assert vocabulary.bos is not None

        def read(rows: Tensor) -> Tensor:
            t = torch.zeros(len(rows), device=rows.device) if denoiser.time_conditioned else None
            begun = torch.nn.functional.pad(rows, (1, 0), value=vocabulary.bos)
            return denoiser.encode(begun, t=t, attention=Mask())[:, 1:]

        _within(windows, self.longest, vocabulary.size, self.name)
        return _states(windows, vocabulary.total, read, denoiser.home, state)


class FolderJudge(Judge):
    """A causal LM and its tokenizer as transformers saves them; nothing stands in front of a window."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            network: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
            )
        except (OSError, ValueError) as error:
            raise ValueError(f"{folder} holds no causal LM ({str(error).splitlines()[0]})") from None
        if tokenizer is None:
            raise ValueError(f"{folder} holds no tokenizer; save it beside the network")
        self.tokenizer: PreTrainedTokenizerBase = tokenizer
        self.network = network.eval().to("cuda" if torch.cuda.is_available() else "cpu")
        self.name, self.digest = folder.name, _folder_digest(folder)
        self.device = self.network.device.type
        self.longest = network.config.max_position_embeddings
        self.eos, self.end = self.tokenizer.eos_token_id, self.tokenizer.eos_token

    def encode(self, text: str) -> list[int]:
        return self.tokenizer(text)["input_ids"]

    def reads(self, data: Data) -> bool:
        return False

    def logp(self, windows: Sequence[Ids]) -> list[np.ndarray]:
        config = self.network.config
        _within(windows, config.max_position_embeddings, config.vocab_size, self.name)

        def read(rows: Tensor) -> Tensor:
            logits = self.network(rows, use_cache=False).logits
            unknown = torch.full_like(logits[:, :1], torch.nan)
            return torch.cat([unknown, logits[:, :-1]], 1)

        return _by_length(windows, config.vocab_size, read, self.network.device)

    def features(self, windows: Sequence[Ids], state: State) -> np.ndarray:
        config = self.network.config
        _within(windows, self.longest, config.vocab_size, self.name)

        def read(rows: Tensor) -> Tensor:
            return self.network.base_model(rows, use_cache=False).last_hidden_state

        return _states(windows, config.vocab_size, read, self.network.device, state)


def load_judge(name: str | Path) -> Judge:
    """The judge at a path, or of that name in `runs/`; ValueError in one line for anything that is none."""
    return _opened(find(name).resolve())


@lru_cache(maxsize=1)
def _opened(path: Path) -> Judge:
    """Kept, because a grid asks for its judge at every cell."""
    return FolderJudge(path) if (path / "config.json").is_file() else OurJudge(load(path))


def find(name: str | Path) -> Path:
    """Where a judge lies; ValueError when it is in neither place."""
    for path in (Path(name), runs() / name):
        if path.is_dir():
            return path
    raise ValueError(f"no judge {str(name)!r}, neither here nor in {runs()}; give a checkpoint's folder")


def written(data: Data, ids: Ids, end: str | None) -> str:
    """Ids as the text that a judge retokenises: BOS and EOS become `end`. ValueError when it has none."""
    vocabulary = data.vocabulary()
    marks = {vocabulary.bos, vocabulary.eos} - {None}
    pieces: list[list[int]] = [[]]
    for token in ids:
        if token in marks:
            pieces.append([])
        else:
            pieces[-1].append(token)
    if len(pieces) > 1 and end is None:
        raise ValueError("the samples hold ends of documents and the judge knows none; take another judge")
    return (end or "").join(data.decode(piece) if piece else "" for piece in pieces)


def _within(windows: Sequence[Ids], longest: int, size: int, name: str) -> None:
    """ValueError for a window that the judge cannot read."""
    for window in windows:
        if len(window) > longest:
            raise ValueError(
                f"{name} reads {longest} ids at once and the rule wants {len(window)}; give the rule a length of "
                f"{longest} or less"
            )
        odd = next((token for token in window if not 0 <= token < size), None)
        if odd is not None:
            raise ValueError(f"{name} has ids 0 to {size - 1}, and a sample holds {odd}")


def _by_length(
    windows: Sequence[Ids], size: int, read: Callable[[Tensor], Tensor], device: torch.device
) -> list[np.ndarray]:
    """log p of each window's ids from `read(rows [B, L]) -> logits [B, L, size]`."""
    found: list[np.ndarray] = [np.zeros(0)] * len(windows)
    for same, rows in _batches(windows, size, device):
        with torch.inference_mode():
            logp = read(rows).double().log_softmax(-1).gather(-1, rows[..., None])[..., 0]
        for i, values in zip(same, logp.cpu().numpy(), strict=True):
            found[i] = values
    return found


def _states(
    windows: Sequence[Ids],
    size: int,
    read: Callable[[Tensor], Tensor],
    device: torch.device,
    state: State,
) -> np.ndarray:
    """Features [n, D] from `read(rows [B, L]) -> [B, L, D]`; ValueError for an empty window."""
    for i, window in enumerate(windows):
        if not len(window):
            raise ValueError(f"sample {i} is empty and has no state; leave it out")
    found: dict[int, np.ndarray] = {}
    for same, rows in _batches(windows, size, device):
        with torch.inference_mode():
            states = read(rows).double()
            features = states[:, -1] if state == "last" else states.mean(1)
        found |= zip(same, features.cpu().numpy(), strict=True)
    return np.stack([found[i] for i in range(len(windows))])


def _batches(windows: Sequence[Ids], size: int, device: torch.device) -> Iterator[tuple[list[int], Tensor]]:
    """Places of windows of one length and their ids [B, L], as many as LOGITS of a vocabulary of `size` allow; empty
    windows are left out."""
    order = sorted((i for i in range(len(windows)) if len(windows[i])), key=lambda i: len(windows[i]))
    while order:
        length = len(windows[order[0]])
        same = [i for i in order[: max(1, LOGITS // (length * size))] if len(windows[i]) == length]
        order = order[len(same) :]
        yield same, torch.tensor([list(windows[i]) for i in same], device=device)


def _folder_digest(folder: Path) -> str:
    """SHA-256 over the names and contents of configuration, tokenizer and weights."""
    files = sorted(p for p in folder.iterdir() if p.suffix in (".json", ".safetensors", ".txt", ".model"))
    return parts.sha256("".join(f"{p.name} {file_digest(p)}\n" for p in files))
