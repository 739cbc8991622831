"""Recipes: one file each, with the value of every setting of a training run and a comment that cites its source.

Start with `mdlm.py`. `command.py` is the command line that all recipes share (`--print`, `--plan`, `--scale`, `--set`),
`scale.py` derives the small variants `NAME@nano`, `NAME@nano.text`, ... that train on one CPU core.

This subpackage imports `core`, `data`, `processes`, `models`, `hub`, `objectives` and `training`. A new recipe is one
file here and one line in `repro/core/registry.py`; `make accept` writes its lock, a JSON copy of its settings with
which tests compare it (recipes/README.md).
"""
