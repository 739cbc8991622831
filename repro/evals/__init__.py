"""Evaluations: score checkpoints on suites of tasks across samplers, and compare records with published numbers.

Start at `request` (lays out a request as a grid of evaluations), `runner` (runs each and stores its result as a record)
and `task` (what a task implements); `work_queue` shares the work among processes, `table` prints records. `__main__`,
`cli` and `listing` are the command line `python -m repro.evals`.

An evaluation is what a record's `question` describes: checkpoint, task, sampler, decoding plan, seed, largest number of
items, and protocol. Its result is the record's `answer`.

Subpackages: `tasks/`, `lm/` (lm-eval), `likelihood/`, `perplexity/`, `text_quality/`, `engines/` (other programs that
decode), `planning/` (estimated cost), `published/` (published numbers). May import `repro.results` and every package
below that; pyproject.toml lists in which order the modules inside may import each other.
"""
