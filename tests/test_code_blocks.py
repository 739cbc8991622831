"""The code blocks of README and docs/ run, in the order of each page; trainings at toy size, all else as written.

A block with the comment `<!-- not run: REASON -->` before it is only read: its modules, recipes, flags and make targets
exist. Pages with evaluations of many settings are marked slow.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import json
import re
import shlex
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers import fake_engine, released
from helpers.toy import overrides

from repro.core.files import ROOT
from repro.recipes.scale import by_name

BLOCK = re.compile(
    r"^(?P<indent> *)(?:<!-- not run: (?P<reason>[^\n]*) -->\n(?P=indent))?"
    r"```(?P<language>\w+)\n(?P<code>.*?)^(?P=indent)```",
    re.S | re.M,
)
PAGES = [
    "README.md",
    *(
        f"docs/{name}.md"
        for name in (
            *("quickstart", "own_data", "recipes", "published", "results", "troubleshooting", "glossary"),
            *("index", "gallery", "evaluate", "engines", "certify", "python"),
        )
    ),
]
FURTHER = (
    *("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "results/README.md", "recipes/README.md"),
    *(
        "examples/newcomer/README.md",
        "docs/method.md",
        "docs/architecture.md",
        "docs/gpu.md",
        "docs/parity.md",
    ),
)
"""Pages whose code blocks are not run."""
SLOW = {"docs/engines.md", "docs/evaluate.md", "docs/certify.md", "docs/quickstart.md", "docs/own_data.md"}
LINES = {"README.md": ("repro.certify",)}
"""Modules whose lines on a page only the slow tests run."""
SERVER = "openai:http://localhost:8000/v1"
FILES = ("examples", "evals", "results", "recipes")
"""Folders of the repository that a page reads."""


@dataclass(frozen=True)
class Block:
    """A code block of a page, and the reason why it is not run."""

    language: str
    code: str
    reason: str | None

    def lines(self) -> list[list[str]]:
        return [shlex.split(line) for line in self.code.replace("\\\n", " ").splitlines() if line.strip()]


def blocks(page: str) -> list[Block]:
    found = BLOCK.finditer((ROOT / page).read_text("utf-8"))
    return [Block(each["language"], textwrap.dedent(each["code"]), each["reason"]) for each in found]


def module_of(line: list[str]) -> tuple[str, list[str]] | None:
    """(module, arguments) of a command line `python -m MODULE ...`, or of what accelerate launches; else None."""
    if "-m" not in line or line[0] not in ("python", "accelerate"):
        return None
    at = line.index("-m") + 1
    return line[at], line[at + 1 :]


def run(module: str, arguments: list[str]) -> int:
    """The exit code of a command of the package, run in this process."""
    if module.startswith("repro.recipes."):
        from repro.recipes.command import command

        return command(by_name(module.rpartition(".")[2]), arguments)
    name = f"{module}.__main__" if (ROOT / module.replace(".", "/")).is_dir() else module
    return importlib.import_module(name).main(arguments)


def toy(module: str, arguments: list[str]) -> list[str]:
    """The arguments of a training, with those that make it a second's work in the same run folder."""
    name = module.rpartition(".")[2] if module.startswith("repro.recipes.") else arguments[0]
    scale = arguments[arguments.index("--scale") + 1]
    made = "--data" not in arguments and scale != "nano.text"
    cut = ["data.rows=64", "data.heldout=600"] if made else []
    pins = [*cut, *(pin for pin in overrides(name) if not pin.startswith("data."))]
    out = [] if "--out" in arguments else ["--out", f"runs/{name}@{scale}-s0"]
    return [*arguments, *out, *(word for pin in pins for word in ("--set", pin))]


def few(arguments: list[str]) -> list[str]:
    """The arguments of an evaluation with at most 8 items and, where they name a number of samples, 16 of them."""
    found = list(arguments) if "--limit" in arguments else [*arguments, "--limit", ""]
    found[found.index("--limit") + 1] = "8"
    if "--samples" in found:
        found[found.index("--samples") + 1] = "16"
    return found


def served(arguments: list[str]) -> list[str]:
    """The arguments with the address of a toy server in place of the one that pages name, if they name it."""
    return [fake_engine.running().name if word == SERVER else word for word in arguments]


def trains(module: str, arguments: list[str]) -> bool:
    return module.startswith("repro.recipes") and bool(arguments) and not {"--print", "--plan"} & {*arguments}


@pytest.fixture
def here(tmp_path, monkeypatch, tokenizer):
    """A working folder with what the pages take for granted: the repository's folders, texts, weights, samples."""
    monkeypatch.delenv("REPRO_RUNS", raising=False)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for name in FILES:
        Path(name).symlink_to(ROOT / name)
    text = "\n\n".join(
        f"Paragraph {i} of a book: the fox met the dog again, {i * i} times, and again that night."
        for i in range(2500)
    )
    for name in ("book.txt", "other.txt"):
        Path(name).write_text(text, "utf-8")
    samples = [{"text": f"It was the {i}th day of the year, and the union was strong."} for i in range(8)]
    Path("samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in samples), "utf-8")
    return tmp_path


def prepare(page: str) -> None:
    """Train the runs that a page names and does not make itself."""
    text = (ROOT / page).read_text("utf-8")
    for name, scale in dict.fromkeys(re.findall(r"runs/(\w+)@(nano[.\w]*)-s0", text)):
        made = any(
            found
            and trains(*found)
            and name in (found[0].rpartition(".")[2], found[1][0])
            and scale in found[1]
            and "--out" not in found[1]
            for block in blocks(page)
            if block.language == "sh"
            for found in map(module_of, block.lines())
        )
        if not made:
            module = f"repro.recipes.{name}"
            assert run(module, toy(module, ["--scale", scale])) == 0


def run_page(page: str, leave_out: tuple[str, ...] = ()) -> int:
    """Run the blocks of a page, without those lines of the modules `leave_out`; returns the number of lines run."""
    prepare(page)
    count = 0
    for block in blocks(page):
        if block.reason or block.language not in ("sh", "python"):
            continue
        if block.language == "python":
            exec(compile(block.code, page, "exec"), {})
            count += 1
            continue
        for line in block.lines():
            found = module_of(line)
            assert found is not None, f"{page}: {line} is not run; say why, <!-- not run: REASON -->"
            module, arguments = found
            if module in leave_out:
                continue
            if module == "repro.evals" and arguments[0] == "--ckpt":
                arguments = few(arguments)
            if trains(module, arguments):
                arguments = toy(module, arguments)
            assert run(module, served(arguments)) == 0, f"{page}: {shlex.join(line)}"
            count += 1
    return count


@pytest.mark.parametrize("page", [page for page in PAGES if page not in SLOW])
def test_code_of_a_page_runs(page, here, capfd):
    runnable = [b for b in blocks(page) if b.language in ("sh", "python") and not b.reason]
    assert (run_page(page, LINES.get(page, ())) > 0) == bool(runnable)
    assert "fatal" not in capfd.readouterr().err, "git speaks where there is no repository"


@pytest.mark.slow
@pytest.mark.parametrize("page", [*sorted(SLOW), *LINES])
def test_code_of_a_slow_page_runs(page, here, tokenizer, capsys):
    released.llada(here / "DIR", tokenizer / "tokenizer.json")
    assert run_page(page) > 0


# --- what is not run ------------------------------------------------------------------------------------------


def commands() -> list[tuple[str, list[str]]]:
    """(page, words) of every command line in a block of any page, run or not."""
    return [
        (page, line)
        for page in [*PAGES, "examples/newcomer/README.md"]
        for block in blocks(page)
        if block.language == "sh"
        for line in block.lines()
    ]


def help_of(module: str, arguments: list[str]) -> str:
    """The help text of a command, or of its subcommand that the arguments name."""
    words = list(arguments[:1]) if arguments and re.fullmatch(r"[a-z][a-z-]*", arguments[0]) else []
    words = list(arguments[:2]) if arguments[:1] == ["--engine"] else words
    with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.suppress(SystemExit):
        run(module, [*words, "--help"])
    return text.getvalue()


def test_commands_name_modules_flags_and_targets_that_exist():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    seen: dict[tuple[str, str], str] = {}
    checked = 0
    for page, line in commands():
        if line[0] == "make":
            targets = [word for word in line[1:] if "=" not in word]
            assert all(re.search(rf"^{target}:", makefile, re.M) for target in targets), (page, line)
        found = module_of(line)
        if (
            found is None
            or found[0] in ("venv", "repro.evals.lm_harness")
            or not found[0].startswith("repro")
        ):
            continue
        module, arguments = found
        if module == "repro.recipes" and arguments:
            module, arguments = f"repro.recipes.{arguments[0]}", arguments[1:]
        key = (module, arguments[0] if arguments else "")
        text = seen.get(key) or seen.setdefault(key, help_of(module, arguments))
        for flag in (word for word in arguments if word.startswith("--")):
            assert re.search(rf"{re.escape(flag)}\b", text), f"{page}: {shlex.join(line)}: no flag {flag}"
            checked += 1
    assert checked > 40


def test_the_readme_is_short_and_in_order():
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    assert len(lines) <= 130
    heads = [line.removeprefix("## ") for line in lines if line.startswith("## ")]
    assert heads == [
        *("Install", "Two minutes", "What the results say", "Your own data", "Your own checkpoint"),
        *("Your own sampler", "Links", "Limits", "Citation"),
    ]


def test_a_block_that_is_not_run_gives_its_reason_and_others_are_shell_or_python():
    odd = [
        f"{page}: {block.language}"
        for page in PAGES
        for block in blocks(page)
        if block.language not in ("sh", "python", "json") or block.reason == ""
    ]
    assert not odd


@functools.cache
def anchors(path: Path) -> set[str]:
    """The anchors of a page: those that it names, and those that GitHub makes of its headings."""
    text = re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.S)
    heads = [re.sub(r"\]\([^)]*\)", "", head).lower() for head in re.findall(r"^#+ (.*)$", text, re.M)]
    made = {re.sub(r"[^\w\- ]", "", head).replace(" ", "-") for head in heads}
    return made | set(re.findall(r'id="([^"]+)"', text))


def test_links_of_pages_lead_to_files_and_anchors():
    wrong, checked = [], 0
    for page in [*PAGES, *FURTHER]:
        text = re.sub(r"```.*?```", "", (ROOT / page).read_text("utf-8"), flags=re.S)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            name, _, anchor = target.partition("#")
            path = (ROOT / page).parent / name if name else ROOT / page
            if re.match(r"\w+:", target):
                continue
            checked += 1
            if not path.exists() or (anchor and path.suffix == ".md" and anchor not in anchors(path)):
                wrong.append(f"{page}: {target}")
    assert checked > 300
    assert not wrong
