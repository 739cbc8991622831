"""Numbers of those tables and figures that need more than the summaries of `repro.results.store`, from records alone.

`perplexities.py`: perplexities of corpora. `text_quality.py` and `matched.py`: quality of generated text, and samplers
compared at equal entropy. `speed.py`, `parallelism.py` and `speed_text.py`: decoding speed, scores that combine
accuracy and speed, and their Markdown. `lookahead.py`, `pass_at_k.py`, `tasks.py`: these tables.
`repro.results.report.tables` calls all of these. `repro.report` calls `choices.py`, `claims.py` and `reproduction.py`,
which read results/choices, results/claims and results/reruns. `text.py` and `latex.py` print numbers and tables. No
module here imports torch.
"""
