"""Networks: the denoiser contract, the attention and cache that all of them share, and one pair of files a family.

Start with `denoiser.py` (what a network offers) and `prediction.py` (how objectives and samplers read it). A family is
a part with its hyperparameters, free of torch (`llama.py`), and its module (`llama_network.py`), which the part names
by string. `attention.py` holds masks, the KV cache and the one attention function; `fused_head.py` computes output
layer and loss in one operation.

Imports `core`, `data` and `processes` only. A new network family is one such pair and one line of
`repro/core/registry.py`.
"""
