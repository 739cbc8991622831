"""Recipes: one file each, which pins every setting of a training run and cites the source of each pin in a comment.

Start with `mdlm.py`. `command.py` is the command line that all recipes share (`--print`, `--plan`, `--scale`, `--set`),
`scale.py` derives the small variants `NAME@nano`, `NAME@nano.text`, ... that run on one CPU core.

Imports `core`, `data`, `processes`, `models`, `hub`, `objectives` and `training`. A new recipe is one file here and one
line in `repro/core/registry.py`; `make accept` writes its lock (recipes/README.md).
"""
