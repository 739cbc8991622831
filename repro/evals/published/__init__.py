"""Published numbers: what they are, which evaluations reproduce them at which cost, and whether records agree with
them.

`cells.py` reads evals/published.toml into *cells*, one per published number. An evaluation (the `question` of a record:
checkpoint, task, sampler, decoding plan, seed, protocol) *answers* a cell if its result is comparable with the number.
`matching.py` compares the settings of a cell with those of an evaluation, `price.py` estimates the GPU hours of the
evaluation that answers a cell, and `verify.py` (command `python -m repro.verify`) compares cells with records.
`suite_group.py` and `suite_group_plan.py` evaluate and plan several suites or cells over several checkpoints.
`parity.py` compares a checkpoint with values recorded elsewhere.

This is the top package of `evals`: it may import all others. `cells` and `verify` do not import torch.
"""
