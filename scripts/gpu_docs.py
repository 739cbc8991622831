"""Write the generated part of docs/gpu.md from the suite groups, the published numbers and the plan of each question.

python -m scripts.gpu_docs              write that part
python -m scripts.gpu_docs --check      exit code 1 if that part is not current
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from repro.core.cli import Parser, run
from repro.core.files import ROOT, write_text
from repro.evals.published.cells import PublishedCell
from repro.evals.published.price import shown
from repro.evals.published.suite_group import Row, commands, read_suite_group, steps
from repro.evals.published.suite_group_plan import Planned, planned
from repro.evals.request import Request

PAGE = ROOT / "docs" / "gpu.md"
MARKS = ("<!-- made by scripts/gpu_docs.py -->\n", "<!-- end -->")
GROUPS = ("flagship", "silver")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns 1 if `--check` finds the page out of date, else 0."""
    parser = Parser(
        "python -m scripts.gpu_docs",
        "Write the generated part of docs/gpu.md.",
        ["python -m scripts.gpu_docs --check"],
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit code 1 if it is not current"
    )
    args = parser.parse_args(argv)
    wanted = page()
    if PAGE.read_text("utf-8") == wanted:
        return 0
    if args.check:
        print("docs/gpu.md is not current; run python -m scripts.gpu_docs")
        return 1
    write_text(PAGE, wanted)
    return 0


def page() -> str:
    """Text of docs/gpu.md with its generated part up to date."""
    before, rest = PAGE.read_text("utf-8").split(MARKS[0])
    _, after = rest.split(MARKS[1])
    return before + MARKS[0] + "".join(_group(name) for name in GROUPS) + MARKS[1] + after


def _group(name: str) -> str:
    rows = read_suite_group(name)
    found = planned(steps(rows, Request()), "h100")
    hours, unknown = sum(row.hours for row in found), sum(row.unknown for row in found)
    lines = [
        f"\n## {name}\n",
        f"About {shown(hours)} hours" + (f", {unknown} of unknown cost." if unknown else "."),
        "",
        "| row | what | evaluations | hours |",
        "|---|---|---|---|",
    ]
    for row in found:
        cost = "unknown" if row.unknown else shown(row.hours)
        lines.append(
            f"| {row.step.name} | {row.step.title} | {row.questions} | {cost if row.questions else '-'} |"
        )
    for row, each in zip(rows, found, strict=True):
        lines += _row(row, each)
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"


def _row(row: Row, found: Planned) -> Iterator[str]:
    yield from ("", f"### {row.name}: {row.title}", "", "```", *commands(row), "```", "")
    yield from (f"Published: {line}." for line in _margins(found.step.cells))
    yield "" if found.step.cells else "No published number to compare."
    yield from (f"Verdict: {row.verdict}.", "")
    lacking: dict[str, list[str]] = {}
    for skip in found.step.skipped:
        lacking.setdefault(skip.reason, []).append(skip.what)
    yield from (f"Not asked: {', '.join(what)} ({reason})." for reason, what in lacking.items())


def _margins(cells: Sequence[PublishedCell]) -> Iterator[str]:
    """Published numbers with their margins, one line per table; five or more of a table share one margin."""
    tables: dict[str, list[PublishedCell]] = {}
    for cell in cells:
        tables.setdefault(cell.table, []).append(cell)
    for name, members in tables.items():
        scale = members[0].value / members[0].printed
        if len(members) < 5:
            what = ", ".join(
                f"{c.name.removeprefix(name + '.')} {c.printed:g} ± {c.margin / scale:.2g}" for c in members
            )
        else:
            share = {round(c.margin / abs(c.value), 9) for c in members}
            margin = f"{100 * share.pop():g} %" if len(share) == 1 else f"{members[0].margin / scale:g}"
            what = f"{len(members)} numbers, each ± {margin}"
        yield f"`{name}` {members[0].metric}: {what} ({members[0].source})"


if __name__ == "__main__":
    run(main, "scripts.gpu_docs")
