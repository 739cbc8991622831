"""Presets with other settings, and logits processors, by name."""

from repro import sample

for name in ("random:temperature=1.0", "random:temperature=1.0+nucleus:p=0.9", "threshold_0.9:threshold=0.5"):
    print(name, *sample("oracle:mdlm@nano", sampler=name, seed=3))
