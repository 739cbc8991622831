"""Catalogue of known released checkpoints, read from evals/checkpoints.toml (unknown fields are errors).

    entries = read()                           Hub name -> `Entry`, what loading, scoring and cost estimates need
    entry("GSAI-ML/LLaDA-8B-Base")             ValueError, with the most similar name, if it is not listed
    known("LLaDA-8B-Base")                     by Hub name or folder name; None if it is not listed

In the file, "unknown" marks a fact that could not be checked, "none" what a checkpoint does not have, and "UNRESOLVED"
is the placeholder of a revision or fingerprint that only the Hub can give. This module downloads nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from msgspec import Struct

from repro.core.errors import nearest
from repro.core.files import ROOT
from repro.core.reading import read_toml
from repro.data.corpus import UNRESOLVED
from repro.models.backbone import Size

FILE = ROOT / "evals" / "checkpoints.toml"
Id = int | Literal["none", "unknown"]
Fact = bool | Literal["unknown"]


class Shape(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes of a released network that determine the cost of its forward pass.

    `ffn`: inner width of a feed-forward layer; `matrices`: number of a feed-forward layer's weight matrices, 3 if
    gated, else 2; `vocabulary`: rows of the output layer; `active`: number of parameters of all layers that one token
    uses in a mixture of experts (0: no mixture, a token uses all).
    """

    layers: int
    width: int
    heads: int
    kv_heads: int
    ffn: int
    matrices: Literal[2, 3]
    vocabulary: int
    active: int = 0

    def size(self, parameters: int) -> Size:
        """The sizes that the cost model (`repro.training.cost`) needs, for a network of this shape and with this number
        of `parameters`."""
        kv_width = self.width // self.heads * self.kv_heads
        attention = 2 * self.width**2 + 2 * self.width * kv_width
        return Size(
            parameters=parameters,
            blocks=self.active or self.layers * (attention + self.matrices * self.width * self.ffn),
            layers=self.layers,
            width=self.width,
            kv_width=kv_width,
            ffn=self.ffn,
            vocab_size=self.vocabulary,
        )


class Entry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Catalogue entry of one released checkpoint.

    `name`: on the Hub; `layout`: name in `repro.core.registry.LAYOUTS`, or `unlisted: NAME` for a format that this
    suite cannot read; `process`: noise process of its training; `meaning`: what its output estimates, the clean token
    given all noisy tokens (`x0_mean`) or all but the position's own (`leave_one_out`; docs/method.md#uniform-samplers);
    `mask`, `eos`, `eot` (end of a turn) and `pad`: token ids; `length`: longest supported row, in tokens;
    `right_shift`: whether the logits at i predict position i + 1; `ema`: whether the weights are an average over
    training; `template`: chat template, `none`, `own` (the tokenizer's) or `seed` (that of the script tom-pollak/dllm,
    docs/method.md#masked-script); `fingerprint`: SHA-256 of the weights' bytes in the order of their files;
    `number_of`: name (as in `repro.verify --cell NAME`) of a published score that, measured again, tells this
    checkpoint from others of the same configuration, or ""; `suites`: evaluation suites with its published
    numbers; `source`: where these facts are from.
    """

    name: str
    revision: str
    fingerprint: str
    family: str
    process: Literal["absorbing", "uniform", "left_to_right", "unknown"]
    meaning: Literal["x0_mean", "leave_one_out", "unknown"]
    layout: str
    mask: Id | Literal["last"]
    eos: Id
    eot: Id
    pad: Id
    length: int | Literal["unknown"]
    tokenizer: str
    template: Literal["none", "own", "seed", "unknown"]
    right_shift: Fact
    time_conditioning: Fact
    ema: Fact
    licence: str
    parameters: int | Literal["unknown"]
    suites: list[str]
    source: str
    shape: Shape | None = None
    number_of: str = ""

    @property
    def folder(self) -> str:
        """Name of the checkpoint's local folder when copied from the Hub: the Hub name without the owner."""
        return self.name.rpartition("/")[2]

    def check(self, fingerprint: str, entries: Mapping[str, Entry]) -> None:
        """Raise ValueError if `fingerprint`, computed from weights that are said to be this entry's, is that of another
        of `entries` (Hub name -> entry), or is not the fingerprint that this entry records."""
        others = [e for e in entries.values() if e.fingerprint == fingerprint and e.name != self.name]
        if others:
            raise ValueError(
                f"these weights are {others[0].name}, not {self.name}; give the folder of {self.name}"
            )
        if self.fingerprint not in (UNRESOLVED, fingerprint):
            raise ValueError(
                f"the weights of {self.name} have fingerprint {fingerprint[:12]}, but {FILE.name} records"
                f" {self.fingerprint[:12]}; download revision {self.revision} again"
            )


class _CatalogueFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    checkpoint: list[Entry]


@lru_cache(maxsize=8)
def read(path: Path = FILE) -> Mapping[str, Entry]:
    """Hub name -> entry of each checkpoint in the TOML file `path`, parsed once per process; ValueError for a wrong
    field, and for a name, folder name or fingerprint that two entries have."""
    found = read_toml(path, _CatalogueFile).checkpoint
    for what in ("name", "folder"):
        twice = [name for name, n in Counter(getattr(each, what) for each in found).items() if n > 1]
        if twice:
            raise ValueError(f"{path}: two checkpoints have the {what} {twice[0]!r}; rename one of them")
    prints = Counter(each.fingerprint for each in found if each.fingerprint != UNRESOLVED)
    if prints and max(prints.values()) > 1:
        raise ValueError(
            f"{path}: two checkpoints have the fingerprint {max(prints, key=prints.__getitem__)}; correct one of them"
        )
    return MappingProxyType({each.name: each for each in found})


def entry(name: str) -> Entry:
    """The catalogue entry of a Hub name; ValueError, with the most similar name, if it is not listed."""
    entries = read()
    if name not in entries:
        raise ValueError(f"no checkpoint {name!r} in {FILE.name}; {nearest(name, entries)}")
    return entries[name]


def known(name: str) -> Entry | None:
    """The catalogue entry of the checkpoint with this Hub name or local folder name; None if it is not listed."""
    for each in read().values():
        if name in (each.name, each.folder):
            return each
    return None
