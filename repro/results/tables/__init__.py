"""Numbers of those tables and figures that need more than the summaries of `repro.results.store`, from records alone.

`perplexities.py`: perplexities of corpora. `text_quality.py` and `matched.py`: quality of generated text, and samplers
compared at equal entropy. `speed.py`, `parallelism.py` and `speed_text.py`: decoding speed, scores that combine
accuracy and speed, and their text. Each module has a function that returns file names with texts or data frames; start
with `repro.results.report.tables`, which calls them all. No module here imports torch.
"""
