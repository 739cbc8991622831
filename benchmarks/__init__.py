"""Speed ratios against published loops, measured side by side: `python -m benchmarks`."""
