"""Released ids behind a chat template: the seed document's, or the one that came with the tokenizer.

    seed_chat      [CLS] User: QUESTION <newline> [SEP] <newline> Assistant: <newline>, as in its rows
    (docs/method.md#masked-script) seed_readme    the same as the seed's README asks: without [CLS], and without the
    last newline own_chat       a Jinja template of the tokenizer, one question, ready for the answer

The README pastes masks behind the template as *text*. Its mask token strips what stands to its left, so the newline
after "Assistant:" is swallowed, and the first token that the network writes is that newline
(docs/method.md#masked-script).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from repro.core.parts import part
from repro.data.corpus import Data, Rows, Vocabulary
from repro.data.released import Released

SEED = "User: {user}\n{sep}\nAssistant:\n"
"""What stands before the answer (tom-pollak/dllm@43ea9ff train_dllm.py:31-32); {sep} is the token's text."""


@part
class Templated(Data):
    """Kind: ids of `data`, questions behind a template."""

    data: Released
    template: str

    def vocabulary(self) -> Vocabulary:
        return self.data.vocabulary()

    def row_length(self) -> int:
        return self.data.row_length()

    def expected_rows(self) -> int:
        return self.data.expected_rows()

    def build(self) -> dict[Literal["train", "heldout"], Rows]:
        return self.data.build()

    def encode(self, text: str) -> list[int]:
        return self.data.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        return self.data.decode(ids)


@part
class SeedChat(Templated):
    """Questions as the seed's rows were trained; `cls`: the id in front, `sep`: the text of the separator."""

    cls: int
    sep: str

    def prompt(self, text: str) -> list[int]:
        return [self.cls, *self.encode(self.template.format(user=text, sep=self.sep))]


@part
class SeedReadme(Templated):
    """Questions as the seed's README asks them."""

    sep: str

    def prompt(self, text: str) -> list[int]:
        return self.encode(self.template.format(user=text, sep=self.sep).rstrip())


@part
class OwnChat(Templated):
    """Questions behind a Jinja template; `bos`, `eos`: the texts that it may put in (BOS is empty for a left-to-right
    network, which gets its own)."""

    bos: str
    eos: str

    def prompt(self, text: str) -> list[int]:
        """Raises ValueError in one line for a template that cannot be rendered."""
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
