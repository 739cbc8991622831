"""Tasks of this suite's own: the law of samples, decoding speed, errors of KV caches, likelihood draws.

Each file is one task: `law` (samples of an oracle language against its exact law), `speed` (lm-eval tasks under a
clock), `cache_error` (approximate KV caches against none), `choice_draws` (multiple choice with few likelihood draws).
May import the rest of `repro.evals` except `request`, `planning` and `published`, and every room below `evals`.
"""
