"""Generative perplexity as an `evaluate` metric, wrapping `repro.evals.text_quality.gen_ppl`.

    evaluate.load("repro/evals/metrics/gen_ppl").compute(predictions=texts, judge="gpt2-large", rule_name="duo")
    -> {"gen_ppl": ..., "gen_ppl_se": ..., "protocol": {...}}

`judge`: a folder, or a name in `runs/`; `rule_name`: duo, mdlm, remdm, bd3, every_token, or a derived rule
(`duo:length=128`).
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
            inputs_description="predictions: texts; judge: a causal LM; rule_name: scoring rule",
            features=datasets.Features({"predictions": datasets.Value("string")}),
        )

    def _compute(self, predictions, judge, rule_name):  # ty: ignore[incompatible-method-override]
        reader, how = load_judge(judge), rule(rule_name)
        value, error, _ = gen_ppl([reader.encode(text) for text in predictions], reader, how)
        return {"gen_ppl": value, "gen_ppl_se": error, "protocol": judge_protocol(reader, how, "text")}
