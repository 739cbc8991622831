"""What a process reads of a network: the meaning of its output, and its prediction at given positions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    pass

Meaning = Literal["x0_mean", "leave_one_out"]
