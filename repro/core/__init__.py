"""Foundations that do not import torch: parts and their registry, errors, random numbers, files, command lines,
statistics, schedules.

Start at `parts.py`: everything that can be configured is a *part*, a frozen dataclass with a canonical JSON form and a
digest; `registry.py` is the table of all parts and recipes. `rng.py` is the only source of random numbers. This
subpackage imports nothing else of the package; the registry names modules by string.
"""
