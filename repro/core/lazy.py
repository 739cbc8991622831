"""A stand-in for the module torch that imports torch on first attribute access: `from repro.core.lazy import torch`.

Importing torch takes more than a second, and `--help`, `--print` and errors in arguments must be faster. Modules that
use torch in functions only, not at import time, import this stand-in; type checkers see the real module.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
else:

    class _Lazy(ModuleType):
        def __getattr__(self, attribute):
            import torch as imported  # after the first time a look-up, tens of times faster than importlib's function

            return getattr(imported, attribute)

    torch = _Lazy("torch")

__all__ = ["torch"]
