"""Samples of a file as a judge reads them."""

from types import SimpleNamespace

import pytest

from repro.evals.text_quality.external_samples import score_file


@pytest.mark.parametrize("end, read", [("<|endoftext|>", "a<|endoftext|>b"), (None, "ab")])
def test_the_end_of_a_document_is_the_judges_own(end, read, tmp_path):
    """`[EOS]`, as `repro.sample` writes it, is no text; a judge without such an id reads on."""
    path = tmp_path / "samples.jsonl"
    path.write_text('{"text": "a[EOS]b", "ids": [1]}\n{"text": "c", "ids": [2]}\n')
    seen = []

    def encode(text):
        seen.append(text)
        if len(seen) == 2:
            raise ValueError("enough")
        return [0]

    with pytest.raises(ValueError, match="enough"):
        score_file(path, SimpleNamespace(encode=encode, end=end), None, None)  # type: ignore[arg-type]
    assert seen == [read, "c"]
