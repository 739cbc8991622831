"""Results: records of evaluations, their store, comparisons of records, tables, and the reproduction test.

Start with `record.py`, the schema of a record (question, answer, labels, measurements), and `store.py`, which reads,
appends and publishes records and converts them to data frames. `difference.py` compares two questions; `explain.py`,
`flips.py` and `versions.py` compare records. `report.py` and the room `tables` make results/tables from records alone;
`reproduction.py` tests whether a run agrees with the committed results. Command lines: `python -m repro.results`,
`python -m repro.results.reproduction`, `python -m repro.report`.

Nothing here imports torch, so that results can be read where it is not installed. From the rooms below only `core` is
imported, and `samplers.presets` where the meaning of a preset is needed.
"""
