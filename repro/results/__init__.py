"""Results: records of evaluations, their store, comparisons of records, tables, and the reproduction test.

Start with `record.py`, the schema of a record: its `question` (the evaluation: checkpoint, task, sampler, decoding
plan, seed, limit, protocol), its `answer` (the result), labels and measurements. `store.py` reads, appends and
publishes records and converts them to data frames. `difference.py` compares two evaluations; `explain.py`, `flips.py`
and `versions.py` compare records. `report.py` and the package `tables` make results/tables from records alone;
`reproduction.py` tests whether a run agrees with the committed results. Command lines: `python -m repro.results`,
`python -m repro.results.reproduction`, `python -m repro.report`.

Nothing here imports torch, so that results can be read where it is not installed. Of the other subpackages it imports
`core`, `samplers.presets` where the meaning of a preset is needed, and `recipes.scale` and `training.recipe` where
recipes are compared.
"""
