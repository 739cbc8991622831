"""A tiny random Llama as released weights, and toy recipes that adapt it by LoRA."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM

from helpers.toy import toy
from repro.core import parts
from repro.data.corpus import UNRESOLVED
from repro.hub.lora import Lora
from repro.hub.pretrained import PretrainedBackbone
from repro.models.causal_blocks import CausalBlocks
from repro.models.llama import Llama
from repro.training.engines.options import Options
from repro.training.loop import train
from repro.training.optimizer import Ema
from repro.training.recipe import Recipe

SIZES = {"layers": 2, "width": 32, "heads": 4, "kv_heads": 2, "ffn": 48}


def base(folder: Path, vocab_size: int, seed: int = 0) -> Path:
    """A folder of a Llama with random weights, tied embeddings and `vocab_size` ids."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab_size, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, rms_norm_eps=1e-5, tie_word_embeddings=True,
        bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    theirs = LlamaForCausalLM(config)
    for parameter in theirs.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape))
    theirs.save_pretrained(folder)
    Tokenizer(models.WordLevel({"a": 0}, unk_token="a")).save(str(folder / "tokenizer.json"))
    return folder


def started(folder: Path, attention: str) -> PretrainedBackbone:
    """The backbone with the weights in `folder`."""
    llama = Llama(
        **SIZES, attention=attention, rope_base=1e4, norm_eps=1e-5, learned_positions=0, tied=True, init_deviation=0.02
    )  # fmt: skip
    return PretrainedBackbone(backbone=llama, source=str(folder), revision=UNRESOLVED)


def lora(backbone, **changed) -> Lora:
    """Adapters of rank 4 at three of the matrices, and the mask's embedding."""
    pins = {"rank": 4, "alpha": 8.0, "dropout": 0.0, "targets": ("q_proj", "v_proj", "down_proj")}
    return Lora(**{"backbone": backbone, **pins, "mask_embedding": True, **changed})


def block_recipe(folder: Path, *more: str, **changed) -> Recipe:
    """smollm2_block4 at toy size, from the weights in `folder`, which is written unless it is there."""
    plain = toy("smollm2_block4", "learning_rate.decay=2", *more)
    if not folder.exists():
        base(folder, plain.data.vocabulary().total)
    blocks = CausalBlocks(backbone=started(folder, "causal"), block=4)
    return parts.derive(plain, {"backbone": lora(blocks, **changed)})


def whole_recipe(folder: Path, *more: str, **changed) -> Recipe:
    """mdlm at toy size with adapters of a bidirectional Llama from the weights in `folder`."""
    plain = toy("mdlm", *more)
    if not folder.exists():
        base(folder, plain.data.vocabulary().total)
    return parts.derive(plain, {"backbone": lora(started(folder, "bidirectional"), **changed)})


def adapted(folder: str, out: str, stop: int, resume: bool, options: Options) -> None:
    """One process of a toy run of block diffusion with adapters, dropout and an average, in microbatches of 2."""
    recipe = replace(block_recipe(Path(folder), "micro_batch=2", dropout=0.1), ema=Ema(decay=0.9))
    train(recipe, seed=3, out=Path(out), stop=stop, resume=resume, options=options)
