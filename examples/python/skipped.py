"""What was not run, and why."""

from repro import score

results = score("oracle:mdlm@nano", tasks="law", tokens_per_step="all", samples=4)
for skip in results.skipped:
    print(f"{skip.what}: {skip.reason}")
