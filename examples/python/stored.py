"""Read results that were stored before, by this process or by the command line."""

from repro import Results, score

score("oracle:mdlm@nano", "ancestral", "law", tokens_per_step=[4, 8], samples=20, out="scored")
results = Results.read("scored")
print(len(results), "records;", results[0].labels.checkpoint, results[0].answer.metrics["excess"].value)
