"""Samplers of other projects, called as their files are, and certified in one command.

    python -m repro.certify --peer duo=../duo --peer LLaDA=../LLaDA --peer diffusers

A checkout is given as NAME=FOLDER (of a package too), an installed package by its name alone. None of the peers' code
is part of this project and none is changed. Start reading at `catalogue`: the samplers with their claims and settings.
`imports` loads the peers' files, with stand-ins for absent third-party modules that a file imports and its sampler does
not use; `diffusion`, `unmasking` and `installed` call the samplers with a network that answers with the exact
conditionals of a space (`network`); `command` certifies them in child processes and writes
results/certificates/peers.json, with what refused ones do wrong (`defects`).
"""
