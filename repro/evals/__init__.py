"""Evaluations: score checkpoints on suites of tasks across samplers, and compare records with published numbers.

Start at `request` (a request becomes a grid of questions), `runner` (answers them and writes records) and `task` (what
a task implements); `work_queue` shares the work among processes, `table` prints records. `cli`, `commands` and
`listing` are the command line `python -m repro.evals`.

Rooms inside: `tasks/`, `lm/` (lm-eval), `likelihood/`, `perplexity/`, `text_quality/`, `planning/` (estimated cost),
`published/` (published numbers). May import every room below it (`repro.results` and down); pyproject.toml has the
order of the modules inside.
"""
