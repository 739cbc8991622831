"""Published numbers: what they are, which questions answer them at which cost, and whether records agree with them.

`cells.py` reads evals/published.toml into cells, one per number. `matching.py` compares the settings of a cell with a
question, `price.py` estimates the GPU hours of the question that answers a cell, and `verify.py` (command
`python -m repro.verify`) compares cells with records. `suite_group.py` and `suite_group_plan.py` evaluate and plan
several suites or cells over several checkpoints. `parity.py` compares a checkpoint with values recorded elsewhere.

This is the top room of `evals`: it may import all others. `cells` and `verify` do not import torch.
"""
