"""Samplers: update rules, the decoding loop that runs them, and the exact law of what they write.

Start reading at `sampler` (state and interface of a rule), `decode` (the loop) and `decoder` (one step of it). `plan`
says how much is decoded; `presets` names the rules. Rules by family: `ordered`, `threshold`, `ancestral`, `remdm`,
`psi`, `corrector`, `renoise`, `autoregressive`; `tail` and `logits_processors` modify any rule. `draws` holds the keyed
random draws and `law` enumerates them; `trace` and `watch` show a decode step by step.

A new rule is one file here, one line in `repro.core.registry`, and a preset. The room imports `repro.core`, `data`,
`processes` and `models` only.
"""
