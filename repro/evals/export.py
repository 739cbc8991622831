"""Export a checkpoint as a folder for others, with tokenizer, generation settings and model card; push it to the Hub.

export(Path("runs/mdlm@nano-s0"), Path("exported"), "ema")
push(Path("exported"), "me/mdlm-nano", dry_run=True)
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from repro.core import parts
from repro.core.files import atomically
from repro.core.papers import of_recipe, papers, shown
from repro.data.corpus import Data
from repro.data.exported import special_tokens, tokenizer_of
from repro.models.llama import Llama
from repro.results.record import Record
from repro.results.shares import shown as shown_metric
from repro.results.store import collect
from repro.training.checkpoint import Checkpoint, Weights, open_checkpoint
from repro.training.exporting import is_export, write_weights
from repro.training.recipe import Recipe

CARD = "README.md"


class Written(NamedTuple):
    """What `export` wrote: `weights`, "raw" or "ema" (averaged), and `readers`, a sentence that says what software
    loads the folder."""

    weights: Weights
    readers: str


def export(path: Path, out: Path, weights: Weights | Literal["auto"]) -> Written:
    """Write the checkpoint `path` (a run folder, or the folder of one step) to the folder `out`: weights, configuration
    (`repro.training.exporting`), tokenizer, generation settings, and a model card with the recipe's settings, digest
    and the results that are stored beside the checkpoint.

    `weights`: "raw", "ema" (averaged), or "auto": averaged if the checkpoint has averaged weights, as evaluations
    choose. Raises ValueError for a checkpoint that cannot be read, FileExistsError where `out` exists, ConnectionError
    if the tokenizer is on the Hub, which cannot be reached.
    """
    checkpoint = open_checkpoint(path)
    if weights == "auto":
        weights = "ema" if checkpoint.has_ema else "raw"
    with atomically(out) as temporary:
        theirs = write_weights(checkpoint, weights, temporary)
        _write_tokenizer(checkpoint.data, temporary)
        settings = _generation(checkpoint.data, checkpoint.recipe.process.causal)
        (temporary / "generation_config.json").write_text(json.dumps(settings, indent=1) + "\n", "utf-8")
        raw = checkpoint.folder.parent / "raw"
        digest = checkpoint.digest(weights)
        records = [r for r in collect(raw) if r.question.checkpoint.digest == digest] if raw.is_dir() else []
        card = "\n".join(_card(checkpoint, weights, theirs, records, out.name))
        (temporary / CARD).write_text(card + "\n", "utf-8")
    return Written(weights, _readers(checkpoint.recipe, theirs, str(out)))


def _write_tokenizer(data: Data, folder: Path) -> None:
    tokenizer = tokenizer_of(data)
    tokenizer.save(str(folder / "tokenizer.json"))
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
    }
    config["model_max_length"] = data.row_length()
    special = special_tokens(tokenizer, data.vocabulary())
    config |= {f"{name}_token": token for name, token in special.items()}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n", "utf-8")


def _generation(data: Data, causal: bool) -> dict[str, Any]:
    """Content of transformers' generation_config.json: ids of special tokens, largest number of tokens of a text, and
    for a `causal` model do_sample. The file has no settings of diffusion samplers."""
    vocabulary = data.vocabulary()
    ids = {"bos_token_id": vocabulary.bos, "eos_token_id": vocabulary.eos, "pad_token_id": vocabulary.pad}
    found = {name: number for name, number in ids.items() if number is not None}
    return {**found, "max_length": data.row_length(), **({"do_sample": True} if causal else {})}


def _readers(recipe: Recipe, theirs: bool, name: str) -> str:
    """A sentence that says whether transformers loads the exported folder `name`; `theirs`: whether transformers
    implements the network."""
    if not theirs:
        placed = isinstance(recipe.backbone, Llama) and recipe.backbone.learned_positions
        remedy = (
            ", since it has learned positions (one trained with --set backbone.learned_positions=0 has none)"
        )
        return (
            f"transformers does not have this network{remedy if placed else ''} and refuses the folder; `repro`"
            " reads it"
        )
    if recipe.process.causal:
        return f'transformers loads the folder too: `AutoModelForCausalLM.from_pretrained("{name}")`'
    return (
        "transformers has this network and loads its weights, but cannot sample from it (the output is for"
        f" {recipe.process.noise} noise, with attention in both directions); `repro` reads the folder"
    )


def _card(
    checkpoint: Checkpoint, weights: Weights, theirs: bool, records: Sequence[Record], name: str
) -> Iterator[str]:
    """Lines of the model card of the exported folder `name`: metadata, how to load it, results (`records`), settings.
    `theirs`: whether transformers implements the network."""
    recipe, process = checkpoint.recipe, checkpoint.recipe.process
    number = of_recipe(recipe.name)
    library = "transformers" if theirs else "repro"
    yield from (
        "---",
        f"library_name: {library}",
        "tags:",
        "- diffusion-language-model",
        f"- {process.noise}",
        "---",
    )
    yield from ("", f"# {recipe.name}", "")
    step = recipe.unfinished(checkpoint.step) or f"step {checkpoint.step}"
    where = f"seed {checkpoint.seed}, {step}, {weights} weights"
    yield f"Trained by `repro` (recipe `{recipe.name}`, {where})."
    if number is not None:
        yield f"Method: {papers()[number].title} ({shown(number)})."
    yield from (
        "",
        f"- recipe digest `{recipe.digest()}`",
        f"- checkpoint digest `{checkpoint.digest(weights)}`",
        "",
    )
    yield from (
        "```python",
        "from repro import load, sample",
        "",
        f'print(*sample(load("{name}"), n=2))',
        "```",
        "",
    )
    yield f"{_readers(recipe, theirs, name)}."
    yield from ("", "## Results", "")
    yield from _results(records)
    yield from ("", "## Settings", "", "| setting | value |", "| --- | --- |")
    for pin, value in parts.leaves(recipe).items():
        cell = parts.brief(parts.canonical(value)).replace("|", "\\|")  # else it would end the cell
        yield f"| {pin} | `{cell}` |"


def _results(records: Sequence[Record]) -> Iterator[str]:
    if not records:
        yield "No results are stored beside this checkpoint."
        return
    yield from (
        "| task | sampler | tokens per step | metric | value (95 % interval) | n |",
        "| --- " * 6 + "|",
    )
    for record in records:
        labels = record.labels
        where = f"| {labels.task} | {labels.preset or ''} | {labels.tokens_per_step or ''} "
        for name, metric in record.answer.metrics.items():
            yield f"{where}| {name} | {shown_metric(name, metric)} | {metric.n} |"


def push(folder: Path, name: str, dry_run: bool) -> Iterator[str]:
    """Upload an exported folder to the Hub repository `name` (OWNER/NAME) and yield lines that say what was sent; with
    `dry_run` nothing is sent, and the lines say what would be sent. ValueError if `folder` is no exported folder or
    `name` has another form; ConnectionError if the Hub refuses the upload or cannot be reached."""
    if not is_export(folder):
        raise ValueError(f"{folder} is no exported folder; write one with python -m repro.checkpoint export")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise ValueError(f"{name!r} is no name on the Hub; give OWNER/NAME")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    total = sum(path.stat().st_size for path in files)
    if not dry_run:
        from huggingface_hub import HfApi

        try:
            HfApi().create_repo(name, exist_ok=True)
            HfApi().upload_folder(repo_id=name, folder_path=folder)
        except OSError as error:
            raise ConnectionError(
                f"the Hub did not take {name} ({' '.join(str(error).split())[:200]}); check the connection, and that"
                " you may write there (`hf auth login`)"
            ) from None
    for path in files:
        yield f"{path.stat().st_size:>12,}  {path.relative_to(folder)}"
    yield f"{'would send' if dry_run else 'sent'} {len(files)} files, {total:,} bytes, to https://huggingface.co/{name}"
