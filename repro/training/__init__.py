"""Training: the recipe, the training loop, checkpoints, optimizer, teachers, the cost model and the engines.

Start with `recipe.py` (everything that a trained model depends on) and `loop.py` (the one loop of all methods).
`engines/` runs a step on one process or many; `checkpoint.py` is the format that all engines read and write;
`teacher.py` finds the weights that a distillation starts from; `cost.py` computes memory and time for `--plan`.

Imports `core`, `data`, `processes`, `models`, `hub` and `objectives`.
"""
