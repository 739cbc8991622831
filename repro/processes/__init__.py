"""Noise processes: how a token is corrupted, the exact reverse step, and bounds on -log p(x).

Start at `process.py`, the interface; `absorbing.py`, `uniform.py` and `left_to_right.py` (autoregression, without
noise) are the three families, and `blocks.py` is absorbing noise block by block. For uniform noise `bayes.py` has
Bayes' rule for a token and `gaussian.py` the Gaussian relaxation. `prediction.py` states what a process needs of a
network, so that this subpackage does not depend on `models`; it imports `core` and `data` only.
"""
