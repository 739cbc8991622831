"""The tokenizer in a GGUF file, for training from the weights in that file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from repro.core.files import file_digest
from repro.core.parts import part
from repro.data import sources
from repro.data.pretrained import Pretrained
from repro.data.released import read_tokenizer
from repro.hub import packaged
from repro.hub.gguf import unpacked

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@part
class PackagedTokenizer(Pretrained):
    """The tokenizer in the GGUF file `source`, a path or the name of a model of `repro.hub.packaged` ("smollm2").

    `revision`: SHA-256 of the file, or UNRESOLVED (any); `size`: number of ids, which include BOS `begin`, EOS `end`
    and, unless None, padding and mask. ValueError for a file that is missing, is no GGUF file, or has another SHA-256.
    """

    def resolve(self) -> dict[str, str | int]:
        found = file_digest(self._file())
        sources.check(self.source, self.revision, found)
        return {"revision": found}

    def published(self) -> Tokenizer:
        return read_tokenizer(unpacked(self._file()) / "tokenizer.json")

    def _file(self) -> Path:
        path = packaged.file(self.source) if packaged.named(self.source) else Path(self.source)
        if not path.is_file():
            raise ValueError(
                f"no file {self.source}; give a GGUF file, or a name that `python -m repro.checkpoint fetch` takes"
            )
        return path
