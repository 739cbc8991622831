"""Import the unchanged files of another project (peer), with stand-ins for absent third-party modules that its samplers
do not use."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import inspect
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from repro.certify.foreign import Guard
from repro.core.lazy import torch


class _Anything(type):
    """Metaclass of stand-in classes: every attribute of such a class is again a stand-in class, so that
    `module.sub.Name` works to any depth."""

    def __getattr__(cls, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return _anything(name)


def _anything(name: str) -> type:
    """A stand-in class called `name`, which can be a base class and be called with any arguments; called with one
    function, as a decorator is, it returns this function."""

    def new(cls: type, *arguments: Any, **named: Any) -> Any:
        function = len(arguments) == 1 and not named and callable(arguments[0])
        return arguments[0] if function else object.__new__(cls)

    return _Anything(name, (), {"__new__": new, "__init__": lambda self, *a, **k: None})


class StandIn(ModuleType):
    """A module in place of an absent one. Its attributes are classes without behaviour (`_anything`), except that
    `LightningModule` is a torch module on the CPU in float32."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = _lightning_module() if name == "LightningModule" else _anything(name)
        setattr(self, name, value)
        return value


def _lightning_module() -> type:
    """A base class with the attributes of lightning's `LightningModule` that the peers' samplers read."""
    return type(
        "LightningModule",
        (torch.nn.Module,),
        {"device": torch.device("cpu"), "dtype": torch.float32},
    )


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Import finder that gives a stand-in (`StandIn`) for each of the top-level packages `names` and for every module
    below them."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = frozenset(names)

    def find_spec(self, fullname: str, path: object, target: object = None) -> Any:
        if fullname.partition(".")[0] in self.names:
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Does nothing, because a stand-in has no code to run."""


def absent(names: Sequence[str]) -> list[str]:
    """The names in `names` of top-level modules that are not installed."""
    return [name for name in names if importlib.util.find_spec(name) is None]


def peer_module(folder: Path, name: str, stands_in: Sequence[str] = (), packages: Sequence[str] = ()) -> Any:
    """The module `name` of a peer's folder, as `python` run in that folder would import it.

    `stands_in`: third-party modules that get a stand-in where they are not installed. `packages`: packages of the peer
    whose `__init__` is not run, because it imports the whole project. Afterwards the folder, the stand-ins and the
    peer's modules are removed from the import system, since modules of several peers have the same names. ValueError if
    the file cannot be imported.
    """
    importlib.import_module("transformers")  # it notes once which packages are installed; stand-ins are not
    folder = folder.resolve()
    finder, before = _Finder(absent(stands_in)), frozenset(sys.modules)
    sys.path.insert(0, str(folder))
    sys.meta_path.append(finder)
    try:
        for package in packages:
            module = ModuleType(package)
            module.__path__ = [str(folder / package.replace(".", "/"))]
            sys.modules[package] = module
        with Guard(f"import of {name} of {folder.name}", str(folder / f"{name.replace('.', '/')}.py")):
            return importlib.import_module(name)
    finally:
        sys.path.remove(str(folder))
        sys.meta_path.remove(finder)
        for new in sys.modules.keys() - before:
            module = sys.modules[new]
            if isinstance(module, StandIn) or new in packages or _is_in(module, folder):
                del sys.modules[new]


def _is_in(module: ModuleType, folder: Path) -> bool:
    """Whether the file or the folder of a module lies in `folder`."""
    places = [getattr(module, "__file__", None) or "", *getattr(module, "__path__", ())]
    return any(Path(place).is_relative_to(folder) for place in places)


def located(sample: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    """The function `sample`, which calls the peer's `function`, marked so that its errors are reported with the line in
    the file of `function`."""
    marked: Any = sample
    marked.__signature__ = inspect.signature(sample)
    marked.__wrapped__ = function
    return sample


@contextmanager
def seeded(seed: int) -> Generator[None]:
    """Context manager that seeds torch's global generator and restores its state afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
