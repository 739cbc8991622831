"""Foreign code: functions loaded from `FILE.py:NAME`, whose results are validated and whose errors become one line.

    sampler   f(space, n, steps, seed) -> ids [n, length] of n sentences, drawn in `steps` steps
    loss      f(space, x0, seed) -> nats of each row [n], x0 [n, length]

`space` (`repro.certify.space`) is a small language, whose method `denoise` takes the place of a network. The function
has the attributes

    f.claims  = "law" (samples from the denoiser's distribution; a loss is exactly its -log p), "bound" (a loss is an
                upper bound on -log p) or "mode" (seeks likely sentences)
    f.meaning = "x0_mean" or "leave_one_out": what `space.denoise` returns (docs/method.md#uniform-samplers)
    f.draws   = "exact" or "random" (or False, True): whether a loss is exact or a random estimate
    f.noises  = ("absorbing", "uniform"): optional, the noises that the claim is about
    f.notes   = ("...",): optional, sentences that the certificate repeats

Without `noises`, the claim is tested under every noise that a first call accepts; a function that reads neither
`space.mask` nor `space.noise` cannot know absorbing noise and is tested under uniform noise only. What the function
prints goes to stderr.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from repro.certify.space import Noise, Space, describe, tiny
from repro.core.errors import nearest
from repro.core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from repro.processes.prediction import Meaning

CLAIMS = {"sampler": ("law", "mode"), "loss": ("bound", "law", "mode")}
MEANINGS = ("x0_mean", "leave_one_out")
DRAWS = {"exact": False, "random": True}
NOISES: tuple[Noise, ...] = ("absorbing", "uniform")
FORMS = "a sampler f(space, n, steps, seed) or a loss f(space, x0, seed)"


INTEGERS = frozenset({torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64})
"""Tensor types of ids that a sampler may return."""


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """A function `call` of somebody else's code (a sampler, a bound or a training loss) in the source file `file`, with
    the attributes that it declares (explained in the module's docstring); `draws`: for a bound or loss, whether its
    values are random estimates. All calls together may take `seconds` s of wall time from `began` (`time.monotonic`).
    """

    name: str
    file: str
    call: Callable[..., Any]
    kind: Literal["sampler", "loss"]
    claims: str
    meaning: Meaning
    draws: bool
    noises: tuple[Noise, ...]
    notes: tuple[str, ...]
    seconds: float
    began: float

    def ids(self, space: Space, n: int, steps: int, seed: int) -> Tensor:
        """Call the sampler for n sentences of `space` in `steps` steps with `seed`: ids [n, L] int64, which may include
        [MASK]. ValueError for any other result, if the code raises an error, or if its time is used up."""
        self._in_time(f"{n} rows with {steps} steps")
        with Guard(self.name, self.file):
            result = self.call(space, n, steps, seed)
        found = self._tensor(result, wanted := f"integer ids [{n}, {space.length}]")
        if tuple(found.shape) != (n, space.length) or found.dtype not in INTEGERS:
            raise ValueError(f"{self.name} must return {wanted}, not {describe(found)}")
        low, high = int(found.min()), int(found.max())
        if low < 0 or high >= space.symbols:
            raise ValueError(f"{self.name} returned ids {low} to {high}; valid: 0 to {space.symbols - 1}")
        return found.long()

    def nats(self, space: Space, x0: Tensor, seed: int) -> Tensor:
        """Call the loss on sentences x0 [n, L] of `space` with `seed`: nats of each row, [n] float64. ValueError for a
        wrong shape or values that are not finite, if the code raises an error, or if its time is used up."""
        self._in_time(f"{len(x0)} rows")
        with Guard(self.name, self.file):
            result = self.call(space, x0.clone(), seed)
        found = self._tensor(result, wanted := f"nats of each row as floats [{len(x0)}]")
        if tuple(found.shape) != (len(x0),) or not found.is_floating_point():
            raise ValueError(f"{self.name} must return {wanted}, not {describe(found)}")
        wrong = ~found.isfinite()
        if wrong.any():
            row = int(wrong.nonzero()[0, 0])
            raise ValueError(
                f"{self.name} returned {found[row].item()} nats for the sentence {x0[row].tolist()}; return finite"
                " numbers"
            )
        return found.double()

    def _tensor(self, result: object, wanted: str) -> Tensor:
        """The result of a call as a CPU tensor in memory of its own, since the function may overwrite its own memory
        later. ValueError if it cannot be converted; `wanted`: description of a valid result for this message."""
        try:
            return torch.as_tensor(result).detach().cpu().clone()
        except (TypeError, ValueError, RuntimeError) as error:
            kind = type(result).__name__
            raise ValueError(f"{self.name} must return {wanted}, not {kind} ({error})") from error

    def _in_time(self, doing: str) -> None:
        spent = time.monotonic() - self.began
        if spent > self.seconds:
            raise ValueError(
                f"{self.name} has used {spent:.0f} s of wall time before a call of {doing}; vectorise it over all n"
                f" rows, or give more than --seconds {self.seconds:g}"
            )


class Guard:
    """Context manager around a call of foreign code: what the code prints goes to stderr, and whatever it raises
    becomes a ValueError of one line, with `name` (what was called) and the line in the source `file` of the code."""

    def __init__(self, name: str, file: str) -> None:
        self.name, self.file, self._quiet = name, file, redirect_stdout(sys.stderr)

    def __enter__(self) -> None:
        self._quiet.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._quiet.__exit__(kind, error, trace)
        if kind is not None:
            lines = [frame.lineno for frame in traceback.extract_tb(trace) if frame.filename == self.file]
            where = f" at line {lines[-1]} of {Path(self.file).name}" if lines else ""
            raise ValueError(f"{self.name} raised {kind.__name__}{where}: {error}") from error


def load(target: str) -> Any:
    """The object, usually a function, that `target` names as FILE.py:NAME; ValueError if there is none, or if the
    import fails."""
    path, colon, name = target.rpartition(":")
    if not colon or not name or not path.endswith(".py"):
        raise ValueError(
            f"{target!r} is not of the form FILE.py:NAME; for example examples/certify/ancestral.py:sample"
        )
    from repro.core.reading import regular

    file = regular(Path(path)).resolve()
    spec = importlib.util.spec_from_file_location(f"certified_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is not a Python file; give one as FILE.py:NAME")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    if (
        str(file.parent) not in sys.path
    ):  # as for `python FILE.py`, which may import files of its folder at any time
        sys.path.insert(0, str(file.parent))
    with Guard(f"import of {path}", str(file)):
        spec.loader.exec_module(module)
    if name not in vars(module):
        names = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
        raise ValueError(
            f"{path} has no {name!r}; {nearest(name, names) if names else 'it defines no function'}"
        )
    return vars(module)[name]


def read(call: Callable[..., Any], noise: Noise | None, seconds: float) -> Foreign:
    """The function `call` with its validated attributes; its calls may take `seconds` s of wall time together.
    ValueError for missing or unknown attributes, and if reading one of them raises. `noise`: the noise to test under
    (None: those that the function declares, else those under which trial calls succeed)."""
    try:
        foreign = _described(call, noise, seconds)
    except (ValueError, MemoryError):
        raise
    except Exception as error:  # an object may raise anything when it is asked for an attribute or compared
        kind, said = type(call).__name__, f"{type(error).__name__}: {error}".rstrip(": ")
        raise ValueError(
            f"the attributes of this {kind} object cannot be read ({said}); give {FORMS}"
        ) from error
    return foreign if foreign.noises else replace(foreign, noises=_noises(foreign))


def _described(call: Callable[..., Any], noise: Noise | None, seconds: float) -> Foreign:
    """The function `call` with its validated attributes, found without calling it: `noises` is (noise,), those that
    the function declares, or empty if there are neither. ValueError for missing or unknown attributes."""
    if not callable(call):
        raise ValueError(f"{call!r} is not a function; give {FORMS}")
    name = str(call.__name__) if hasattr(call, "__name__") else type(call).__name__
    kind = _kind(call, name)
    declared = {}
    wanted = {"claims": CLAIMS[kind], "meaning": MEANINGS}
    if kind == "loss":
        wanted["draws"] = tuple(DRAWS)
    lacks = [attribute for attribute in wanted if not hasattr(call, attribute)]
    if lacks:
        lines = [f"{name}.{each} = {' or '.join(map(repr, wanted[each]))}" for each in lacks]
        raise ValueError(
            f"{name}.{lacks[0]} is missing; set, below the definition of {name}: {'; '.join(lines)}"
            " (docs/certify.md#an-adapter)"
        )
    for attribute, valid in wanted.items():
        declared[attribute] = getattr(call, attribute)
        value = declared[attribute]
        if value not in valid and not (attribute == "draws" and isinstance(value, bool)):
            raise ValueError(
                f"{name}.{attribute} is {value!r}; for a {kind} give {' or '.join(map(repr, valid))}"
            )
    draws = declared.get("draws", True)
    noises = (noise,) if noise else _declared(name, call.noises) if hasattr(call, "noises") else ()
    return Foreign(
        name=name,
        file=_source(call),
        call=call,
        kind=kind,
        claims=declared["claims"],
        meaning=declared["meaning"],
        draws=draws if isinstance(draws, bool) else DRAWS[draws],
        noises=noises,
        notes=_notes(name, getattr(call, "notes", ())),
        seconds=seconds,
        began=time.monotonic(),
    )


def _declared(name: str, noises: object) -> tuple[Noise, ...]:
    given = tuple(noises) if isinstance(noises, tuple | list | set | frozenset) else ()
    if not given or not set(given) <= set(NOISES):
        raise ValueError(f"{name}.noises is {noises!r}; give one or both of {NOISES}")
    return tuple(noise for noise in NOISES if noise in given)


def _notes(name: str, notes: object) -> tuple[str, ...]:
    if not isinstance(notes, tuple | list) or not all(isinstance(note, str) for note in notes):
        raise ValueError(f"{name}.notes is {notes!r}; give a tuple of sentences")
    return tuple(map(str, notes))


def _source(call: Callable[..., Any]) -> str:
    code = inspect.unwrap(call) if inspect.isfunction(call) else type(call)
    try:
        return inspect.getsourcefile(code) or ""
    except TypeError:  # a built-in
        return ""


def _kind(call: Callable[..., Any], name: str) -> Literal["sampler", "loss"]:
    signature = inspect.signature(call)
    named = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    takes = [p for p in signature.parameters.values() if p.default is p.empty and p.kind in named]
    match len(takes):
        case 4:
            return "sampler"
        case 3:
            return "loss"
    raise ValueError(f"{name}{signature} has an unknown signature; give {FORMS}")


def _noises(foreign: Foreign) -> tuple[Noise, ...]:
    """The noises (absorbing, uniform) that a function supports, found by a trial call under each; ValueError if both
    calls fail."""
    refused: list[ValueError] = []

    def works(space: Space) -> bool:
        try:
            if foreign.kind == "sampler":
                foreign.ids(space, 2, 2, 0)
            else:
                foreign.nats(space, torch.zeros(2, space.length, dtype=torch.int64), 0)
        except ValueError as error:
            refused.append(error)
            return False
        return True

    spaces = {noise: Space(noise, tiny(3), foreign.meaning) for noise in NOISES}
    accepted = tuple(noise for noise in NOISES if works(spaces[noise]))
    if not accepted:
        raise refused[0]
    knows_masks = spaces["absorbing"].reads & {"mask", "noise"}
    return accepted if len(accepted) == 1 or knows_masks else ("uniform",)
