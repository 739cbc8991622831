"""List the names that commands take: one entry per recipe, sampler, suite, task, ..., with what it does, its source and
its paper.

repro list                      every name (also: python -m repro.evals list)
repro list samplers             the names of one kind, each with what it does; `--samplers list` prints the same
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from repro.core import parts
from repro.core.cli import Parser, fill, run
from repro.core.commands import COMMANDS
from repro.core.papers import of_task, papers, shown
from repro.core.parts import Part
from repro.evals.likelihood.estimator_presets import ESTIMATORS
from repro.evals.likelihood.estimator_presets import PAPERS as ESTIMATOR_PAPERS
from repro.evals.perplexity.catalogue import read_catalogue
from repro.evals.published.suite_group import is_suite_group
from repro.evals.suites import SUITES, read_suite
from repro.evals.task import Task
from repro.recipes.__main__ import sentences
from repro.samplers.lookahead import STATES
from repro.samplers.presets import LOGITS_PROCESSORS, PAPERS, PRESETS, SOURCES

Line = tuple[str, str, str]
"""A line of the list: name; noise processes, part or row length (this column is left out if all its lines are "");
purpose and paper."""


def main(argv: Sequence[str] | None = None) -> int:
    """Print the names that commands take, or those of one kind with what each does, and return the exit status 0;
    `argv`: the arguments of `repro list` (None: those of the process)."""
    parser = Parser(
        "repro list",
        "List the names that commands take; those of one kind each with what it does and its paper.",
        ["repro list", "repro list samplers"],
    )
    parser.add_argument(
        "what",
        nargs="?",
        choices=LISTS,
        metavar="KIND",
        help=f"{', '.join(LISTS)} (default: the names alone, of all kinds)",
    )
    args = parser.parse_args(argv)
    print("\n".join(overview() if args.what is None else lines([args.what])))
    return 0


def overview() -> Iterator[str]:
    """Lines of text, as wide as the terminal, with each kind of names (keys of `LISTS`, such as "samplers"), their
    number, and the names alone."""
    for kind, found in LISTS.items():
        names = list(dict.fromkeys(name for name, *_ in found()))
        yield from fill(f"{kind:<{max(map(len, LISTS))}}  ", f"{len(names)}: {', '.join(names)}")
    yield "repro list KIND says of each name what it does, with its paper"


def lines(kinds: Sequence[str]) -> Iterator[str]:
    """Lines of text, as wide as the terminal, that list all names of each of `kinds` (keys of `LISTS`, such as
    "samplers") with what each does, and with a heading per kind if there are several."""
    for kind in kinds:
        if len(kinds) > 1:
            yield f"{kind}:"
        found = LISTS[kind]()
        wide, middle = (max(len(line[i]) for line in found) for i in (0, 1))
        for name, fits, about in found:
            kind_of = f"{fits:<{middle}}  " if middle else ""
            yield from fill(f"{name:<{wide}}  {kind_of}", about)


def _recipes() -> list[Line]:
    return [(name, "", about) for name, about in sentences().items()]


def _commands() -> list[Line]:
    return [(name, "", about) for name, (_, about) in COMMANDS.items()]


def _samplers() -> list[Line]:
    return [
        (name, "+".join(sorted(rule.capabilities.processes)), _preset(name)) for name, rule in PRESETS.items()
    ]


def _processors() -> list[Line]:
    found = [
        (name, "+".join(sorted(each.processes())), _preset(name)) for name, each in LOGITS_PROCESSORS.items()
    ]
    ahead = "at the end of a sampler's name: the same tokens in fewer sequential forwards (docs/method.md#lookahead)"
    return [
        *found,
        (f"lookahead:states={STATES}", "absorbing+left_to_right", f"{ahead}; {shown('2211.17192')}"),
    ]


def _preset(name: str) -> str:
    """Description of the sampler preset or logits processor `name`: what it does, its source and its paper."""
    return _with_paper(SOURCES[name], PAPERS[name])


def _with_paper(about: str, paper: str | None) -> str:
    return about if paper is None or paper in about else f"{about.removesuffix('.')}; {shown(paper)}"


def _suites() -> list[Line]:
    return [(path.stem, "group" if is_suite_group(path.stem) else "", _purpose(path)) for path in _files()]


def _tasks() -> list[Line]:
    found: dict[tuple[str, str, str], list[str]] = {}
    for path in _files():
        if not is_suite_group(path.stem):
            for task in read_suite(path.stem).tasks:
                line = (task.name, parts.part_name(type(task)), _task(task))
                found.setdefault(line, []).append(path.stem)
    return [
        (name, part, f"{about} Suites: {', '.join(suites)}.") for (name, part, about), suites in found.items()
    ]


def _task(task: Task) -> str:
    """What a task asks of a model, with a citation of its paper; for a task without a paper in evals/papers.toml, the
    beginning of the docstring of its class (`_sentence`)."""
    number = of_task(task.name)
    return _sentence(type(task)) if number is None else f"{papers()[number].asks}; {shown(number)}."


def _protocols() -> list[Line]:
    return [(each.name, f"rows of {each.length}", each.source) for each in read_catalogue()[1]]


def _estimators() -> list[Line]:
    return [
        (name, "", _with_paper(_sentence(type(each)), ESTIMATOR_PAPERS.get(name)))
        for name, each in ESTIMATORS.items()
    ]


LISTS = {
    "recipes": _recipes,
    "samplers": _samplers,
    "processors": _processors,
    "suites": _suites,
    "tasks": _tasks,
    "protocols": _protocols,
    "estimators": _estimators,
    "commands": _commands,
}
"""Kind of names -> function that gives their lines."""


def _files() -> list[Path]:
    return sorted(SUITES.glob("*.toml"))


def _purpose(path: Path) -> str:
    """First sentence of the comment at the head of a suite's TOML file."""
    head = []
    for line in path.read_text("utf-8").splitlines():
        if not line.startswith("#"):
            break
        head.append(line.lstrip("# "))
    return " ".join(head).partition(". ")[0].rstrip(".") + "."


def _sentence(cls: type[Part]) -> str:
    """Beginning of a class's docstring, up to its first colon, semicolon or full stop outside parentheses."""
    return re.split(r"[.:;]\s(?![^()]*\))", " ".join((cls.__doc__ or "").split()) + " ")[0] + "."


if __name__ == "__main__":
    run(main, "repro list")
