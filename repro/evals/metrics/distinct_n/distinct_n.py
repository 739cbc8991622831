"""Distinct n-grams as a metric of the package `evaluate`: number of different n-grams of a sample divided by the number
of all its n-grams, averaged over samples (`repro.evals.text_quality.samples.distinct`).

evaluate.load("repro/evals/metrics/distinct_n").compute(predictions=[[3, 1, 3], [2, 2]], n=2)
-> {"distinct_2": mean over samples, "distinct_2_se": its standard error}
"""

import datasets
import evaluate

from repro.evals.text_quality.samples import distinct, mean


class DistinctN(evaluate.Metric):
    def _info(self):
        return evaluate.MetricInfo(
            description=__doc__,
            citation="",
            inputs_description="predictions: token ids of each sample; n: size of the n-grams",
            features=datasets.Features({"predictions": datasets.Sequence(datasets.Value("int64"))}),
        )

    def _compute(self, predictions, n):  # ty: ignore[incompatible-method-override]
        value, error, _ = mean([distinct(ids, n) for ids in predictions])
        return {f"distinct_{n}": value, f"distinct_{n}_se": error}
