"""Perplexity: held-out bounds on a recipe's own data, published corpora and protocols, and any text.

Start with `corpus` (the task `Perplexity`) and `perplexity` (held-out bound, training curve). `packings` cuts documents
into rows, `tokenizers` knows the tokenizers of published tables, `catalogue` reads evals/corpora.toml, and `corpora`
makes tasks of it and of `--corpus`. May import `task`, `workload`, `work_queue` of `repro.evals`, and every room below
`evals`. The rules are in docs/method.md#metrics and docs/method.md#packing.
"""
