"""Cost of evaluations, estimated before they are run, and runs limited to a number of hours.

Start at `plan` (forwards and hours of a request; no weights are loaded). `device` turns a workload into seconds,
`time_budget` starts only evaluations that are expected to finish in time. May import `repro.evals.request` and what
lies below it, not `repro.evals.published`.
"""
