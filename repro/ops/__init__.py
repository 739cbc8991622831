"""Operators for what is larger than memory: the fused head, sparse soft tokens. Their sizes, light to read."""

CHUNK = 3 << 20
"""Logits alive at once on a CPU, 12 MiB in float32 (a loss makes up to nine copies of them). Fewer slow the products;
beyond 32 MiB, in float64 too, glibc hands memory back at each free and pays for every page again."""

CHUNK_ACCELERATOR = 1 << 26
"""The same elsewhere: some 1,300 tokens at V = 50k, enough to fill a large device."""
