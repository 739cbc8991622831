"""Operators for what is larger than memory: the fused head, sparse soft tokens. Their sizes, light to read."""

CHUNK = 13 << 19
"""Logits alive at once on a CPU, 26 MiB in float32: some 130 tokens at V = 50k. Half as many slow the products by a
fifth, more gain nothing."""

BLOCK = 1 << 20
"""Logits of a chunk that a loss works on at a time: it makes up to nine copies of them."""

CHUNK_ACCELERATOR = 1 << 26
"""As CHUNK elsewhere: some 1,300 tokens at V = 50k, enough to fill a large device."""

BLOCK_ACCELERATOR = 1 << 24
"""As BLOCK elsewhere: a kernel over 64 MiB takes longer than its launch."""
