"""MAUVE of texts, with the hidden states of a judge (a causal language model) as features, as a metric of the package
`evaluate`; wraps `repro.evals.text_quality.mauve`.

    evaluate.load("repro/evals/metrics/mauve").compute(
        predictions=texts, references=held_out, judge="gpt2-large", state="last", length=1024, clusters=500,
        seeds=5)
    -> {"mauve": ..., "mauve_se": ..., "mauve_clusterings_se": ..., "n": ..., "protocol": {...}}

Give as many references as predictions. `judge`: the model's folder, or a name in `runs/`; `state`: the hidden state
after the last id (`last`, as published) or the mean over all ids (`mean`); `length`: number of ids that the judge reads
of each text; `clusters`: number of k-means clusters; `seeds`: number of clusterings averaged. The other settings are
the defaults of mauve-text (variance 0.9, scaling 5, 25 mixtures, best of 5 starts).
"""

import datasets
import evaluate

from repro.core import parts
from repro.evals.text_quality import mauve
from repro.evals.text_quality.judges import load_judge


class Mauve(evaluate.Metric):  # evaluate derives the name of the metric from the class
    def _info(self):
        return evaluate.MetricInfo(
            description=__doc__,
            citation="",
            inputs_description="predictions, references: equally many texts; judge: folder of a causal LM",
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            ),
        )

    def _compute(self, predictions, references, judge, state, length, clusters, seeds):  # ty: ignore[incompatible-method-override]
        fixed = {"starts": 5, "variance": 0.9, "scaling": 5.0, "mixtures": 25}
        pins = mauve.Mauve(state=state, length=length, clusters=clusters, seeds=seeds, **fixed)
        reader = load_judge(judge)
        sides = (
            reader.features([reader.encode(text)[:length] for text in texts], state)
            for texts in (references, predictions)
        )
        found = mauve.mauve_score(*sides, pins, seed=0)
        value, error, n = found.metric()
        protocol = {"judge": reader.name, "judge_digest": reader.digest, "mauve": parts.canonical(pins)}
        spread = found.over_clusterings()[1]
        return {
            "mauve": value,
            "mauve_se": error,
            "mauve_clusterings_se": spread,
            "n": n,
            "protocol": protocol,
        }
