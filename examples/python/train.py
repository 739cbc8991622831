"""Train a small model for a few steps, sample from it, and score it."""

from pathlib import Path

from repro import sample, score
from repro.recipes.command import select
from repro.recipes.mdlm import RECIPE
from repro.training.loop import train

recipe = select(RECIPE, "nano", ["steps=10", "batch=8", "micro_batch=8", "data.rows=800", "heldout_rows=16"])
folder = train(recipe, seed=0, out=Path("run"), stop=None, resume=False)
print(*sample(folder, n=2, steps=8), sep="\n")
print(score(folder, "ancestral", "law", tokens_per_step=8, samples=20).table())
