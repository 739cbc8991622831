"""Weights released by others: how their folders are recognised, read, checked and converted.

Start at `release.py`, which opens a local folder and copies its weights into a network of this suite. `layout.py` has
the class `Layout`, which describes a family; each family (`dit.py`, `llada.py`, `dream.py`, `llama.py`, `gpt2.py`,
`modernbert.py`, `diffusion_gemma.py`) is one file that reads its config.json and lists its tensor names, by which
`mapping.py` copies the tensors. `catalogue.py` lists known checkpoints, `templates.py` their chat prompts, and
`convert.py` turns pickles into safetensors. `gguf.py` unpacks GGUF files. `pretrained.py` is the backbone of recipes
that start from released weights, `lora.py` a backbone that trains low-rank adapters beside released weights. This
subpackage imports core, data, processes and models.
"""
