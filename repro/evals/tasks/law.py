"""Error and cost of a sampler on a synthetic language with known probabilities (an oracle language).

The language is a hidden Markov model. Excess cross-entropy is the mean exact negative log-likelihood of the samples
minus the language's entropy, in nats per token. Samples of a mode-seeking sampler can have a negative excess, so it is
reported with the unbiased squared distance between the bigram distributions of the samples and of the language. Both
metrics are also computed for equally many samples of the language itself (true samples, metric prefix `true_`;
docs/method.md#statistics).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from repro.core import rng
from repro.core.lazy import torch
from repro.core.parts import part
from repro.data.language import Language
from repro.evals.decoding import decoded
from repro.evals.task import Answer, Ask, Task, generated
from repro.evals.work_queue import WorkQueue
from repro.evals.workload import Workload, of_texts
from repro.model import Model

if TYPE_CHECKING:
    from torch import Tensor

    from repro.data.hmm import Hmm

TRUE_STEP = 2
"""Step number in the random keys of true samples (corpora of the language use step 0, estimates of its entropy 1)."""


@part
class Law(Task):
    """Excess cross-entropy (metric `excess`) and bigram distance (`bigram`) of `samples` rows generated without a
    prompt, with respect to the exact distribution of the model's synthetic language."""

    samples: int
    generates = True
    needs_draws = True

    def protocol(self) -> dict[str, Any]:
        return {"excess": "mean nll - entropy", "bigram": "unbiased squared distance", "draws": "float64"}

    def skip(self, model: Model) -> str | None:
        return (
            None
            if isinstance(model.data, Language)
            else "this data is no oracle language, so the true distribution is unknown"
        )

    def gen_length(self, model: Model) -> int:
        return model.data.row_length()

    def workload(self, model: Model, ask: Ask) -> Workload:
        return of_texts(self.samples, model, ask.sampler, ask.plan, 0).limited(ask.limit)

    def shared(self, model: Model, ask: Ask, work: WorkQueue) -> Answer:
        data = model.data
        assert isinstance(data, Language) and ask.sampler is not None and ask.plan is not None
        count = ask.at_most(self.samples)
        if count < 3:
            raise ValueError(
                f"task {self.name!r} needs at least 3 samples, got {count}; raise --samples or --limit"
            )
        prompts: list[list[int]] = [[] for _ in range(count)]
        names = range(count)
        found = decoded(
            work, model, ask.sampler, ask.plan, prompts, seed=ask.seed, names=names, batch=work.batch
        )
        work.join()
        hmm = data.hmm()
        true = hmm.sample(rng.keys(ask.seed, rng.SENTENCE, TRUE_STEP, torch.arange(count)))
        drawn = statistics(hmm, found.ids, data.entropy(), data.entropy_se())
        truth = statistics(hmm, true, data.entropy(), data.entropy_se())
        metrics = drawn | {f"true_{name}": metric for name, metric in truth.items()}
        return generated(found.ids, found.cost.forwards, metrics)


def statistics(
    hmm: Hmm, ids: Tensor, entropy: float, entropy_se: float
) -> dict[str, tuple[float, float | None, int]]:
    """Metrics of samples `ids` [n, L], n rows of L tokens of the language `hmm`: name -> (value, standard error, n).

    `excess`: mean of -log p of the samples minus `entropy`, the language's, in nats per token, whose standard error is
    `entropy_se`; `bigram`: squared distance of the samples' bigram frequencies from those of the language.
    """
    nll = -hmm.log_likelihood(ids) / ids.shape[1]
    error = math.hypot(nll.std().item() / math.sqrt(len(ids)), entropy_se)
    distance, spread = bigram_distance(ids, hmm.bigram())
    count = len(ids)
    return {"excess": (nll.mean().item() - entropy, error, count), "bigram": (distance, spread, count)}


def bigram_distance(ids: Tensor, law: Tensor) -> tuple[float, float]:
    """Unbiased estimate of the squared distance || E f - p ||^2, and its jackknife standard error.

    `ids` [n, L] are n sampled rows of L tokens, f the bigram frequencies of a row [V, V], and p = `law` [V, V] the
    bigram distribution to compare with; V is the vocabulary size. With d = f - p the estimate is the mean of d_i . d_j
    over pairs i != j of rows, which is 0 on average for true samples, whatever n; the plug-in distance is not
    (docs/method.md#statistics).
    """
    count, vocab_size = len(ids), law.shape[0]
    pair = ids[:, :-1] * vocab_size + ids[:, 1:]
    frequency = torch.zeros(count, vocab_size * vocab_size, dtype=torch.float64)
    frequency.scatter_add_(1, pair, torch.full(pair.shape, 1 / pair.shape[1], dtype=torch.float64))
    d = frequency - law.reshape(-1)
    total = d.sum(0)
    cross = d @ total - (d * d).sum(1)  # d_i . sum over j != i of d_j
    pairs = cross.sum()
    estimate = pairs / (count * (count - 1))
    left_out = (pairs - 2 * cross) / ((count - 1) * (count - 2))
    spread = ((count - 1) / count * ((left_out - left_out.mean()) ** 2).sum()).sqrt()
    return estimate.item(), spread.item()
