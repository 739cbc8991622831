"""Show progress: a bar on a terminal, else one line per finished evaluation."""

from repro import score

score("oracle:mdlm@nano", "ancestral", "law", tokens_per_step=[8, "all"], samples=20, progress=True)
