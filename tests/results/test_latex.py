"""LaTeX of tables, the table of lm-eval's and users' tasks, and the paragraph of methods."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from helpers.synthetic import law, paper, question, record, training

from repro.results.methods import methods
from repro.results.report import TABLES, with_latex
from repro.results.tables import tasks
from repro.results.tables.latex import escaped, latex_of_markdown, latex_table

FAULT = re.compile("too large for page|Missing character")
MARKDOWN = """# Law

notes & 5 %

## nano

| preset | tokens | excess |
|--------|--------|--------|
| a_b    | 1      | -0.5 ± 0.1 |

## nano.text

| preset | tokens | excess |
|--------|--------|--------|
| c      | all    | 0.5    |
"""


def test_special_characters_and_minus_signs():
    assert escaped("a_b & 5 % ± -0.5") == r"a\_b \& 5 \% $\pm$ $-$0.5"
    assert escaped("low_confidence-x 1e-5") == r"low\_confidence-x 1e-5"


def test_sections_with_one_header_share_a_tabular():
    (text,) = latex_of_markdown(MARKDOWN)
    assert text.count(r"\begin{tabular}{llr}") == 1 == text.count(r"\bottomrule")
    assert r"\multicolumn{3}{l}{\emph{nano.text}} \\" in text and "% notes & 5 %" in text
    assert r"a\_b & 1 & $-$0.5 $\pm$ 0.1 \\" in text
    assert latex_of_markdown("# only text\n") == []
    with pytest.raises(ValueError, match="has 1 cells and the header 2"):
        latex_table(["a", "b"], [("", [["x"]])])


def test_every_table_has_its_latex():
    files = with_latex({"law.md": MARKDOWN, "law.csv": "a,b\n", "empty.md": "# nothing\n"})
    assert sorted(files) == ["empty.md", "law.csv", "law.md", "law.tex"]
    long = "\n".join(["| a | b | c |", "|---|---|---|", *(f"| **x_{i}** |  | {i} |" for i in range(130))])
    files = with_latex({"long.md": f"## here\n\n{long}\n"})
    assert sorted(files) == ["long-2.tex", "long-3.tex", "long.md", "long.tex"]
    parts = [files[name] for name in ("long.tex", "long-2.tex", "long-3.tex")]
    assert sum(part.count(r"x\_") for part in parts) == 130 and "**" not in "".join(parts)
    assert all(r"\begin{tabular}{lr}" in part for part in parts), "the empty column is left out"
    assert r"\emph{here}" in parts[0] and r"\emph{here, continued}" in parts[2]


def test_wide_tables_break_long_names_and_headers():
    header = ["checkpoint", "what differs between them", *("a long header" for _ in range(6))]
    name = "low_confidence:temperature=1.0"
    text = latex_table(header, [("", [[name, "a sentence of words " * 3, *["0.123 ± 0.001"] * 6]])], left=2)
    assert r"low\_\allowbreak{}confidence:\allowbreak{}temperature" in text
    assert r">{\raggedright\arraybackslash}p{" in text and r"\shortstack[r]{a long \\ header}" in text
    widths = [float(found) for found in re.findall(r"p\{([\d.]+)em\}", text)]
    assert sum(widths) <= 53 and min(widths) >= 4
    narrow = latex_table(["a", "b"], [("", [[name, "1"]])])
    assert r"\begin{tabular}{lr}" in narrow and "allowbreak" not in narrow


def test_a_narrower_text_gets_narrower_tables():
    """Of the table of own tasks, which is 6 inches wide, names and headers are broken until it fits."""
    name = "mdlm@nano.text+3ff1bd (step 150 of 900)"
    head = (
        "| checkpoint | task | sampler | tokens per step | metric | value | n | seeds |\n"
        + "|---" * 8
        + "|\n"
    )
    row = f"| {name} | license | low_confidence | 1 | exact_match | 0.000 [0.000, 0.490] | 4 | 1 |\n"
    widths = []
    for inches in (6.4, 5.5, 4.8):
        (text,) = latex_of_markdown(head + row, inches)
        assert "0.000 [0.000, 0.490]" in text
        widths.append(sum(float(found) for found in re.findall(r"p\{([\d.]+)em\}", text)))
    assert widths[0] > min(widths[1:]) > 0


DOCUMENT = r"""\documentclass[%s,10pt]{article}
\usepackage[letterpaper,textwidth=%sin,textheight=9in]{geometry}
\usepackage{array,booktabs}
\begin{document}
%s
\end{document}
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
@pytest.mark.parametrize(("layout", "width"), [("twocolumn", 6.75), ("onecolumn", 6.5)])
def test_tables_are_set_within_the_page(layout, width, tmp_path):
    tables = sorted(TABLES.glob("*.tex"))
    floats = [
        f"\\begin{{table*}}[p]\\centering\n\\input{{{path}}}\n\\end{{table*}}\\clearpage" for path in tables
    ]
    (tmp_path / "all.tex").write_text(DOCUMENT % (layout, width, "\n".join(floats)))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    faults = [
        line for line in done.stdout.splitlines() if line.startswith(("!", "Overfull")) or FAULT.search(line)
    ]
    assert done.returncode == 0 and not faults, faults[:5]
    assert f"({len(tables)} page" in done.stdout


def of_task(name, part, value, preset="low_confidence", **more):
    asked = question("mdlm@nano", name, 0, sampler={"part": preset, "version": 1}, plan=None)
    asked = type(asked).read({**asked.data(), "task": {**asked.task, "part": part, **more}})
    return record(asked, {"exact_match": (value, 0.05, 50)}, preset=preset, tokens="1")


def test_tasks_of_lm_eval_and_of_users_have_a_table():
    """Two evaluations with the same labels (other shots) are two rows, told apart by their hashes."""
    records = [
        of_task("gsm8k", "lm_generation", 0.25, shots=0),
        of_task("gsm8k", "lm_generation", 0.5, shots=5),
        of_task("mine", "my_part", 0.75),
        law("mdlm@nano", "ancestral", "1", 0.1, 0.1),
    ]
    found = tasks.rows(records)
    assert list(found.task) == ["gsm8k", "gsm8k", "mine"] and list(found.value) == sorted(found.value)
    assert [bool(each) for each in found.evaluation] == [True, True, False]
    text = tasks.markdown(found)
    assert "| mine" in text and "0.750 [0.615, 0.849]" in text
    assert "No records yet" in tasks.markdown(tasks.rows([]))


def test_methods_say_what_ran_and_cite_it():
    lines = list(methods([*paper(), of_task("gsm8k", "lm_generation", 0.25)]))
    text = lines[0]
    keys = set(re.findall(r"\\cite\{([^}]+)\}", text))
    entries = set(re.findall(r"@\w+\{([^,]+),", "\n".join(lines[1:])))
    assert keys == entries and {"sahoo2024mdlm", "cobbe2021gsm8k", "eval-harness"} <= keys
    assert r"\texttt{low\_confidence}~\cite{nie2025llada}" in text and "3 training seeds" in text
    assert ("duel" not in text.lower() and "dlm-repro" in text) or "torch 2.13.0" in text
    both = "\n".join(
        methods([of_task("mine", "my_part", 0.5, preset) for preset in ("low_confidence", "random")])
    )
    cited = r"\texttt{low\_confidence}~\cite{nie2025llada} and \texttt{random}~\cite{nie2025llada}"
    assert f"Texts are decoded by {cited} at 1 token per step." in both
    settings = ("threshold_0.9:threshold=0.8,temperature=0.5", "threshold_0.9:threshold=0.8,temperature=1.0")
    named = next(iter(methods([of_task("mine", "my_part", 0.5, f"{each}, block 8") for each in settings])))
    assert all(escaped(each) in named for each in settings) and "block 8" not in named, (
        "every setting is named"
    )
    only = list(methods([law("ar@nano", "sample", "1", 0.1, 0.1)]))
    assert len(only) == 1 and "\\cite" not in only[0], "a baseline of no paper cites none"
    assert "One evaluation ran on cpu in float32" in only[0]
    with pytest.raises(ValueError, match="no records"):
        list(methods([]))


def test_methods_count_items_and_nothing_else():
    """Not the passes of a bound, the clusterings of MAUVE, or the logged steps of a curve."""
    made = question("mdlm@nano", "book.wrapped")
    metrics = {"nll_bound": (1.0, 0.1, 40), "draws_error": (0.1, None, 4)}
    metrics |= {"mauve": (0.5, 0.1, 40), "mauve_clusterings": (0.5, 0.1, 5)}
    (text,) = (line for line in methods([record(made, metrics)]) if "The tasks are" in line)
    assert r"\texttt{book.wrapped} ($n=40$)" in text
    text = next(iter(methods([training("mdlm@nano")])))
    assert r"The tasks are \texttt{training}." in text
