"""Chat templates for released weights: those of the reference script, or the one that came with the tokenizer.

    seed_chat      [CLS] User: QUESTION <newline> [SEP] <newline> Assistant: <newline>, as its training rows
    seed_readme    the same without [CLS] and without the last newline, as its README prompts
    own_chat       the Jinja template of the tokenizer, one user turn, ready for the answer

The README appends the masks as *text*. The mask token strips whitespace on its left, which removes the newline after
"Assistant:", so the first token that the network writes is that newline (docs/method.md#masked-script).
"""

from __future__ import annotations

from repro.core.parts import part
from repro.data.corpus import DelegatedData
from repro.data.released import Released

SEED = "User: {user}\n{sep}\nAssistant:\n"
"""Text before the answer (tom-pollak/dllm@43ea9ff train_dllm.py:31-32); {sep} is the text of the separator token."""


@part
class Templated(DelegatedData):
    """Kind: ids of `data`, with prompts rendered by a template."""

    data: Released
    template: str


@part
class SeedChat(Templated):
    """Prompts as in the training rows of the reference script; `cls`: id in front; `sep`: text of the separator."""

    cls: int
    sep: str

    def prompt(self, text: str) -> list[int]:
        return [self.cls, *self.encode(self.template.format(user=text, sep=self.sep))]


@part
class SeedReadme(Templated):
    """Prompts as in the README of the reference script; `sep`: text of the separator."""

    sep: str

    def prompt(self, text: str) -> list[int]:
        return self.encode(self.template.format(user=text, sep=self.sep).rstrip())


@part
class OwnChat(Templated):
    """Prompts by a Jinja template; `bos`, `eos`: texts of these tokens for the template. For a left-to-right network
    `bos` is empty, because its process adds the BOS."""

    bos: str
    eos: str

    def prompt(self, text: str) -> list[int]:
        """Ids of the rendered prompt; ValueError in one line for a template that cannot be rendered."""
        from jinja2 import TemplateError
        from transformers.utils.chat_template_utils import render_jinja_template

        try:
            (rendered,), _ = render_jinja_template(
                [[{"role": "user", "content": text}]],
                chat_template=self.template,
                add_generation_prompt=True,
                bos_token=self.bos,
                eos_token=self.eos,
            )
        except TemplateError as error:
            raise ValueError(f"the tokenizer's chat template cannot be rendered ({error})") from None
        return self.encode(rendered)
