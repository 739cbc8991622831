"""Samplers of other projects (peers), run from their unchanged files and certified in one command.

    python -m repro.certify --peer duo=../duo --peer LLaDA=../LLaDA --peer diffusers

A checkout, also one of a package, is given as NAME=FOLDER, an installed package by its name alone. None of the peers'
code is part of this project and none is changed. Start reading at `catalogue`: the samplers with their claims and
settings. `imports` loads the peers' files, with stand-ins for absent third-party modules that a file imports and its
sampler does not use; `diffusion`, `unmasking` and `installed` call the samplers with a network that answers with the
exact conditionals of a space (`network`); `command` certifies the samplers in child processes and writes
results/certificates/peers.json, with a sentence on what each refused sampler does wrong (`defects`).
"""
