"""Numbers of those tables and figures that need more than the summaries of `repro.results.store`, from records alone.

`repro.results.report.tables` calls: `perplexities.py`, perplexities of corpora; `text_quality.py` and `matched.py`,
quality of generated text, and samplers compared at equal entropy; `speed.py`, `parallelism.py` and `speed_text.py`,
decoding speed, scores that combine accuracy and speed, and their Markdown; `lookahead.py`, lossless lookahead;
`pass_at_k.py`, pass@k; `tasks.py`, all other tasks. `repro.report` calls `choices.py`, what each choice of recipe `duo`
costs, `claims.py`, verdicts on claims of papers, and `reproduction.py`, what the reproduction test detects, which read
results/choices, results/claims and results/reruns. `text.py` and `latex.py` print numbers and tables. No module here
imports torch.
"""
