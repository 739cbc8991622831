"""Generative perplexity of texts under a judge (a causal language model), as a metric of the package `evaluate`; wraps
`repro.evals.text_quality.gen_ppl`.

    evaluate.load("repro/evals/metrics/gen_ppl").compute(predictions=texts, judge="gpt2-large", rule_name="duo")
    -> {"gen_ppl": ..., "gen_ppl_se": ..., "protocol": {...}}

`judge`: the model's folder, or a name in `runs/`; `rule_name`: the scoring rule duo, mdlm, remdm, bd3 or every_token,
or one of these with fields changed (`duo:length=128`).
"""

import datasets
import evaluate

from repro.evals.text_quality.gen_ppl import gen_ppl, rule
from repro.evals.text_quality.judges import load_judge
from repro.evals.text_quality.quality import judge_protocol


class GenPpl(evaluate.Metric):
    def _info(self):
        return evaluate.MetricInfo(
            description=__doc__,
            citation="",
            inputs_description="predictions: texts; judge: folder of a causal LM; rule_name: scoring rule",
            features=datasets.Features({"predictions": datasets.Value("string")}),
        )

    def _compute(self, predictions, judge, rule_name):  # ty: ignore[incompatible-method-override]
        reader, how = load_judge(judge), rule(rule_name)
        value, error, _ = gen_ppl([reader.encode(text) for text in predictions], reader, how)
        return {"gen_ppl": value, "gen_ppl_se": error, "protocol": judge_protocol(reader, how, "text")}
