"""Continue a prompt several times; a string is one prompt, a list is several."""

from repro import sample

print(*sample("oracle:mdlm@nano", "AB", n=3, sampler="ancestral", steps=8), sep="\n")
print(*sample("oracle:mdlm@nano", ["AB", "CD"], n=2, seed=1, steps=8), sep="\n")
