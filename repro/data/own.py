"""The user's own data in a recipe, as given by `--data FILE|FOLDER|OWNER/NAME --tokenizer NAME|FOLDER`.

    own_data(recipe.data, "book.txt", None, None)             text: blank lines separate documents
    own_data(recipe.data, "notes/", "gpt2", 128)              text: every .txt file is a document
    own_data(recipe.data, "chats.jsonl", "bpe:2048", 256)     chats: {"messages": [{"role": ..., "content": ...}]}
    own_data(recipe.data, "OWNER/NAME", None, None)           a dataset on the Hub with a column `text` or `messages`

The result's settings include the SHA-256 of the files (of a Hub name the commit), which identifies the data of a run by
content. Every 20th document or chat is held out; if there are fewer than 40, two of them.
"""

from __future__ import annotations

import os
from pathlib import Path

from repro.core import parts
from repro.core.reading import regular
from repro.data import sources
from repro.data.byte_level import Bpe, ByteLevel, Gpt2
from repro.data.chat import Chat
from repro.data.chats import Chats
from repro.data.corpus import UNRESOLVED, Data, DelegatedData
from repro.data.dialogues import Dialogues
from repro.data.documents import AllFiles, Column, Documents, Files, Messages
from repro.data.packed import Joined, Padded, Stream
from repro.data.pretrained import Pretrained
from repro.data.text import Alphabet, Units, Written

STRIDE = 20
"""Of documents numbered from 0, 19, 39, ... are held out; of n < 40 documents every (n // 2)-th, so that a standard
error can be estimated from two held-out ones."""
FEWEST = 4
"""Smallest number of documents."""
SPELLED = ("char", "chars", "character", "characters")
"""Other spellings of the tokenizer `characters`, which are no names on the Hub."""
DESCRIPTIONS = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json")
"""Files of a folder that describe its rows; `datasets` reads no rows from them."""
ROLES = ("system", "user", "assistant")
TEMPLATE = "{role}:\n{content}\n"
"""Text of a message of a chat, unless the recipe fixes its own."""


def own_data(base: Data, source: str, tokenizer: str | None, length: int | None) -> Data:
    """The data source `base` of a recipe, with the user's data `source` in place of the recipe's; its settings hold the
    SHA-256 of the user's files, or the commit of a Hub name.

    Text is cut into rows as in `base` (packed or padded); if `base` holds no such rows, all text is joined and cut
    (`Stream`). Chats are written in the template of `base`; if `base` has none, or `tokenizer` is given, as `Chats` in
    a plain template (role, content). `tokenizer`: "characters", "gpt2", "bpe:SIZE" (trained on the training documents),
    a folder, or a name on the Hub; None keeps a tokenizer of `base` that is not limited to a list of characters,
    else takes the characters of the data. `length`: ids per row, None for as many as in `base`.

    Raises ValueError for data or a tokenizer that cannot be read, for fewer than four documents, and for a dataset with
    neither of the columns `text` and `messages`; ConnectionError where the Hub cannot be reached.
    """
    while isinstance(base, DelegatedData):
        base = base.data
    if length is None:
        length = base.row_length()
    documents = own_documents(source)
    if isinstance(documents, Messages):
        return _chats(base, documents, tokenizer, length)
    units = own_units(tokenizer, documents) if tokenizer else _units(base, documents)
    if isinstance(base, Joined | Padded):
        pins = {"documents": documents, "units": units, "length": length}
        return parts.derive(base, pins)
    return Stream(documents=documents, units=units, length=length)


def own_documents(source: str) -> Documents:
    """The documents of `source`, a file, a folder or a dataset on the Hub: `Files` for plain text; for a dataset (JSON,
    Parquet, CSV or Hub) `Messages` if it has a column `messages`, else `Column` if it has a column `text`.

    Raises ValueError for a dataset with neither column, and for fewer than four documents.
    """
    if not source:
        raise ValueError("the name of the data is empty; give a file, a folder or OWNER/NAME")
    path = sources.local(source)
    if path is not None:
        source = os.path.normpath(source)
    if path is not None and not _is_table(path):
        every = AllFiles(path=source, sha256=UNRESOLVED)
        stride = _stride(source, sum(1 for _ in every.texts("heldout")))
        return Files(path=source, sha256=str(every.resolve()["sha256"]), heldout_stride=stride)
    revision = sources.revision(source, UNRESOLVED, "dataset")
    rows = sources.dataset(source, None, revision, "train")
    stride = _stride(source, len(rows))
    pins = {"source": source, "revision": revision, "split": "train", "heldout_stride": stride}
    if "messages" in rows.column_names:
        return Messages(**pins)
    if "text" not in rows.column_names:
        raise ValueError(
            f"{source} has the columns {', '.join(rows.column_names)}; rename one to 'text', or to 'messages' for chats"
        )
    return Column(**pins, column="text")


def own_units(tokenizer: str, documents: Documents) -> Units:
    """The tokenizer that the text `tokenizer` names: "characters" (those of `documents`), "gpt2", "bpe:SIZE" (trained
    on `documents`), a folder, or a name on the Hub. ValueError where it cannot be read."""
    kind, _, size = tokenizer.partition(":")
    if tokenizer == "characters":
        return _alphabet(documents)
    if tokenizer == "gpt2":
        return Gpt2()
    if kind.casefold() in SPELLED and sources.local(tokenizer) is None:
        raise ValueError(
            f"no --tokenizer {tokenizer!r}; for one id per character give --tokenizer characters"
        )
    if kind == "bpe" and sources.local(tokenizer) is None:
        if not size.isdecimal():
            raise ValueError(
                f"--tokenizer {tokenizer!r}: {size!r} is no number of ids; give bpe:2048 or similar"
            )
        return Bpe(size=int(size))
    return _pretrained(tokenizer)


def _is_table(path: Path) -> bool:
    """Whether a file or folder holds rows (JSON, Parquet or CSV) rather than plain text; ValueError for a folder with
    both, or with rows of two formats, of which `datasets` would read one and leave the other out."""
    if not path.is_dir():
        return regular(path).suffix.lower() in sources.FORMATS
    rows = [file for file in sources.shown(path.rglob("*"), path) if file.suffix.lower() in sources.FORMATS]
    texts = sources.texts(path)
    kinds = {sources.FORMATS[file.suffix.lower()]: file for file in rows if file.name not in DESCRIPTIONS}
    different = [*texts[:1], *kinds.values()]
    if len(different) > 1:
        one, other = (file.name for file in different[:2])
        raise ValueError(f"folder {path} has both {one} and {other}; give one kind of file")
    return bool(rows)


def _stride(source: str, count: int) -> int:
    if count < FEWEST:
        raise ValueError(
            f"{source} has {count} documents, but {FEWEST} or more are needed; separate documents by blank"
            " lines, or give a folder of .txt files or JSON Lines"
        )
    return min(STRIDE, count // 2)


def _units(base: Data, documents: Documents) -> Units:
    """The tokenizer of the recipe's data source `base` if that is a byte-level BPE or a published one, and so not
    limited to a list of characters; else one with an id per character of the documents."""
    if isinstance(base, Chat):
        pins = {"begin": base.cls, "end": base.sep, "pad": base.pad, "mask": base.mask, "size": base.total}
        return Pretrained(source=base.tokenizer, revision=base.tokenizer_revision, **pins)
    if isinstance(base, Dialogues):
        pins = {"begin": base.begin, "end": base.end, "pad": None, "mask": base.mask, "size": base.size}
        return Pretrained(source=base.tokenizer, revision=base.tokenizer_revision, **pins)
    if isinstance(base, Written) and isinstance(base.units, ByteLevel | Pretrained):
        return base.units
    return _alphabet(documents)


def _chats(base: Data, documents: Messages, tokenizer: str | None, length: int) -> Data:
    """Data source of the user's chats `documents`: rows in the format of the recipe's data source `base` if that has
    chats and `tokenizer` is None, else `Chats`, with `length` ids per row."""
    if isinstance(base, Chat | Dialogues) and not tokenizer:
        rows = len(sources.dataset(documents.source, None, documents.revision, documents.split))
        pins = {"source": documents.source, "revision": documents.revision, "split": documents.split}
        name = "max_length" if isinstance(base, Chat) else "length"
        return parts.derive(base, {**pins, "source_rows": rows, name: length})
    units = own_units(tokenizer, documents) if tokenizer else _units(base, documents)
    return Chats(documents=documents, units=units, length=length, template=TEMPLATE)


def _alphabet(documents: Documents) -> Alphabet:
    """A tokenizer with one id for each character that occurs in the documents, training or held-out (of which nothing
    but the set of their characters is used); for chats also for the characters of the template and of the roles'
    names."""
    texts = (text for split in ("train", "heldout") for _, text in documents.texts(split))
    found = set("".join(TEMPLATE.format(role=role, content="") for role in ROLES))
    if not isinstance(documents, Messages):
        found = set()
    return Alphabet(characters="".join(sorted(found.union(*texts))))


def _pretrained(source: str) -> Pretrained:
    """The tokenizer of a folder or a Hub name. The id that ends a text is its EOS, else its SEP; the id that begins a
    text its BOS, else its CLS, else the id that ends a text. ValueError without EOS and SEP."""
    path = sources.local(source)
    if path is not None:
        source = os.path.normpath(source)
    revision = sources.revision(source, UNRESOLVED, "model")
    made = sources.tokenizer(source, revision)
    end = _first(made.eos_token_id, made.sep_token_id)
    if end is None:
        raise ValueError(
            f"tokenizer {source} has neither an EOS nor a SEP token to end a document; add eos_token to its"
            " tokenizer_config.json"
        )
    begin = _first(made.bos_token_id, made.cls_token_id, end)
    assert begin is not None
    return Pretrained(
        source=source,
        revision=revision,
        size=max(made.get_vocab().values()) + 1,
        begin=begin,
        end=end,
        pad=made.pad_token_id,
        mask=made.mask_token_id,
    )


def _first(*ids: int | None) -> int | None:
    return next((each for each in ids if each is not None), None)
