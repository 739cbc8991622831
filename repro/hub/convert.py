"""Convert pickled weights to safetensors without running any code of the pickle.

    python -m repro.checkpoint convert last.ckpt --out OUT          a Lightning checkpoint or a .bin file;
                                                                    --weights ema converts the averaged weights

The converted folder keeps the authors' tensor names, configuration and tokenizer, so it loads like any other release.
A PyTorch file is a zip of raw storages and one pickle that arranges them. No class or function that the pickle names is
imported or called: tensors are rebuilt here, and every other object (a configuration, a schedule, a callback) becomes
an inert placeholder. Files older than PyTorch 1.6 are not zips and are refused.
"""

from __future__ import annotations

import pickle
import shutil
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from repro.core.files import atomically
from repro.core.lazy import torch
from repro.core.reading import foreign, regular
from repro.hub import layout as layouts
from repro.hub.mapping import PICKLES, WHOLE, TensorNames

if TYPE_CHECKING:
    from torch import Tensor

COPIED = ("config.json", "tokenizer.json", "tokenizer_config.json")
"""Files that are copied unchanged into the converted folder."""


def convert(source: Path, out: Path, weights: Literal["raw", "ema"]) -> int:
    """Write the tensors of the pickle `source`, or of the folder of pickles `source`, as a safetensors file into the
    new folder `out`, together with the configuration and tokenizer beside the pickle. `weights`: "raw", or "ema" for
    the averaged weights of a Lightning checkpoint.

    Returns the number of tensors. Raises ValueError, with a one-line message, if `out` exists, if `source` is no
    pickle, or if config.json beside the pickle is missing or of no supported model.
    """
    from safetensors.torch import save_file

    if out.exists():
        raise ValueError(f"{out} exists; give another --out, or remove it")
    folder = source if source.is_dir() else source.parent
    files = sorted(p for p in folder.iterdir() if p.suffix in PICKLES) if source.is_dir() else [source]
    if not files or not all(file.is_file() for file in files):
        raise ValueError(
            f"{source} is neither a pickle nor a folder of pickles ({', '.join(PICKLES)}); give one of these"
        )
    layout, _ = layouts.recognise(folder)
    found: dict[str, Tensor] = {}
    for file in files:
        for name, tensor in read_pickle(file, weights, layout.tensor_names).items():
            if name in found:
                raise ValueError(
                    f"{file}: tensor {name!r} is also in another file of the folder; convert one file at a time"
                )
            found[name] = tensor
    with atomically(out) as temporary:
        temporary.mkdir(parents=True)
        # a clone each: tied weights share memory, which safetensors refuses
        plain = {name: tensor.detach().clone().contiguous() for name, tensor in found.items()}
        save_file(plain, temporary / WHOLE, {"format": "pt"})
        for name in COPIED:
            if (folder / name).is_file():
                shutil.copy(folder / name, temporary / name)
    return len(found)


SHADOW = "shadow_params"
"""Key of the averaged weights in the Lightning checkpoints of Duo, MDLM and BD3-LM: a list in the order of the
network's parameters."""
STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}


class Placeholder:
    """Inert stand-in for any object of a pickle that is not a tensor: its methods ignore their arguments."""

    def __init__(self, *ignored: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...

    def __setitem__(self, key: object, value: object) -> None: ...

    def append(self, value: object) -> None: ...

    def extend(self, values: object) -> None: ...


@dataclass(frozen=True)
class _Storage:
    """Stand-in for a storage type of torch that the pickle names; `dtype`: name of its torch dtype."""

    dtype: str


class _Unpickler(pickle.Unpickler):
    """Unpickler of the file `name` in a PyTorch zip, `archive`. `storages`: key -> flat tensor of each storage read so
    far; each is read once, so that tied weights share it."""

    def __init__(self, archive: zipfile.ZipFile, name: str) -> None:
        super().__init__(archive.open(name))
        self.archive, self.prefix = archive, name.removesuffix("data.pkl")
        self.storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        """What replaces the class or function `module`.`name` that the pickle names: for those that make tensors a
        function of this module, for dictionaries OrderedDict, for all others `Placeholder`."""
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in STORAGES:
            return _Storage(STORAGES[name])
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _parameter
        return Placeholder

    def persistent_load(self, saved: tuple) -> Tensor:
        """The flat tensor of the storage that the tuple `saved` describes: ("storage", type, key, device, number of
        elements)."""
        _, kind, key, _, length = saved
        if key not in self.storages:
            data = bytearray(self.archive.read(f"{self.prefix}data/{key}"))
            dtype = getattr(torch, kind.dtype)
            self.storages[key] = (
                torch.frombuffer(data, dtype=dtype) if length else torch.empty(0, dtype=dtype)
            )
        return self.storages[key]


def _tensor(
    storage: Tensor, offset: int, size: Sequence[int], stride: Sequence[int], *ignored: object
) -> Tensor:
    return storage.as_strided(size, stride, offset)


def _parameter(data: Tensor, *ignored: object) -> Tensor:
    return data


def _load(path: Path) -> Any:
    """The unpickled object of a PyTorch zip, with a `Placeholder` for each object that is not a tensor."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(names) != 1:
            raise ValueError(
                f"the zip holds {len(names)} files data.pkl, not one; give a file that torch.save wrote"
            )
        order = names[0].removesuffix("data.pkl") + "byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            raise ValueError(
                "the byte order is not little-endian; save the weights on a little-endian machine"
            )
        return _Unpickler(archive, names[0]).load()


def read_pickle(path: Path, weights: Literal["raw", "ema"], names: TensorNames) -> dict[str, Tensor]:
    """Name -> tensor for the tensors of the pickle at `path`. `weights` "ema": the parameters of the network (the
    tensors whose names match a `used` pattern of `names`) are replaced by their averages over training.

    Raises ValueError, with a one-line message, if the file is not a PyTorch zip, holds no tensors, or (for "ema") holds
    no averages, or averages of other shapes.
    """
    with foreign(regular(path), "zip of PyTorch 1.6 or later"):
        whole = _load(path)
    whole = whole if isinstance(whole, Mapping) else {}
    state = whole.get("state_dict", whole)
    tensors = {name: tensor for name, tensor in state.items() if isinstance(tensor, torch.Tensor)}
    if not tensors:
        raise ValueError(f"{path} has no named tensors; give the file that holds the network's state_dict")
    if weights == "raw":
        return tensors
    average = whole.get("ema")
    if not isinstance(average, Mapping) or SHADOW not in average:
        raise ValueError(f"{path} has no averaged weights (ema.{SHADOW}); use --weights raw")
    averaged = [name for name in tensors if names.knows(name)]
    if [tensors[name].shape for name in averaged] != [tensor.shape for tensor in average[SHADOW]]:
        raise ValueError(
            f"{path}: {len(average[SHADOW])} averaged weights do not have the shapes of the {len(averaged)} raw"
            " weights; use --weights raw"
        )
    return {**tensors, **dict(zip(averaged, average[SHADOW], strict=True))}
