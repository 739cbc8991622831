"""How many logits are held in memory or processed at a time (*chunk sizes*) by `repro.models.fused_head` and by other
work on logits. Without torch, because the cost model reads these numbers too."""

CHUNK = 13 << 19
"""Number of logits held in memory at once on a CPU, 26 MiB in float32: about 130 tokens at a vocabulary of 50k ids.
Half as many make the matrix products a fifth slower; more bring no gain."""

BLOCK = 1 << 20
"""Number of logits of a chunk that the loss processes at a time on a CPU; the loss makes up to nine copies of them."""

CHUNK_ACCELERATOR = 1 << 26
"""Number of logits held in memory at once on other devices: about 1,300 tokens at a vocabulary of 50k ids, enough to
occupy a large GPU."""

BLOCK_ACCELERATOR = 1 << 24
"""Number of logits of a chunk that the loss processes at a time on other devices: a kernel over these 64 MiB takes
longer than its launch."""
