"""Data sources: where rows of token ids come from, and how text becomes ids and back.

Start at `corpus.py`: the interface `Data`, and `prepared`, which builds a corpus once and opens it memory-mapped.
Sources with known laws: `language.py` (hidden Markov models, `hmm.py`) and `sudoku.py`. Sources of text: `documents.py`
gives the texts, `text.py` and `pretrained.py` turn them into ids, `packed.py` and `rows.py` into rows; `chat.py`,
`chats.py` and `dialogues.py` are for fine-tuning, `own.py` puts data of the user into a recipe. `sources.py` finds
files and Hub names. This subpackage imports only `repro.core`.
"""
