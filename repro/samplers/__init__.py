"""Samplers: update rules, the decoding loop that runs them, and the exact distribution (law) of their outputs.

Start reading at `sampler` (state and interface of a sampler), `decode` (the loop) and `decoder` (one step of it).
`plan` sets lengths, steps and KV cache; `presets` names the samplers. By family: `ordered`, `threshold`, `ancestral`,
`remdm`, `psi`, `corrector`, `renoise`, `autoregressive`; `tail` and `logits_processors` modify any sampler. `draws`
holds the keyed random draws and `law` enumerates them; `trace` and `watch` show a decoding run step by step.

A new sampler is one file here, which also names its presets, and one line in `repro.core.registry`. This package
imports only `repro.core`, `repro.data`, `repro.processes` and `repro.models`.
"""
