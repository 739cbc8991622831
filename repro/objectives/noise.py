"""Distributions from which the noise level of a training row is drawn.

Symbols: A Gaussian signal level, gamma = -log SNR = -log(A^2 / (1 - A^2)), T(A) the probability alpha that a token is
intact at signal level A (docs/method.md#transformation-operator).
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from repro.core.lazy import torch
from repro.core.parts import Part, part

if TYPE_CHECKING:
    from numpy.polynomial import Chebyshev
    from torch import Tensor

DEGREE = 24
"""Degree of the polynomial of `_matched`, whose error in gamma is below 1e-9 on Duo's windows (tested)."""
DEGREE_LINEAR = 48
"""Degree of the polynomial of `_by_level`, whose error in gamma is below 1e-9 for alpha in [.001, .999] (tested)."""


@part
class Window(Part):
    """Noise level (a time or a mask rate) uniform on [low, high]; ValueError unless 0 <= low <= high <= 1."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= 1:
            raise ValueError(
                f"noise levels from {self.low} to {self.high} are no range in [0, 1]; give 0 <= low <= high <= 1"
            )

    def gamma(self, t: Tensor, vocab_size: int) -> Tensor:
        """gamma = -log SNR, float64 [B], of the Gaussian signal level A = 1 - t at times t [B]; it does not depend on
        `vocab_size` (docs/method.md#uniform-script)."""
        from repro.processes import gaussian

        return gaussian.gamma_of(1 - t)


@part
class MatchedWindow(Part):
    """Time t uniform on [low, high], with noise that is matched to a vocabulary of another size: for variants of a
    recipe whose data have fewer or more ids than the `vocab_size` ids of its data at full scale.

    A row at time t is corrupted at the signal level A at which its tokens are intact as often as they are at time t at
    full scale, so that alpha = T(A) has the same distribution; the weights of rows stay functions of t
    (docs/method.md#scales). ValueError unless 0 < low < high < 1 (time 0 has no finite gamma = -log SNR) and
    `vocab_size` is 2 or more.
    """

    low: float
    high: float
    vocab_size: int

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high < 1 or self.vocab_size < 2:
            raise ValueError(
                f"matched_window from low={self.low} to high={self.high} for vocab_size={self.vocab_size}; give"
                " 0 < low < high < 1, and 2 ids or more"
            )

    def gamma(self, t: Tensor, vocab_size: int) -> Tensor:
        """gamma = -log SNR, float64 [B], for times t [B] and data with `vocab_size` ids: the noise level at which a
        token is intact as often as, with the `self.vocab_size` ids of the recipe's full-scale data, at signal level A =
        1 - t (docs/method.md#transformation-operator)."""
        from repro.processes import gaussian

        ends = gaussian.gamma_of(1 - torch.tensor([self.low, self.high], dtype=torch.float64))
        low, high = ends.tolist()
        curve = _matched(low, high, self.vocab_size, vocab_size)
        return torch.from_numpy(curve(gaussian.gamma_of(1 - t).cpu().numpy())).to(t.device)


@part
class LinearWindow(Part):
    """Time t uniform on [low, high], at which a token is intact with probability alpha = 1 - t, the linear schedule of
    the discrete process; so alpha is uniform on [1 - high, 1 - low] (docs/method.md#duo-mended). ValueError unless 0 <
    low < high < 1: a token that is always or never intact has no finite gamma = -log SNR."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high < 1:
            raise ValueError(
                f"linear_window from low={self.low} to high={self.high} is not inside (0, 1); give 0 < low < high < 1,"
                " such as .001 and .999"
            )

    def gamma(self, t: Tensor, vocab_size: int) -> Tensor:
        """gamma = -log SNR, float64 [B], at which the argmax of the Gaussian relaxation leaves a token intact with
        probability alpha = 1 - t, for times t [B] and `vocab_size` ids (docs/method.md#transformation-operator)."""
        curve = _by_level(1 - self.high, 1 - self.low, vocab_size)
        return torch.from_numpy(curve(torch.logit(1 - t.double()).cpu().numpy())).to(t.device)


@part
class GammaWindow(Part):
    """Noise level gamma = -log SNR that is linear in t, from `low` at t = 0 (least noise) to `high` at t = 1
    (docs/method.md#duo-curriculum). ValueError unless low < high."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(
                f"gamma_window: low={self.low} is not below high={self.high}; give the gamma of t = 0, then of t = 1"
            )


@lru_cache
def _matched(low: float, high: float, from_size: int, to_size: int) -> Chebyshev:
    """Function that maps gamma = -log SNR in [low, high] for `from_size` ids to the gamma at which a token is intact
    with the same probability for `to_size` ids: the Chebyshev interpolant of degree `DEGREE`."""
    import numpy
    from numpy.polynomial import Chebyshev

    from repro.processes import gaussian

    def matched(gamma: numpy.ndarray) -> numpy.ndarray:
        levels = gaussian.transform(torch.from_numpy(gamma), from_size)[0]
        return numpy.array([gaussian.invert(level, to_size) for level in levels.tolist()])

    return Chebyshev.interpolate(matched, DEGREE, domain=(low, high))


@lru_cache
def _by_level(low: float, high: float, vocab_size: int) -> Chebyshev:
    """Function that maps logit(alpha), for alpha in [low, high] with 0 < low < high < 1, to the gamma = -log SNR at
    which a token is intact with probability alpha for `vocab_size` ids: the Chebyshev interpolant of degree
    `DEGREE_LINEAR`."""
    import numpy
    from numpy.polynomial import Chebyshev

    from repro.processes import gaussian

    def inverted(logits: numpy.ndarray) -> numpy.ndarray:
        levels = 1 / (1 + numpy.exp(-logits))
        return numpy.array([gaussian.invert(level, vocab_size) for level in levels.tolist()])

    ends = numpy.log([low / (1 - low), high / (1 - high)]).tolist()
    return Chebyshev.interpolate(inverted, DEGREE_LINEAR, domain=ends)
