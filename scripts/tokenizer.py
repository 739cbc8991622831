"""Train the byte-level BPE of scale `micro` on the training speeches and write its merges, one a line.

python -m scripts.tokenizer             write evals/data/tokenizers/sotu_4096.txt and print its SHA-256
python -m scripts.tokenizer --check     exit code 1 if the file differs from what training gives now

The scale pins the SHA-256 (repro/recipes/scale.py), so the file and not the version of `tokenizers` decides the ids.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from repro.core.cli import Parser, run
from repro.core.files import ROOT, write_text
from repro.data.byte_level import BpeMerges, learn_bpe
from repro.data.text import Text
from repro.recipes.scale import CORPORA


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns 1 if `--check` finds another file than training gives, else 0."""
    parser = Parser(
        "python -m scripts.tokenizer",
        "Train the BPE of scale micro and write its merges.",
        ["python -m scripts.tokenizer --check"],
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if the file differs")
    args = parser.parse_args(argv)
    data = CORPORA["micro"]
    assert isinstance(data, Text) and isinstance(data.units, BpeMerges)
    file, wanted = ROOT / data.units.path, merges(data)
    digest = hashlib.sha256(wanted.encode()).hexdigest()
    if not args.check:
        write_text(file, wanted)
        print(f"{data.units.path} {digest}")
    elif not file.is_file() or file.read_text("utf-8") != wanted:
        print(f"{data.units.path} differs from what training gives; run python -m scripts.tokenizer")
        return 1
    return 0


def merges(data: Text) -> str:
    """The merges of the BPE of `data`, trained on its training documents: lines of two pieces in order of rank."""
    assert isinstance(data.units, BpeMerges)
    pairs = json.loads(learn_bpe(data.documents, data.units.size).to_str())["model"]["merges"]
    return "".join(" ".join(pair) + "\n" for pair in pairs)


if __name__ == "__main__":
    run(main, "scripts.tokenizer")
