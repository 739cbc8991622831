"""Metrics of the quality of generated text: generative perplexity (gen_ppl), entropy, distinct n-grams and MAUVE
(docs/method.md#metrics).

A *judge* is the causal language model that scores texts: a left-to-right checkpoint of this repository or a folder
saved by transformers (`judges`). Start with `quality`, the tasks without MAUVE; `mauve_tasks` and `references` add
MAUVE, `redrawn` generates samples of low entropy again, and `external_samples` scores files of samples that any program
wrote. The formulas are in `gen_ppl`, `mauve` and `samples`, which use neither models nor tasks. Of `repro.evals` this
package may import `task`, `workload`, `work_queue`, `decoding` and `runner`.
"""
