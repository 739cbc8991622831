"""Stand-ins for the networks of other projects (peers): they have the interfaces that the peers' samplers call, and
their logits are the logarithms of a space's exact conditionals.

Symbols: n rows, L positions, V tokens (without [MASK]).
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from repro.core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from repro.certify.space import Space


def log_conditionals(
    space: Space, ids: Tensor, t: Tensor | float, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Logits [n, L, V] for noisy ids [n, L] at time t (a number or [n]), in `dtype`: logarithms of the exact
    conditionals of `space`. Under absorbing noise [n, L, V + 1], with a column for [MASK], which is never predicted
    (minus infinity)."""
    logits = space.denoise(ids, t).log().to(dtype)
    return logits if space.mask is None else torch.nn.functional.pad(logits, (0, 1), value=-torch.inf)


def diffusion_backbone(space: Space, dtype: torch.dtype = torch.float32) -> Any:
    """Stand-in for the network of Duo, MDLM and ReMDM, called as `backbone(x, sigma, ...)` with ids x [n, L] and sigma
    = -log alpha; it returns the logarithms of the exact conditionals of `space`, a distribution of short sentences, at
    that noise level (`log_conditionals`) in `dtype`."""

    class Backbone(torch.nn.Module):
        def forward(self, x: Tensor, sigma: Tensor, **unused: Any) -> Tensor:
            return log_conditionals(space, x, -torch.expm1(-sigma.double()), dtype)

    return Backbone()


def masked_model(space: Space) -> Any:
    """Stand-in for the network of LLaDA, Fast-dLLM and dllm, called as `model(x, ...)` with ids x [n, L]; `.logits` of
    the result are `log_conditionals` of `space`."""

    class Model(torch.nn.Module):
        device = torch.device("cpu")

        def forward(self, x: Tensor, **unused: Any) -> SimpleNamespace:
            return SimpleNamespace(logits=log_conditionals(space, x, 0.5))

    return Model()
