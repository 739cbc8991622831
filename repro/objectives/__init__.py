"""Training losses and the held-out bound.

Start with `objective.py` (what a loss receives and returns) and `next_token.py`, the shortest loss. `elbo.py`,
`masked_ce.py`, `sym_kl.py` and `dcd.py` are the others; `lengths.py` and `clean_prompt.py` wrap a loss. `relaxed.py`
and `soft_tokens.py` draw the relaxed tokens of Duo's losses; `bound.py` estimates the likelihood of held-out rows.

Imports `core`, `data`, `processes` and `models`. A new loss is one file and one line of the registry.
"""
