"""Chat templates for released weights: two of tom-pollak/dllm@43ea9ff, the scripts from which this project started, and
the tokenizer's own.

    seed_chat      [CLS] User: TEXT <newline> [SEP] <newline> Assistant: <newline>, as in the script's training rows
    seed_readme    User: TEXT <newline> [SEP] <newline> Assistant:, as in the script's README
    own_chat       the Jinja template of the tokenizer, with one user turn and the start of the assistant's turn

The README appends the masks to the prompt as *text*. The tokenizer strips whitespace to the left of a mask, which
removes the newline after "Assistant:", so the first token that the network generates is that newline
(docs/method.md#masked-script).
"""

from __future__ import annotations

from repro.core.parts import part
from repro.data.corpus import DelegatedData
from repro.data.released import Released

SEED = "User: {user}\n{sep}\nAssistant:\n"
"""Text before the answer: {user} is the user's text, {sep} the text of the separator token
(tom-pollak/dllm@43ea9ff train_dllm.py:31-32)."""


@part
class Templated(DelegatedData):
    """Base class of data sources of chat models: the vocabulary and tokenizer of `data`, with prompts written in the
    chat `template`."""

    data: Released
    template: str


@part
class SeedChat(Templated):
    """Data source whose prompts are written as in the training rows of tom-pollak/dllm's train_dllm.py: [CLS] and the
    filled `template`. `data`: vocabulary and tokenizer; `cls`: id of [CLS]; `sep`: text of [SEP]."""

    cls: int
    sep: str

    def prompt(self, text: str) -> list[int]:
        return [self.cls, *self.encode(self.template.format(user=text, sep=self.sep))]


@part
class SeedReadme(Templated):
    """Data source whose prompts are written as in the README of tom-pollak/dllm: the filled `template` without [CLS]
    and without its last newline. `data`: vocabulary and tokenizer; `sep`: text of [SEP]."""

    sep: str

    def prompt(self, text: str) -> list[int]:
        return self.encode(self.template.format(user=text, sep=self.sep).rstrip())


@part
class OwnChat(Templated):
    """Data source whose prompts are written by the chat `template` (Jinja) of a checkpoint's own tokenizer. `data`:
    vocabulary and tokenizer; `bos`, `eos`: texts of these special tokens, which the template may insert. `bos` is empty
    for a left-to-right network whose tokenizer puts BOS in front itself.
    """

    bos: str
    eos: str

    def prompt(self, text: str) -> list[int]:
        """Token ids of the prompt with `text` as the user's turn; ValueError if the template cannot be rendered."""
        from transformers.utils.chat_template_utils import render_jinja_template

        from repro.core.templates import Refused, limited, refuse_power

        try:
            with limited("the tokenizer's chat template"):
                refuse_power(self.template)
                (rendered,), _ = render_jinja_template(
                    [[{"role": "user", "content": text}]],
                    chat_template=self.template,
                    add_generation_prompt=True,
                    bos_token=self.bos,
                    eos_token=self.eos,
                )
        except Refused as error:
            raise ValueError(f"{error}; use --chat-template none") from None
        return self.encode(rendered)
