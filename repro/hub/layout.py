"""Layouts of released weights: which model family a folder belongs to, and the checks that all families share.

    layout, backbone = recognise(folder)

A family is one file of this package (`dit.py`, `llada.py`, ...). It holds a function from the fields of `config.json`
to a backbone of `repro.models`, the tensor names, and one `Layout` per network. To add a family, write its file and add
a line for each of its layouts to `LAYOUTS` of `repro.core.registry`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repro.core import parts
from repro.core.errors import nearest
from repro.core.reading import read_json
from repro.core.registry import LAYOUTS, resolve
from repro.hub.mapping import TensorNames
from repro.models.backbone import Backbone
from repro.processes.blocks import BlockAbsorbing
from repro.processes.prediction import Meaning
from repro.processes.process import Process

Config = dict[str, Any]
"""The fields of a config.json, by name."""

VOCAB_SIZES = ("embedding_size", "vocab_size")
"""Fields of config.json that may hold the number of rows of the embedding; the first one present is used."""
LENGTHS = ("model_length", "max_sequence_length", "max_position_embeddings", "n_positions")
"""Fields of config.json that may hold the longest supported row, in tokens; the first one present is used."""
COUNTS = (
    *("hidden_dim", "cond_dim", "n_blocks", "n_heads", "block_size", "d_model", "n_layers", "mlp_hidden_size"),
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "n_embd", "n_layer"),
    *("n_head", "canvas_length"),
)  # fmt: skip
"""Fields of config.json that must be positive integers in every family that has them."""
LAYERS = ("n_blocks", "n_layers", "num_hidden_layers", "n_layer")
"""Those of `COUNTS` that are numbers of layers."""
LARGEST, DEEPEST = 1 << 24, 1000
"""Largest width, length or vocabulary size, and largest number of layers: more, as in a forged file, would take hours
or all memory."""
KV_HEADS = ("n_kv_heads", "num_key_value_heads")
"""Fields of config.json that may hold the number of key and value heads; null: as many as query heads."""
HEADS = (("hidden_dim", "n_heads"), ("d_model", "n_heads"), ("n_embd", "n_head"))
"""Pairs of fields of config.json: a width, and the number of heads that must divide it."""
NUMBERS = ("rope_theta", "rms_norm_eps", "norm_eps", "layer_norm_epsilon")
"""Fields of config.json that must be numbers in every family that has them."""


@dataclass(frozen=True)
class Layout:
    """How the folder of one released network is read.

    `name`: for messages. `tensor_names`: which stored tensor fills which parameter of this suite's network. `backbone`:
    function from config.json to a backbone of `repro.models`, without weights; it raises KeyError for a missing field
    and ValueError for a value that this suite's network does not support. `process`, `meaning`, `score`: noise process
    of the weights' training (see `process_of`), what their output estimates ("x0_mean": the clean token given all noisy
    ones; "leave_one_out": given all but the position's own), and kind of likelihood bound that their loss is. `mask`: a
    field of config.json with the mask id, or else the text of the mask token; "last": the mask is the last id; None: no
    mask. `required`: field of config.json -> its only supported value, checked if config.json has the field. `variant`:
    function from config.json to the name in `LAYOUTS` of another network that shares this model_type, or None.
    """

    name: str
    tensor_names: TensorNames
    backbone: Callable[[Config], Backbone]
    process: Process
    meaning: Meaning
    score: str
    mask: str | None
    required: Mapping[str, Any]
    variant: Callable[[Config], str | None] = lambda config: None

    def process_of(self, backbone: Backbone) -> Process:
        """The noise process for which weights of this layout with this backbone were trained: absorbing noise block by
        block if `process` masks tokens and the network reads blocks, else `process`."""
        block = backbone.required_block_size()
        if block is None or not self.process.masks:
            return self.process
        return BlockAbsorbing(block=block)


def read_config(folder: Path) -> Config:
    """Fields of a folder's config.json; ValueError if it is missing or not a JSON object.

    The fields of `text_config`, in which multimodal networks describe their language model, are merged into the top
    level.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"{path} is missing; copy the configuration of these weights there")
    config = read_json(path, dict)
    text = config.get("text_config")
    return {**text, **config} if isinstance(text, dict) else config


def positive(path: Path, config: Config, field: str) -> int:
    """`config[field]`, where `config` are the fields of the config.json at `path`; ValueError if the value is not an
    integer from 1 to 2^24 (1,000 for a number of layers)."""
    value, largest = config[field], DEEPEST if field in LAYERS else LARGEST
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= largest:
        raise ValueError(
            f"{path}: {field} is {value!r}, not an integer from 1 to {largest}; copy the file from its source again"
        )
    return value


def check_counts(path: Path, config: Config) -> None:
    """Raise ValueError for the first size (width, length, number of layers, ...) in `config`, the fields of the
    config.json at `path`, that is not a positive integer or is too large."""
    for field in (*COUNTS, *VOCAB_SIZES, *LENGTHS, *KV_HEADS):
        if (field in COUNTS and field in config) or config.get(field) is not None:
            positive(path, config, field)


def token_ids(path: Path, config: Config, field: str, total: int) -> list[int]:
    """The token ids that `field` of the JSON object `config` holds: one, several (a list), or none (null or no such
    field). ValueError, which names the file `path` of the object, for a value that is no id below `total`."""
    value = config.get(field)
    ids = value if isinstance(value, list) else [] if value is None else [value]
    for each in ids:
        if not isinstance(each, int) or isinstance(each, bool) or not 0 <= each < total:
            raise ValueError(
                f"{path}: {field} is {value!r}, not an id from 0 to {total - 1}; correct it, or write null for none"
            )
    return ids


def find(config: Config) -> tuple[str, Layout | None]:
    """(name in `LAYOUTS`, layout) of the network that the fields `config` of a config.json describe; (model_type, None)
    if its model_type is not supported."""
    kind = str(config.get("model_type", "")).lower()
    layout = resolve(LAYOUTS[kind]) if kind in LAYOUTS else None
    variant = layout.variant(config) if layout else None
    return (variant, resolve(LAYOUTS[variant])) if variant else (kind, layout)


def recognise(folder: Path) -> tuple[Layout, Backbone]:
    """The layout of a folder of released weights, and its backbone without weights.

    Raises ValueError, with a one-line message, if the network is not supported.
    """
    config, path = read_config(folder), folder / "config.json"
    kind, layout = find(config)
    if layout is None:
        raise ValueError(
            f"{path}: model_type {kind!r} is not supported; {nearest(kind, LAYOUTS)}; networks of other families cannot"
            " be read"
        )
    _check(path, config, layout)
    try:
        return layout, parts.read(parts.canonical(layout.backbone(config)), Backbone)
    except KeyError as error:
        raise ValueError(f"{path} lacks {error}; give a complete configuration of {layout.name}") from None
    except (TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: a field has a value of the wrong type ({error}); copy the file from its source again"
        ) from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _check(path: Path, config: Config, layout: Layout) -> None:
    """Raise ValueError for the first field of the config.json at `path` whose value is malformed or not supported by
    the network of `layout`. `config`: the fields of the file."""
    for field, value in layout.required.items():
        if config.get(field, value) != value:
            raise ValueError(
                f"{path}: {field} is {config[field]!r}; only {value!r} is supported for {layout.name}"
            )
    check_counts(path, config)
    for field in NUMBERS:
        value = config.get(field, 1.0)
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise ValueError(
                f"{path}: {field} is {value!r}, not a positive number; copy the file from its source again"
            )
    for width, heads in HEADS:
        if width in config and heads in config and config[width] % config[heads]:
            raise ValueError(
                f"{path}: {heads} is {config[heads]}, no divisor of {width}={config[width]}; copy the file from its"
                " source again"
            )
