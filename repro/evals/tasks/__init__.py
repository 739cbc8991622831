"""This package's own tasks, beside those of lm-eval: accuracy of samples, decoding speed, errors of KV caches and of
likelihoods, lookahead, and several draws per item.

Files: `law` (samples against the exact distribution of a synthetic language), `speed` (timed lm-eval tasks),
`cache_error` (approximate KV caches against none), `choice_draws` (multiple choice by likelihoods with few Monte Carlo
draws), `lookahead` (decoding several tokens at once against one at a time), `pass_at_k` (several draws of each item).
May import the rest of `repro.evals` except `request`, `planning` and `published`, and every package below `evals`.
"""
