"""Training: the recipe, the training loop, checkpoints, optimizer, teachers, the cost model and the engines.

Start with `recipe.py` (all settings that a trained model depends on) and `loop.py` (the training loop of all methods).
`engines/` runs a training step on one process or many; `checkpoint.py` is the format that all engines read and write;
`teacher.py` loads or trains the teacher of a distillation; `cost.py` computes memory and time for `--plan`.

This subpackage imports `core`, `data`, `processes`, `models`, `hub` and `objectives`.
"""
