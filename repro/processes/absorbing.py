"""Absorbing (masked) diffusion: a token is replaced by [MASK] and stays so (docs/method.md#llada-objective,
docs/method.md#mdlm; Sahoo et al. 2024).

    alpha(t) = 1 - t                       q(xt | x0) = alpha x0 + (1 - alpha) mask
    q(s | t): an unmasked token stays; a masked one stays masked with (1 - alpha_s)/(1 - alpha_t), else becomes x0
    NELBO = E_t [ (1/t) sum over masked of -log p(x0 | xt) ], whatever the schedule alpha(t)

The held-out bound uses the equivalent form over mask *counts* (docs/method.md#llada-objective): of the n candidates
(tokens that may be masked) of a row, a uniformly random subset of l is masked, l uniform on 1..n, and the sum of
-log p(x0 | xt) over it has the weight n/l. This form has less variance, and needs no term for times below a smallest t.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro.core import rng
from repro.core.lazy import torch
from repro.core.parts import part
from repro.data.corpus import Vocabulary
from repro.processes.process import Diffusion, Scored, cross_entropy, row_sums

if TYPE_CHECKING:
    from torch import Tensor

    from repro.processes.prediction import Meaning, Predict, Prediction


def mask_id(vocabulary: Vocabulary) -> int:
    """The mask id of `vocabulary`; ValueError if it has none."""
    if vocabulary.mask is None:
        raise ValueError(
            "absorbing noise needs a mask id, and the model's data has none; use a recipe or weights trained with one"
        )
    return vocabulary.mask


def subset(keys: Tensor, count: Tensor, candidates: Tensor) -> Tensor:
    """Uniformly random subset of each row's candidates, [B, L] bool: in row b, `count`[b] of the True entries of
    `candidates` [B, L], drawn by the random key `keys`[b]."""
    order = rng.uniform(keys, candidates.shape[1]).masked_fill(~candidates, 2.0)
    return candidates & (order.argsort(dim=-1, stable=True).argsort(dim=-1) < count[:, None])


def weighted_ce(logits: Tensor, x: Tensor, t: Tensor) -> Tensor:
    """NELBO integrand at masked tokens, -log p_x / t in nats, [N] float64, from logits [N, V] over V ids, clean ids x
    [N] and times t [N] (docs/method.md#mdlm)."""
    return cross_entropy(logits, x).double() / t


@part
class Absorbing(Diffusion):
    """Absorbing (masked) noise: a corrupted token becomes the mask id of the vocabulary."""

    noise = "absorbing"
    masks = True

    def forbidden(self, vocabulary: Vocabulary) -> tuple[int, ...]:
        return (mask_id(vocabulary), *range(vocabulary.size, vocabulary.total))

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def open(self, ids: Tensor, active: Tensor, vocabulary: Vocabulary) -> Tensor:
        return active & (ids == mask_id(vocabulary))

    def prior(self, vocabulary: Vocabulary) -> Tensor:
        return torch.nn.functional.one_hot(torch.tensor(mask_id(vocabulary)), vocabulary.total).double()

    def marginal(self, x0: Tensor, t: Tensor, vocabulary: Vocabulary) -> Tensor:
        alpha = self.alpha(t.double())[:, None, None]
        clean = torch.nn.functional.one_hot(x0, vocabulary.total).double()
        return alpha * clean + (1 - alpha) * self.prior(vocabulary)

    def corrupt(
        self, x0: Tensor, t: Tensor, keys: Tensor, candidates: Tensor, vocabulary: Vocabulary
    ) -> Tensor:
        masked = rng.uniform(keys, x0.shape[1]) < (1 - self.alpha(t.double()))[:, None]
        return x0.masked_fill(masked & candidates, mask_id(vocabulary))

    def posterior(self, xt: Tensor, prediction: Prediction, t: Tensor, s: Tensor, where: Tensor) -> Tensor:
        """Distribution over the V ids of the token at time s, [N, V], given noisy ids xt [B, L] at time t > s ([B]
        each), at the N True entries of `where` [B, L]: a masked token stays masked with probability (1 - alpha_s)/(1 -
        alpha_t) and is else drawn from the network's `prediction`; an unmasked token stays."""
        mask = mask_id(prediction.vocabulary)
        ids = xt[where]
        law = torch.nn.functional.one_hot(ids, prediction.vocabulary.total).double()
        masked = where & (xt == mask)
        rows = masked.nonzero()[:, 0]
        stay = ((1 - self.alpha(s.double())) / (1 - self.alpha(t.double())))[rows, None]
        law[ids == mask] = stay * law[ids == mask] + (1 - stay) * prediction.probs(masked)
        return law

    def filler_time(self, t: Tensor, candidates: Tensor, keys: Tensor) -> Tensor:
        """Time [B] at which to corrupt the padding of each row, given that `bound` masked l = t n of its n candidates
        (t [B]: share of masked candidates; `candidates` [B, L] bool; `keys` [B]: the random keys of `bound`).

        Under the weight 1/t of the NELBO, the time given l masked tokens has the distribution Beta(l, n - l + 1), that
        of the l-th smallest of n uniform numbers; here these are the numbers by which `subset` chose the l tokens.
        """
        count = (t * candidates.sum(1)).round().long().clamp_min(1)
        order = rng.uniform(keys, candidates.shape[1]).masked_fill(~candidates, 2.0)
        return order.sort(-1).values.gather(1, count[:, None] - 1)[:, 0].clamp_max(1.0)

    def p_flip(self, t: Tensor, vocabulary: Vocabulary) -> Tensor:
        return 1 - self.alpha(t.double())

    def scored(
        self,
        meaning: Meaning,
        x0: Tensor,
        xt: Tensor,
        t: Tensor,
        candidates: Tensor,
        vocabulary: Vocabulary,
    ) -> Scored:
        masked = candidates & (xt == mask_id(vocabulary))
        return Scored(masked, weighted_ce, (x0[masked], t.double()[masked.nonzero()[:, 0]]))

    def reconstruction(
        self, prediction: Prediction, x0: Tensor, xt: Tensor, candidates: Tensor, vocabulary: Vocabulary
    ) -> Tensor:
        """-log p(x0 | xt) summed over the masked candidates of each row, nats, [B] float64, from the network's
        `prediction` for noisy ids xt of clean ids x0 [B, L]; `candidates` [B, L] bool: positions that are scored."""
        masked = candidates & (xt == mask_id(vocabulary))
        return row_sums(cross_entropy(prediction.logits(masked), x0[masked]).double(), masked)

    def bound(
        self,
        predict: Predict,
        x0: Tensor,
        candidates: Tensor,
        vocabulary: Vocabulary,
        u: Tensor,
        keys: Tensor,
    ) -> Tensor:
        size = candidates.sum(1)
        count = torch.minimum(1 + (u * size).long(), size).clamp_min(
            1
        )  # the bound of a row without candidates is 0
        xt = x0.masked_fill(subset(keys, count, candidates), mask_id(vocabulary))
        share = count / size.clamp_min(1).double()
        return self.reconstruction(predict(xt, share), x0, xt, candidates, vocabulary) / share
