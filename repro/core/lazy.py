"""`from repro.core.lazy import torch`: torch, imported when it is first touched.

Parts carry mathematics as methods, yet `--help`, `--print` and errors of arguments must answer within a second, and
torch alone takes longer. A module that only *names* torch (in methods, never at class level) stays light this way,
and type checkers see the real thing.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
else:

    class _Lazy(ModuleType):
        def __getattr__(self, attribute):
            return getattr(importlib.import_module(self.__name__), attribute)

    torch = _Lazy("torch")

__all__ = ["torch"]
