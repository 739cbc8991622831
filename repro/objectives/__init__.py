"""Training losses and the held-out bound.

Start with `objective.py` (what a loss receives and returns) and `next_token.py`, the shortest loss. `elbo.py`,
`masked_ce.py`, `sym_kl.py`, `dcd.py`, `blocks.py` and `complementary.py` hold the other losses; `lengths.py` and
`clean_prompt.py` wrap a loss. `noise.py` and `view_scale.py` hold distributions and weights of noise levels,
`relaxed.py` and `soft_tokens.py` draw the soft tokens of Duo's losses, and `bound.py` estimates an upper bound on the
negative log-likelihood of held-out rows.

Imports `core`, `data`, `processes` and `models`. A new loss is one file and one line of `repro/core/registry.py`.
"""
