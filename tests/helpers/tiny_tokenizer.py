"""A tiny tokenizer that behaves as ModernBERT's, trained on the shipped chats."""

from __future__ import annotations

import json
from pathlib import Path

from repro.core.files import ROOT

CHATS = "evals/data/chats.jsonl"
SPECIALS = {"unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "pad": "[PAD]", "mask": "[MASK]"}
UNK, CLS, SEP, PAD, MASK = range(5)
SIZE = 1000


def chats() -> list[list[dict[str, str]]]:
    return [json.loads(line)["messages"] for line in (ROOT / CHATS).read_text("utf-8").splitlines()]


def save(folder: Path) -> Path:
    """Byte-level BPE, [CLS] text [SEP], and a mask token that strips whitespace on its left; returns the folder."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE,
        special_tokens=list(SPECIALS.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator((message["content"] for chat in chats() for message in chat), trainer)
    made.add_special_tokens([AddedToken("[MASK]", lstrip=True, special=True)])
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
    )
    names: dict[str, str | AddedToken] = {f"{kind}_token": token for kind, token in SPECIALS.items()}
    names["mask_token"] = AddedToken("[MASK]", lstrip=True, special=True)
    fast = PreTrainedTokenizerFast(tokenizer_object=made, **names)
    fast.save_pretrained(folder)
    return folder
