"""evals/papers.toml: each name has an entry, and BibTeX is well formed."""

import re

import pytest

from repro.core import registry
from repro.core.papers import of_recipe, of_task, papers, shown
from repro.evals.likelihood import estimator_presets
from repro.samplers import presets


def test_every_paper_that_is_named_has_an_entry():
    named = {*presets.PAPERS.values(), *estimator_presets.PAPERS.values()} - {None}
    assert named and all(shown(number).endswith(f"arXiv {number}") for number in named)
    assert set(presets.PAPERS) == {*presets.PRESETS, *presets.LOGITS_PROCESSORS}
    assert set(estimator_presets.PAPERS) <= set(estimator_presets.ESTIMATORS)
    with pytest.raises(ValueError, match=r"no paper '2502.0999' .*nearest is '2502.09992'"):
        shown("2502.0999")


def test_the_longest_beginning_of_a_name_counts():
    assert of_task("mmlu_pro") == "2406.01574" and of_task("mmlu") == "2009.03300"
    assert of_task("gsm8k_256_8shot") == "2110.14168" and of_task("law") is None
    assert of_recipe("duo_owt_distilled") == "2506.10892" and of_recipe("ar") is None
    assert sum(of_recipe(name) is not None for name in registry.RECIPES) == len(registry.RECIPES) - 1


def test_bibtex():
    keys = [each.key for each in papers().values()]
    assert len(set(keys)) == len(keys)
    for number, each in papers().items():
        assert re.fullmatch(r"\d{4}\.\d{4,5}", number)
        text = each.bibtex(number)
        assert text.startswith("@") and text.count("{") == text.count("}") and text.endswith("}")
        assert (each.key in text and number in text and "booktitle" in text) or not each.venue
