"""Perplexity of models: on held-out data of their recipe, on published corpora under published protocols, on any text.

Start with `corpus` (the task `Perplexity`) and `perplexity` (held-out bound, training curve). `packings` cuts documents
into rows, `tokenizers` lists the tokenizers of published tables, `catalogue` reads the published corpora and protocols
of evals/corpora.toml, and `corpora` makes tasks of these and of the argument of `--corpus`. May import `task`,
`workload`, `work_queue` of `repro.evals`, and every package below `evals`. The rules are in docs/method.md#metrics and
docs/method.md#packing.
"""
