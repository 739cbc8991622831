"""Unigram entropy of a sample in nats, averaged over samples, as a metric of the package `evaluate`; wraps
`repro.evals.text_quality.samples.entropy`.

evaluate.load("repro/evals/metrics/unigram_entropy").compute(predictions=[[3, 1, 3], [2, 2]])
-> {"entropy": mean over samples, "entropy_se": its standard error}
"""

import datasets
import evaluate

from repro.evals.text_quality.samples import entropy, mean


class UnigramEntropy(evaluate.Metric):
    def _info(self):
        return evaluate.MetricInfo(
            description=__doc__,
            citation="",
            inputs_description="predictions: token ids of each sample",
            features=datasets.Features({"predictions": datasets.Sequence(datasets.Value("int64"))}),
        )

    def _compute(self, predictions):  # ty: ignore[incompatible-method-override]
        value, error, _ = mean([entropy(ids) for ids in predictions])
        return {"entropy": value, "entropy_se": error}
