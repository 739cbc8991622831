"""Cut whole texts into windows of token ids that a server scores, as lm-eval's `local-completions` does.

A text is cut by the server's own tokenizer, which the user names: over HTTP a server gives log-probabilities, but not
all servers give their tokenizer. Each id is scored once (lm-eval 0.4.13 models/api_models.py:836): the first window
begins with BOS, or EOS where the tokenizer has no BOS, each later one with the last id of the window before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from repro.data import sources

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True)
class Windows:
    """How whole texts are cut into windows of ids. `tokenizer`: the server's; `revision`: the tokenizer's commit on the
    Hub or the SHA-256 of its files; `prefix`: id that the first window begins with; `length`: tokens that the server's
    context holds."""

    tokenizer: Tokenizer
    revision: str
    prefix: int
    length: int

    def __post_init__(self) -> None:
        if self.length < 4:
            raise ValueError(
                f"max-length={self.length} is too small for a window of text; give 4 tokens or more"
            )

    @classmethod
    def read(cls, source: str, length: int) -> Windows:
        """The settings for cutting texts, encoded by the tokenizer `source` (a folder or Hub name), into windows for a
        context of `length` tokens. Raises ConnectionError where the Hub cannot be reached, and ValueError for an
        unknown name, or a tokenizer that is not of the library `tokenizers` or has neither BOS nor EOS."""
        from tokenizers import Tokenizer

        made = sources.tokenizer(source, sources.UNRESOLVED)
        prefix = made.eos_token_id if made.bos_token_id is None else made.bos_token_id
        if not isinstance(prefix, int):
            raise ValueError(
                f"{source}: this tokenizer has neither BOS nor EOS to begin a text with; name another"
            )
        plain = Tokenizer.from_str(made.backend_tokenizer.to_str())
        plain.no_truncation()
        plain.no_padding()
        return cls(plain, sources.revision(source, sources.UNRESOLVED, "model"), prefix, length)

    def of(self, text: str) -> list[tuple[list[int], list[int]]]:
        """(context, continuation) of each window of a text, as ids; both together have at most `length` - 1 ids, since
        the server generates one further token."""
        from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

        rolled = get_rolling_token_windows(
            token_list=self.tokenizer.encode(text, add_special_tokens=False).ids,
            prefix_token=self.prefix,
            max_seq_len=self.length - 2,
            context_len=1,
        )
        return [make_disjoint_window(pair) for pair in rolled]
