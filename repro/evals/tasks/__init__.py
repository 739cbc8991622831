"""Tasks of this package's own: accuracy of samples, decoding speed, errors of KV caches and of likelihoods.

Each file is one task: `law` (samples against the exact distribution of a synthetic language), `speed` (timed lm-eval
tasks), `cache_error` (approximate KV caches against none), `choice_draws` (multiple choice by likelihoods with few
Monte Carlo draws). May import the rest of `repro.evals` except `request`, `planning` and `published`, and every room
below `evals`.
"""
