"""Known released checkpoints: evals/checkpoints.toml, read strictly into entries.

    entries = read()                           Hub name -> what loading, scoring and cost estimates need
    entry("GSAI-ML/LLaDA-8B-Base")             ValueError names the nearest one
    known("LLaDA-8B-Base")                     by Hub name or folder name; None where it is not listed

`unknown` marks a fact that could not be checked, `none` what a checkpoint does not have, `UNRESOLVED` a revision or
fingerprint that only the Hub can give. Nothing is fetched here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import msgspec
from msgspec import Struct

from repro.core.errors import nearest
from repro.core.files import ROOT
from repro.data.corpus import UNRESOLVED
from repro.models.backbone import Size

FILE = ROOT / "evals" / "checkpoints.toml"
UNKNOWN = "unknown"
Id = int | Literal["none", "unknown"]
Fact = bool | Literal["unknown"]


class Shape(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes that determine the cost of a forward.

    `matrices`: of a feed-forward layer, 3 where it is gated, else 2; `vocabulary`: rows of the head; `active`: block
    parameters that one token uses in a mixture of experts (0: all of them).
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
        """Counts for the cost model of a network of this shape with this number of parameters."""
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
    """One released checkpoint.

    `layout`: name in `repro.hub.layout.LAYOUTS`, or `unlisted: NAME` for one that is not there; `meaning`: meaning of
    the output (docs/method.md#uniform-samplers); `eot`: id of the end of a turn; `length`: of the longest row; `ema`:
    whether the weights are an average; `template`: `none`, `own` (the tokenizer's chat template) or `seed` (that of the
    reference script, docs/method.md#masked-script); `fingerprint`: SHA-256 of the weights' bytes in the order of their
    files; `number_of`: a published cell whose number differs from that of a checkpoint of the same configuration;
    `suites`: evaluation suites with its published cells; `source`: of these facts.
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
        """Name of its folder when copied from the Hub."""
        return self.name.rpartition("/")[2]

    def check(self, fingerprint: str, entries: Mapping[str, Entry]) -> None:
        """ValueError if the weights with this fingerprint belong to another of `entries`, or are not the pinned
        ones."""
        others = [e for e in entries.values() if e.fingerprint == fingerprint and e.name != self.name]
        if others:
            raise ValueError(f"these weights are {others[0].name}, not {self.name}; give the right folder")
        if self.fingerprint not in (UNRESOLVED, fingerprint):
            raise ValueError(
                f"the weights of {self.name} have fingerprint {fingerprint[:12]}, pinned is"
                f" {self.fingerprint[:12]}; fetch revision {self.revision} again"
            )


class _File(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    checkpoint: list[Entry]


@lru_cache(maxsize=8)
def read(path: Path = FILE) -> Mapping[str, Entry]:
    """Every entry by its Hub name, parsed once a process; ValueError names the field or entry that is wrong."""
    try:
        found = msgspec.toml.decode(path.read_bytes(), type=_File).checkpoint
    except msgspec.DecodeError as error:
        raise ValueError(f"{path}: {error}".replace("`", "'")) from None
    for what in ("name", "folder"):
        twice = [name for name, n in Counter(getattr(each, what) for each in found).items() if n > 1]
        if twice:
            raise ValueError(f"{path}: two checkpoints have the {what} {twice[0]!r}")
    prints = Counter(each.fingerprint for each in found if each.fingerprint != UNRESOLVED)
    if prints and max(prints.values()) > 1:
        raise ValueError(
            f"{path}: two checkpoints have the fingerprint {max(prints, key=prints.__getitem__)}"
        )
    return MappingProxyType({each.name: each for each in found})


def entry(name: str) -> Entry:
    """The entry of a Hub name; ValueError names the nearest one."""
    entries = read()
    if name not in entries:
        raise ValueError(f"no checkpoint {name!r} in {FILE.name}; {nearest(name, entries)}")
    return entries[name]


def known(name: str) -> Entry | None:
    """The entry of a Hub name or of a folder with an entry's name; None where none is listed."""
    for each in read().values():
        if name in (each.name, each.folder):
            return each
    return None
