"""Configurable components (*parts*): frozen dataclasses with a canonical JSON form, a digest, strict reading and
overrides.

A part (data source, network, sampler, ...) is a keyword-only dataclass without default values; its fields are its
settings, also called *pins*. Its canonical form is plain JSON, `{"part": NAME, "version": N, field: value, ...}`, and
its digest the SHA-256 of that form. NAME is the part's name in `repro.core.registry`, N the class's integer `version`,
raised when what the part computes changes.

    read(canonical(part)) == part                       for every part
    derive(recipe, {"objective.rate.low": 0.3})          a copy with one setting replaced
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import types
import typing
from abc import ABC
from typing import Any, ClassVar, TypeVar, dataclass_transform

import msgspec

from repro.core import registry
from repro.core.errors import nearest

P = TypeVar("P")

COLDEST = 1e-300
"""Lowest temperature above 0: a logit divided by a lower one overflows in float64."""
POSITIVE = {
    *("layers", "width", "heads", "kv_heads", "ffn", "head_width", "global_every", "global_kv_heads", "window"),
    *("global_head_width", "experts", "experts_used", "expert_ffn", "canvas", "frequencies", "block", "positions"),
    *("max_positions", "rope_base", "rope_base_local", "rope_base_global", "norm_eps", "softcap"),
    *("micro_batch", "log_every", "heldout_every", "heldout_rows", "checkpoint_every", "clip", "gen_length", "length"),
    *("block_length", "max_length", "samples", "rows", "size", "total", "repeats", "together", "items", "choices"),
    *("clusters", "mixtures", "starts", "stride", "chunk", "points", "passes", "grid"),
}  # fmt: skip
"""Names of settings that must be above 0 in every part that has them."""
NATURAL = {
    *("temperature", "condition", "learned_positions", "init_deviation", "warmup", "decay", "drop", "final", "floor"),
    *("batch", "steps", "seed", "seeds", "split_seed", "lr", "weight_decay", "eps", "shots", "bos", "eos", "pad"),
    *("mask", "begin", "end", "cls", "sep", "skip_rows", "k", "draws", "sweeps", "count", "tries", "heldout"),
    *("rate", "stable", "variance", "scaling", "threshold", "alg_temp", "eta", "source_rows"),
}  # fmt: skip
"""Names of settings that must be 0 or above in every part that has them."""


class Part(ABC):  # noqa: B024 (its subclasses have the abstract methods)
    """Base class of *parts*, the configurable components: data sources, backbones, noise processes, samplers, ..."""

    version: ClassVar[int] = 1


@dataclass_transform(frozen_default=True, kw_only_default=True)
def part(cls: type[P]) -> type[P]:
    """Class decorator of parts: a frozen, keyword-only dataclass without default values, so that every setting is
    written out."""
    made = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
    for field in dataclasses.fields(made):
        assert field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING, (
            f"{cls.__name__}.{field.name} has a default value; remove it, parts have none"
        )
    return made


def part_class(name: str) -> type[Part]:
    """The class registered under a part's name. ValueError for an unknown name, with the nearest registered one."""
    if name not in registry.PARTS:
        raise ValueError(f"no component (part) {name!r}; {nearest(str(name), registry.PARTS)}")
    return registry.resolve(registry.PARTS[name])


def part_name(cls: type[Part]) -> str:
    """The name under which a part's class is registered; ValueError where it is not registered."""
    path = f"{cls.__module__}:{cls.__qualname__}"
    for name, target in registry.PARTS.items():
        if target == path:
            return name
    raise ValueError(f"{path} is not registered; add its line to PARTS of repro/core/registry.py")


def check_below_one(component: Part, *settings: str) -> None:
    """Raise ValueError unless each of the `settings` of a component, a number or a tuple of numbers, lies in [0, 1)."""
    for setting in settings:
        value = getattr(component, setting)
        if not all(0 <= each < 1 for each in (value if isinstance(value, tuple) else (value,))):
            name = part_name(type(component))
            raise ValueError(f"{name}: {setting}={value} is outside [0, 1); give 0 or more, and less than 1")


def canonical(value: Any) -> Any:
    """Plain JSON form of a part or of a setting's value; tuples become lists. TypeError for any other type."""
    if isinstance(value, Part):
        fields = {
            f.name: canonical(getattr(value, f.name)) for f in dataclasses.fields(typing.cast(Any, value))
        }
        return {"part": part_name(type(value)), "version": value.version, **fields}
    if isinstance(value, tuple | list):
        return [canonical(item) for item in value]
    if isinstance(value, dict):
        return {key: canonical(item) for key, item in value.items()}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(
        f"{value!r} is not a value of a setting; use JSON values, tuples and parts (subclasses of Part)"
    )


def to_json(value: Any) -> str:
    """Canonical JSON text of a part or value: sorted keys, no spaces, shortest exact floats; ValueError for NaN and
    infinity."""
    return json.dumps(canonical(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def sha256(text: str) -> str:
    """SHA-256 of the UTF-8 text, 64 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON text of a part or value, 64 hexadecimal digits."""
    return sha256(to_json(value))


# --- reading ------------------------------------------------------------------------------------------------------
def _alternatives(hint: Any) -> list[Any]:
    """The alternatives of a type hint: [A, B] for `A | B`, [hint] for one that is no union."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return list(typing.get_args(hint))
    return [hint]


def _is_kind(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Part)


def read(data: Any, kind: Any = Part, path: str = "") -> Any:
    """The part (or value of a setting) that the canonical form `data` describes, read strictly. `kind`: the expected
    type; `path`: where `data` stands in a larger form, as a dotted path ("" if it is a form by itself), for messages.

    Raises ValueError, which names the path, the wrong value and the remedy, for: an unknown part or setting; another
    version than the class's; a missing setting; a value of the wrong type (`true`, `"5"` and `5.0` are not integers) or
    out of range; a part that is not derived from `kind`.
    """
    where = f" at {path!r}" if path else ""
    if isinstance(data, dict):
        kinds = [k for k in _alternatives(kind) if _is_kind(k)]
        if not kinds:
            raise ValueError(f"{path}={json.dumps(data)}: expected {_name(kind)}, got a component")
        if "part" not in data:
            raise ValueError(
                f"no 'part' key{where}: a component is written {{'part': NAME, 'version': N, ...}}"
            )
        cls = _class(data["part"], path)
        if not any(issubclass(cls, k) for k in kinds):
            raise ValueError(
                f"{path}: component {data['part']!r} is not of the type {' or '.join(k.__name__ for k in kinds)}"
            )
        hints = typing.get_type_hints(cls)
        names = [f.name for f in dataclasses.fields(cls)]
        given = {k: v for k, v in data.items() if k not in ("part", "version")}
        for name in given:
            if name not in names:
                raise ValueError(f"no setting {_join(path, name)!r}; {nearest(name, names)}")
        missing = [_join(path, name) for name in names if name not in given]
        if missing:
            raise ValueError(f"part {data['part']!r}{where} lacks the setting {missing[0]!r}; add it")
        if data.get("version", cls.version) != cls.version:
            raise ValueError(
                f"part {data['part']!r}{where} has version {data['version']!r}; this code has version {cls.version}"
                "; use the release of the package that wrote it, or run again"
            )
        return cls(**{name: read(given[name], hints[name], _join(path, name)) for name in names})
    return _leaf(data, kind, path)


def _class(name: Any, path: str) -> Any:
    """The class of the part called `name`; ValueError for a name that is not registered. `path`: dotted path of the
    part, for the message."""
    where = f"{path}: " if path else ""
    if not isinstance(name, str):
        raise ValueError(f"{where}part={json.dumps(name)[:200]}: expected the name of a component")
    try:
        return part_class(name)
    except ValueError as error:
        raise ValueError(f"{where}{error}") from None


def _leaf(data: Any, hint: Any, path: str) -> Any:
    leaves = [k for k in _alternatives(hint) if not _is_kind(k)]
    if not leaves:
        raise ValueError(
            f"{path}={json.dumps(data)}: expected a component {_name(hint)} ({{'part': NAME, ...}})"
        )
    if isinstance(data, float) and not math.isfinite(data):
        raise ValueError(f"{path}={json.dumps(data)}: expected a finite number")
    try:
        value = msgspec.convert(data, typing.Union[tuple(leaves)], strict=True)  # noqa: UP007 (built at run time)
    except msgspec.ValidationError as error:
        reason = str(error).replace("`", "")
        raise ValueError(f"{path}={json.dumps(data)[:200]}: {reason[:1].lower()}{reason[1:]}") from None
    name = path.rpartition(".")[2]
    for each in value if isinstance(value, tuple) else (value,):
        if (
            isinstance(each, int | float)
            and (each < 0 or (each == 0 and name in POSITIVE))
            and name in POSITIVE | NATURAL
        ):
            raise ValueError(
                f"{path}={json.dumps(data)}: expected a number {'above 0' if name in POSITIVE else 'of 0 or more'}"
            )
        if isinstance(each, float) and name.endswith(("temperature", "alg_temp")) and 0 < each < COLDEST:
            raise ValueError(
                f"{path}={json.dumps(data)}: too low, logits would overflow; give 0 (the argmax) or {COLDEST:g} or more"
            )
        if isinstance(each, int) and each.bit_length() > 63:
            raise ValueError(f"{path}={json.dumps(data)[:200]}: expected an integer of 64 bits")
    return value


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _name(hint: Any) -> str:
    return " | ".join(getattr(k, "__name__", str(k)) for k in _alternatives(hint))


# --- deriving -----------------------------------------------------------------------------------------------------
def derive(root: P, overrides: dict[str, Any]) -> P:
    """A copy of `root` with settings replaced. `overrides`: dotted path of a setting -> its new value (a JSON value, a
    part, or the canonical form of a part, where "version" may be left out).

    Raises ValueError for an unknown path (the nearest valid one is named), and for a value that `read` refuses.
    """
    data = canonical(root)
    for path, value in overrides.items():
        node = data
        *parents, last = path.split(".")
        for depth, step in enumerate([*parents, last]):
            valid = [k for k in node if k not in ("part", "version")] if isinstance(node, dict) else []
            if step not in valid:
                wrong = ".".join([*parents, last][: depth + 1])
                near = nearest(step, valid) if depth and valid else nearest(wrong, _paths(data))
                raise ValueError(f"no setting {wrong!r}; {near}")
            if depth < len(parents):
                node = node[step]
        value = canonical(value)
        if isinstance(value, dict) and isinstance(value.get("part"), str):
            value.setdefault("version", _class(value["part"], path).version)
        node[last] = value
    return read(data, type(root))


def _paths(data: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key, value in data.items():
        if key in ("part", "version"):
            continue
        found.append(_join(prefix, key))
        if isinstance(value, dict):
            found += _paths(value, _join(prefix, key))
    return found


def leaves(root: Part) -> dict[str, Any]:
    """Dotted path -> value of every setting of `root`, and of the parts in it, that is not itself a part, in field
    order. A part without settings is listed too, with its registered name as the value."""
    found: dict[str, Any] = {}

    def walk(value: Any, path: str) -> None:
        if isinstance(value, Part):
            inner = dataclasses.fields(typing.cast(Any, value))
            if not inner:
                found[path] = part_name(type(value))
            for field in inner:
                walk(getattr(value, field.name), _join(path, field.name))
        else:
            found[path] = value

    walk(root, "")
    return found


def changes(first: Part, second: Part) -> list[tuple[str, Any, Any]]:
    """Triples (dotted path, value in `first`, value in `second`) of the settings in which two parts differ, as plain
    JSON. Two different parts at one path are one difference, whatever their settings."""
    found: list[tuple[str, Any, Any]] = []

    def walk(a: Any, b: Any, path: str) -> None:
        if not (isinstance(a, dict) and isinstance(b, dict) and a.get("part") == b.get("part")):
            if a != b:
                found.append((path, a, b))
            return
        for name in dict.fromkeys([*a, *b]):
            walk(a.get(name), b.get(name), _join(path, name))

    walk(canonical(first), canonical(second), "")
    return found


def brief(value: Any) -> str:
    """Text of a setting's value (canonical form) for a message: JSON, but `cosine(warmup=100)` for a part."""
    if isinstance(value, dict) and "part" in value:
        pins = [f"{k}={brief(v)}" for k, v in value.items() if k not in ("part", "version")]
        return f"{value['part']}({', '.join(pins)})" if pins else value["part"]
    return json.dumps(value)


def parse_overrides(pairs: typing.Iterable[str]) -> dict[str, Any]:
    """The overrides (dotted path of a setting -> value) that texts PATH=VALUE describe: `["optimizer.lr=1e-3"]` gives
    `{"optimizer.lr": 0.001}`. A VALUE that is not JSON is taken as a string.

    Raises ValueError for a text without "=", a path that is given twice, and a part that is given after one of its own
    settings, which it would overwrite.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise ValueError(f"{pair!r} is not NAME=VALUE (for example objective.rate.low=0.3)")
        if name in found:
            raise ValueError(f"setting {name!r} is given twice; give it once")
        inner = next((other for other in found if other.startswith(f"{name}.")), None)
        if inner is not None:
            raise ValueError(
                f"{name!r} would overwrite {inner!r}, which comes before it; give {name!r} first"
            )
        try:
            found[name] = json.loads(text)
        except json.JSONDecodeError:
            found[name] = text
        except (ValueError, RecursionError):  # a number of thousands of digits, thousands of brackets
            raise ValueError(f"the value of {name!r} is too long; shorten it") from None
    return found
