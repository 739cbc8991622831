"""Recipes, the training loop, checkpoints, optimizers, teachers, the cost model and the engines for many devices."""
