"""Two checkpoints in one table; a sampler that fits only one of them is skipped for the other."""

from repro import score

results = score(["oracle:mdlm@nano", "oracle:duo@nano"], ["ancestral", "corrector"], "law", 8, samples=30)
print(results.table())
