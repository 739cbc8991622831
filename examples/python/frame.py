"""Results as a pandas data frame: the least excess cross-entropy among three samplers."""

from repro import score

names = ["ancestral", "margin:temperature=1.0", "remdm_cap"]
results = score("oracle:mdlm@nano", names, "law", tokens_per_step=8, samples=20)
frame = results.frame().query("metric == 'excess'")
print(frame[["preset", "tokens_per_step", "value", "low", "high"]].sort_values("value"))
