"""Datasets, tokenizers and weights from a local file or folder or from the Hub, at a revision fixed in the recipe.

A *revision* is the commit of a Hub name, or the SHA-256 of a local source's bytes (files sorted by path, concatenated);
the placeholder `UNRESOLVED` accepts any. A local path is looked up in the working directory, then beside the suite's
own `recipes/` and `evals/`. Code from a Hub repository is never run.

    dataset("allenai/tulu-3-sft-mixture-0225", None, UNRESOLVED, "train")   # ConnectionError without network
    dataset("evals/data/chats.jsonl", None, UNRESOLVED, "train")            # needs no network
"""

from __future__ import annotations

import codecs
import hashlib
import importlib.util
import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from repro.core.errors import nearest
from repro.core.files import ROOT
from repro.core.reading import DEPTH, foreign, regular
from repro.data.corpus import UNRESOLVED

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast

FORMATS = {".jsonl": "json", ".ndjson": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv"}
"""Suffix of a local data file, in lower case -> its reader in `datasets`."""

BLOCK = 1 << 22
"""Number of bytes read at a time for hashing, so that a corpus need not fit into memory."""

_WEIGHT_FILES = ["*.safetensors", "*.json", "*.jinja"]
_TOKENIZER_FILES = ["tokenizer*", "special_tokens_map.json", "vocab*", "merges.txt", "config.json"]


def local(source: str) -> Path | None:
    """The local file or folder that `source` names (in the working directory, else beside the suite's own `evals/`);
    None for a name on the Hub. ValueError for what looks like a path (by its beginning or suffix) and does not
    exist."""
    for base in (Path(), ROOT):
        if (base / source).exists():
            return base / source
    path = Path(source)
    if source.startswith((".", "/", "~")) or path.suffix.lower() in (*FORMATS, ".txt"):
        siblings = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
        raise ValueError(f"no file or folder {source!r}; {nearest(path.name, siblings)}")
    return None


def check_rows(file: Path) -> None:
    """Raise ValueError for a JSON or JSON Lines file that is not UTF-8, begins with neither an object nor a list, or
    has values nested more than 64 levels deep: pyarrow, which reads the file, would crash the process."""
    if FORMATS.get(file.suffix.lower()) != "json":
        return
    with open(regular(file), "rb") as handle:
        begin = handle.read(BLOCK).removeprefix(codecs.BOM_UTF8).lstrip()[:1]
        if begin not in (b"{", b"["):
            raise ValueError(f"{file} begins with no JSON object; give one object a line")
        handle.seek(0)
        depth = 0
        for line in handle:
            try:
                line.isascii() or line.decode("utf-8")
            except UnicodeDecodeError:
                raise ValueError(f"{file} is not UTF-8 text; convert it to UTF-8") from None
            opening = line.count(b"{") + line.count(b"[")
            if depth == 0 and opening == line.count(b"}") + line.count(b"]") <= DEPTH:
                continue  # a row of its own, and too few brackets to be deep
            depth, deepest = _nested(line, depth)
            if deepest > DEPTH:
                raise ValueError(
                    f"{file}: {deepest} levels of nesting; at most {DEPTH} are read, so flatten it"
                )


def _nested(line: bytes, depth: int) -> tuple[int, int]:
    """(number of brackets that are open after `line`, a line of JSON; largest number that are open at once within it).
    `depth`: number of brackets that are open before the line. Brackets in strings do not count."""
    deepest = depth
    for bracket in re.findall(rb"[\[\]{}]", re.sub(rb'"(?:[^"\\]|\\.)*"', b"", line)):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return depth, deepest


def shipped(package: str, release: str, folder: str) -> Path:
    """Path of the data folder `folder` within the installed Python package `package`, which is not imported.
    ValueError, which says to install the version `release`, where the package is not installed."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise ValueError(f"package {package!r} is not installed; run `pip install {package}=={release}`")
    return Path(found.submodule_search_locations[0]) / folder


def fingerprint(files: Iterable[Path]) -> str:
    """SHA-256 of the files' bytes, concatenated in the order given; ValueError for a path that is no file."""
    content = hashlib.sha256()
    for file in files:
        with open(regular(file), "rb") as handle:
            while block := handle.read(BLOCK):
                content.update(block)
    return content.hexdigest()


def check(source: str, pinned: str, found: str) -> None:
    """Raise ValueError, with both SHA-256 digests, unless `found`, the digest of the file or folder `source`, equals
    the expected digest `pinned`, or `pinned` is UNRESOLVED."""
    if pinned not in (UNRESOLVED, found):
        raise ValueError(
            f"{source}: expected sha256 {pinned}, found {found}; restore the file or change the recipe"
        )


def revision(source: str, pinned: str, kind: Literal["dataset", "model"]) -> str:
    """The revision of `source` that is read: the commit of a Hub name, or the SHA-256 of a local source.

    `pinned`: the expected revision, or UNRESOLVED; `kind`: what the source is. Raises ConnectionError, with a one-line
    message, where the Hub cannot be reached, ValueError for an unknown name or revision.
    """
    path = local(source)
    if path is not None:
        found = fingerprint(_files(path, (".json",) if kind == "model" else tuple(FORMATS)))
        check(source, pinned, found)
        return found
    return _snapshot(source, pinned, kind, ["README.md"]).name


def dataset(source: str, config: str | None, pinned: str, split: str) -> Dataset:
    """Rows of one split (a split expression of `datasets`, e.g. "train[:-1000]") of a dataset, memory-mapped.

    `source`: a local file or folder, or a name on the Hub. A single local file is the split "train"; in a local folder,
    file names determine the splits. `config`: name of a configuration of the dataset (None: the default one); `pinned`:
    expected revision (commit or SHA-256), or UNRESOLVED. Raises ConnectionError where the Hub cannot be reached,
    ValueError for an unknown name or revision.
    """
    path, found = local(source), revision(source, pinned, "dataset")
    import datasets
    import datasets.config
    from datasets.exceptions import DatasetGenerationError

    try:
        if path is None:
            return datasets.load_dataset(source, config, split=split, revision=found)
        files = _files(path, tuple(FORMATS))
        for file in files:
            check_rows(file)
        # `datasets` tells contents of a path apart by the time of their change, which copying may keep
        cache = str(Path(datasets.config.HF_DATASETS_CACHE) / f"repro-{found[:16]}")
        options: dict[str, Any] = {"split": split, "cache_dir": cache}
        if {file.suffix.lower() for file in files} == {".csv"}:
            options["keep_default_na"] = False  # else cells such as NA, None and null would be missing ones
        if path.is_dir():
            with foreign(path, "data set"):
                builder = datasets.load_dataset_builder(str(path), config, cache_dir=cache)
            _check_read(path, builder, files)
        with foreign(path, "data set"):
            try:
                if path.is_dir():
                    return datasets.load_dataset(str(path), config, **options)
                return datasets.load_dataset(FORMATS[path.suffix.lower()], data_files=str(path), **options)
            except DatasetGenerationError as error:
                raise error.__cause__ or error from None  # pyarrow says what is wrong, and in which row
    except ConnectionError:
        raise ConnectionError(f"cannot fetch {source} (no network); connect, or give a local copy") from None
    except (RuntimeError, ValueError) as error:
        if "scripts are no longer supported" not in str(error):
            raise
        raise ValueError(
            f"{source} is a loader script, and code of a Hub repository is never run; choose a dataset of files"
        ) from None


def _check_read(folder: Path, builder: Any, files: Iterable[Path]) -> None:
    """Raise ValueError if `datasets` would read a file of the `folder` that is not among the hashed `files`, since the
    SHA-256 of the data would not cover it, or leave out one of these, whose suffix is in upper case. `builder`:
    `datasets`' reader of the folder."""
    upper = next((file for file in files if file.suffix not in FORMATS), None)
    if upper is not None:
        raise ValueError(f"{upper} would not be read; write {upper.suffix} in lower case")
    hashed = {file.resolve() for file in files}
    for read in builder.config.data_files.values():
        for name in read:
            if Path(name).resolve() not in hashed:
                raise ValueError(
                    f"{folder}: the format of {Path(name).name} is not supported, only {', '.join(FORMATS)};"
                    " convert the file, or move it out of the folder"
                )


@lru_cache(maxsize=4)
def tokenizer(source: str, pinned: str) -> PreTrainedTokenizerFast:
    """Tokenizer of a Hub name or a local folder; `pinned`: expected revision (commit or SHA-256), or UNRESOLVED. Raises
    ConnectionError where the Hub cannot be reached, ValueError for an unknown name or revision, and for a tokenizer
    that is not of the library `tokenizers`."""
    path = local(source)
    if path is None:
        path = _snapshot(source, pinned, "model", _TOKENIZER_FILES)
    else:
        revision(source, pinned, "model")
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    with foreign(path, "tokenizer"):
        made = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    if not isinstance(made, PreTrainedTokenizerFast):
        raise ValueError(
            f"{source}: a {type(made).__name__} is not a fast tokenizer (library `tokenizers`); choose one that is"
        )
    return made


def weights(source: str, pinned: str) -> Path:
    """Folder with safetensors, configuration and tokenizer: a local folder, or that of a Hub name, downloaded once.

    `pinned`: expected revision (commit, or SHA-256 of the local safetensors files), or UNRESOLVED (any). Raises
    ConnectionError where the Hub cannot be reached, ValueError for an unknown name or revision.
    """
    path = local(source)
    if path is None:
        return _snapshot(source, pinned, "model", _WEIGHT_FILES)
    check(source, pinned, fingerprint(_files(path, (".safetensors",))))
    return path


def shown(files: Iterable[Path], folder: Path) -> list[Path]:
    """Those of `files` that are not hidden, sorted by path: neither their name nor that of a folder between them and
    `folder` begins with a dot. Hidden files are caches and what systems store, such as macOS's `._book.txt`; `datasets`
    leaves them out too."""
    return sorted(
        file for file in files if not any(name.startswith(".") for name in file.relative_to(folder).parts)
    )


def texts(folder: Path) -> list[Path]:
    """The .txt files of a folder (also .TXT), without hidden ones and those of folders in it, sorted by path."""
    return shown((file for file in folder.iterdir() if file.suffix.lower() == ".txt"), folder)


def _files(path: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Files of the file or folder `path` that have one of these suffixes, without hidden ones, sorted by path;
    ValueError where there are none."""
    found = [path] if path.is_file() else shown((file for file in path.rglob("*") if file.is_file()), path)
    found = [file for file in found if file.suffix.lower() in suffixes]
    if not found:
        raise ValueError(f"{path} has no {' or '.join(suffixes)} file; give another path")
    return found


def _snapshot(source: str, pinned: str, kind: Literal["dataset", "model"], patterns: list[str]) -> Path:
    """Folder with those files of the Hub repository `source` that match `patterns`, at the commit `pinned` (UNRESOLVED:
    the latest commit); the folder is named after the commit.

    Without network this fails at once, whereas `datasets` retries for half a minute.
    """
    from huggingface_hub import errors, snapshot_download

    wanted = None if pinned == UNRESOLVED else pinned
    try:
        return Path(snapshot_download(source, repo_type=kind, revision=wanted, allow_patterns=patterns))
    except errors.LocalEntryNotFoundError:
        raise ConnectionError(f"cannot fetch {source} (no network); connect, or give a local copy") from None
    except errors.HFValidationError:
        raise ValueError(
            f"{source!r} is neither a local path nor a name on the Hub; give an existing path, or OWNER/NAME"
        ) from None
    except errors.RevisionNotFoundError:
        raise ValueError(f"{source}: no revision {pinned!r} on the Hub; give one of its commits") from None
    except errors.RepositoryNotFoundError:
        raise ValueError(f"no public {kind} {source!r} on the Hub; check OWNER/NAME") from None
