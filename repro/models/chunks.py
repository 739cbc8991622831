"""Chunk sizes of the fused head, in logits; this file imports no torch, because the cost model reads them too."""

CHUNK = 13 << 19
"""Logits held at once on a CPU, 26 MiB in float32: about 130 tokens at V = 50k. Half as many make the matrix products
a fifth slower; more bring no gain."""

BLOCK = 1 << 20
"""Logits that the loss processes at a time within a chunk: it makes up to nine copies of them."""

CHUNK_ACCELERATOR = 1 << 26
"""As CHUNK, on other devices: about 1,300 tokens at V = 50k, enough to fill a large one."""

BLOCK_ACCELERATOR = 1 << 24
"""As BLOCK, on other devices: a kernel over 64 MiB takes longer than its launch."""
