"""Noise processes: how a token is corrupted, the exact reverse step, and bounds on -log p(x).

Start at `process.py`, the interface; `absorbing.py`, `uniform.py` and `left_to_right.py` are the three kinds of noise,
`bayes.py` has Bayes' rule for a token, `blocks.py` is absorbing noise block by block, and `gaussian.py` is the Gaussian
relaxation of uniform noise. `prediction.py` states what a process needs of a network, so that this subpackage does not
depend on `models`; it imports `core` and `data` only.
"""
