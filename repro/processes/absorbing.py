"""Absorbing (masked) diffusion: a token is replaced by [MASK] and stays so (spec B.1, C; Sahoo et al. 2024, Shi et al. 2024).

    alpha(t) = 1 - t                       q(xt | x0) = alpha x0 + (1 - alpha) mask
    q(s | t): an unmasked token stays; a masked one stays masked with (1 - alpha_s)/(1 - alpha_t), else becomes x0
    NELBO = E_t [ (1/t) sum over masked of -log p(x0 | xt) ], invariant to the schedule

With alpha(1) = 0 the prior term is 0; the integral runs from t = eps and the tail below it is the reconstruction
E[-log p(x0 | x_eps)], so the sum is a bound (spec C).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro import rng
from repro.data.corpus import Vocabulary
from repro.lazy import torch
from repro.parts import part
from repro.processes.process import Diffusion, row_sums

if TYPE_CHECKING:
    from torch import Tensor

    from repro.backbones.prediction import Prediction
    from repro.processes.process import Predict


def mask_id(vocabulary: Vocabulary) -> int:
    if vocabulary.mask is None:
        raise ValueError("absorbing noise needs a mask id and this data source has none")
    return vocabulary.mask


@part
class Absorbing(Diffusion):
    """Absorbing noise; `eps` is the lower end of the time integral."""

    eps: float

    def forbidden(self, vocabulary: Vocabulary) -> tuple[int, ...]:
        return (mask_id(vocabulary), *range(vocabulary.size, vocabulary.total))

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t

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
        """Where xt is [MASK]: stay with (1 - alpha_s)/(1 - alpha_t), else a draw of the prediction; elsewhere a delta."""
        mask = mask_id(prediction.vocabulary)
        ids = xt[where]
        law = torch.nn.functional.one_hot(ids, prediction.vocabulary.total).double()
        masked = where & (xt == mask)
        rows = masked.nonzero()[:, 0]
        stay = ((1 - self.alpha(s.double())) / (1 - self.alpha(t.double())))[rows, None]
        law[ids == mask] = stay * law[ids == mask] + (1 - stay) * prediction.probs(masked)
        return law

    def nll(
        self,
        prediction: Prediction,
        x0: Tensor,
        xt: Tensor,
        t: Tensor,
        candidates: Tensor,
        vocabulary: Vocabulary,
    ) -> Tensor:
        return self.reconstruction(prediction, x0, xt, candidates, vocabulary) / t.double()

    def reconstruction(
        self, prediction: Prediction, x0: Tensor, xt: Tensor, candidates: Tensor, vocabulary: Vocabulary
    ) -> Tensor:
        """-log p(x0 | xt) summed over masked candidates, [B] float64."""
        masked = candidates & (xt == mask_id(vocabulary))
        logp = prediction.logits(masked).float().log_softmax(-1)
        return -row_sums(logp.gather(1, x0[masked][:, None])[:, 0].double(), masked)

    def bound(
        self,
        predict: Predict,
        x0: Tensor,
        candidates: Tensor,
        vocabulary: Vocabulary,
        u: Tensor,
        keys: Tensor,
    ) -> Tensor:
        t = self.eps + (1 - self.eps) * u
        xt = self.corrupt(x0, t, rng.fold(keys, 0), candidates, vocabulary)
        middle = (1 - self.eps) * self.nll(predict(xt, t), x0, xt, t, candidates, vocabulary)
        end = torch.full_like(t, self.eps)
        xe = self.corrupt(x0, end, rng.fold(keys, 1), candidates, vocabulary)
        return middle + self.reconstruction(predict(xe, end), x0, xe, candidates, vocabulary)
