"""Read a decode step by step: ids, text and confidence of every position."""

from repro import stream

for step in stream("oracle:mdlm@nano", sampler="ancestral", steps=8, seed=1):
    sure = [p for p in step.confidence if p is not None]
    print(step.number, step.text, f"{len(step.new)} new, least confidence {min(sure, default=1):.2f}")
