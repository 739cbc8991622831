"""Judges: the causal language models that score texts. A judge is a left-to-right checkpoint of this repository, or a
model folder saved by transformers.

    judge = load_judge("runs/ar@nano.text-s0")
    judge.logp([judge.encode("We the people")])       one array of log-probabilities, nats

A judge may also be given by name (as suites do) and is then read from `runs/NAME`. Records refer to it by its digest,
which is the checkpoint's, or that of the folder's configuration, tokenizer and weights; never by a path.

Symbols: n windows (token ids of the judge that it reads at once), B windows of one length in a batch, L ids per window,
D hidden features, V vocabulary size.
"""

from __future__ import annotations

import math
import os
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from repro.core import parts
from repro.core.devices import device
from repro.core.files import file_digest, runs
from repro.core.lazy import torch
from repro.core.reading import foreign, open_tensors, read_json
from repro.data.corpus import Data
from repro.data.released import read_tokenizer
from repro.evals.text_quality.gen_ppl import CausalLM
from repro.evals.text_quality.mauve import State
from repro.evals.text_quality.samples import Ids
from repro.hub.gguf import gguf_folder
from repro.hub.layout import check_counts
from repro.hub.mapping import check_finite
from repro.model import Model, load
from repro.training.checkpoint import open_checkpoint

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LOGITS = 1 << 27
"""Maximum number of logits per forward pass (1 GiB in float64)."""
READINGS = 1 << 12
"""Number of windows whose results a `TransformersJudge` keeps; 64 MiB at 128 ids and 1,024 features."""
END = "<|endoftext|>"
"""Text that a `CheckpointJudge` encodes as EOS, the end of a document (GPT-2's end-of-text token)."""


class Judge(CausalLM):
    """Base class of judges: a causal language model that scores token ids, with its tokenizer and its hidden states."""

    end: str | None
    """Text that `encode` maps to the id `eos`; None if the judge has no EOS id."""
    device: str
    """Type of the device that the judge runs on, such as "cpu" or "cuda"."""
    max_length: int
    """Maximum number of ids per text that `features` reads."""

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Token ids of `text` in the judge's vocabulary."""

    @abstractmethod
    def shares_ids(self, data: Data) -> bool:
        """Whether the judge has the same token ids as a model trained on `data`, so that it can read that model's
        ids."""

    @abstractmethod
    def features(self, windows: Sequence[Ids], state: State) -> np.ndarray:
        """Features of n windows (token ids of a text each), float64 [n, D]: the last layer's hidden state after the
        last id (`state` "last"), or its mean over all ids ("mean"). ValueError for an empty window and for one longer
        than `max_length`."""


class CheckpointJudge(Judge):
    """A judge that is a left-to-right checkpoint of this repository; it reads BOS before every window, so that the
    first id has a likelihood too.

    ValueError for a model that is not left-to-right.
    """

    def __init__(self, model: Model) -> None:
        if not model.recipe.process.causal:
            raise ValueError(
                f"{model.recipe.name} is not left to right and cannot be a judge; give a checkpoint of recipe ar"
            )
        vocabulary = model.data.vocabulary()
        self.model, self.name, self.digest = model, model.recipe.name, model.digest
        self.device = model.denoiser.home.type
        self.max_length = model.data.row_length() - 1  # BOS takes one position of the row
        known = vocabulary.eos is not None and vocabulary.eos < vocabulary.size
        self.eos, self.end = (vocabulary.eos, END) if known else (None, None)

    def encode(self, text: str) -> list[int]:
        if self.end is None:
            return list(self.model.data.encode(text))
        assert self.eos is not None
        ids: list[int] = []
        for i, document in enumerate(text.split(self.end)):
            ids += [self.eos] * (i > 0) + list(self.model.data.encode(document))
        return ids

    def shares_ids(self, data: Data) -> bool:
        return parts.digest(data) == parts.digest(self.model.data)

    def logp(self, windows: Sequence[Ids]) -> list[np.ndarray]:
        from repro.models.attention import Mask

        denoiser, vocabulary = self.model.denoiser, self.model.data.vocabulary()
        process = self.model.recipe.process

        def read(rows: Tensor) -> Tensor:
            t = torch.zeros(len(rows), device=rows.device) if denoiser.time_conditioned else None
            features = denoiser.encode(process.inputs(rows, vocabulary), t=t, attention=Mask())
            return denoiser.logits(features)

        _check_windows(windows, self.model.data.row_length(), vocabulary.size, self.name)
        return _log_probs(windows, vocabulary.total, read, denoiser.home)

    def features(self, windows: Sequence[Ids], state: State) -> np.ndarray:
        from repro.models.attention import Mask

        denoiser, vocabulary = self.model.denoiser, self.model.data.vocabulary()

        def read(rows: Tensor) -> Tensor:
            t = torch.zeros(len(rows), device=rows.device) if denoiser.time_conditioned else None
            begun = torch.nn.functional.pad(rows, (1, 0), value=vocabulary.first)
            return denoiser.encode(begun, t=t, attention=Mask())[:, 1:]

        _check_windows(windows, self.max_length, vocabulary.size, self.name)
        return _features(windows, vocabulary.total, read, denoiser.home, state)


class _Reading(NamedTuple):
    """Outputs of a judge for one window of L ids: `logp` [L], log-probability of each id in nats, NaN for the first;
    `last` and `mean`, float64 [D] each, the last layer's hidden state after the last id and its mean over all ids."""

    logp: np.ndarray
    last: np.ndarray
    mean: np.ndarray


class TransformersJudge(Judge):
    """A judge that is a causal LM with its tokenizer in a folder saved by transformers; no BOS is added, so the first
    id of a window has no likelihood.

    ValueError for a folder without a causal LM or without a tokenizer.
    """

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"):
            if os.path.lexists(folder / name):
                found = read_json(folder / name, dict)
                check_counts(folder / name, found if name == "config.json" else {})
        if (folder / "tokenizer.json").is_file():
            read_tokenizer(folder / "tokenizer.json")
        with foreign(folder, "causal LM with its tokenizer"):
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # `_check_account` refuses them
            )
            if tokenizer is not None:
                tokenizer("a")  # a wrong field may fail here alone
            loaded[0].eval()(torch.zeros(1, 2, dtype=torch.long))  # and here
        network, account = loaded
        _check_account(folder, account)
        for name, weights in network.named_parameters():
            check_finite(f"{folder}: {name!r}", weights.detach())
        if tokenizer is None:
            raise ValueError(f"{folder} holds no tokenizer; save it in the same folder as the network")
        from repro.models.products import multiply_by_onednn

        self.tokenizer: PreTrainedTokenizerBase = tokenizer
        self.network: PreTrainedModel = multiply_by_onednn(network.eval().to(device()))
        self.name, self.digest = folder.name, _folder_digest(folder)
        self.device = self.network.device.type
        self._readings: OrderedDict[tuple[int, ...], _Reading] = OrderedDict()
        self.max_length = network.config.max_position_embeddings
        self.eos, self.end = self.tokenizer.eos_token_id, self.tokenizer.eos_token

    def encode(self, text: str) -> list[int]:
        return self.tokenizer(text)["input_ids"]

    def shares_ids(self, data: Data) -> bool:
        return False

    def logp(self, windows: Sequence[Ids]) -> list[np.ndarray]:
        return [reading.logp for reading in self._read(windows)]

    def features(self, windows: Sequence[Ids], state: State) -> np.ndarray:
        _check_not_empty(windows)
        return np.stack(
            [reading.last if state == "last" else reading.mean for reading in self._read(windows)]
        )

    def _read(self, windows: Sequence[Ids]) -> list[_Reading]:
        """Log-probabilities and hidden states of each window, from one forward pass. The results of the last `READINGS`
        windows are kept, because all evaluations of a command read the same held-out texts."""
        config, known = self.network.config, self._readings
        _check_windows(windows, config.max_position_embeddings, config.vocab_size, self.name)
        keys = [tuple(window) for window in windows]
        missing = [key for key in dict.fromkeys(keys) if key not in known]
        fresh = {key: _Reading(np.zeros(0), np.zeros(0), np.zeros(0)) for key in missing}
        for some, rows in _batches(missing, config.vocab_size, self.network.device):
            fresh |= zip([missing[i] for i in some], self._forward(rows), strict=True)
        found = [fresh[key] if key in fresh else known[key] for key in keys]
        known |= fresh
        while len(known) > READINGS:
            known.popitem(last=False)
        return found

    def _forward(self, rows: Tensor) -> list[_Reading]:
        """The judge's `_Reading` of each of B windows of token ids `rows` [B, L], from one forward pass."""
        states: list[Tensor] = []
        hook = self.network.base_model.register_forward_hook(
            lambda module, given, out: states.append(out.last_hidden_state)
        )
        try:
            with torch.inference_mode():
                logits = self.network(rows, use_cache=False).logits
                hidden = states[0].double()
                logp = _log_prob(logits, rows.roll(-1, 1))[:, :-1]
        finally:
            hook.remove()
        logp = torch.nn.functional.pad(logp, (1, 0), value=torch.nan)
        parts_of = (each.cpu().numpy() for each in (logp, hidden[:, -1], hidden.mean(1)))
        return [_Reading(*each) for each in zip(*parts_of, strict=True)]


def _check_account(folder: Path, account: Mapping[str, Any]) -> None:
    """Raise ValueError if a parameter of the network has no stored tensor, or a stored tensor has no parameter or
    another shape; `account`: the loading info that transformers returned for the model in `folder`."""
    for what, says in (
        ("missing_keys", "has no tensor for {!r}, which would start at random"),
        ("mismatched_keys", "stores {!r} in another shape than config.json says"),
        ("unexpected_keys", "stores {!r}, for which its configuration has no place"),
    ):
        names = sorted(str(each) for each in account[what])
        if names:
            raise ValueError(
                f"{folder} {says.format(names[0])} ({len(names)} such tensors); copy this folder from its source again"
            )


def judge_parameters(name: str | Path) -> int | None:
    """Number of parameters of the judge `name` (a path, or a name in `runs/`), for estimates of cost, from the headers
    of its weights or the recipe of its run; None if it is not on this machine."""
    try:
        path = find_judge(name).resolve()
    except ValueError:
        return None
    if not (path / "config.json").is_file():
        found = open_checkpoint(path)
        return found.recipe.backbone.size(found.recipe.data).parameters
    total = 0
    for file in path.glob("*.safetensors"):
        with open_tensors(file) as tensors:
            total += sum(math.prod(tensors.get_slice(key).get_shape()) for key in tensors.keys())  # noqa: SIM118
    return total


def load_judge(name: str | Path) -> Judge:
    """The judge `name`, given as the path of its folder or as the folder's name in `runs/`; ValueError if there is no
    such folder or it holds no causal language model."""
    return _opened(find_judge(name).resolve())


@lru_cache(maxsize=1)
def _opened(path: Path) -> Judge:
    """The judge in the folder `path`. The last one stays loaded, since all evaluations of a command use the same."""
    return TransformersJudge(path) if (path / "config.json").is_file() else CheckpointJudge(load(path))


def find_judge(name: str | Path) -> Path:
    """Folder of a judge, given as a path (a GGUF file is unpacked), as a name in `runs/` or as the name of a GGUF file
    of `repro.hub.packaged`; ValueError if there is none."""
    unpacked = gguf_folder(name)
    if unpacked is not None:
        return unpacked
    for path in (Path(name), runs() / name):
        if path.is_dir():
            return path
    raise ValueError(
        f"no judge {str(name)!r}, neither at that path nor in {runs()}; give a checkpoint's folder"
    )


def judge_text(data: Data, ids: Ids, end: str | None) -> str:
    """Text of `ids`, token ids of a model trained on `data`, to be tokenised again by a judge. BOS and EOS become
    `end`, the judge's text for the end of a document; ValueError if ids contain them and `end` is None."""
    vocabulary = data.vocabulary()
    marks = {vocabulary.bos, vocabulary.eos} - {None}
    documents: list[list[int]] = [[]]
    for token in ids:
        if token in marks:
            documents.append([])
        else:
            documents[-1].append(token)
    if len(documents) > 1 and end is None:
        raise ValueError("the samples contain BOS or EOS and the judge has no EOS; use a judge with EOS")
    return (end or "").join(data.decode(document) if document else "" for document in documents)


def _check_windows(windows: Sequence[Ids], longest: int, vocab_size: int, name: str) -> None:
    """Raise ValueError, with the `name` of the judge, for a window (token ids that it reads at once) of more than
    `longest` ids or with an id outside 0 to `vocab_size` - 1."""
    for window in windows:
        if len(window) > longest:
            raise ValueError(
                f"judge {name} reads at most {longest} ids at once, and a text has {len(window)}; set length={longest}"
                " or less in the scoring rule or in the settings of MAUVE"
            )
        odd = next((token for token in window if not 0 <= token < vocab_size), None)
        if odd is not None:
            raise ValueError(
                f"judge {name} has ids 0 to {vocab_size - 1}, and a sample contains {odd}; score the text instead of "
                "the ids, or give the judge that these ids belong to"
            )


def _log_probs(
    windows: Sequence[Ids], vocab_size: int, read: Callable[[Tensor], Tensor], device: torch.device
) -> list[np.ndarray]:
    """One array [length] per window (list of token ids): log-probability in nats of each id given those before it.
    `read` is the network, ids [B, L] on `device` -> logits [B, L, vocab_size], each for the id at its own position."""
    found: list[np.ndarray] = [np.zeros(0)] * len(windows)
    for same, rows in _batches(windows, vocab_size, device):
        with torch.inference_mode():
            logp = _log_prob(read(rows), rows)
        for i, values in zip(same, logp.cpu().numpy(), strict=True):
            found[i] = values
    return found


def _log_prob(logits: Tensor, ids: Tensor) -> Tensor:
    """Log-probabilities in nats, float64 [B, L], of ids [B, L] under logits [B, L, V]; computed for a block of tokens
    at a time, whose float64 logits stay in a CPU's cache."""
    from repro.models.chunks import BLOCK, BLOCK_ACCELERATOR

    size = max(1, (BLOCK if logits.device.type == "cpu" else BLOCK_ACCELERATOR) // logits.shape[-1])
    blocks = zip(logits.flatten(0, 1).split(size), ids.reshape(-1, 1).split(size), strict=True)
    return torch.cat([some.double().log_softmax(-1).gather(-1, of) for some, of in blocks]).view(ids.shape)


def _features(
    windows: Sequence[Ids],
    vocab_size: int,
    read: Callable[[Tensor], Tensor],
    device: torch.device,
    state: State,
) -> np.ndarray:
    """Features of n windows, float64 [n, D]: last or mean hidden state (`state`). `read` is the network: a function of
    ids [B, L] on `device` that returns hidden states [B, L, D]. ValueError for an empty window."""
    _check_not_empty(windows)
    found: dict[int, np.ndarray] = {}
    for same, rows in _batches(windows, vocab_size, device):
        with torch.inference_mode():
            states = read(rows).double()
            features = states[:, -1] if state == "last" else states.mean(1)
        found |= zip(same, features.cpu().numpy(), strict=True)
    return np.stack([found[i] for i in range(len(windows))])


def _check_not_empty(windows: Sequence[Ids]) -> None:
    for i, window in enumerate(windows):
        if not len(window):
            raise ValueError(f"sample {i} is empty and has no hidden state; leave it out")


def _batches(
    windows: Sequence[Ids], vocab_size: int, device: torch.device
) -> Iterator[tuple[list[int], Tensor]]:
    """Yield batches of windows (lists of token ids): (indices of B windows of one length L, their ids [B, L] on
    `device`), with at most LOGITS logits but at least one window each; empty windows are left out."""
    order = sorted((i for i in range(len(windows)) if len(windows[i])), key=lambda i: len(windows[i]))
    while order:
        length = len(windows[order[0]])
        same = [i for i in order[: max(1, LOGITS // (length * vocab_size))] if len(windows[i]) == length]
        order = order[len(same) :]
        yield same, torch.tensor([list(windows[i]) for i in same], device=device)


def _folder_digest(folder: Path) -> str:
    """SHA-256 over the names and contents of a model folder's files of configuration, tokenizer and weights."""
    files = sorted(p for p in folder.iterdir() if p.suffix in (".json", ".safetensors", ".txt", ".model"))
    return parts.sha256("".join(f"{p.name} {file_digest(p)}\n" for p in files))
