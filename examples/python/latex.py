"""A table for the paper: a `tabular` with booktabs' rules, for `\\input`."""

from pathlib import Path

from repro import score

results = score("oracle:mdlm@nano", ["ancestral", "psi_cap"], "law", tokens_per_step=8, samples=30)
Path("samplers.tex").write_text(results.to_latex(), encoding="utf-8")
