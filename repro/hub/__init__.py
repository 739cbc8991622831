"""Weights released by others: how their folders are recognised, read, checked and converted.

Start at `release.py`, which opens a local folder and copies its weights into a network of this suite. `layout.py` has
the table of supported model types; each family (`dit.py`, `llada.py`, `dream.py`, `llama.py`, `gpt2.py`,
`modernbert.py`, `diffusion_gemma.py`) is one file with its reader of config.json and its tensor names, which
`mapping.py` applies. `catalogue.py` lists known checkpoints, `templates.py` their chat prompts, and `convert.py` turns
pickles into safetensors. `gguf.py` unpacks GGUF files. `pretrained.py` is the backbone of recipes that start from
released weights, `lora.py` one that trains low-rank adapters beside them. Imports the subpackages core, data, processes
and models.
"""
