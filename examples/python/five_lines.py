"""Load a model, sample from it, score two samplers, and print the table."""

from repro import load, sample, score

model = load("oracle:mdlm@nano")
print(*sample(model, n=2), sep="\n")
results = score(model, samplers=["ancestral", "random"], tasks="law", samples=50, tokens_per_step=4)
print(results.table())
