"""Published perplexities: the reproduction test and the tables."""

import pytest
from helpers.synthetic import record

from repro.core import parts
from repro.evals.perplexity import corpora
from repro.evals.published import verify
from repro.evals.published.cells import read
from repro.results.record import Question
from repro.results.tables import perplexities


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))


# --- reproduction test --------------------------------------------------------------------------------------


def published(
    protocol, value, metric="ppl_bound", checkpoint="duo", se=0.01, drawn=None, precision="float32", **pins
):
    task = parts.derive(corpora.protocol(protocol), pins) if pins else corpora.protocol(protocol)
    subject = {"digest": checkpoint, "recipe": checkpoint, "seed": 0, "step": 0, "weights": "raw"}
    asked = Question.read(
        {
            "checkpoint": subject,
            "task": parts.canonical(task),
            "sampler": None,
            "plan": None,
            "seed": 0,
            "limit": None,
            "protocol": task.protocol() | {"precision": precision},
        }
    )
    metrics = {metric: (value, se, 4096)} | ({} if drawn is None else {"draws_error": (drawn, None, 4)})
    return record(asked, metrics, recipe="x", checkpoint=checkpoint)


def results_by_cell(*records):
    return {each.cell.name: each for each in verify.verify(read(), list(records))}


def test_a_record_of_a_protocol_answers_its_cell():
    found = results_by_cell(published("owt.wrapped", 25.3), published("zeroshot.ptb", 99.0))
    assert found["duo.t1.duo.owt"].answer == "pass"
    assert found["duo.t2.duo.ptb"].answer == "fail"
    assert found["duo.t2.duo.wikitext"].answer == "not comparable"
    assert 'protocol.corpus is "ptb", published "wikitext"' in found["duo.t2.duo.wikitext"].why
    assert found["mdlm.owt.mdlm.owt"].answer == "not run"


def test_cells_that_count_other_tokens_are_not_comparable():
    found = results_by_cell(published("owt.wrapped", 25.2, counts="text"))["duo.t1.duo.owt"]
    assert found.answer == "not comparable"
    assert found.why == 'protocol.counted is "text alone", published "every position of a row"'


def test_on_the_same_rows_only_the_draws_differ():
    """The error over documents, 3 of 89.35, would decide nothing; the draws' error of .004 nats is .36."""
    found = results_by_cell(published("zeroshot.ptb", 89.9, se=3.0, drawn=0.004))["duo.t2.duo.ptb"]
    assert found.answer == "pass" and found.se == pytest.approx(89.9 * 0.004)
    assert results_by_cell(published("zeroshot.ptb", 89.9, se=3.0))["duo.t2.duo.ptb"].answer == "inconclusive"
    off = results_by_cell(published("zeroshot.ptb", 95.0, se=3.0, drawn=0.004))["duo.t2.duo.ptb"]
    assert off.answer == "fail"


def test_an_exact_perplexity_is_compared_without_an_error():
    found = results_by_cell(published("owt.wrapped", 17.5, metric="ppl", checkpoint="ar_owt", se=2.0))
    assert found["duo.t1.ar.owt"].answer == "pass" and found["duo.t1.ar.owt"].se == 0
    assert (
        results_by_cell(published("lm1b.padded", 22.3, metric="nll", checkpoint="ar_lm1b"))[
            "duo.t1_unpacked.ar.lm1b"
        ].answer
        == "not run"
    )


# --- tables -------------------------------------------------------------------------------------------------


def test_the_table_has_a_section_per_protocol_and_names_bounds():
    made = [
        published("owt.wrapped", 25.3, drawn=0.004),
        published("owt.wrapped", 17.5, metric="ppl", checkpoint="ar_owt"),
        published("owt.wrapped", 26.0, counts="text", name="owt.text"),
        published("zeroshot.ptb", 90.0),
    ]
    files = perplexities.tables(made)
    page = files["perplexity.md"]
    assert page.count("\n## ") == 3 and page.count("| duo ") == 3
    assert (
        "## owt, wrapped rows of 1024\n\n"
        "EOS: between documents; counted: every position of a row; tokens: gpt2; float32; protocol and documents: "
        in page
    )
    lines = [line.split(",") for line in files["perplexity.csv"].splitlines()]
    found = [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]
    assert [(row["corpus"], row["checkpoint"], row["bound"], row["ppl"]) for row in found] == [
        ("owt", "ar_owt", "exact", "17.5"),
        ("owt", "duo", "bound", "25.3"),
        ("owt", "duo", "bound", "26"),
        ("ptb", "duo", "bound", "90"),
    ]
    assert [row["draws_error"] for row in found] == ["", "0.004", "", ""]
    assert perplexities.REMEDY in perplexities.tables([])["perplexity.md"]


def test_texts_precisions_and_detokenisers_have_their_own_sections():
    """Files of one name and different contents are two corpora; one file in two folders is one corpus."""

    def sections(*pins):
        made = [published("owt.wrapped", 25.0, checkpoint=f"c{i}", **each) for i, each in enumerate(pins)]
        return perplexities.tables(made)["perplexity.md"].count("\n## ")

    def book(path, digest):
        return {"corpus": "book", "documents": {"part": "all_files", "path": path, "sha256": digest}}

    assert sections(book("a/book.txt", "1" * 64), book("b/book.txt", "2" * 64)) == 2
    assert sections(book("a/book.txt", "1" * 64), book("b/book.txt", "1" * 64)) == 1
    edited = [published("owt.wrapped", 25.0 + i, **book("book.txt", f"{i}" * 64)) for i in (1, 2)]
    page = perplexities.tables(edited)["perplexity.md"]
    assert page.count("\n## ") == 2 and "| 26.000 ± " in page and "| 27.000 ± " in page, (
        "a text that was edited is another"
    )
    moved = [published("owt.wrapped", 25.0, **book(f"{at}/book.txt", "1" * 64)) for at in "ab"]
    assert perplexities.tables(moved)["perplexity.csv"].count("\n") == 2, "a text that was moved is the same"
    plain = book("a/book.txt", "1" * 64)
    rules = {"part": "detokenised", "documents": plain["documents"], "rule": "ptb"}
    assert sections(plain, plain | {"documents": rules}) == 2
    made = [published("owt.wrapped", 25.0, checkpoint=p, precision=p) for p in ("float32", "bfloat16")]
    assert perplexities.tables(made)["perplexity.md"].count("\n## ") == 2
